"""`RunConfig`: the whole run, from its sections."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from acclimate.configs.answer import AnswerConfig
from acclimate.configs.checks import check_at_least
from acclimate.configs.datasets import PROMPTS, DatasetConfig
from acclimate.configs.domain import DomainConfig
from acclimate.configs.endpoint import EndpointConfig
from acclimate.configs.evaluate import EvaluateConfig
from acclimate.configs.export import ExportConfig
from acclimate.configs.images import ImagesConfig
from acclimate.configs.index import IndexConfig
from acclimate.configs.merge import MergeConfig
from acclimate.configs.mine import MineConfig
from acclimate.configs.objective import ObjectiveConfig
from acclimate.configs.pairs import PairsConfig
from acclimate.configs.prepare import PrepareConfig
from acclimate.configs.refresh import RefreshConfig
from acclimate.configs.renamed import with_current_names
from acclimate.configs.rerank import RerankConfig
from acclimate.configs.route import RouteConfig
from acclimate.configs.serve import ServeConfig
from acclimate.configs.stages import StagesConfig
from acclimate.configs.train import TrainConfig
from acclimate.configs.tune import TuneConfig
from acclimate.configs.vectors import VectorsConfig
from acclimate.errors import UsageError
from acclimate.text_use import LoadSettings, TaskPrompts
from acclimate.types import BaseFormat, Pooling

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PROMPT_OR_INSTRUCTION = (("query_prompt", "instruction"), ("instruction", "query_prompt"))
"""Each of the two takes the place of the other, where that was given by an earlier stage or a file below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The whole run: what `RUN/config.toml` holds."""

    model: str | None = None
    """Base model: a hub id, or a folder of sentence-transformers or transformers. If not given: an adapter's own base,
    elsewhere the embedded all-MiniLM-L6-v2."""
    pooling: Pooling | None = None
    """mean, cls or last; the model's own files decide if not given."""
    query_prompt: str | None = None
    """Put before every query; the model's own if not given."""
    instruction: str | None = None
    """The task in one English sentence, put into the model's own query prompt: for instruction models such as
    Qwen3-Embedding, whose queries begin with Instruct: {instruction}."""
    document_prompt: str | None = None
    """Put before every document; the model's own if not given."""
    task: str | None = None
    """Task whose prompts are used, if the model or the run has several; the default prompts if not given."""
    max_tokens: int | None = None
    """Largest number of tokens per text; longer texts are cut. The model's own limit if not given."""
    dim: int | None = None
    """Keep this many leading dimensions of the vectors (Matryoshka); the model's own size if not given."""
    seed: int = 42
    """Seed of splits, sampling, initial weights and batch order."""
    limit: int | None = None
    """Use at most this many queries (or labelled pairs), drawn evenly: for a quick try."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """auto takes bfloat16 on GPUs that compute in it, and on a CPU where it was measured to be faster; else float32.
    int8 keeps the embedding model's linear layers and word embeddings in 8 bits, on CPUs with VNNI, and does not
    train."""
    quantise_base: BaseFormat | None = None
    """4bit keeps the base's linear layers in 4 bits while training (QLoRA); on CUDA only, after pip install
    'acclimate[qlora]'. The adapter is an ordinary one, and merge folds it into the unquantised base."""
    domain: DomainConfig = field(default_factory=DomainConfig)
    """The domain's vocabulary."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """Pairs out of documents."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """A language model behind an endpoint."""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """From raw data to a leak-free dataset."""
    mine: MineConfig = field(default_factory=MineConfig)
    """Hard negatives."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""
    stages: StagesConfig = field(default_factory=StagesConfig)
    """One training, or three stages."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The loss."""
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    """Evaluation."""
    merge: MergeConfig = field(default_factory=MergeConfig)
    """Merging."""
    rerank: RerankConfig = field(default_factory=RerankConfig)
    """Rerankers."""
    index: IndexConfig = field(default_factory=IndexConfig)
    """The index."""
    route: RouteConfig = field(default_factory=RouteConfig)
    """Several experts."""
    images: ImagesConfig = field(default_factory=ImagesConfig)
    """Images beside texts."""
    export: ExportConfig = field(default_factory=ExportConfig)
    """Other engines."""
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    """Stored vectors."""
    tune: TuneConfig = field(default_factory=TuneConfig)
    """The fastest backend."""
    serve: ServeConfig = field(default_factory=ServeConfig)
    """The service."""
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    """Learning from feedback."""
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    """Answers."""
    datasets: tuple[DatasetConfig, ...] = ()
    """The datasets to train on, if they are not given on the command line; several are trained together."""

    def __post_init__(self) -> None:
        for name in ("limit", "max_tokens", "dim"):
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, 1)
        if self.instruction is not None and self.query_prompt is not None:
            raise UsageError("--instruction and --query-prompt exclude each other", fix="Give one of them.")
        if self.stages.recipe == "three-stage" and (self.train.full or self.train.start_adapter is not None):
            given = "--full" if self.train.full else "--start-adapter"
            raise UsageError(f"--recipe three-stage and {given} exclude each other", fix="Leave one of them out.")
        if self.quantise_base is not None and self.train.shard != "none":
            raise UsageError("--quantise-base and --shard exclude each other", fix="Leave one of them out.")
        if self.quantise_base is not None and self.train.full:
            raise UsageError("--full and --quantise-base exclude each other", fix="Train an adapter over a 4-bit base.")
        if self.quantise_base is not None and self.dtype == "int8":
            raise UsageError("--quantise-base and --dtype int8 exclude each other", fix="Leave one of them out.")
        if self.stages.recipe == "three-stage" and len(self.datasets) > 1:
            raise UsageError(
                "--recipe three-stage is for one dataset, and there are several", fix="Leave the recipe out."
            )
        names = [dataset.task for dataset in self.datasets]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"two datasets have the name {repeated[0]!r}", fix="Give each a name of its own.")

    @property
    def base_model(self) -> str:
        """The model that is adapted: the one given, else the embedded default."""
        return self.model or DEFAULT_MODEL

    @property
    def named(self) -> tuple[str, ...]:
        """The files, folders and models that the settings name, besides the data sets: what stages read."""
        names = (
            self.model,
            self.prepare.corpus,
            self.pairs.queries,
            *self.pairs.annotated,
            self.domain.lexicon,
            self.domain.background,
            self.mine.teacher,
            self.mine.reranker,
            self.train.start_adapter,
            self.objective.guide,
            self.objective.embedding_teacher,
            self.objective.retain_data,
            self.evaluate.topics,
            *self.evaluate.guard,
            self.index.index_at,
            self.images.image_model,
        )
        return tuple(name for name in names if name is not None)

    @property
    def machine(self) -> LoadSettings:
        """Where and how models run."""
        return {"device": self.device, "dtype": self.dtype}

    @property
    def reranker_dtype(self) -> str:
        """The number format of a reranker beside the embedding model, which alone can be in INT8."""
        return "auto" if self.dtype == "int8" else self.dtype

    @property
    def loading(self) -> LoadSettings:
        """How the run's model is loaded: what is changed of its own use of texts, and where it runs."""
        return {
            "pooling": self.pooling,
            "query_prompt": self.query_prompt,
            "instruction": self.instruction,
            "document_prompt": self.document_prompt,
            "max_tokens": self.max_tokens,
            "dim": self.dim,
            "tasks": {
                dataset.task: TaskPrompts(dataset.query_prompt, dataset.document_prompt, dataset.instruction)
                for dataset in self.datasets
            },
            "task": self.task,
            "quantise_base": self.quantise_base,
            **self.machine,
        }


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """The config with some fields changed, each given by its name alone (names are unique over all sections)."""
    shared: dict[str, Any] = {}
    left = with_current_names(overrides)
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


