"""The command `evaluate-reranker`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given, Json


def evaluate_reranker(
    run: Path,
    /,
    name: Annotated[str, Parameter(name="--reranker")],
    *,
    json_output: Json = False,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """The first documents of RUN's retrieval before and after a reranker, on the test split.

    Args:
        run: the run's folder.
        name: a run with a reranker, a model's folder, or a hub id.
        json_output: print the metrics of the reranked order as one JSON object and nothing else.
        config: TOML file with settings; flags win over it.
        settings: of the reranking, and of the model that retrieves.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.evaluate_reranker(run, name, config=config, **settings)
    if json_output:
        sys.stdout.write(json.dumps(result["reranked"]) + "\n")
    else:
        tables.show_reranking(result)


COMMAND = Command(
    "evaluate-reranker",
    evaluate_reranker,
    example="acclimate evaluate-reranker runs/farm runs/farm --rerank-depth 50",
    first=(
        "rerank_depth",
        "retriever",
        "rerank_instruction",
        "pair_tokens",
        "sign_flips",
        "confidence",
        "model",
        "task",
        "device",
        "dtype",
    ),
)
