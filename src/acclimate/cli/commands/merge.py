"""The command `merge`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def merge(
    *models: str,
    out: Path,
    data: Path | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Fold the adapter of a run into its base, or make one of several adapters or models.

    Args:
        models: runs, adapter folders, or whole models. One of them alone becomes a self-contained model.
        out: the folder to write.
        data: run or dataset whose dev split decides where something is chosen; the first model's run if not given.
        config: TOML file with settings; flags win over it.
        settings: of the merging.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    tables.show_merge(verbs.merge(models, out=out, data=data, config=config, **settings), out)


COMMAND = Command(
    "merge",
    merge,
    example="acclimate merge runs/farm runs/bank --out merged --method ties",
    first=(
        "method",
        "weights",
        "merged_rank",
        "density",
        "update_scale",
        "folded",
        "curve",
        "guard",
        "guard_bound",
        "model",
    ),
)
