"""Which settings each command reads: the flags that it offers, the keywords of its Python function, and no others.

A `config.toml` may hold more: it is the whole run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, get_type_hints

from acclimate.configs.run import RunConfig, effective
from acclimate.errors import UsageError

MODEL = ("model", "pooling", "query_prompt", "instruction", "document_prompt", "task", "max_tokens", "dim")
"""Which embedding model, and how it is used."""
ENCODER = (*MODEL, "device", "dtype", "quantise_base")
"""What loads an embedding model."""
COMPARISON = ("sign_flips", "confidence", "seed")
"""How sure a difference is, or one model's measure."""
RERANKER = ("rerank_instruction", "pair_tokens")
"""What loads a reranker, besides device and dtype."""
TRAIN_RERANKER = (
    "rerank_loss",
    "rerank_full",
    "rerank_group_size",
    "rerank_epochs",
    "rerank_batch_size",
    "rerank_learning_rate",
    "retriever",
    "targets",
    "rank",
    "alpha",
    "lora_dropout",
    "weight_decay",
    "warmup_fraction",
    "max_grad_norm",
    "activation_memory_gb",
    "gradient_checkpointing",
    "compile_layers",
    "eval_steps",
    "patience",
    "checkpoint_steps",
    "teacher_temperature",
)
MINE_AGAIN = (
    "num_negatives",
    "range_min",
    "range_max",
    "min_score",
    "max_score",
    "absolute_margin",
    "relative_margin",
    "spread_margin",
    "sampling",
    "hard_negative_share",
    "include_positives",
    "output",
)
"""What mining reads during a training (`remine_steps`). There, `mine.reranker` is a setting of `config.toml` only: the
flag of that name is, for a release, the older spelling of train-reranker."""

REFRESH = ("sign_flips", "confidence", "guard", "guard_bound", "retain_data", "activation_memory_gb")
"""What `refresh` reads of other sections, besides what the run's own `config.toml` says of mining and training."""

PICTURE = ("image_model", "image_side", "max_megapixels", "frames")
"""What encodes a picture that is a query, or a document."""

READING = (
    "anchor_column",
    "positive_column",
    "label_column",
    "columns",
    "corpus",
    "label_min",
    "label_max",
    "min_chars",
)
"""How data is read, without how it is split."""

FEW_PAIRS = ("anchor_column", "positive_column", "label_column", "columns", "min_chars")
"""How pairs are read that are neither split nor searched in a corpus."""

ON_IMAGES = (
    *ENCODER,
    "seed",
    "limit",
    "images",
    "sign_flips",
    "confidence",
    "warmup_fraction",
    "max_grad_norm",
    "eval_steps",
    "patience",
    "checkpoint_steps",
)
"""What `adapt` reads where its data are images."""

IMAGE_LORA = ("targets", "rank", "alpha", "lora_dropout", "activation_memory_gb")
"""What it reads besides where LoRA is trained."""

