"""`acclimate.json`: what a folder of ours says beside the files that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.errors import ModelError
from acclimate.files import read_json, write_json
from acclimate.text_use import TextUse
from acclimate.types import Sides

ADAPTER_FILE = "acclimate.json"


def read_facts(folder: Path) -> dict[str, Any]:
    """Read `acclimate.json`, checked; its `TextUse` is under "use".

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
    use = TextUse.from_json(facts, str(where))
    if facts.get("sides") not in ("both", "query"):
        raise ModelError(f"{where}: sides is {facts.get('sides')!r}", possible="both, query")
    return {"normalise": True, "metrics": {}, **facts, "use": use}


def write_facts(
    folder: Path,
    base: Mapping[str, str],
    use: TextUse,
    *,
    normalise: bool,
    sides: Sides,
    metrics: Mapping[str, Any] | None = None,
    kind: str | None = None,
) -> None:
    """Write `acclimate.json` of an embedding model's folder.

    Args:
        folder: exists.
        base: id and sha256 of the weights that it was made from.
        use: how texts become vectors.
        normalise: whether the base's own files normalise its vectors.
        sides: query where documents are encoded by the base alone.
        metrics: what training measured.
        kind: what the folder holds, where that is neither an adapter nor a model.
    """
    facts = {
        **({"kind": kind} if kind else {}),
        "base": dict(base),
        **use.to_json(),
        "normalise": normalise,
        "sides": sides,
        "metrics": dict(metrics or {}),
    }
    write_json(folder / ADAPTER_FILE, facts)


def check_base(recorded: Mapping[str, str], found: Mapping[str, str], what: str) -> None:
    """Raise a `ModelError` unless the base that was found holds the weights that something was made for.

    Args:
        recorded: id and sha256 of the base that it was made for.
        found: id and sha256 of the base that was found.
        what: was made for it, for the message.
    """
    if recorded["sha256"] != found["sha256"]:
        raise ModelError(
            f"{what} was made for base {recorded['id']} (sha256 {recorded['sha256'][:12]}), "
            f"found {found['id']} (sha256 {found['sha256'][:12]})",
            fix="Say where the original weights are: --model, a folder or id.",
        )
