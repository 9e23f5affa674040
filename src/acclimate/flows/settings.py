"""The settings that a verb works with: the defaults, a file, what is given by keyword, and what an adapter says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.configs import (
    PROMPT_OR_INSTRUCTION,
    RunConfig,
    check_format,
    check_settings,
    checked_settings,
    full_names,
    load_config,
    with_current_names,
    with_overrides,
)
from acclimate.errors import UsageError
from acclimate.runs.run_folder import RunFolder

Config: TypeAlias = RunConfig | str | Path | None
"""Settings of the whole run; or a TOML file, where what it does not say is as the run's own `config.toml` says, which
holds what earlier stages were told, or else as the defaults."""

TERMS = (("lexicon", "background"), ("background", "lexicon"))
"""Where the domain's terms come from: given, or extracted from the difference to other texts."""


def configured(command: str, settings: Mapping[str, Any], config: Config = None, run: Path | None = None) -> RunConfig:
    """The effective config: the defaults, then the run's own `config.toml`, then `config`, then the settings.

    Args:
        command: its name, which says what it reads.
        settings: by name; they win.
        config: see `Config`.
        run: whose `config.toml` counts: what its earlier stages were told is remembered there (of a fold, its run's).

    Raises:
        UsageError: a setting that the command does not read, or that cannot be.
        DataError: the file cannot be read.
    """
    settings = with_current_names(full_names(command, settings))
    check_settings(command, settings)
    own = None if run is None else RunFolder(run).remembered()
    base = RunConfig()
    if isinstance(config, RunConfig):
        base, own = config, None
    elif config is not None:
        base = load_config(Path(config), over=own)
    elif own is not None:
        base = load_config(own)
    settings = checked_settings(settings, command)
    if "loss" in settings and settings["loss"] != base.objective.loss:  # what belongs to another loss is forgotten
        settings = {**base.objective.refused_by(settings["loss"]), **settings}
    for given, other in (*PROMPT_OR_INSTRUCTION, *TERMS):
        if settings.get(given) is not None:  # it takes the place of the other one, unless both are given
            settings = {other: None, **settings}
    try:
        effective = with_overrides(base, settings)
        check_format(command, effective)
    except UsageError as error:
        if own is None or not settings:
            raise
        remembered = f"What is not given here is as earlier stages were told: {own} remembers it"
        raise UsageError(error.found, possible=error.possible, fix=f"{error.fix} {remembered}".strip()) from None
    return effective


def measuring(
    command: str, settings: Mapping[str, Any], config: Config, run: Path, adapter: str | Path | None = None
) -> RunConfig:
    """As `configured`, for a command that puts an adapter (the run's, or another) on a model: which one, it says.

    A run's `config.toml` may name another: that of a stage which was told of another, or a folder that has moved.
    """
    effective = configured(command, settings, config, run)
    if "model" in settings or config is not None:
        return effective
    from acclimate.runs.resolve import with_base_of

    return with_base_of(run if adapter is None else adapter, effective)
