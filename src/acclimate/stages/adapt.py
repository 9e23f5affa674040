"""`adapt`: the stages in a row, and the summary of the whole run."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, dump_config, effective
from acclimate.files import REPORT_FILE, locked, read_json, write_json, write_text
from acclimate.models.sources import resolve_model
from acclimate.stages.evaluate import evaluate
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare
from acclimate.stages.report import report
from acclimate.stages.train import train

LIBRARIES = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "acclimate")


def adapt(source: str, run: Path, config: RunConfig) -> dict[str, Any]:
    """Prepare, mine, train, evaluate and report; stages whose config and inputs are unchanged are kept.

    Args:
        source: a file of pairs, a BEIR folder, or a hub id.
        run: the folder of the run; made if it is not there.
        config: every setting of every stage.

    Returns:
        what `run/report.json` holds.

    Raises:
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    started = time.monotonic()
    resolve_model(config.model, pooling=config.pooling)  # a model that cannot be used is refused before any work
    with locked(run):
        write_text(run / "config.toml", dump_config(config))
        dataset, negatives, adapter = run / "dataset", run / "negatives", run / "adapter"
        prepared = prepare(source, dataset, config)
        retrieval = read_json(dataset / "dataset.json")["kind"] == "retrieval"
        wants_negatives = retrieval and config.train.group_size > 1
        mined = mine(dataset, negatives, config) if wants_negatives else None
        trained = train(dataset, negatives if wants_negatives else None, adapter, config)
        evaluated = evaluate(dataset, adapter, run / "evaluation", config)
        summary = _summary(source, config, prepared, mined, trained, evaluated)
        summary["model"] = dict(read_json(adapter / "acclimate.json")["base"])
        summary["timings"]["total_s"] = round(time.monotonic() - started, 3)
        write_json(run / REPORT_FILE, summary)
        report(run)
    return summary


def _summary(
    source: str,
    config: RunConfig,
    prepared: dict[str, Any],
    mined: dict[str, Any] | None,
    trained: dict[str, Any],
    evaluated: dict[str, Any],
) -> dict[str, Any]:
    parts = [prepared, mined or {}, trained, evaluated]
    timings = {name: value for part in parts for name, value in part.get("timings", {}).items()}
    if mined is None:
        timings["mine_s"] = 0.0
    return {
        "source": source,
        "command": shlex.join(["acclimate", *sys.argv[1:]]),
        "kind": evaluated["kind"],
        "test": evaluated["test"],
        "verdict": evaluated["verdict"],
        "recommend": evaluated["recommend"],
        "sides": evaluated["sides"],
        "confidence": evaluated["confidence"],
        "timings": timings,
        "train": trained["train"],
        "dataset": {name: value for name, value in prepared.items() if name != "timings"},
        "mining": {name: value for name, value in (mined or {}).items() if name != "timings"},
        "guard": evaluated.get("guard", []),
        "config": effective(config, "prepare", "mine", "train", "objective", "evaluate"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
