"""RunFolder: every path of a run. Nobody else spells one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from acclimate.data.dataset import is_dataset
from acclimate.files import REPORT_FILE, WORK

DATASET, NEGATIVES, ADAPTER, EVALUATION = "dataset", "negatives", "adapter", "evaluation"
PAIRS = "pairs"
STAGES, TASKS, FOLDS, REFRESHES = "stages", "tasks", "folds", "refreshes"
OF_A_RUN = (STAGES, FOLDS, REFRESHES)
"""Folders of a run that hold others of the same form, which share its settings and its cache."""
AUDIT_FILE = "audit.json"
METRICS_FILE, CACHE = "metrics.jsonl", "cache"
PAGE_FILE = "report.html"
ADAPTER_FILES = ("adapter_config.json", "modules.json")
"""An adapter folder holds the first, a fully trained model only the second."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on disk, by the paths of its parts; whether they are there is another question.

    A task of several (`RUN/tasks/NAME`), a stage of a training that has several (`RUN/stages/NAME`), a fold of a
    cross-validation (`RUN/folds/NUMBER`) and a refresh (`RUN/refreshes/NUMBER`) are folders of the same form.
    """

    path: Path

    @property
    def dataset(self) -> Path:
        """What `prepare` writes."""
        return self.path / DATASET

    @property
    def negatives(self) -> Path:
        """What `mine` writes."""
        return self.path / NEGATIVES

    @property
    def audit(self) -> Path:
        """What mining found, for people; a part of `negatives`."""
        return self.negatives / AUDIT_FILE

    @property
    def adapter(self) -> Path:
        """The adapter (or fully trained model) in use: a link to one of `adapters`, or a copy of it."""
        return self.path / ADAPTER

    @property
    def adapters(self) -> Path:
        """Every version of the adapter, each in a folder named by its hash."""
        return self.path / "adapters"

    @property
    def adapter_history(self) -> Path:
        """Which versions `adapter` has led to, and by whose decision."""
        return self.adapters / "history.json"

    @property
    def evaluation(self) -> Path:
        """What `evaluate` writes."""
        return self.path / EVALUATION

    @property
    def reranker(self) -> Path:
        """What the training of a reranker writes."""
        return self.path / "reranker"

    @property
    def reranking(self) -> Path:
        """What the evaluation of a reranker writes."""
        return self.path / "reranking"

    @property
    def index(self) -> Path:
        """What `index` writes, where no other place is given."""
        return self.path / "index"

    @property
    def not_indexed(self) -> Path:
        """The rows that the last `index` could not use, and why."""
        return self.path / "index-rejected.jsonl"

    @property
    def fusion(self) -> Path:
        """How the index's two rankings become one, as the dev split has chosen it."""
        return self.path / "fusion.json"

    @property
    def index_evaluation(self) -> Path:
        """What `evaluate --index` writes."""
        return self.path / "index_evaluation"

    @property
    def feedback(self) -> Path:
        """What searchers were shown and what they marked."""
        return self.path / "feedback.sqlite"

    @property
    def not_imported(self) -> Path:
        """The rows that the last import of feedback could not use, and why."""
        return self.path / "feedback-rejected.jsonl"

    @property
    def refreshes(self) -> Path:
        """What was learned from feedback, try by try."""
        return self.path / REFRESHES

    @property
    def decisions(self) -> Path:
        """Which of these tries was promoted, and why the others were not: a row each."""
        return self.refreshes / "decisions.jsonl"

    @property
    def steps(self) -> Path:
        """The rows of a refresh's training, step by step."""
        return self.path / "steps"

    @property
    def judged(self) -> Path:
        """What a refresh's candidate was judged by, and how it did."""
        return self.path / "judged"

    @property
    def vectors(self) -> Path:
        """What `vectors` writes: the forms in which vectors can be stored."""
        return self.path / "vectors"

    @property
    def tuned(self) -> Path:
        """What `tune` writes: the backends of this machine, and the one that is chosen."""
        return self.path / "tuned"

    @property
    def exports(self) -> Path:
        """The exports that `tune` measures."""
        return self.path / "exports"

    @property
    def weak_pairs(self) -> Path:
        """What `weak` writes, in the folder of the stage that trains on it."""
        return self.path / PAIRS

    @property
    def made_pairs(self) -> Path:
        """What `pairs` writes where `adapt` was given documents."""
        return self.path / PAIRS

    @property
    def unjudged(self) -> Path:
        """What base and adapted find for users' queries without judgements."""
        return self.path / "unjudged"

    @property
    def proof(self) -> Path:
        """The page and the scores of the run whose settings were proven, where this one was trained on all data."""
        return self.path / "proof"

    @property
    def images(self) -> Path:
        """Images beside texts, normalised: what `adapt` on images prepares."""
        return self.path / "images"

    @property
    def pictures(self) -> Path:
        """The pictures that the index holds, by their sha256."""
        return self.path / "pictures"

    @property
    def image_negatives(self) -> Path:
        """Hard negative texts of the images."""
        return self.path / "image_negatives"

    @property
    def projection(self) -> Path:
        """What maps images into the space of the texts."""
        return self.path / "projection"

    @property
    def image_evaluation(self) -> Path:
        """What the evaluation of a projection writes."""
        return self.path / "image_evaluation"

    @property
    def projection_metrics(self) -> Path:
        """The progress of the projection's training."""
        return self.path / "projection_metrics.jsonl"

    @property
    def config(self) -> Path:
        """The settings of the whole run."""
        return self.path / "config.toml"

    @property
    def report(self) -> Path:
        """The summary of the whole run."""
        return self.path / REPORT_FILE

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.path / PAGE_FILE

    @property
    def metrics(self) -> Path:
        """The progress of the adapter's training: one row per step or evaluation on dev."""
        return self.path / METRICS_FILE

    @property
    def reranker_metrics(self) -> Path:
        """The same of the reranker's."""
        return self.path / "reranker_metrics.jsonl"

    @property
    def work(self) -> Path:
        """Work in progress, checkpoints, caches."""
        return self.path / WORK

    def remembered(self) -> Path | None:
        """The `config.toml` whose settings count here: that of the run, for a part of it without one; None where there
        is none."""
        if not self.config.exists() and self.path.parent.name in OF_A_RUN:
            return RunFolder(self.path.parent.parent).remembered()
        return self.config if self.config.exists() else None

    @property
    def cache(self) -> Path:
        """Vectors of the corpus; the stages, folds and refreshes of a run share those of the run."""
        if self.path.parent.name in OF_A_RUN:
            return RunFolder(self.path.parent.parent).cache
        return self.path / WORK / CACHE

    @property
    def tasks(self) -> Path:
        """The tasks of a run that has several."""
        return self.path / TASKS

    def task(self, name: str) -> RunFolder:
        """One task of several: its own dataset, negatives and evaluation; the adapter is the run's."""
        return RunFolder(self.tasks / name)

    def stage(self, name: str) -> RunFolder:
        """One stage of a training that has several."""
        return RunFolder(self.path / STAGES / name)

    def fold(self, number: int) -> RunFolder:
        """One fold of a cross-validation: what is trained on the others, and tested on it; from 1."""
        return RunFolder(self.path / FOLDS / str(number))

    def refresh(self, number: int) -> RunFolder:
        """One try to learn from feedback; from 1."""
        return RunFolder(self.refreshes / f"{number:04d}")

    @classmethod
    def around(cls, artifact: Path) -> RunFolder:
        """The run that a part of one lies in: its dataset, its adapter, a version of its adapter."""
        parent = artifact.parent
        return cls(parent.parent if parent.name == cls(parent.parent).adapters.name else parent)


def is_run(folder: Path) -> bool:
    """Whether something of a run is there: the dataset of its only task, or a folder of tasks."""
    return is_dataset(RunFolder(folder).dataset) or RunFolder(folder).tasks.is_dir()
