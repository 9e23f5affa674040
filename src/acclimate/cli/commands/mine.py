"""The command `mine`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def mine(run: Path, /, *, config: ConfigFile = None, settings: Given) -> None:
    """Find hard negatives in the corpus of RUN; write them to RUN/negatives.

    Args:
        run: the run's folder.
        config: TOML file with settings; flags win over it.
        settings: of the mining.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.mine(run, config=config, **settings)
    for folder, report in tables.by_task(result, run):
        tables.show_mining(report, folder.negatives)


COMMAND = Command(
    "mine",
    mine,
    example="acclimate mine runs/farm --num-negatives 2 --spread-margin 0.5",
    first=(
        "model",
        "teacher",
        "reranker",
        "num_negatives",
        "range_min",
        "range_max",
        "spread_margin",
        "relative_margin",
        "sampling",
        "output",
    ),
)
