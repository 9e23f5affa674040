"""The command `index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.errors import StorageError, UsageError

Switch = Annotated[bool, Parameter(negative=())]


def index(
    run: Path,
    /,
    *corpora: Path,
    delete: Path | None = None,
    info: Switch = False,
    verify: Switch = False,
    rebuild: Switch = False,
    reencode: Switch = False,
    export: Path | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Documents into RUN's index, durable and searched at once; only what is new or has changed is encoded.

    Args:
        run: the run's folder.
        corpora: JSONL, CSV, TSV, parquet, BEIR folders, folders of .txt, .md, .html, .pdf and .docx; RUN's own corpus
            if none is given.
        delete: remove the documents whose ids are in this file, one a line.
        info: describe the index.
        verify: look for damage.
        rebuild: make its search structures anew from its documents.
        reencode: encode all that is in it again with RUN's present model.
        export: write its documents to this JSONL file.
        config: TOML file with settings; flags win over it.
        settings: of the model and the index.
    """
    from acclimate.cli import index_tables
    from acclimate.flows import index_verbs as verbs

    asked = {"--info": info, "--verify": verify, "--rebuild": rebuild, "--reencode": reencode, "--export": export}
    given = [name for name, value in asked.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other", fix="Give one of them.")
    if given and (corpora or delete):
        raise UsageError(f"{given[0]} is about the index as it is", fix="Leave the corpora and --delete out.")
    if info:
        index_tables.show_info(verbs.index_info(run, config=config, **settings))
    elif verify:
        found = verbs.verify_index(run, config=config, **settings)
        if found["problems"]:
            raise StorageError(
                f"{found['place']}: " + "; ".join(found["problems"]), fix=f"Try: acclimate index {run} --rebuild"
            )
        index_tables.show_done(found, "no damage found")
    elif rebuild:
        index_tables.show_done(verbs.rebuild_index(run, config=config, **settings), "rebuilt")
    elif reencode:
        index_tables.show_done(verbs.reencode_index(run, config=config, **settings), "encoded again")
    elif export is not None:
        index_tables.show_done(verbs.export_index(run, export, config=config, **settings), f"written to {export}")
    else:
        index_tables.show_indexed(verbs.index(run, list(corpora), delete=delete, config=config, **settings))


COMMAND = Command(
    "index",
    index,
    example="acclimate index runs/farm manuals/ --chunk-tokens 200",
    first=(
        "index_at",
        "chunk_tokens",
        "chunk_overlap",
        "text_field",
        "model",
        "task",
        "max_tokens",
        "dim",
        "device",
        "dtype",
    ),
)
