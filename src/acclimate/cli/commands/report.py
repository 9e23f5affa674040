"""The command `report`."""

from __future__ import annotations

import sys
from pathlib import Path

from acclimate.cli.options import Command


def report(run: Path, /) -> None:
    """Write RUN/report.html from what the stages left in RUN.

    Args:
        run: the run's folder.
    """
    from acclimate.stages.report import report as stage

    sys.stdout.write(f"{stage(run)}\n")


COMMAND = Command("report", report, example="acclimate report runs/farm")
