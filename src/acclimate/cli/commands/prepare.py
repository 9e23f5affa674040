"""The command `prepare`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def prepare(data: str | None = None, /, *, out: Path, config: ConfigFile = None, settings: Given) -> None:
    """Read domain data in any common form; write a clean, leak-free dataset to OUT/dataset.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; left out where --config has tables [[datasets]].
        out: the run's folder.
        config: TOML file with settings; flags win over it.
        settings: of the data.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.prepare(data, out=out, config=config, **settings)
    for folder, report in tables.by_task(result, out):
        tables.show_dataset(report, folder.dataset)


COMMAND = Command(
    "prepare",
    prepare,
    example="acclimate prepare pairs.jsonl --out runs/farm --corpus documents.jsonl",
    first=(
        "anchor_column",
        "positive_column",
        "label_column",
        "columns",
        "corpus",
        "split_by",
        "test_fraction",
        "dev_fraction",
        "limit",
        "seed",
    ),
)
