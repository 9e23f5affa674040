"""Negatives mined again during a training, with the current model.

What is mined at a step is written to the work folder before the step is taken, so that a training that was killed
resumes with the same negatives: on a CPU, bit by bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from acclimate.configs import TrainConfig
from acclimate.core.lora import adapters_off
from acclimate.data.dataset import EXAMPLES_FILE, read_examples
from acclimate.errors import UsageError
from acclimate.files import REPORT_FILE, read_json
from acclimate.mining.mine import mine_negatives
from acclimate.mining.mined_rows import mined_work
from acclimate.mining.mining_input import MiningInput, mining_input
from acclimate.mining.reports import MineReport
from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.runs.resolve import load_reranker
from acclimate.runs.step import Work, step
from acclimate.training.reports import Remined
from acclimate.training.task_training import TaskLosses, TrainingTask
from acclimate.types import Example


class Remining:
    """Renews the negatives of the tasks that have a corpus, every `remine_steps` steps; called before every step.

    Args:
        losses: their tasks get the negatives.
        encoder: the encoder in training; here it is still the base.
        settings: say how often; each task's settings of `mine` say how.
        folder: gets `step-N/TASK` with what was mined before step N.
        identity: hash of everything that the training depends on; negatives of another training are not used.

    Raises:
        UsageError: no task has negatives to mine.
    """

    def __init__(
        self, losses: TaskLosses, encoder: Encoder, settings: TrainConfig, folder: Path, identity: str
    ) -> None:
        self.losses, self.encoder, self.sides = losses, encoder, settings.sides
        self.every, self.folder, self.settings = settings.remine_steps or 0, folder, {"training": identity}
        self.current = 0
        """The step at which the present negatives were mined; 0: those that the training began with."""
        self._reranker: Reranker | None = None
        self._tasks = {
            number: (one, source, self._fixed_documents(one, source))
            for number, one in enumerate(losses.tasks)
            if _is_minable(one) and (source := mining_input(one.data))
        }
        if not self._tasks:
            raise UsageError("remine_steps is given, and no task has negatives to mine", fix="Leave it out.")

    def __call__(self, number: int) -> None:
        """Make sure that a step (its number, from 0) has its negatives."""
        mined_at = number - number % self.every
        if mined_at == self.current:
            return
        self.current = mined_at
        for task, (one, source, fixed_MD) in self._tasks.items():
            out = self.folder / f"step-{mined_at:08d}" / (one.task.name or "negatives")
            name = f"step {mined_at}, mining {one.task.label}with the current model"
            step(name, out, self.settings, {}, partial(self._mine, one, source, fixed_MD), seconds="mine_s")
            self.losses.renew(task, _with_negatives(one.examples, out))

    def report(self) -> Remined:
        """How many times negatives were mined, and the seconds that it took, over all starts."""
        reports = [read_json(path) for path in sorted(self.folder.glob(f"step-*/*/{REPORT_FILE}"))]
        steps = {path.parent.parent.name for path in self.folder.glob(f"step-*/*/{REPORT_FILE}")}
        return {"times": len(steps), "seconds": round(sum(report["timings"]["mine_s"] for report in reports), 3)}

    def _mine(self, one: TrainingTask, source: MiningInput, fixed_MD: Vectors | None) -> Work[MineReport]:
        config = one.task.config
        if config.mine.reranker is not None and self._reranker is None:
            self._reranker = load_reranker(
                config.mine.reranker, config.rerank, device=config.device, dtype=config.reranker_dtype
            )
        self.encoder.model.eval()
        blocks = mine_negatives(
            source,
            one.encoder(self.encoder),
            config.mine,
            config.seed,
            reranker=self._reranker if config.mine.reranker else None,
            document_vectors=fixed_MD,
        )
        return mined_work(source, one.data.queries, blocks, config.mine)

    def _fixed_documents(self, one: TrainingTask, source: MiningInput) -> Vectors | None:
        """The base's vectors of the documents, if these are not adapted; those of the corpus are in the cache."""
        if self.sides == "both":
            return None
        with adapters_off(self.encoder.model):
            cache = one.task.folder.cache
            return encode_corpus(one.encoder(self.encoder), source.documents, cache, "encode documents (base)")


def _is_minable(one: TrainingTask) -> bool:
    return one.data.kind == "retrieval" and all(example.label is None for example in one.examples)


def _with_negatives(examples: list[Example], folder: Path) -> list[Example]:
    """The same examples in the same order, with their newly mined negatives."""
    mined = {(row.anchor, row.positive): row for row in read_examples(folder / EXAMPLES_FILE)}
    renewed = []
    for example in examples:
        row = mined[example.anchor, example.positive]
        renewed.append(replace(example, negatives=row.negatives, scores=row.scores))
    return renewed
