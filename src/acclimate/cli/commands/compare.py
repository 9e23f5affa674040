"""The command `compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acclimate.cli.options import Command, Given, Json


def compare(*runs: Path, json_output: Json = False, settings: Given) -> None:
    """Finished runs on the test queries that they share, each against the first.

    Args:
        runs: two or more folders of runs that were evaluated.
        json_output: print one JSON object and nothing else.
        settings: of the comparison.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.compare(runs, **settings)
    if json_output:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        tables.show_comparison(result)


COMMAND = Command("compare", compare, example="acclimate compare runs/rank-8 runs/rank-16 runs/rank-32")
