"""`acclimate.json`: what a folder of ours says beside the files that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acclimate.errors import ModelError
from acclimate.files import read_json
from acclimate.formats import peft

ADAPTER_FILE = "acclimate.json"
RUN_ADAPTER = "adapter"


def read_facts(folder: Path) -> dict[str, Any]:
    """`acclimate.json`, checked.

    Raises:
        StorageError: missing or damaged.
        ModelError: a field is missing or has a value that cannot be.
    """
    where = folder / ADAPTER_FILE
    facts = read_json(where)
    if facts.get("kind") == "reranker":
        raise ModelError(f"{folder} holds a reranker, no embedding model", fix="Give it to --reranker.")
    base = facts.get("base")
    if not isinstance(base, dict) or not all(isinstance(base.get(name), str) for name in ("id", "sha256")):
        raise ModelError(f"{where}: base is {base!r}", possible='{"id": ..., "sha256": ...}')
    for name, possible in (("pooling", ("mean", "cls", "last")), ("sides", ("both", "query"))):
        if facts.get(name) not in possible:
            raise ModelError(f"{where}: {name} is {facts.get(name)!r}", possible=", ".join(possible))
    for name in ("dim", "max_tokens"):
        if type(facts.get(name)) is not int or facts[name] < 1:
            raise ModelError(f"{where}: {name} is {facts.get(name)!r}", possible="a whole number above 0")
    return {"normalise": True, "metrics": {}, "prompts": {}, **facts}


def adapter_folder(name: str | Path) -> Path | None:
    """The folder that holds the adapter, where `name` is a run with one or an adapter folder itself; else None."""
    for folder in (Path(name) / RUN_ADAPTER, Path(name)):
        if (folder / peft.CONFIG_FILE).is_file():
            return folder
    return None


def full_folder(name: str | Path) -> Path | None:
    """The folder of a fully trained model, where `name` is a run with one or such a folder itself; else None."""
    for folder in (Path(name) / RUN_ADAPTER, Path(name)):
        if (folder / ADAPTER_FILE).is_file() and not (folder / peft.CONFIG_FILE).is_file():
            return folder
    return None
