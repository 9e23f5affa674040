"""The command `encode`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from acclimate.cli.options import Command, Given


def encode(
    texts: Path,
    /,
    *,
    out: Path,
    role: Literal["query", "document"] = "document",
    adapter: Path | None = None,
    replace: Annotated[bool, Parameter(negative=())] = False,
    settings: Given,
) -> None:
    """Texts in, vectors out.

    Args:
        texts: a text file with one text per line, or JSONL with a "text" field.
        out: .npy or .safetensors file to write.
        role: which prompt (and side of the adapter) to use.
        adapter: adapter or run folder to put on the model.
        replace: write over a file at --out, whoever wrote it.
        settings: of the model.
    """
    from acclimate.flows import verbs

    result = verbs.encode_file(texts, out=out, role=role, adapter=adapter, replace=replace, **settings)
    sys.stdout.write(f"{out}: {result['texts']} vectors of {result['dim']} dimensions\n")


COMMAND = Command("encode", encode, example="acclimate encode texts.txt --out texts.npy --adapter runs/farm")
