"""The command `rollback`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command


def rollback(run: Path, /) -> None:
    """Use the version of RUN's adapter before the present one again, at once.

    Args:
        run: the run's folder.
    """
    from acclimate.cli import feedback_tables as tables
    from acclimate.flows import feedback_verbs as verbs

    tables.show_rollback(verbs.rollback(run))


COMMAND = Command("rollback", rollback, example="acclimate rollback runs/farm")
