"""`export`, `vectors` and `tune` as Python functions: `from acclimate import export`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, check_settings, with_overrides
from acclimate.errors import DataError, MissingExtraError, ModelError
from acclimate.flows.settings import Config, configured, measuring
from acclimate.flows.verbs import at_work_in
from acclimate.ownership import called
from acclimate.progress import say
from acclimate.report.result import Result
from acclimate.runs.run_folder import RunFolder


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
        run: a run, an adapter folder, or a fully trained or merged model; or the folder of a reranker (`RUN/reranker`).
        out: the folder to write.
        data: run or dataset whose texts are compared and whose splits the gate uses; the run's own if not given.
        force: write an INT8 model that does not pass the gate too, marked as such.
        push: the hub id under which the folder is uploaded then.
        config: see `Config`.
        settings: such as `format="onnx", int8=True`.

    Returns:
        what `out/report.json` holds: "parity", "size", for INT8 "gate", and more; of a reranker "kind" is "reranker".
    """
    from acclimate.formats.reranker_folder import is_reranker_folder
    from acclimate.stages.export import export as embedder
    from acclimate.stages.export_reranker import export_reranker

    reranks = is_reranker_folder(Path(run))
    around = RunFolder.around(Path(run)).path if reranks else Path(run)
    effective = (configured if reranks else measuring)("export", settings, config, around)
    if not effective.export.int8:
        check_settings("export in float32", settings)
    elif not reranks:
        check_settings("export of an embedding model", settings)
    stage: Callable[..., Any] = export_reranker if reranks else embedder
    report = stage(Path(run), Path(out), effective, data=None if data is None else Path(data), force=force)
    if push is not None:
        from acclimate.formats.hub_upload import upload

        upload(Path(out), push)
    return Result(report, Path(out))


def vectors(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Measure the forms in which a run's vectors can be stored on its test split; write them to `run/vectors`.

    Args:
        run: the run's folder.
        config: see `Config`.
        settings: such as `cut_dims=(128, 64)`.

    Returns:
        "rows": of each form its bytes, recall@10 and NDCG@10 against float32, and milliseconds per query.
    """
    folder = Path(run)
    effective = measuring("vectors", settings, config, folder)
    from acclimate.stages.vectors import vectors as stage

    with at_work_in(folder, effective, called("vectors", run, config=config, **settings)):
        return Result(stage(folder, effective), RunFolder(folder).vectors)


def tune(run: str | Path, *, config: Config = None, **settings: Any) -> Result:
    """Measure the backends of this machine with a run's model and texts; `serve` takes the fastest that holds the gate.

    Exports are written to `run/exports`, the choice to `run/tuned`.

    Args:
        run: the run's folder.
        config: see `Config`.
        settings: such as `tune_for="bulk"`.

    Returns:
        "measured" (of each backend and number of threads its texts per second), "skipped", "chosen".
    """
    folder = Path(run)
    effective = measuring("tune", settings, config, folder)
    from acclimate.stages.tune import tune as stage

    with at_work_in(folder, effective, called("tune", run, config=config, **settings)):
        exports, skipped = _exports(folder, effective)
        return Result(stage(folder, exports, skipped, effective), RunFolder(folder).tuned)


TUNED: dict[str, dict[str, Any]] = {
    "onnx float32": {"format": "onnx"},
    "onnx int8": {"format": "onnx", "int8": True},
    "openvino float32": {"format": "openvino"},
    "openvino int8": {"format": "openvino", "int8": True},
}
"""Exports that `tune` measures, and their settings."""


def _exports(run: Path, config: RunConfig) -> tuple[dict[str, Path], dict[str, str]]:
    """Write the exports that can be; of the others, why not."""
    from acclimate.formats.facts import read_facts
    from acclimate.runs.folded import adapted_folder
    from acclimate.stages.export import export as stage

    exports: dict[str, Path] = {}
    if read_facts(adapted_folder(run))["sides"] == "query":
        return {}, dict.fromkeys(TUNED, "queries have a model of their own, and serve runs an export of one model")
    skipped: dict[str, str] = {}
    for name, settings in TUNED.items():
        out = RunFolder(run).exports / name.replace(" ", "-")
        asked = replace(config, export=replace(config.export, int8=False, float16=False))
        try:
            stage(run, out, with_overrides(asked, settings))
        except (MissingExtraError, ModelError, DataError) as error:
            skipped[name] = str(error)
            say(f"tune: {name} is left out: {error}")
        else:
            exports[name] = out
    return exports, skipped
