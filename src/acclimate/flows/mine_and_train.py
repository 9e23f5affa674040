"""Mining and training in a row: what one training is made of, alone or as one of three stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from acclimate.configs import RunConfig
from acclimate.mining.reports import MineReport
from acclimate.runs.tasks import Task
from acclimate.stages.mine import mine
from acclimate.stages.train import train_tasks
from acclimate.training.reports import TrainReport

MineReports: TypeAlias = list[MineReport | None]
"""A report per task; None where there was nothing to mine."""


def mine_and_train(tasks: Sequence[Task], out: Path, config: RunConfig) -> tuple[MineReports, TrainReport]:
    """The reports of mining, and of training."""
    tasks = [replace(task, mined=task.kind == "retrieval" and task.config.train.group_size > 1) for task in tasks]
    mined = [mine(task.dataset, task.negatives, task.config) if task.mined else None for task in tasks]
    return mined, train_tasks(tasks, out, config)
