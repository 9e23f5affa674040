"""The command `versions`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command
from acclimate.errors import UsageError


def versions(run: Path, /, *, promote: str | None = None, rollback: bool = False) -> None:
    """List the versions of RUN's adapter; switch to another one, or back, in one step.

    Args:
        run: the run's folder.
        promote: let RUN/adapter lead to this version (the beginning of its name is enough); trainings leave it there.
        rollback: let RUN/adapter lead to the version before the present one again.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    if promote is not None and rollback:
        raise UsageError("--promote and --rollback exclude each other", fix="Give one of them.")
    tables.show_versions(verbs.versions(run, promote=promote, rollback=rollback))


COMMAND = Command("versions", versions, example="acclimate versions runs/farm --promote 3f9a")
