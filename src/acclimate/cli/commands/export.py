"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given

Switch = Annotated[bool, Parameter(negative=())]


def export(
    run: Path,
    /,
    *,
    out: Path,
    data: Path | None = None,
    force: Switch = False,
    push: str | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Write RUN's model for other engines; its vectors are compared before it is shipped, and INT8 passes a gate.

    Args:
        run: a run, an adapter folder, a fully trained or merged model, or a reranker's folder (RUN/reranker).
        out: the folder to write.
        data: run or dataset whose texts are compared and whose splits the gate uses; the run's own if not given.
        force: write an INT8 model that does not pass the gate too, marked as such.
        push: the hub id under which the folder is uploaded then.
        config: TOML file with settings; flags win over it.
        settings: of the export.
    """
    from acclimate.cli import engine_tables
    from acclimate.flows.export import export as verb

    engine_tables.show_export(verb(run, out=out, data=data, force=force, push=push, config=config, **settings), out)


COMMAND = Command("export", export, example="acclimate export runs/farm --format onnx --int8 --out farm-int8")
