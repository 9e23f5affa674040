"""The command `index`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from acclimate.cli.options import Command, ConfigFile, Given
from acclimate.counting import counted
from acclimate.errors import StorageError, UsageError

Switch = Annotated[bool, Parameter(negative=())]


def index(
    run: Path,
    /,
    *corpora: Path,
    images: Switch = False,
    delete: Path | None = None,
    info: Switch = False,
    verify: Switch = False,
    rebuild: Switch = False,
    reencode: Switch = False,
    export: Path | None = None,
    to: str | None = None,
    adopt: str | None = None,
    config: ConfigFile = None,
    settings: Given,
) -> None:
    """Documents into RUN's index, durable and searched at once; only what is new or has changed is encoded.

    With --images they are pictures.

    Args:
        run: the run's folder.
        corpora: JSONL, CSV, TSV, parquet, BEIR folders, folders of .txt, .md, .html, .pdf and .docx, hub ids of data
            sets; RUN's own corpus if none is given. With --images, pictures: files, folders, what adapt takes; RUN's
            own if none is given.
        images: the documents are pictures, where RUN has a projection of them.
        delete: remove the documents whose ids are in this file, one a line.
        info: describe the index.
        verify: look for damage, and encode a sample again.
        rebuild: make its search structures anew from its documents, in a folder.
        reencode: encode all that is in it again with RUN's present model.
        export: write its documents to this JSONL file.
        to: move it to this folder, qdrant://host:6333/collection, or postgresql://host/database?table=name.
        adopt: search this collection or table, which somebody else made and writes, if its vectors are the model's.
        config: TOML file with settings; flags win over it.
        settings: of the model and the index.
    """
    asked = {"info": info, "verify": verify, "rebuild": rebuild, "reencode": reencode, "export": export, "to": to}
    given = {name: value for name, value in (asked | {"adopt": adopt}).items() if value}
    if len(given) > 1:
        raise UsageError(" and ".join(f"--{name}" for name in given) + " exclude each other", fix="Give one of them.")
    if given and (corpora or delete or images):
        fix = "Leave corpora, --images and --delete out."
        raise UsageError(f"--{next(iter(given))} is about the index as it is", fix=fix)
    if given:
        _care(run, *next(iter(given.items())), {"config": config, **settings})
        return
    from acclimate.cli import index_tables
    from acclimate.flows import index_verbs as verbs

    done = verbs.index(run, list(corpora), delete=delete, images=images, config=config, **settings)
    index_tables.show_indexed(done)


def _care(run: Path, what: str, value: Any, settings: dict[str, Any]) -> None:
    """Do one of the things that are done with an index that is there."""
    from acclimate.cli import index_tables
    from acclimate.flows import index_verbs as verbs

    match what:
        case "info":
            index_tables.show_info(verbs.index_info(run, **settings))
        case "verify":
            found = verbs.verify_index(run, **settings)
            if found["problems"]:
                fix = f"Index the documents again; in a folder, try acclimate index {run} --rebuild first"
                raise StorageError(f"{found['place']}: " + "; ".join(found["problems"]), fix=fix)
            index_tables.show_done(found, f"no damage found; {found['sampled']} of them encoded again, and compared")
        case "rebuild":
            index_tables.show_done(verbs.rebuild_index(run, **settings), "rebuilt")
        case "reencode":
            found = verbs.reencode_index(run, **settings)
            left_out = counted(found["pictures_left_out"], "pictures")
            index_tables.show_done(
                found, "encoded again" + (f"; without {left_out}" if found["pictures_left_out"] else "")
            )
        case "export":
            index_tables.show_done(verbs.export_index(run, value, **settings), f"written to {value}")
        case "to":
            index_tables.show_moved(verbs.move_index(run, value, **settings))
        case "adopt":
            index_tables.show_adopted(verbs.adopt_index(run, value, **settings))


COMMAND = Command(
    "index",
    index,
    example="acclimate index runs/farm manuals/ --chunk-tokens 200",
    first=(
        "index_at",
        "chunk_tokens",
        "chunk_overlap",
        "text_field",
        "vector_field",
        "model",
        "task",
        "max_tokens",
        "dim",
        "device",
    ),
)
