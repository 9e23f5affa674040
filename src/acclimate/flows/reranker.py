"""A run's reranker: trained on the run's data, measured behind the run's retrieval."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.data.dataset import EXAMPLES_FILE
from acclimate.evaluation.reports import RerankingReport
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.stages import evaluate_reranker as evaluation
from acclimate.stages import train_reranker as training
from acclimate.training.reports import RerankerTrainReport


def train_reranker(run: Path, base: str, config: RunConfig) -> RerankerTrainReport:
    """Train a reranker on a run's dataset and negatives (else the dataset's own ones); writes `RUN/reranker`.

    Args:
        run: the run's folder.
        base: what to start from.
        config: the whole run; `config.task` chooses one of several tasks.

    Raises:
        AcclimateError: whatever the stage raises.
    """
    task = one_task(run, config)
    negatives = task.negatives if (task.negatives / EXAMPLES_FILE).is_file() else None
    adapter, out = RunFolder(run).adapter, task.folder.reranker
    return training.train_reranker(task.dataset, negatives, adapter, base, out, task.config)


def evaluate_reranker(run: Path, name: str, config: RunConfig) -> RerankingReport:
    """Measure a reranker behind a run's retrieval; writes `RUN/reranking`.

    Args:
        run: the run's folder.
        name: a reranker: a run with one, a folder, or a hub id.
        config: the whole run; `config.task` chooses one of several tasks.

    Raises:
        AcclimateError: whatever the stage raises.
    """
    task, adapter = one_task(run, config), RunFolder(run).adapter
    return evaluation.evaluate_reranker(task.dataset, adapter, name, task.folder.reranking, task.config)