READS: dict[str, tuple[str, ...]] = {
    "adapt": (
        *ENCODER,
        "seed",
        "limit",
        "pairs",
        "endpoint",
        "text_field",
        "prepare",
        "mine",
        "train",
        "objective",
        "stages",
        "domain",
        "evaluate",
        "images",
        *RERANKER,
    ),
    "pairs": (*ENCODER, "seed", "pairs", "endpoint", "text_field", "test_fraction", "dev_fraction"),
    "prepare": ("prepare", "model", "max_tokens", "seed", "limit"),
    "mine": (*ENCODER, "seed", "mine", *RERANKER),
    # An adaptive temperature needs the domain's terms, and what they are told apart from; the guard's test (of at most
    # `limit` queries) is not retained.
    "train": (*ENCODER, "seed", "limit", "train", "objective", *MINE_AGAIN, *RERANKER, "domain", "guard"),
    "train-reranker": (*ENCODER, "seed", *TRAIN_RERANKER, *RERANKER),
    "evaluate": (*ENCODER, "seed", "limit", "evaluate", "domain", *READING, "index_at", "refuse"),
    "evaluate-reranker": (*ENCODER, "seed", "retriever", "rerank_depth", *RERANKER, "sign_flips", "confidence"),
    "report": (),
    "versions": (),
    "generate": ("model", "device", "dtype", "seed", *FEW_PAIRS),
    "hypernetwork-tasks": ("seed", "limit", "endpoint", *FEW_PAIRS),
    "hypernetwork-train": (*ENCODER, "seed"),
    "hypernetwork-evaluate": ("model", "device", "dtype", *COMPARISON),
    "merge": ("model", "pooling", "device", "dtype", "seed", "limit", "merge", "guard", "guard_bound"),
    "export": ("model", "seed", "export", "sign_flips", "confidence", "retriever", "rerank_depth"),
    "vectors": (*ENCODER, *COMPARISON, "vectors"),
    "tune": ("model", "seed", "sign_flips", "confidence", "max_loss", "tune"),
    "index": (*ENCODER, "index", *PICTURE),
    "search": (*ENCODER, "index_at", *RERANKER, "experts", "mixed_experts", *PICTURE),
    "answer": (*ENCODER, "index_at", *RERANKER, "llm", "llm_model", "answer"),
    "route": ("model", "device", "dtype", *COMPARISON, "limit", "outside", "multi_domain", "spanning", "mixed_experts"),
    "serve": ("model", "device", "dtype", *RERANKER, "serve", "mixed_experts", "router", "endpoint", "answer"),
    "feedback": ("index_at",),
    # Everything else is as the run's own config.toml says: a refresh goes on from what was trained.
    "refresh": ("model", "device", "dtype", "seed", "limit", "refresh", "index_at", *REFRESH),
    "rollback": (),
    "similarity": ENCODER,
    "encode": ENCODER,
    "rerank": ("device", "dtype", "rerank_depth", *RERANKER),
    "compare": ("task", *COMPARISON),
    "doctor": (),
}
"""Command -> names of settings, and of whole sections of `RunConfig`."""

NOT_IN_INT8 = frozenset(
    {
        "adapt",
        "train",
        "train-reranker",
        "refresh",
        "merge",
        "generate",
        "hypernetwork-train",
        "hypernetwork-evaluate",
        "rerank",
        "evaluate-reranker",
    }
)
"""Commands that read `dtype` and cannot work in int8: they train, fold weights, or compute with a reranker."""

READS_WHEN: dict[str, tuple[str, ...]] = {
    "adapt --final RUN": (
        "device",
        "dtype",
        "activation_memory_gb",
        "gradient_checkpointing",
        "compile_layers",
        "shard",
        "checkpoint_steps",
    ),
    "adapt on images": ON_IMAGES,
    "adapt on images with --image-lora": (*ON_IMAGES, *IMAGE_LORA),
    "adapt on images with LoRA on the texts' model": (
        *ON_IMAGES,
        *IMAGE_LORA,
        "gradient_checkpointing",
        "start_adapter",
        "guard",
        "guard_bound",
    ),
    "search by a picture": (*ENCODER, "index_at", *PICTURE),
    "index RUN": (*ENCODER, "index_at", "chunk_tokens", "chunk_overlap", "refuse"),
    "index RUN CORPUS": (*ENCODER, "index_at", "chunk_tokens", "chunk_overlap", "text_field"),
    "index RUN --images": ("task", "device", "index_at", *PICTURE),
    "index RUN --info": ("task", "index_at"),
    "index RUN --adopt": (*ENCODER, "text_field", "vector_field"),
    "index RUN --reencode": (*ENCODER, "index_at"),
    "search without --rerank": (*ENCODER, "index_at", "experts"),
    "search --experts": ("model", "device", "dtype", "index_at", *RERANKER, "experts", "mixed_experts"),
    "answer without --rerank": (*ENCODER, "index_at", "llm", "llm_model", "answer"),
    "evaluate RUN --index": (*ENCODER, *COMPARISON, "index_at", "refuse"),
    "evaluate RUN": (*ENCODER, "seed", "evaluate", "domain"),
    "evaluate RUN with guard data": (*ENCODER, "seed", "limit", "evaluate", "domain"),
    "evaluate of one model on RUN": (*ENCODER, *COMPARISON, "top_k"),
    "evaluate of one model on DATA": (*ENCODER, *COMPARISON, "limit", *READING, "top_k"),
    "merge of one adapter": ("model", "device", "dtype", "method", "weights", "merged_rank", "folded"),
    "export in float32": ("model", "format", "float16", "int8"),
    "export of an embedding model": ("model", "seed", "export", "sign_flips", "confidence"),
    "rerank QUERY --texts FILE": ("device", "dtype", *RERANKER),
}
"""What a command takes of its settings where its arguments make it one of several things."""