def for_dataset(config: RunConfig, dataset: DatasetConfig) -> RunConfig:
    """The settings with which one of the run's datasets is prepared, mined and evaluated.

    The prompts of one dataset among several are those of its task (`Prompts.with_task`); those of the only one are the
    run's own.
    """
    overrides = dataset.overrides()
    if dataset.loss is not None:  # what belongs to another loss is no conflict here
        config = dataclasses.replace(config, objective=config.objective.with_loss(dataset.loss))
    if len(config.datasets) == 1:
        return dataclasses.replace(with_overrides(config, overrides), datasets=())
    for name in PROMPTS:
        overrides.pop(name, None)
    return dataclasses.replace(with_overrides(config, overrides), datasets=(dataset,), task=dataset.task)


def effective(config: RunConfig, *sections: str) -> dict[str, Any]:
    """What an artifact's `settings.json` holds: the shared fields and the named sections, as plain JSON values.

    `shard` is left out: it says which process holds which weights, and changes no result. The prompts of the datasets'
    tasks count as shared; their losses and weights belong to the section `objective`.
    """
    values = {**dataclasses.asdict(config), "model": config.base_model}
    del values["train"]["shard"]
    datasets = values.pop("datasets")
    names = list(values)
    nested = {name for name in names if isinstance(values[name], dict)}
    kept = {name: values[name] for name in names if name not in nested or name in sections}
    if datasets:
        columns = PROMPTS + ("loss", "weight") * ("objective" in sections)
        tasks = zip(config.datasets, datasets, strict=True)
        kept["tasks"] = {dataset.task: {name: row[name] for name in columns} for dataset, row in tasks}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain
