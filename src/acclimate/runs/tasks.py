"""A run's tasks: one for each dataset, its folders, and the run's settings with its own among them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from acclimate.configs import DatasetConfig, RunConfig, for_dataset
from acclimate.data.dataset import DATASET_FILE
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.runs.run_folder import RunFolder

BESIDE = "beside "
"""How the names of the other data sets of a run begin, among the inputs of one."""

TOKENIZER = "tokenizer"
"""The input of a data set by which its texts are counted in tokens, and found to be the same."""


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset of a run, and what is made of it."""

    name: str | None
    """None: the only one of a run; its folders are those of the run, its prompts the run's own."""
    config: RunConfig
    """The run's settings, those of this dataset among them."""
    folder: RunFolder
    """`RUN`, or `RUN/tasks/NAME`: what is made of it, and cached vectors."""
    dataset: Path
    """What `prepare` writes."""
    negatives: Path
    """What `mine` writes."""
    source: str = ""
    """What the dataset is made of; empty where that is done."""
    weight: float = 1.0
    """Weight of its loss among the others'."""
    mined: bool = True
    """Whether the training takes the mined negatives; else what the dataset itself brings."""
    arranged: bool = False
    """Whether its rows are in the order of the steps already, a batch after the other; else they are shuffled."""
    aside: frozenset[str] = frozenset()
    """Dev queries by which no step is chosen: something else will be judged by them."""

    @property
    def evaluation(self) -> Path:
        """What `evaluate` writes."""
        return self.folder.evaluation

    @property
    def kind(self) -> str:
        """`retrieval` or `pairs`, where the dataset is prepared."""
        return str(read_json(self.dataset / DATASET_FILE)["kind"])

    @property
    def label(self) -> str:
        """How it is called in messages: nothing where there is only one."""
        return f"{self.name} " if self.name else ""


def tasks_of(run: Path, config: RunConfig, source: str = "") -> list[Task]:
    """The tasks of a run; one, with the folders of the run itself, where there are not several datasets.

    Args:
        run: the run's folder.
        config: its settings; `config.task` chooses one of several tasks.
        source: what the dataset of a run without `[[datasets]]` is made of.

    Raises:
        UsageError: a source is given twice; there is no such task.
    """
    if source and config.datasets:
        raise UsageError(
            f"{source} is given, and so are [[datasets]]",
            fix="Leave it out, or make it another table.",
        )
    if not config.datasets:
        return [_task(None, config, RunFolder(run), source)]
    if len(config.datasets) == 1:
        return [_task(None, for_dataset(config, config.datasets[0]), RunFolder(run), config.datasets[0].source)]
    tasks = [_among_several(run, config, number, dataset) for number, dataset in enumerate(config.datasets)]
    chosen = [task for task in tasks if config.task in (None, task.name)]
    if not chosen:
        raise UsageError(f"Unknown task {config.task!r}", possible=", ".join(str(task.name) for task in tasks))
    return chosen


def all_tasks(run: Path, config: RunConfig, source: str | None = "") -> list[Task]:
    """As `tasks_of`, for a training, which has all tasks of a run; None is a source that is not given.

    Raises:
        UsageError: there is nothing to learn from; one of several tasks is chosen.
    """
    if source is None and not config.datasets:
        raise UsageError("no data is given", fix="Name it on the command line, or in tables [[datasets]] of --config.")
    tasks = tasks_of(run, config, source or "")
    if len(tasks) < len(config.datasets):
        raise UsageError(f"task = {config.task!r}, but a training has all tasks of a run", fix="Leave --task out.")
    return tasks


def minable_tasks(run: Path, config: RunConfig) -> list[Task]:
    """The tasks of a run whose data has a corpus; the only task in any case, so that mining says what is wrong."""
    tasks = tasks_of(run, config)
    return tasks if len(tasks) == 1 else [task for task in tasks if task.kind == "retrieval"]


def one_task(run: Path, config: RunConfig) -> Task:
    """The task of a run with one dataset; of one with several, that which `config.task` names.

    Raises:
        UsageError: it names none.
    """
    tasks = tasks_of(run, config)
    if len(tasks) > 1:
        raise UsageError(
            f"{run} has several tasks", possible=", ".join(str(task.name) for task in tasks), fix="Name one by --task."
        )
    return tasks[0]


def _among_several(run: Path, config: RunConfig, number: int, dataset: DatasetConfig) -> Task:
    own = for_dataset(config, dataset)
    if number:  # what guards against forgetting is measured once
        own = dataclasses.replace(own, evaluate=dataclasses.replace(own.evaluate, guard=()))
    return _task(dataset.task, own, RunFolder(run).task(dataset.task), dataset.source, dataset.weight)


def _task(name: str | None, config: RunConfig, folder: RunFolder, source: str, weight: float = 1.0) -> Task:
    return Task(name, config, folder, folder.dataset, folder.negatives, source, weight)
