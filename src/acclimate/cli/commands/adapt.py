"""The command `adapt`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def adapt(
    data: str | None = None,
    /,
    *,
    out: Path,
    config: ConfigFile = None,
    dry_run: bool = False,
    final: Path | None = None,
    settings: Given,
) -> None:
    """Everything in a row: prepare, mine, train, evaluate, report.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; left out where --config has tables [[datasets]].
            Images, with --image-model: a folder per class, or a table with a column image.
        out: the run's folder; a second start keeps what is still right and goes on.
        config: TOML file with settings; flags win over it.
        dry_run: only say how much there is to do: pairs, tokens, steps, minutes, memory.
        final: a finished run: train with its proven settings on all data, none of it held apart. The model has no proof
            of its own, and links to that run's.
        settings: of all stages.
    """
    from acclimate.cli import image_tables, tables
    from acclimate.flows import verbs

    result = verbs.adapt(data, out=out, config=config, dry_run=dry_run, final=final, **settings)
    if dry_run:
        tables.show_plan(result)
    elif "images" in result and "test" not in result:
        image_tables.show_images(result, out)
    else:
        tables.show_run(result, out)


COMMAND = Command(
    "adapt",
    adapt,
    example="acclimate adapt pairs.jsonl --out runs/farm",
    first=(
        "model",
        "instruction",
        "limit",
        "test_fraction",
        "num_negatives",
        "rank",
        "epochs",
        "sides",
        "learning_rate",
        "guard",
    ),
)
