"""The command `doctor`."""

from __future__ import annotations

import json
import sys

from acclimate.cli.options import Command, Json


def doctor(*, json_output: Json = False) -> None:
    """What this machine and this installation can do, and what is missing.

    Args:
        json_output: print one JSON object and nothing else.
    """
    from acclimate.cli import tables
    from acclimate.stages.doctor import doctor as stage

    result = stage()
    if json_output:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        tables.show_doctor(result)


COMMAND = Command("doctor", doctor, example="acclimate doctor --json")
