"""A reranker's name -> its files, its kind, its hash; what our own folders say beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from acclimate.errors import ModelError
from acclimate.files import hash_folder, read_json
from acclimate.formats import peft
from acclimate.formats.engine_folder import GRAPHS, KEY, Engine, Precision, hash_graph
from acclimate.formats.facts import ADAPTER_FILE, check_base
from acclimate.formats.families import CLASSIFIER_TYPES
from acclimate.formats.folders import is_causal, read_folder, read_model_config
from acclimate.formats.sources import hash_weights, locate

RerankerKind: TypeAlias = Literal["cross-encoder", "yes-no"]
FOLDER_KIND = "reranker"
"""`kind` in `acclimate.json`: an embedder's adapter says nothing there."""
KINDS: dict[str, RerankerKind] = {"ForSequenceClassification": "cross-encoder", "ForCausalLM": "yes-no"}
"""Ending of the architecture's name -> kind of reranker."""
POSSIBLE = "a sequence-classification model with one label (BGE and others), Qwen3-Reranker, or a run with a reranker"


@dataclass(frozen=True)
class RerankerGraph:
    """The graph of an exported reranker."""

    path: Path
    engine: Engine
    precision: Precision


@dataclass(frozen=True)
class RerankerSource:
    """A reranker on disk, before it is loaded."""

    id: str
    """Hub id, or the folder's path: PEFT and others find an adapter's base by it."""
    folder: Path
    """config.json, weights and tokenizer."""
    sha256: str
    """Hash of the weights, without an adapter."""
    config: dict[str, Any]
    kind: RerankerKind
    headless: bool
    """An encoder without a classification head; training may give it a new one."""
    adapter: Path | None
    """A folder with a LoRA adapter for these weights."""
    instruction: str | None
    """What the folder says beside the weights; None where it says nothing."""
    max_tokens: int | None
    """As `instruction`."""
    graph: RerankerGraph | None = None
    """In the place of weights: an export."""

    @property
    def base(self) -> dict[str, str]:
        """What is recorded of it where something is made from it."""
        return {"id": self.id, "sha256": self.sha256}

    @property
    def fingerprint(self) -> str:
        """Changes with whatever the scores depend on."""
        return f"{self.sha256} {hash_folder(self.adapter)}" if self.adapter else self.sha256


def resolve_reranker(name: str, *, base: str | None = None) -> RerankerSource:
    """Find a reranker.

    Args:
        name: a folder (a model's, or an adapter's), or a hub id.
        base: where an adapter's base is, if its own record does not lead there.

    Raises:
        ModelError: not found, damaged, or an embedding model's adapter.
    """
    folder, hub_id = _locate(name)
    facts = read_json(folder / ADAPTER_FILE) if (folder / ADAPTER_FILE).is_file() else {}
    if facts and facts.get("kind") != FOLDER_KIND:
        raise ModelError(f"{folder} holds an adapter of an embedding model, no reranker", possible=POSSIBLE)
    if KEY in facts:
        return _exported(folder, facts)
    if not (folder / peft.CONFIG_FILE).is_file():
        return _describe(folder, hub_id, None, facts)
    recorded = read_json(folder / peft.CONFIG_FILE).get("base_model_name_or_path")
    base_folder, base_id = _locate(base or str(recorded or ""))
    found = _describe(base_folder, base_id, folder, facts)
    if "base" in facts:
        check_base(facts["base"], {"id": found.id, "sha256": found.sha256}, "the reranker")
    return found


def is_reranker_folder(folder: Path) -> bool:
    """Whether a folder holds a reranker: one of ours, or a sequence-classification model that is not."""
    if (folder / ADAPTER_FILE).is_file():
        return read_json(folder / ADAPTER_FILE).get("kind") == FOLDER_KIND
    if not (folder / "config.json").is_file() or (folder / "1_Pooling").is_dir():
        return False
    names = read_json(folder / "config.json").get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def _exported(folder: Path, facts: dict[str, Any]) -> RerankerSource:
    """What `export` wrote."""
    said = facts[KEY]
    if not isinstance(said, dict) or said.get("name") not in GRAPHS or said.get("precision") not in get_args(Precision):
        raise ModelError(f"{folder / ADAPTER_FILE}: {KEY} is {said!r}", possible=", ".join(GRAPHS))
    graph = RerankerGraph(folder / GRAPHS[said["name"]], said["name"], said["precision"])
    sha256 = hash_graph(graph.path)
    return replace(_describe(folder, None, None, facts, sha256), id=folder.resolve().name, graph=graph)


def _locate(name: str) -> tuple[Path, str | None]:
    """An adapter's folder, or whatever `locate` finds."""
    folder = Path(name).expanduser()
    return (folder, None) if (folder / peft.CONFIG_FILE).is_file() else locate(name)


def _describe(
    folder: Path, hub_id: str | None, adapter: Path | None, facts: dict[str, Any], sha256: str | None = None
) -> RerankerSource:
    embeds = (folder / "1_Pooling").is_dir()
    folder = read_folder(folder).transformer if embeds else folder
    config = read_model_config(folder, folder)
    names = [str(name) for name in config.get("architectures") or []]
    kind = next((kind for ending, kind in KINDS.items() if any(name.endswith(ending) for name in names)), None)
    headless = kind != "cross-encoder" and config.get("model_type") in CLASSIFIER_TYPES and not is_causal(config)
    said = ", ".join(names) or str(config.get("model_type"))
    if (embeds or kind is None) and not headless:
        raise ModelError(f"{hub_id or folder} is an embedding model, no reranker ({said})", possible=POSSIBLE)
    if kind == "cross-encoder" and is_causal(config):
        raise ModelError(
            f"{hub_id or folder} is a causal model with a classification head ({said}), whose template is not known",
            possible=POSSIBLE,
        )
    return RerankerSource(
        id=hub_id or str(folder.resolve()),
        folder=folder,
        sha256=sha256 or hash_weights(folder),
        config=config,
        kind="cross-encoder" if headless or kind is None else kind,
        headless=headless,
        adapter=adapter,
        instruction=facts.get("instruction"),
        max_tokens=facts.get("max_tokens"),
    )
