"""The command `route`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given, Json


def route(*runs: Path, config: ConfigFile = None, json_output: Json = False, settings: Given) -> None:
    """What routing queries between the adapters of several runs gains, over one corpus of all their data.

    Args:
        runs: two or more runs, each with its data and an adapter over the same base.
        config: TOML file with settings; flags win over it.
        json_output: print one JSON object and nothing else.
        settings: of the comparison.
    """
    from acclimate.cli import routing_tables
    from acclimate.flows import index_verbs as verbs

    result = verbs.route(runs, config=config, **settings)
    if json_output:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    else:
        routing_tables.show_routing(result)


COMMAND = Command("route", route, example="acclimate route runs/farm runs/bank --data other/beir --spanning 200")