SHORT: dict[str, dict[str, str]] = {
    "index": {"at": "index_at"},
    "search": {"at": "index_at"},
    "route": {"data": "outside", "multi": "multi_domain"},
    "answer": {"at": "index_at"},
    "evaluate": {"at": "index_at"},
    "train-reranker": {
        "epochs": "rerank_epochs",
        "batch_size": "rerank_batch_size",
        "learning_rate": "rerank_learning_rate",
        "group_size": "rerank_group_size",
        "loss": "rerank_loss",
        "full": "rerank_full",
    },
}
"""Command -> what its users call a setting -> the setting, whose own name they may use too."""


@cache
def settings_of(command: str) -> tuple[str, ...]:
    """The names of the settings that a command reads, in the order in which `RunConfig` has them."""
    wanted = set(READS.get(command) or READS_WHEN.get(command, ()))
    return tuple(
        name for section, names in _sections().items() for name in names if name in wanted or section in wanted
    )


def commands_that_read(name: str) -> list[str]:
    """The commands to which a setting means something; none for a name that is no setting."""
    return [command for command in READS if name in settings_of(command)]


def check_settings(command: str, names: Iterable[str], spelt: Callable[[str], str] = str) -> None:
    """Refuse a setting that the command would ignore.

    Args:
        command: its name, or a key of `READS_WHEN`.
        names: of the settings that are given.
        spelt: how a setting is named to this user: by its own name, or as a flag.

    Raises:
        UsageError: one of them is not read; what is, and which commands read it.
    """
    own = settings_of(command)
    for name in names:
        if name not in own:
            readers = commands_that_read(name)
            fix = f"It is a setting of: {', '.join(readers)}" if readers else "No command has such a setting"
            if command in READS_WHEN and any(command.startswith(reader) for reader in readers):
                fix = "Leave it out: nothing would depend on it here."
            possible = ", ".join(map(spelt, own)) or "no settings"
            raise UsageError(f"{command} does not read {spelt(name)}", possible=possible, fix=fix)


def check_format(command: str, config: RunConfig) -> None:
    """Refuse dtype = int8 to a command that cannot work in it.

    Raises:
        UsageError: it trains, works on float weights, or computes with a reranker.
    """
    if command in NOT_IN_INT8 and config.dtype == "int8":
        able = [name for name in commands_that_read("dtype") if name not in NOT_IN_INT8]
        raise UsageError(
            f"dtype = 'int8' with {command}",
            possible="auto, float32, bfloat16",
            fix=f"INT8 is for vectors of texts: {', '.join(able)}. A reranker in INT8 is an export.",
        )


def full_names(command: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their own names, where the command's short ones were given.

    Raises:
        UsageError: a setting is given by both.
    """
    short = SHORT.get(command, {})
    if twice := [name for name, setting in short.items() if name in values and setting in values]:
        raise UsageError(f"{twice[0]} and {short[twice[0]]} are the same setting of {command}", fix="Give one of them.")
    return {short.get(name, name): value for name, value in values.items()}


def used(config: RunConfig, command: str) -> dict[str, Any]:
    """What a command reads of a config, as plain JSON values: for `settings.json` of what it writes."""
    values = effective(config, *(section for section in _sections() if section))
    own = set(settings_of(command))
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in own or name == "tasks":
            kept[name] = value
        elif name in _sections() and (part := {key: item for key, item in value.items() if key in own}):
            kept[name] = part
    return kept


@cache
def _sections() -> dict[str, tuple[str, ...]]:
    """Section -> its fields; the shared ones are those of the section without a name, and come first."""
    hints = get_type_hints(RunConfig)
    found: dict[str, tuple[str, ...]] = {"": ()}
    for item in dataclasses.fields(RunConfig):
        if dataclasses.is_dataclass(hints[item.name]):
            found[item.name] = tuple(sub.name for sub in dataclasses.fields(hints[item.name]))
        elif item.name != "datasets":  # a list of tables: only a file says it
            found[""] += (item.name,)
    return found
