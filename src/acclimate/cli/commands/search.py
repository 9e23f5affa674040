"""The command `search`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, Given


def search(run: Path, query: str, /, *, top: int = 5, settings: Given) -> None:
    """Top documents of RUN's corpus by base and adapted, side by side.

    Args:
        run: the run's folder.
        query: what to search for.
        top: how many documents to show.
        settings: of the models.
    """
    from acclimate.cli import tables
    from acclimate.flows import verbs

    tables.show_search(verbs.search(run, query, top=top, **settings))


COMMAND = Command("search", search, example='acclimate search runs/farm "when do I sow winter wheat" --top 3')
