"""The command `train-reranker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.runs.run_folder import RunFolder


def train_reranker(
    run: Path,
    /,
    base: Annotated[str, Parameter(name="--reranker")],
    *,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Train a reranker on RUN's dataset and negatives; write it to RUN/reranker.

    Args:
        run: the run's folder.
        base: a cross-encoder, Qwen3-Reranker, or an embedding model of the BERT family, which gets a new head.
        config: TOML file with settings; flags win over it.
        settings: of the training, and of the model that retrieves the documents of dev.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.train_reranker(run, base, config=config, **settings)
    tables.show_training(result, RunFolder(run).reranker)


COMMAND = Command(
    "train-reranker",
    train_reranker,
    example="acclimate train-reranker runs/farm Qwen/Qwen3-Reranker-0.6B --epochs 1",
    first=(
        "rerank_epochs",
        "rerank_batch_size",
        "rerank_learning_rate",
        "rerank_group_size",
        "rerank_loss",
        "rerank_full",
        "rerank_instruction",
        "pair_tokens",
        "rank",
        "retriever",
    ),
)
