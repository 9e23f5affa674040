"""The command `generate`."""

from __future__ import annotations

from pathlib import Path

from acclimate.cli.options import Command, ConfigFile, Given


def generate(
    *,
    out: Path,
    hypernetwork: str = "default",
    describe: str | None = None,
    pairs: Path | None = None,
    sample: Path | None = None,
    corpus: Path | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Make an adapter without training, from a description, a few pairs, or sample texts.

    Args:
        out: the adapter's folder.
        hypernetwork: its folder; default is the one that comes with the package.
        describe: what shall count as relevant, in a sentence.
        pairs: file of queries, each with a relevant document; with these, what is made is checked.
        sample: file of texts of the domain.
        corpus: file of texts among which the pairs' documents have to be found, for the check.
        config: TOML file with settings; flags win over it.
        settings: of the reading, and of where the base is.
    """
    from acclimate.cli import instant_tables
    from acclimate.flows import instant_verbs

    found = instant_verbs.generate(
        out=out,
        hypernetwork=hypernetwork,
        describe=describe,
        pairs=pairs,
        sample=sample,
        corpus=corpus,
        config=config,
        **settings,
    )
    instant_tables.show_generated(found, out)


COMMAND = Command(
    "generate",
    generate,
    example='acclimate generate --describe "the same kind of question" --pairs few.jsonl --out adapter',
)
