"""The command `evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given, Json
from acclimate.errors import UsageError


def evaluate(
    data: str,
    /,
    *,
    adapter: Path | None = None,
    index: Annotated[bool, Parameter(negative=())] = False,
    json_output: Json = False,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Base against adapted on the test split of a run, or one model on any data.

    Args:
        data: a run's folder (base against adapted), or any data (one model on its test split).
        adapter: adapter or run folder to put on the model.
        index: measure dense, lexical and hybrid search through the run's index instead.
        json_output: print the metrics of one model as one JSON object and nothing else.
        config: TOML file with settings; flags win over it.
        settings: of the evaluation.
    """
    from acclimate.cli import index_tables, tables
    from acclimate.flows import index_verbs, verbs

    if index:
        if adapter is not None:
            raise UsageError("--index and --adapter exclude each other", fix="The run's own adapter is measured.")
        report = index_verbs.evaluate_index(data, config=config, **settings)
        if json_output:
            sys.stdout.write(json.dumps(report) + "\n")
        else:
            index_tables.show_index_evaluation(report)
        return
    result = verbs.evaluate(data, adapter=adapter, config=config, **settings)
    if json_output:
        reports = result.get("tasks")
        own = result["test"]["adapted"] if "test" in result else dict(result)
        metrics = {name: report["test"]["adapted"] for name, report in reports.items()} if reports else own
        sys.stdout.write(json.dumps(metrics) + "\n")
    elif "test" in result or "tasks" in result:
        tables.show_evaluations(result.get("tasks") or {None: result})
    else:
        tables.show_metrics(result)


COMMAND = Command(
    "evaluate",
    evaluate,
    example="acclimate evaluate runs/farm --guard data/scifact",
    first=(
        "model",
        "guard",
        "guard_bound",
        "lexicon",
        "background",
        "topics",
        "sign_flips",
        "confidence",
        "limit",
        "task",
    ),
)
