"""From documents to pairs: the command `pairs`, and what `adapt` does first where it is given documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.data.made import PAIRS_FILE, is_made
from acclimate.data.recognising import is_documents
from acclimate.errors import UsageError
from acclimate.files import hash_file, locked, open_output
from acclimate.flows.settings import Config, configured
from acclimate.ownership import called, check_replaceable, commanded
from acclimate.progress import say
from acclimate.report.result import Result
from acclimate.runs.run_folder import RunFolder

FOLDER = ".made"
"""Ending of the folder beside a file of pairs, in which everything is."""


def pairs(
    documents: str | Path | Sequence[str | Path],
    *,
    out: str | Path,
    annotate: str | Path | None = None,
    config: Config = None,
    **settings: Any,
) -> Result:
    """Make pairs out of documents; a second start goes on where the first one stopped.

    Args:
        documents: JSONL, CSV, TSV or parquet files, BEIR folders, folders of .txt, .md, .html, .pdf and .docx files.
        out: a .jsonl file of the pairs; everything else is in the folder beside it, whose name ends in `.made`.
        annotate: write pairs for an expert to this .csv or .jsonl file, too.
        config: see `Config`.
        settings: such as `passage_words=200`.

    Returns:
        what `report.json` in that folder holds: "sources", "splits" and more; see `PairsReport`.

    Raises:
        UsageError: `out` is no .jsonl file, or somebody else's.
    """
    effective = configured("pairs", settings, config)
    sources = [Path(name) for name in ([documents] if isinstance(documents, str | Path) else documents)]
    file = Path(out)
    if not sources:
        raise UsageError("no documents are given", fix="Name files or folders: acclimate pairs DOCS --out pairs.jsonl")
    if file.suffix != ".jsonl":
        raise UsageError(f"--out {file}: pairs are written as JSONL", possible="a name that ends in .jsonl")
    from acclimate.stages.pairs import pairs as stage

    folder = file.with_suffix(FOLDER)
    with commanded(by=called("pairs", *sources, out=out, annotate=annotate, config=config, **settings)):
        _check_file(file, folder)
        report = stage(sources, folder, effective, annotate=None if annotate is None else Path(annotate))
        with open_output(file) as stream, (folder / PAIRS_FILE).open("rb") as made:
            while block := made.read(1 << 20):
                stream.write(block)
    return Result(report, folder)


def _check_file(file: Path, folder: Path) -> None:
    """Refuse to write over a file that is not a copy of what we have made before."""
    if file.exists() and not (is_made(folder) and hash_file(file) == hash_file(folder / PAIRS_FILE)):
        check_replaceable(file, lambda path: f"{path} is not the copy of {folder / PAIRS_FILE}")


def paired(source: str | None, run: Path, config: RunConfig) -> str | None:
    """Make pairs of a source that holds documents alone, in the run's folder; any other source stays as it is.

    Args:
        source: what `adapt` is given.
        run: its folder.
        config: of the run.

    Returns:
        what `prepare` reads.

    Raises:
        UsageError: settings that say how pairs are found in `source`, or folds of it.
    """
    if source is None or not processes.on_main(lambda: is_documents(source, config.prepare)):
        return source
    if config.stages.folds is not None:
        raise UsageError(
            f"{source} holds documents, and --folds cuts pairs", fix="Leave --folds out: the split is by document."
        )
    say(f"{source} holds documents and no queries: pairs are made of them first (acclimate pairs)")
    from acclimate.stages.pairs import pairs as stage

    folder = RunFolder(run).made_pairs
    with locked(run), commanded(by="acclimate.adapt"):
        stage([Path(source)], folder, config)
    if config.pairs.queries is None:
        say("the proof will rest on made queries, of documents outside the training (--queries brings real ones)")
    return str(folder)


def without_writing(source: str | None, config: RunConfig) -> None:
    """Refuse a plan for documents alone: it would need the pairs.

    Raises:
        UsageError: the source holds documents.
    """
    if source is not None and is_documents(source, config.prepare):
        raise UsageError(
            f"{source} holds documents and no queries: how much there is to do depends on the pairs made of them",
            fix=f"Make them: acclimate pairs {source} --out pairs.jsonl; then: acclimate adapt pairs.made --dry-run",
        )
