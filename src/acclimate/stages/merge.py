"""`merge`: an adapter and its base become one portable sentence-transformers folder."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, effective
from acclimate.errors import UsageError
from acclimate.files import REPORT_FILE, artifact, hash_folder, is_current, read_json, write_json, write_text
from acclimate.models.adapter_files import adapter_folder, full_folder, load_adapter, read_facts
from acclimate.models.full_model import save_merged
from acclimate.models.sources import resolve_model
from acclimate.progress import say
from acclimate.report import model_card

_NOT_THE_MODEL = shutil.ignore_patterns("settings.json", "inputs.json", REPORT_FILE)
"""Files of the stage that wrote a folder; the artifact made from it gets its own."""


def merge(run_or_adapter: Path, out: Path, config: RunConfig) -> dict[str, Any]:
    """Write the merged, self-contained model: float32 from the unquantised base, with a model card.

    Args:
        run_or_adapter: `RUN`, or an adapter folder; a run trained with `--full` holds such a folder already, which is
            copied.
        out: the new folder.
        config: `model` names the base where the adapter's own id does not lead to it.

    Raises:
        UsageError: there is nothing to merge, or `out` lies inside what is merged.
        ModelError: the base is another one, or cannot be found.
    """
    folder = _trained(run_or_adapter)
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise UsageError(f"--out {out} lies inside {folder}", fix="Choose another --out.")
    settings, inputs = effective(config), {"adapter": hash_folder(folder)}
    if is_current(out, settings, inputs):
        say(f"merge: {out} is up to date")
        return read_json(out / REPORT_FILE)
    started = time.monotonic()
    with artifact(out, settings, inputs) as fresh:
        facts = _write(folder, fresh, config)
        summary = _summary(run_or_adapter)
        write_text(fresh / "README.md", model_card.render(facts, summary))
        report = {**facts, "timings": {"merge_s": round(time.monotonic() - started, 2)}}
        write_json(fresh / REPORT_FILE, report)
    return report


def _write(folder: Path, fresh: Path, config: RunConfig) -> dict[str, Any]:
    """Fill the new folder; returns what the report and the card say about the model."""
    if adapter_folder(folder) is None:
        shutil.copytree(folder, fresh, ignore=_NOT_THE_MODEL, dirs_exist_ok=True)
        facts = read_facts(folder)
        return {"base": facts["base"], "kind": "full", "sides": facts["sides"], "dim": facts["dim"]}
    # An id of a local base leads nowhere by itself: the folder that the config names comes first.
    base = config.model if Path(config.model).is_dir() else None
    adapter = load_adapter(folder, base)
    source = resolve_model(base or adapter.base_id, pooling=adapter.pooling)
    adapter.check_base(source)
    save_merged(fresh, adapter, source)
    return {
        "base": {"id": source.id, "sha256": source.sha256},
        "kind": "merged",
        "sides": adapter.sides,
        "dim": adapter.dim,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
    }


def _trained(run_or_adapter: Path) -> Path:
    folder = adapter_folder(run_or_adapter) or full_folder(run_or_adapter)
    if folder is None:
        raise UsageError(
            f"{run_or_adapter} holds no adapter",
            possible="a run that was trained, or an adapter folder",
            fix="Make one with: acclimate adapt DATA --out RUN",
        )
    return folder


def _summary(run_or_adapter: Path) -> Mapping[str, Any]:
    """The run's report, where there is one: the adapter's folder lies in its run."""
    for folder in (run_or_adapter, run_or_adapter.parent):
        path = folder / REPORT_FILE
        if path.is_file() and "test" in (report := read_json(path)):
            return report
    return {}
