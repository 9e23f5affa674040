"""The command `hypernetwork-evaluate`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def hypernetwork_evaluate(
    *hypernetworks: Path, tasks: Path, out: Path, references: bool = True, config: ConfigFile = None, settings: Given
) -> None:
    """Measure hypernetworks on held-out tasks, beside base, multi-task adapter and controls; write a page.

    Args:
        hypernetworks: their folders.
        tasks: the library's folder.
        out: the folder to write.
        references: measure what takes minutes too: own adapters, and the description put before the query.
        config: TOML file with settings; flags win over it.
        settings: of the comparison.
    """
    from acclimate.cli import instant_tables
    from acclimate.flows import instant_verbs

    found = instant_verbs.hypernetwork_evaluate(
        hypernetworks, tasks=tasks, out=out, references=references, config=config, **settings
    )
    instant_tables.show_measured(found, out)


COMMAND = Command(
    "hypernetwork-evaluate",
    hypernetwork_evaluate,
    example="acclimate hypernetwork-evaluate hyper --tasks tasks --out measured",
)
