"""The command `similarity`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acclimate.cli.options import Command, Given, Json


def similarity(run: Path, text_a: str, text_b: str, /, *, json_output: Json = False, settings: Given) -> None:
    """Cosine of two texts by base and by adapted.

    Args:
        run: the run's folder.
        text_a: one text.
        text_b: another text.
        json_output: print one JSON object and nothing else.
        settings: of the models.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    result = verbs.similarity(run, text_a, text_b, **settings)
    if json_output:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        tables.show_metrics(result)


COMMAND = Command(
    "similarity",
    similarity,
    example='acclimate similarity runs/farm "The field is too wet." "Rain has soaked the soil."',
)
