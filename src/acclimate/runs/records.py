"""What a run keeps about itself beside its artifacts: its settings, which each stage updates, and who made what.

And how the run's own files prove to be ours, so that no file of the user's is overwritten (`ownership.py`).
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from acclimate.configs import SETTINGS_MARK, RunConfig, config_from_mapping, dump_config, load_config
from acclimate.errors import AcclimateError
from acclimate.files import iter_jsonl, write_text
from acclimate.ownership import FORMAT, Objection, check_replaceable, json_object, marker
from acclimate.runs.run_folder import RunFolder

REPORT_FORMAT = {"format": FORMAT, "version": 1}
"""What marks a run's `report.json` as ours."""
PAGE_MARK = '<meta name="generator" content="acclimate, report format 1">'
"""What marks a page as ours; `report/head.html` writes it."""
OLDER_PAGE_MARK = '<p class="eyebrow">Acclimate'
OLDER_SECTIONS = {"seed", "prepare", "mine", "train", "objective", "evaluate"}
"""What a release before wrote into every `config.toml`, besides others."""
STEP_NUMBERS = {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_s"}
"""What `training/fit.py` logs of every step."""


class Made(TypedDict):
    """Who made a part of a run."""

    command: str
    time: str
    """UTC."""


def made(run: RunFolder) -> dict[str, Made]:
    """Who made each part of a run that says so, by the name of its folder, in the order of the stages."""
    parts = [
        run.made_pairs,
        run.dataset,
        run.negatives,
        run.adapter,
        run.evaluation,
        run.reranker,
        run.reranking,
        run.index_evaluation,
        run.vectors,
        run.tuned,
        run.images,
        run.image_negatives,
        run.projection,
        run.image_evaluation,
    ]
    found = {part.name: marker(part) or {} for part in parts}
    return {name: {"command": it["command"], "time": it["time"]} for name, it in found.items() if it.get("command")}


def remembered(run: RunFolder, config: RunConfig) -> RunConfig:
    """What the run's `config.toml` shall say after a stage with this config.

    The choice of a task is not kept, nor that of an export, which only runs in the place of the run's own model.
    """
    several, exported = len(config.datasets) > 1, False
    if config.model is not None:
        from acclimate.runs.resolve import exported_folder  # torch takes seconds, and most runs name no model

        exported = exported_folder(config.model) is not None
    if not (several or exported):
        return config
    before = load_config(run.config) if run.config.exists() else RunConfig()
    config = replace(config, model=before.model) if exported else config
    return replace(config, task=before.task) if several else config


def check_settings_file(run: RunFolder, config: RunConfig) -> None:
    """Make sure that `config.toml` may be brought up to date.

    Raises:
        UsageError: it is the user's own, and says something else.
    """
    if not _says(run.config, config):
        check_replaceable(run.config, not_settings)


def write_settings(run: RunFolder, config: RunConfig) -> None:
    """Bring `config.toml` up to date; comments and order are kept where the user has edited it.

    Raises:
        UsageError: it is the user's own, and says something else.
        StorageError: it cannot be written.
    """
    if _says(run.config, config):
        return
    check_replaceable(run.config, not_settings)
    new = dump_config(config)
    before = run.config.read_text(encoding="utf-8") if run.config.exists() else ""
    if before and before != dump_config(load_config(run.config)):
        new = _edited(before, tomllib.loads(new))
    write_text(run.config, new)


def not_settings(path: Path) -> str:
    """The objection to replacing a `config.toml`: it lacks our first line, and is not what a release before wrote."""
    try:
        text = path.read_text(encoding="utf-8")
        if SETTINGS_MARK in text.splitlines():
            return ""
        values = tomllib.loads(text)
        ours = set(dump_config(config_from_mapping(values, str(path))).splitlines())
        if set(values) >= OLDER_SECTIONS and set(text.splitlines()) <= ours:
            return ""  # nothing would be lost that is not said elsewhere
    except (OSError, ValueError, AcclimateError):
        pass
    return f"{path} was not written by acclimate"


def not_summary(path: Path) -> str:
    """The objection to replacing a `report.json`."""
    found = json_object(path) or {}
    versions = found.get("versions")  # a release before wrote no format, and its own version among others
    ours = found.items() >= REPORT_FORMAT.items() or (isinstance(versions, dict) and FORMAT in versions)
    return "" if ours else f"{path} was not written by acclimate"


def not_page(path: Path) -> str:
    """The objection to replacing a `report.html`."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return "" if PAGE_MARK in text or OLDER_PAGE_MARK in text else f"{path} was not written by acclimate"


def not_metrics(path: Path) -> str:
    """The objection to replacing a `metrics.jsonl`: its first row is no step of a training of ours."""
    if path.is_file():
        row = next((line.value for line in iter_jsonl(path)), None) or {}
        if set(row) >= STEP_NUMBERS or set(row) == {"step", "dev"}:
            return ""
    return f"{path} was not written by acclimate"


def files_of(run: RunFolder) -> dict[Path, Objection]:
    """The files that stages write into a run's own folder, besides its settings, and how each proves to be ours."""
    return {run.report: not_summary, run.page: not_page, run.metrics: not_metrics, run.projection_metrics: not_metrics}


def _says(path: Path, config: RunConfig) -> bool:
    """Whether a file holds just these settings."""
    try:
        return path.is_file() and load_config(path) == config
    except AcclimateError:
        return False


def _edited(text: str, values: dict[str, Any]) -> str:
    """The file with other values, as its user has laid it out."""
    import tomlkit  # only where a user has edited the file

    document = tomlkit.parse(text)

    def update(table: Any, wanted: dict[str, Any]) -> None:
        for name, value in wanted.items():
            if isinstance(value, dict) and name in table:
                update(table[name], value)
            elif name not in table or table[name] != value:
                table[name] = value
        for name in set(table) - set(wanted):
            del table[name]

    update(document, values)
    return tomlkit.dumps(document)
