"""The command `feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given


def feedback(
    run: Path,
    /,
    *,
    bring: Annotated[Path | None, Parameter(name="--import")] = None,
    export: Path | None = None,
    info: Annotated[bool, Parameter(negative=())] = False,
    user: str | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """What RUN's searchers were shown and what they marked: described, read in, or written out.

    Args:
        run: the run's folder.
        bring: JSONL of impressions and marks, or TREC qrels, to read in.
        export: write everything to a .jsonl file, or the judgements to a .qrels file.
        info: describe it; so does leaving out the others.
        user: who has judged, for qrels.
        config: TOML file with settings; flags win over it.
        settings: of the index.
    """
    from acclimate.cli import feedback_tables as tables
    from acclimate.errors import UsageError
    from acclimate.flows import feedback_verbs as verbs

    if sum((info, bring is not None, export is not None)) > 1:
        raise UsageError("--info, --import and --export exclude each other", fix="Give one of them.")
    if bring is not None:
        tables.show_imported(verbs.import_feedback(run, bring, user=user, config=config, **settings))
    elif export is not None:
        tables.show_exported(verbs.export_feedback(run, export, config=config, **settings), export)
    else:
        tables.show_feedback(verbs.feedback_info(run, config=config, **settings))


COMMAND = Command("feedback", feedback, example="acclimate feedback runs/farm --import judgements.qrels --user anna")
