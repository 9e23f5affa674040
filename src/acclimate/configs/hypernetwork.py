"""Settings of a hypernetwork's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from acclimate.configs.checks import check_above, check_at_least, check_fraction
from acclimate.configs.train import TrainConfig
from acclimate.errors import UsageError
from acclimate.types import Sides

ConditionPart: TypeAlias = Literal["description", "pairs", "texts"]
GeneratorName: TypeAlias = Literal[
    "multi-task", "instruction-prefix", "core-modulation", "text-to-lora", "drag-and-drop"
]
RIVALS: tuple[GeneratorName, ...] = ("multi-task", "instruction-prefix")
"""One adapter for all tasks: trained to be compared with, generated for nobody."""
Through: TypeAlias = Literal["query-vector", "encoder"]
Objective: TypeAlias = Literal["relevance", "reconstruction", "warm-up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetworkConfig:
    """From tasks to a hypernetwork."""

    parts: tuple[ConditionPart, ...] = ("description", "pairs", "texts")
    """What a condition can consist of. Every step each task gets some of them, drawn at random, so that each is enough
    alone."""
    sides: Sides = "query"
    """query: the generated adapter changes queries only; both: documents too."""
    tasks_per_step: int = 8
    """Tasks in a step, each with its own generated adapter."""
    queries_per_task: int = 64
    """Queries of each task in a step; each brings a relevant document and one that is relevant in another task."""
    max_pairs: int = 32
    """Most example pairs of a condition; how many is drawn anew for every step."""
    max_texts: int = 32
    """Most sample texts of a condition."""
    unknown_share: float = 0.0
    """Share of the conditions that are made ones which no task has: a description of something unknown, pairs that have
    nothing in common. Where nothing else says what the task is, the queries shall stay as they are."""
    steps: int = 600
    """Length of the training."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    warmup_fraction: float = 0.1
    """Share of the steps over which the learning rate rises; afterwards it falls as half a cosine."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """The gradient of everything that trains, the shared adapter included, is clipped to this norm."""
    temperature: float = 0.05
    """Cosines are divided by it in the loss."""

    def __post_init__(self) -> None:
        for name in ("tasks_per_step", "queries_per_task", "max_pairs", "max_texts", "steps"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("learning_rate", "max_grad_norm", "temperature"):
            check_above(name, getattr(self, name), 0.0)
        check_fraction("warmup_fraction", self.warmup_fraction)
        check_fraction("unknown_share", self.unknown_share)
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise UsageError(f"parts = {', '.join(self.parts)}", possible="description, pairs, texts, each once")

    @property
    def optimiser(self) -> TrainConfig:
        """The settings that the one training loop reads."""
        return TrainConfig(
            sides=self.sides,
            learning_rate=self.learning_rate,
            warmup_fraction=self.warmup_fraction,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What was best on dev for adapters of one kind (docs/instant-adapters.md)."""

    steps: int
    """Steps of the generator's training."""
    shared_steps: int
    """Steps of the multi-task adapter's training."""
    shared_rank: int
    """Rank of the multi-task adapter."""
    own_rank: int
    """Ranks beside it."""
    learning_rate: float
    """Peak learning rate."""
    temperature: float
    """Cosines are divided by it in the loss."""
    queries: int
    """Queries of each task in a step."""
    queries_of_both: int = 0
    """The same where documents are changed, too: each query brings two that have to be encoded."""
    last_blocks: int = 0
    """How many of the model's last blocks get LoRA."""


MEASURED: dict[Through, _Measured] = {
    "query-vector": _Measured(
        steps=1500,
        shared_steps=300,
        shared_rank=32,
        own_rank=32,
        learning_rate=2e-3,
        temperature=0.1,
        queries=64,
    ),
    "encoder": _Measured(
        steps=400,
        shared_steps=200,
        shared_rank=8,
        own_rank=8,
        learning_rate=5e-4,
        temperature=0.05,
        queries=16,
        queries_of_both=8,
        last_blocks=2,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Which hypernetwork is trained, and for how long: the settings of `hypernetwork train`."""

    generator: GeneratorName = "core-modulation"
    """What is generated: a core between shared matrices, rows one by one, or the grid of rows at once. Or a rival,
    which generates nothing: the multi-task adapter trained for as long, or one with the description before queries."""
    through: Through = "query-vector"
    """query-vector: a map on the final vector of queries; encoder: LoRA on the linear layers of the last blocks."""
    last_blocks: int = 0
    """How many blocks of the model those are, counted from the last; 0: 2. The blocks below are computed once."""
    sides: Sides | None = None
    """query: what is generated changes queries only; both: documents too; None: both through the encoder."""
    steps: int = 0
    """Steps of the generator's training; 0: 1,500 on query vectors, 400 through the encoder."""
    shared_steps: int = 0
    """Steps of the training of the multi-task adapter before it; 0: 300 on query vectors, 200 through the encoder."""
    shared_rank: int = 0
    """Rank of the multi-task adapter, which all tasks share; 0: 32 on query vectors, 8 through the encoder."""
    own_rank: int = 0
    """Ranks beside it; 0: the same."""
    objective: Objective = "relevance"
    """relevance: the generator learns through what it generates, by which documents are relevant; reconstruction: to
    generate what adapters are like that were trained on each task by itself; warm-up: that first, for as many steps."""
    unknown_share: float = 0.15
    """Share of the conditions that say what no task is about, or nothing: the base shall then stay as it is."""
    learning_rate: float = 0.0
    """Peak learning rate of both trainings; 0: 0.002 on query vectors, 0.0005 through the encoder."""

    def __post_init__(self) -> None:
        counts = ("steps", "shared_steps", "shared_rank", "own_rank")
        for name in (*counts, "last_blocks", "learning_rate"):
            value = getattr(self, name) or getattr(MEASURED[self.through], name)
            object.__setattr__(self, name, value)  # frozen for everybody else
        for name in counts:
            check_at_least(name, getattr(self, name), 1)
        check_above("learning_rate", self.learning_rate, 0.0)
        check_fraction("unknown_share", self.unknown_share)
        check_at_least("last_blocks", self.last_blocks, 0)
        if self.objective != "relevance" and self.through == "encoder":
            raise UsageError(
                f"objective = {self.objective} through the encoder, where an adapter for each task takes minutes",
                fix="Take objective = relevance, or through = query-vector.",
            )
        if self.objective != "relevance" and self.generator in RIVALS:
            raise UsageError(f"objective = {self.objective} of {self.generator}, which generates nothing")
        if self.through == "query-vector" and self.last_blocks:
            raise UsageError("last_blocks with a map on the final vector", fix="Take through = encoder.")
        if self.through == "query-vector" and self.sides == "both":
            raise UsageError(
                "a map on the final vector of documents too", fix="Take sides = query, or through = encoder."
            )

    @property
    def effective_sides(self) -> Sides:
        """What is asked for, or else what was best: a map cannot change documents, which lie in an index."""
        return self.sides or ("both" if self.through == "encoder" else "query")

    def training(self, *, shared: bool) -> HypernetworkConfig:
        """The settings of one of the two trainings."""
        measured, sides = MEASURED[self.through], self.effective_sides
        steps = self.shared_steps if shared else self.steps
        unknown = 0.0 if shared or self.generator in RIVALS else self.unknown_share
        return HypernetworkConfig(
            sides=sides,
            steps=steps,
            queries_per_task=measured.queries if sides == "query" else measured.queries_of_both,
            learning_rate=self.learning_rate,
            unknown_share=unknown,
            temperature=measured.temperature,
        )
