"""`export` as a Python function: `from acclimate import export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acclimate.configs import check_settings
from acclimate.flows.settings import Config, measuring
from acclimate.report.result import Result


def export(
    run: str | Path,
    *,
    out: str | Path,
    data: str | Path | None = None,
    force: bool = False,
    push: str | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Write a trained model for other engines, compared with the model itself; INT8 behind a gate on held-out queries.

    Args:
        run: a run, an adapter folder, or a fully trained or merged model.
        out: the folder to write.
        data: run or dataset whose texts are compared and whose splits the gate uses; the run's own if not given.
        force: write an INT8 model that does not pass the gate too, marked as such.
        push: the hub id under which the folder is uploaded then.
        config: see `Config`.
        settings: such as `format="onnx", int8=True`.

    Returns:
        what `out/report.json` holds: "parity", "size", for INT8 "gate", and more.
    """
    effective = measuring("export", settings, config, Path(run))
    if not effective.export.int8:
        check_settings("export in float32", settings)
    from acclimate.stages.export import export as stage

    report = stage(Path(run), Path(out), effective, data=None if data is None else Path(data), force=force)
    if push is not None:
        from acclimate.formats.hub_upload import upload

        upload(Path(out), push)
    return Result(report, Path(out))
