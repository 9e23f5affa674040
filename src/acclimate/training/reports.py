"""What `report.json` of a training holds, field by field."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class TrainingNumbers(TypedDict):
    """What is said of every training."""

    tokens: int
    """Real tokens of all steps, no padding."""
    tokens_per_s: float
    trainable: int
    """Parameters that train."""
    total: int
    """Parameters of the whole model, what trains included."""
    steps: int
    """Taken; fewer than planned where it stopped early."""
    planned_steps: int
    best_step: int | None
    """The step that was kept; None where there is no dev split, and the last one was."""
    best_score: float | None
    """Its score on dev."""
    evaluations: int
    """How often trained steps were scored on dev; `best_score` is the highest of so many, so it flatters a little."""
    learning_rate: float
    """Peak."""
    processes: int
    dtype: str
    """The number format that the model computed in."""
    threads: int | None
    """CPU threads of the last step (of each step: metrics.jsonl); None on a GPU."""
    step_s: float
    """Seconds in steps, over all starts."""


class HardNegatives(TypedDict, total=False):
    """The share of the examples with a hard negative, where there could be one."""

    hard_negative_share: float


class Scale(TypedDict):
    """What a loss measures cosines by (`training.scale`)."""

    temperature: float
    """At the start, where it is learned."""
    temperature_from: str
    """Where it comes from, in words."""
    spread: float | None
    """Standard deviation of a query's cosines with random texts by the base; None where nothing depended on it."""
    false_negative_margin: float | None
    """In cosine; None where there is no such mask."""


class TaskTraining(HardNegatives):
    """One task of several, in a training."""

    loss: str
    weight: float
    examples: int
    steps: int
    first_loss: float | None
    """Mean over the first tenth of its steps."""
    last_loss: float | None
    base_score: float | None
    best_score: float | None


class Remined(TypedDict):
    """Mining while the model trained."""

    times: int
    seconds: float


class EncoderTraining(TrainingNumbers, HardNegatives):
    """The training of an embedding model. A learned temperature is a further field, `temperature`."""

    scale: NotRequired[Scale]
    """That of the only task."""
    scales: NotRequired[dict[str, Scale]]
    """Task -> its scale, where there are several."""

    loss: str
    examples: int
    batch_size: int
    base_score: float | None
    """On dev, before the first step."""
    tasks: NotRequired[dict[str, TaskTraining]]
    remined: NotRequired[Remined]
    temperature: NotRequired[float]
    retained_excluded: NotRequired[int]
    """Texts of `retain_data` that are left out because dev or test, of this run or of a guard, holds them."""


class TrainReport(TypedDict):
    """What `train` reports."""

    train: EncoderTraining
    timings: NotRequired[dict[str, float]]


class RerankerTraining(TrainingNumbers):
    """The training of a reranker."""

    base: str
    loss: str
    examples: int
    batch_size: int
    retrieval_score: float | None
    """On dev, of the retrieval alone."""


class RerankerTrainReport(TypedDict):
    """What the training of a reranker reports."""

    train: RerankerTraining
    timings: NotRequired[dict[str, float]]
