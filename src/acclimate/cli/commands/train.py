"""The command `train`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.runs.run_folder import RunFolder


def train(run: Path, /, *, config: ConfigFile = None, settings: Given) -> None:
    """Train an adapter on RUN's dataset and negatives; write it to RUN/adapter.

    Args:
        run: the run's folder.
        config: TOML file with settings; flags win over it.
        settings: of the training.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.train(run, config=config, **settings)
    tables.show_training(result, RunFolder(run).adapter)


COMMAND = Command(
    "train",
    train,
    example="acclimate train runs/farm --rank 8 --epochs 1",
    first=(
        "model",
        "sides",
        "full",
        "rank",
        "epochs",
        "batch_size",
        "learning_rate",
        "loss",
        "temperature",
        "device",
    ),
)
