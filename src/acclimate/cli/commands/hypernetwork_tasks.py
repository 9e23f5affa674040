"""The command `hypernetwork-tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given


def hypernetwork_tasks(
    *sources: str,
    out: Path,
    held_out: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = (),
    far: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = ("ending",),
    domains: int = 4,
    group_column: str | None = None,
    languages: Annotated[tuple[str, ...], Parameter(negative_iterable=())] = ("en",),
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Make a library of tasks for a hypernetwork: many definitions of relevance over the texts of your corpora.

    Args:
        sources: files or folders of queries with the documents that answer them.
        out: the library's folder.
        held_out: a source that is never trained on; may be given several times.
        far: an attribute that is never trained on; may be given several times.
        domains: number of themes of each source that become a task of their own.
        group_column: a column that says where a text comes from (its module, its category): one attribute more.
        languages: a language of the descriptions, en or zh; may be given several times, and tests ask in the first.
        config: TOML file with settings; flags win over it.
        settings: of the reading.
    """
    from acclimate.cli import instant_tables
    from acclimate.flows import instant_verbs

    found = instant_verbs.hypernetwork_tasks(
        sources,
        out=out,
        held_out=held_out,
        far=far,
        domains=domains,
        group_column=group_column,
        languages=languages,
        config=config,
        **settings,
    )
    instant_tables.show_tasks(found, out)


COMMAND = Command(
    "hypernetwork-tasks",
    hypernetwork_tasks,
    example="acclimate hypernetwork-tasks bank.jsonl shell.jsonl --out tasks --limit 2000",
)
