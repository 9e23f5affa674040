"""A folder for another engine: which one, in which precision, and in which space its document vectors lie.

It is laid out as a sentence-transformers folder whose transformer has a graph instead of safetensors weights, in the
place where sentence-transformers and others look for one. `acclimate.json` says the rest, under "engine".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from acclimate.errors import ModelError
from acclimate.files import hash_file, hash_text, read_json, write_json
from acclimate.formats.facts import ADAPTER_FILE, read_facts
from acclimate.formats.folders import TransformerFolder, read_folder
from acclimate.formats.sources import ModelSource
from acclimate.text_use import SpaceId, TextUse
from acclimate.types import Pooling, Role

Engine = Literal["onnx", "openvino"]
"""What runs here."""
Target = Literal["onnx", "openvino", "gguf"]
"""What is written; llama.cpp, which reads GGUF, does not run here."""
Precision = Literal["float32", "float16", "int8"]
GGUF = "gguf/model.gguf"
GRAPHS: dict[Engine, str] = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
"""Engine -> its graph in a transformer's folder; what lies beside the graph belongs to it."""
KEY = "engine"


@dataclass(frozen=True)
class EngineFolder:
    """An exported model on disk, before it is loaded."""

    source: ModelSource
    """Its files; its sha256 is that of the documents' graph, its query_sha256 that of the queries' own."""
    use: TextUse
    """How texts become vectors. Pooling and number of dimensions are part of the graph."""
    engine: Engine
    precision: Precision
    made_from: str
    """`runs.resolve.trained_hash` of the model that was exported."""
    space: SpaceId | None
    """The space of the model that it was made from, where vectors of both may be compared; None: it has its own."""

    def graph(self, role: Role) -> Path:
        """The graph that a role's texts go through."""
        return graph_of(self.source.files, role, self.engine)


def graph_of(files: TransformerFolder, role: Role, engine: Engine) -> Path:
    """Where the graph of a role is, or shall be written."""
    own = files.query_transformer if role == "query" else None
    return (own or files.transformer) / GRAPHS[engine]


def transformer_folders(files: TransformerFolder) -> list[Path]:
    """The folders of a model's transformers: the documents', and the queries' own where they have one."""
    return [files.transformer, *([files.query_transformer] if files.query_transformer else [])]


def is_engine_folder(folder: Path) -> bool:
    """Whether a folder of ours holds a model for another engine."""
    return (folder / ADAPTER_FILE).is_file() and KEY in read_facts(folder)


def write_engine(folder: Path, engine: Target, precision: Precision, made_from: str, space: SpaceId | None) -> None:
    """Say in `acclimate.json`, which is there, that the folder holds a graph.

    Args:
        folder: of the export.
        engine: runs it.
        precision: of its weights.
        made_from: see `EngineFolder.made_from`.
        space: see `EngineFolder.space`.
    """
    facts = read_json(folder / ADAPTER_FILE)
    facts[KEY] = {
        "name": engine,
        "precision": precision,
        "made_from": made_from,
        "space": None if space is None else dataclasses.asdict(space),
    }
    write_json(folder / ADAPTER_FILE, facts)


def read_engine(folder: Path) -> EngineFolder:
    """Read an exported folder.

    Raises:
        ModelError: it is damaged, or holds no graph; or it is for llama.cpp.
    """
    facts = read_facts(folder)
    said = facts.get(KEY)
    if isinstance(said, dict) and said.get("name") == "gguf":
        raise ModelError(
            f"{folder} is an export for llama.cpp, which does not run here",
            possible=f"exports for {', '.join(GRAPHS)}",
            fix="Name the run that it was made from.",
        )
    if not isinstance(said, dict) or said.get("name") not in GRAPHS or not {"precision", "made_from"} <= said.keys():
        raise ModelError(f"{folder / ADAPTER_FILE}: engine is {said!r}", possible=", ".join(GRAPHS))
    engine: Engine = said["name"]
    files = read_folder(folder)
    hashes = {role: hash_graph(graph_of(files, role, engine)) for role in ("document", "query")}
    use = dataclasses.replace(facts["use"], lowercase=files.lowercase)
    query_sha256 = hashes["query"] if files.query_transformer else None
    source = ModelSource(folder.resolve().name, files, hashes["document"], use, query_sha256)
    return EngineFolder(source, use, engine, said["precision"], said["made_from"], _space(said.get("space")))


def graph_bytes(folder: Path) -> int:
    """Bytes of all graphs in a folder, with their weights."""
    graphs = [path for name in (*GRAPHS.values(), GGUF) for path in folder.rglob(name)]
    return sum(part.stat().st_size for graph in graphs for part in graph.parent.iterdir())


def hash_graph(graph: Path) -> str:
    """Hash a graph and all that lies beside it.

    Raises:
        ModelError: it is missing.
    """
    if not graph.is_file():
        raise ModelError(f"{graph} is missing", fix="Export the model again.")
    return hash_text(*(f"{part.name}\0{hash_file(part)}" for part in sorted(graph.parent.iterdir())))


def _space(values: Mapping[str, Any] | None) -> SpaceId | None:
    """The recorded space; None too where another release recorded it by other fields, so that nothing is mixed."""
    names = {field.name for field in dataclasses.fields(SpaceId)}
    if values is None or set(values) != names:
        return None
    return SpaceId(**{**values, "pooling": cast(Pooling, values["pooling"])})
