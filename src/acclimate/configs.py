"""Every setting of every stage, once. Frozen dataclasses; the string under a field is its documentation.

`RunConfig` is the whole run: shared fields at the top, one flat section per stage. It is what `RUN/config.toml`
holds, what a stage function takes, and what the command line's flags are made from. Field names are unique over all
sections, so that every one of them is also a flag (`rank` -> `--rank`).
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from acclimate.errors import DataError, UsageError
from acclimate.types import Pooling, Sides

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NONE = "none"
"""How TOML and flags say None (TOML has no null)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """From raw data to a leak-free dataset."""

    anchor_column: str | None = None
    """Column of the queries, where its name is not one of the known ones."""
    positive_column: str | None = None
    """Column of the documents that answer the queries."""
    label_column: str | None = None
    """Column of the labels of labelled pairs, where its name is neither label nor score."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a file without a header, in order: sentence1,sentence2,label."""
    corpus: str | None = None
    """JSONL of further documents that the pairs do not mention; mining and evaluation rank all of them."""
    split_by: str = "component"
    """component (no text is shared between splits), query (only queries are kept apart), or a column's name."""
    test_fraction: float = 0.1
    """Share of the queries that become the test split where none is given (at least 100 queries, at most half)."""
    dev_fraction: float = 0.05
    """Share of the training queries that become the dev split where none is given (at most 500 queries)."""
    strict_documents: bool = False
    """Also drop training pairs whose document (or, of labelled pairs, sentence) is in test or dev."""
    per_label: int | None = None
    """Labelled pairs: at most this many training pairs per label, drawn evenly."""
    label_min: float | None = None
    """Lowest possible label of labelled pairs; read off the data if not given."""
    label_max: float | None = None
    """Highest possible label of labelled pairs; read off the data if not given."""
    min_chars: int = 2
    """Texts shorter than this are rejected."""

    def __post_init__(self) -> None:
        _check_fraction("test_fraction", self.test_fraction)
        _check_fraction("dev_fraction", self.dev_fraction)
        _check_at_least("min_chars", self.min_chars, 1)
        if self.per_label is not None:
            _check_at_least("per_label", self.per_label, 1)
        if (self.anchor_column is None) != (self.positive_column is None):
            raise UsageError("only one of --anchor-column and --positive-column is given", fix="Give both, or neither.")
        if self.label_min is not None and self.label_max is not None and self.label_min >= self.label_max:
            raise UsageError(f"label_min = {self.label_min} is not below label_max = {self.label_max}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MineConfig:
    """Hard negatives from the corpus."""

    teacher: str | None = None
    """Model that ranks the corpus for mining; the run's own base model if not given."""
    reranker: str | None = None
    """Cross-encoder that rescores the candidates before they are filtered."""
    num_negatives: int = 4
    """Hard negatives kept per query."""
    range_min: int = 0
    """So many best-ranked candidates are skipped; known positives do not count as candidates."""
    range_max: int = 50
    """Candidates ranked below this position are not considered."""
    min_score: float | None = None
    """Candidates scoring below this are dropped."""
    max_score: float | None = None
    """Candidates scoring above this are dropped."""
    absolute_margin: float | None = None
    """Drop candidates whose score is above positive - absolute_margin; the lowest of several positives counts."""
    relative_margin: float | None = 0.05
    """Drop candidates whose score is above positive - |positive| * relative_margin (the lowest of several)."""
    sampling: Literal["top", "random"] = "top"
    """Take the best-ranked candidates, or draw among them."""
    include_positives: bool = False
    """Also write every query's ranked list, its positives in place (ranked.jsonl): to inspect, or to test rerankers."""
    output: Literal["n-tuple", "triplet", "labelled"] = "n-tuple"
    """Training rows: all negatives in one row per positive, one row per negative, or a label of 1 or 0 per document."""

    def __post_init__(self) -> None:
        _check_at_least("num_negatives", self.num_negatives, 1)
        _check_at_least("range_min", self.range_min, 0)
        if self.range_max <= self.range_min:
            raise UsageError(f"range_max = {self.range_max} is not above range_min = {self.range_min}")
        if self.min_score is not None and self.max_score is not None and self.min_score >= self.max_score:
            raise UsageError(f"min_score = {self.min_score} is not below max_score = {self.max_score}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """From examples to an adapter."""

    sides: Sides = "both"
    """both: queries and documents are adapted; query: documents stay with the base, an existing index stays valid."""
    full: bool = False
    """Train every weight instead of an adapter."""
    rank: int = 16
    """Rank of the LoRA matrices."""
    alpha: float | None = None
    """LoRA scaling: the update is multiplied by alpha / rank; equal to the rank if not given."""
    lora_dropout: float = 0.0
    """Dropout on the input of the LoRA matrices."""
    targets: tuple[str, ...] = ("all-linear",)
    """Linear layers that get LoRA: all-linear, or (endings of) module names such as query,key,value."""
    loss: Literal["auto", "info-nce", "cosine-mse"] = "auto"
    """auto takes info-nce for retrieval data and cosine-mse for labelled pairs."""
    temperature: float = 0.05
    """Temperature of InfoNCE: cosines are divided by it."""
    negatives_per_example: int = 1
    """Mined or given negatives drawn for each example in each pass."""
    false_negative_margin: float | None = 0.1
    """In-batch documents whose cosine is above the positive's plus this are not counted as negatives; none: all are."""
    mask_mined: bool = False
    """Apply the false-negative margin to mined negatives too."""
    epochs: float = 2.0
    """Passes over the training examples."""
    batch_size: int = 128
    """Examples per step; with InfoNCE all other documents of the batch are negatives."""
    learning_rate: float | None = None
    """Peak learning rate; chosen by the size of the model if not given."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises, before it falls as a cosine."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    activation_memory_gb: float = 2.0
    """Memory for one step's activations; a batch that needs more is computed in two passes (GradCache)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    eval_steps: int | None = None
    """Steps between evaluations on dev; a quarter of the training if not given."""
    dev_documents: int | None = None
    """Documents that dev queries are ranked against during training: the relevant, the hardest, and a sample.
    2,000 if not given, fewer where the training is short, so that watching it costs a fraction of it."""
    patience: int = 3
    """Stop after this many evaluations without a better dev NDCG@10."""
    checkpoint_steps: int | None = None
    """Steps between checkpoints to resume from; a tenth of the training, at most 50, if not given."""

    def __post_init__(self) -> None:
        for name in ("rank", "batch_size", "patience"):
            _check_at_least(name, getattr(self, name), 1)
        for name in ("checkpoint_steps", "dev_documents", "eval_steps"):
            if (value := getattr(self, name)) is not None:
                _check_at_least(name, value, 1)
        _check_at_least("negatives_per_example", self.negatives_per_example, 0)
        for name in ("temperature", "epochs", "max_grad_norm", "activation_memory_gb"):
            _check_above(name, getattr(self, name), 0.0)
        if self.learning_rate is not None:
            _check_above("learning_rate", self.learning_rate, 0.0)
        _check_fraction("warmup_fraction", self.warmup_fraction)
        _check_fraction("lora_dropout", self.lora_dropout)
        if self.full and self.sides == "query":
            raise UsageError("--full and --sides query exclude each other", fix="Train an adapter for the query side.")
        if not self.targets:
            raise UsageError("targets is empty", possible="all-linear, or endings of module names")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Base against adapted on the test split."""

    bootstrap: int = 2000
    """Resamples of the paired bootstrap behind the intervals and the p-values."""
    confidence: float = 0.95
    """Width of the intervals."""
    guard: tuple[str, ...] = ()
    """Data outside the domain on which the adapted model must not get worse."""
    guard_bound: float = 0.02
    """Relative loss on guard data beyond which the report warns."""
    top_k: int = 100
    """Documents kept per query in the run files."""

    def __post_init__(self) -> None:
        _check_at_least("bootstrap", self.bootstrap, 100)
        _check_at_least("top_k", self.top_k, 10)
        _check_fraction("confidence", self.confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The whole run: what `RUN/config.toml` holds."""

    model: str = DEFAULT_MODEL
    """Base model: a hub id, or a folder of sentence-transformers or transformers."""
    pooling: Pooling | None = None
    """mean, cls or last; the model's own files decide if not given."""
    query_prompt: str | None = None
    """Put before every query; the model's own if not given."""
    document_prompt: str | None = None
    """Put before every document; the model's own if not given."""
    max_tokens: int | None = None
    """Longer texts are cut to this many tokens; the model's own if not given."""
    dim: int | None = None
    """Keep this many leading dimensions (Matryoshka) and renormalise."""
    seed: int = 42
    """Fixes splits, sampling, initial weights and batch order."""
    limit: int | None = None
    """Use at most this many queries (or labelled pairs), drawn evenly; for a quick try."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto takes bfloat16 where the hardware computes in it, float32 elsewhere."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """From raw data to a leak-free dataset."""
    mine: MineConfig = field(default_factory=MineConfig)
    """Hard negatives."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Evaluation."""

    def __post_init__(self) -> None:
        for name in ("limit", "max_tokens", "dim"):
            if (value := getattr(self, name)) is not None:
                _check_at_least(name, value, 1)


def config_from_mapping(values: Mapping[str, Any], where: str) -> RunConfig:
    """Build a `RunConfig` from nested tables.

    Args:
        values: as `tomllib` gives them: shared fields at the top, a table per stage.
        where: the file's name, for the message.

    Raises:
        UsageError: an unknown key or a value of the wrong type, named with the possible ones.
    """
    config: RunConfig = _build(RunConfig, values, where)
    return config


def load_config(path: Path) -> RunConfig:
    """Read a `config.toml`.

    Raises:
        DataError: the file is missing or is not TOML.
        UsageError: an unknown key or a value of the wrong type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", fix="Give a TOML file to --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML ({error})", fix="Correct the line named.") from None
    return config_from_mapping(values, str(path))


def dump_config(config: RunConfig) -> str:
    """The config as TOML, every effective value written out."""
    lines: list[str] = []
    sections: list[str] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            sections += ["", f"[{item.name}]"]
            sections += [_toml_line(sub.name, getattr(value, sub.name)) for sub in dataclasses.fields(value)]
        else:
            lines.append(_toml_line(item.name, value))
    return "\n".join(lines + sections) + "\n"


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The config with some fields changed, each by its own name whatever its section (names are unique)."""
    shared: dict[str, Any] = {}
    left = dict(overrides)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = {sub.name for sub in dataclasses.fields(value)}
            if changed := {name: left.pop(name) for name in names & set(left)}:
                shared[item.name] = dataclasses.replace(value, **changed)
        elif item.name in left:
            shared[item.name] = left.pop(item.name)
    if left:
        raise UsageError(f"unknown setting {sorted(left)[0]!r}")
    return dataclasses.replace(config, **shared)


def effective(config: RunConfig, *sections: str) -> dict[str, Any]:
    """What an artifact's `settings.json` holds: the shared fields and the named sections, as plain JSON values."""
    values = dataclasses.asdict(config)
    names = [item.name for item in dataclasses.fields(config)]
    nested = {name for name in names if isinstance(values[name], dict)}
    kept = {name: values[name] for name in names if name not in nested or name in sections}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _toml_line(name: str, value: object) -> str:
    return f"{name} = {_toml_value(value)}"


def _toml_value(value: object) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's; only DEL, which JSON leaves bare, must be escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _build(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}", possible=", ".join(sorted(hints)))
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: [{name}] is a table, found {value!r}")
            arguments[name] = _build(hints[name], value, f"{where} [{name}]")
        else:
            arguments[name] = _convert(name, value, hints[name], where)
    return cls(**arguments)


def _convert(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` as the type of the hint, or our error; integers are taken for floats, lists for tuples."""
    for choice in _alternatives(hint):
        if choice is type(None) and value == NONE:
            return None
        if get_origin(choice) is Literal and value in get_args(choice):
            return value
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if get_origin(choice) is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        if choice in (str, int, bool) and type(value) is choice:
            return value
    raise UsageError(f"{where}: {name} = {value!r}", possible=_describe(hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(sorted(choices, key=lambda choice: choice is not type(None)))


def _describe(hint: Any) -> str:
    words = []
    for choice in _alternatives(hint):
        if get_origin(choice) is Literal:
            words += [repr(value) for value in get_args(choice)]
        elif get_origin(choice) is tuple:
            words.append("a list of strings")
        elif choice is not type(None):
            words.append({str: "a string", int: "a whole number", float: "a number", bool: "true or false"}[choice])
    return " or ".join(words)


def _check_at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"{name} = {value}", possible=f"{low} or more")


def _check_above(name: str, value: float, low: float) -> None:
    if not value > low:
        raise UsageError(f"{name} = {value}", possible=f"above {low}")


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise UsageError(f"{name} = {value}", possible="from 0 up to, not including, 1")
