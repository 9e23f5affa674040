"""The command `refresh`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given


def refresh(
    run: Path,
    /,
    *,
    watch: Annotated[bool, Parameter(negative=())] = False,
    after_marks: int = 500,
    after_hours: float | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Learn from RUN's feedback; what comes of it is used only if it is shown to be better.

    Args:
        run: the run's folder, with an adapter; where that changes documents, its index goes with it.
        watch: go on until ctrl-C, and refresh whenever it is due.
        after_marks: with --watch: due after so many new marks.
        after_hours: with --watch: also due after so many hours, if anything was marked.
        config: TOML file with settings; flags win over it.
        settings: of the refresh; everything else is as RUN was trained.
    """
    from acclimate.cli import feedback_tables as tables
    from acclimate.flows import feedback_verbs as verbs

    if watch:
        effective = verbs.refreshing(run, config, dict(settings))
        from acclimate.flows.watch import Due
        from acclimate.flows.watch import watch as flow

        flow(run, effective, Due(after_marks, after_hours))
    tables.show_decision(verbs.refresh(run, config=config, **settings))


COMMAND = Command(
    "refresh",
    refresh,
    example="acclimate refresh runs/farm --guard data/other",
    first=(
        "refresh_steps",
        "refresh_rate",
        "user_share",
        "later_fraction",
        "least_later",
        "least_users",
        "gate_margin",
        "guard",
        "guard_bound",
        "retain_data",
    ),
)
