"""`adapt`: the stages in a row, and the summary of the whole run."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig, dump_config, effective
from acclimate.engine.run_folder import METRICS_FILE, STAGES, open_dataset
from acclimate.engine.three_stage import (
    FINETUNE,
    PRETRAIN,
    check_three_stages,
    finetuning,
    helped,
    pretraining,
    stage_rows,
    watched,
)
from acclimate.files import REPORT_FILE, locked, read_json, write_json, write_text
from acclimate.models.sources import resolve_model
from acclimate.progress import say
from acclimate.stages.blend import blend
from acclimate.stages.evaluate import evaluate
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare
from acclimate.stages.report import report
from acclimate.stages.train import train
from acclimate.stages.weak import weak

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
        processes.on_first(lambda: write_text(run / "config.toml", dump_config(config)))
        dataset, adapter = run / "dataset", run / "adapter"
        prepared = prepare(source, dataset, config)
        stages: list[dict[str, Any]] = []
        if config.stages.recipe == "three-stage":
            mined, trained, stages = three_stages(run, config)
        else:
            mined, trained = _mine_and_train(run, adapter, config)
        evaluated = evaluate(dataset, adapter, run / "evaluation", config)
        summary = _summary(source, config, prepared, mined, trained, evaluated) | ({"stages": stages} if stages else {})
        summary["model"] = dict(read_json(adapter / "acclimate.json")["base"])
        summary["timings"]["total_s"] = round(time.monotonic() - started, 3)
        if processes.is_first():
            write_json(run / REPORT_FILE, summary)
            report(run)
    return summary


def _mine_and_train(run: Path, out: Path, config: RunConfig) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The reports of mining (None where there is nothing to mine) and of training."""
    dataset, negatives = run / "dataset", run / "negatives"
    retrieval = read_json(dataset / "dataset.json")["kind"] == "retrieval"
    wants_negatives = retrieval and config.train.group_size > 1
    mined = mine(dataset, negatives, config) if wants_negatives else None
    return mined, train(dataset, negatives if wants_negatives else None, out, config)


def three_stages(run: Path, config: RunConfig) -> tuple[dict[str, Any] | None, dict[str, Any], list[dict[str, Any]]]:
    """Train on weak pairs, go on with what that model mines, merge; what does not help on dev is dropped.

    Args:
        run: holds `dataset`; gets `stages`, `negatives` and `adapter`.
        config: the whole run.

    Returns:
        The reports of mining and of the second training, and a row per stage.
    """
    dataset = run / "dataset"
    check_three_stages(open_dataset(dataset))
    first, second = run / STAGES / PRETRAIN, run / STAGES / FINETUNE
    pairs = processes.on_first(lambda: weak(dataset, first / "pairs", config))
    pretrained = train(dataset, first / "pairs", first / "adapter", pretraining(config))
    start = first / "adapter" if helped(pretrained) else None
    say(f"stage {PRETRAIN}: " + ("better on dev than the base, kept" if start else "no better on dev, dropped"))
    mined, trained = _mine_and_train(run, second / "adapter", finetuning(config, start))
    processes.on_first(lambda: write_text(run / METRICS_FILE, (second / METRICS_FILE).read_text(encoding="utf-8")))
    adapters = {PRETRAIN: start} if start else {}
    merged = blend(dataset, {**adapters, FINETUNE: second / "adapter"}, run / "adapter", watched(config))
    timings = {"weak_pairs_s": pairs["timings"]["weak_pairs_s"], "pretrain_s": pretrained["timings"]["train_s"]}
    trained["timings"] = timings | trained["timings"] | merged["timings"]
    return mined, trained, stage_rows(pairs, pretrained, trained, merged)


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
        "domain": evaluated.get("domain", {}),
        "config": effective(config, "domain", "prepare", "mine", "train", "stages", "objective", "evaluate"),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
