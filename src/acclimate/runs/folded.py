"""One model as a self-contained folder: an adapter folded into its base, a whole model copied, a public one written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.errors import UsageError
from acclimate.files import CONFIG_FILE, INPUTS_FILE, REPORT_FILE
from acclimate.formats.facts import read_facts
from acclimate.formats.full_model import save_folded
from acclimate.formats.trained_on import read_trained_on, write_trained_on
from acclimate.models.adapter import load_adapter
from acclimate.ownership import MARKER_FILE
from acclimate.runs.resolve import adapter_folder, find_base, full_folder, refuse_map

_NOT_THE_MODEL = shutil.ignore_patterns(CONFIG_FILE, INPUTS_FILE, REPORT_FILE, MARKER_FILE)
"""Files of the stage that wrote a folder; the artifact made from it gets its own."""


def adapted_folder(run_or_adapter: Path) -> Path:
    """Return the folder of a run's adapter or fully trained model, or the named one.

    Raises:
        UsageError: there is none.
        ModelError: it is a map on query vectors.
    """
    refuse_map(run_or_adapter, "merged, folded or exported")
    folder = adapter_folder(run_or_adapter) or full_folder(run_or_adapter)
    if folder is None:
        raise UsageError(
            f"{run_or_adapter} holds no adapter",
            possible="a run that was trained, or an adapter folder",
            fix="Make one with: acclimate adapt DATA --out RUN",
        )
    return folder


def write_folded(folder: Path, fresh: Path, config: RunConfig) -> dict[str, Any]:
    """Fill a new folder with a self-contained model in float32; a fully trained model is one already, and is copied.

    Args:
        folder: of an adapter or of a fully trained or merged model.
        fresh: exists; an artifact in the making.
        config: `model` says where the base is, if the folder's own record does not lead to it.

    Returns:
        what a report and a model card say of it: base, kind, sides, dim; of an adapter its rank and alpha.

    Raises:
        ModelError: the base is another one, cannot be found, or the adapter does not fit it.
    """
    if adapter_folder(folder) is None:
        shutil.copytree(folder, fresh, ignore=_NOT_THE_MODEL, dirs_exist_ok=True)
        write_trained_on(fresh, read_trained_on(folder))
        facts = read_facts(folder)
        return {"base": facts["base"], "kind": "full", "sides": facts["sides"], "dim": facts["use"].dim}
    adapter = load_adapter(folder, config.model)
    source = find_base(folder, adapter.base_id, adapter.base_sha256, config.model, adapter.use.pooling)
    save_folded(fresh, source, adapter.use, adapter.sides, modules=adapter.modules)
    write_trained_on(fresh, read_trained_on(folder))
    return {
        "base": source.identity,
        "kind": "merged",
        "sides": adapter.sides,
        "dim": adapter.use.dim,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
    }
