"""An adapter's folder that a client names, read without trusting it: only below the root, only plain files of a bounded
size, nothing that can run code, and no value that could harm what is served beside it.

The files are copied before they are read: what was checked is what is loaded, whatever happens to the folder meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from acclimate.errors import AcclimateError
from acclimate.files import CONFIG_FILE as SETTINGS_FILE
from acclimate.files import read_json
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.peft import CONFIG_FILE, WEIGHTS_FILE
from acclimate.formats.query_domain import QUERY_DOMAIN_FILE
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.reading import check_prompts
from acclimate.serve.errors import ServiceError

MAX_JSON_BYTES = 4 << 20
MAX_DOMAIN_BYTES = 64 << 20
MAX_RANK = 1024
_PLAIN_PATTERN = re.compile(r"[\w.^$-]{1,256}")
"""Patterns of ranks that are module paths; a regular expression of a client could keep the service busy for ever."""
_MALFORMED = (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError, re.error)
"""What reading raises where JSON is valid and has values of kinds that nobody expects."""


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """An adapter, and what its folder says beside it."""

    adapter: Adapter
    matryoshka: bool
    """Whether it was trained so that leading dimensions can be used alone."""

    def bytes_as(self, dtype: torch.dtype) -> int:
        """Memory of its matrices in a number format."""
        return sum(matrix.numel() for pair in self.adapter.modules.values() for matrix in pair) * dtype.itemsize


def read_adapter(folder: Path, base: Encoder) -> LoadedAdapter:
    """Read an adapter's folder, and make sure that it can be served on a base.

    Args:
        folder: ours, or one that PEFT wrote.
        base: what it is for.

    Raises:
        ModelError: no adapter, damaged, of another base, or with weights that are not finite.
        UsageError: its limits or prompts are not possible on the base.
        StorageError: a file is missing or damaged.
    """
    _check_patterns(folder)
    adapter = load_adapter(folder, str(base.source.files.folder))
    _check_named_base(folder, base)
    adapter.check_base(base.source)
    # Lower case is the tokenizer's own affair, which the base's folder settles.
    adapter = dataclasses.replace(adapter, use=dataclasses.replace(adapter.use, lowercase=base.use.lowercase))
    for name, pair in adapter.modules.items():
        if pair[0].shape[0] > MAX_RANK:
            raise _refused(f"{name} has rank {pair[0].shape[0]}", f"up to {MAX_RANK}")
        if not all(bool(torch.isfinite(matrix).all()) for matrix in pair):
            raise _refused(f"{name} has weights that are not finite", "finite weights")
    use = adapter.use
    base.source.adjusted(use, max_tokens=use.max_tokens, dim=use.dim)
    if use.pooling == "cls" and base.source.files.architecture == "causal":
        raise _refused("pooling = 'cls' on a causal model", "last, mean")
    check_prompts(base.tokenizer, use.prompts, use.max_tokens)
    settings = read_json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}
    objective = settings.get("objective")
    matryoshka = isinstance(objective, dict) and bool(objective.get("matryoshka_dims"))
    return LoadedAdapter(adapter, matryoshka)


def read_below(root: Path | None, named: str, base: Encoder, max_bytes: int) -> LoadedAdapter:
    """Read the adapter's folder that a client names.

    Args:
        root: below which it has to lie, links followed; None refuses all.
        named: relative to the root, or a path below it.
        base: what it is for.
        max_bytes: of its weights.

    Raises:
        ServiceError: 403 no root, or not below it; 400 whatever else is wrong with it.
    """
    folder = _below(root, named)
    try:
        with tempfile.TemporaryDirectory(prefix="acclimate-adapter-") as scratch:
            copied = Path(scratch) / folder.name
            copied.mkdir()
            for name, limit in _files(max_bytes).items():
                _copy(folder, name, copied / name, limit, root)
            try:
                return read_adapter(copied, base)
            except AcclimateError as error:
                found = error.found.replace(str(copied), named)
                raise ServiceError(
                    found,
                    status=400,
                    field="folder",
                    possible=error.possible,
                    fix=error.fix.replace(str(copied), named),
                ) from None
    except _MALFORMED as error:
        raise _bad(f"{named}: a value that an adapter cannot have ({type(error).__name__})") from None


def _files(max_bytes: int) -> dict[str, int]:
    return {
        CONFIG_FILE: MAX_JSON_BYTES,
        ADAPTER_FILE: MAX_JSON_BYTES,
        SETTINGS_FILE: MAX_JSON_BYTES,
        QUERY_DOMAIN_FILE: MAX_DOMAIN_BYTES,
        WEIGHTS_FILE: max_bytes,
    }


def _below(root: Path | None, named: str) -> Path:
    """The folder, with all links followed."""
    if root is None:
        raise ServiceError(
            "this service loads no adapters while it runs",
            status=403,
            field="folder",
            fix="Start it with a folder from below which adapters may be loaded.",
        )
    try:
        top = root.resolve(strict=True)
        given = Path(named)
        folder = (top / given).resolve()
        inside = ".." not in given.parts and folder.is_relative_to(top)
        there = inside and folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # a NUL, a name that is too long, a circle of links
        inside = False
    if not named or not inside:
        raise ServiceError(
            f"{named[:200]!r} is not below the folder of adapters",
            status=403,
            field="folder",
            possible="a path relative to that folder, without '..' and without links that lead out of it",
        )
    if not there:
        raise _bad(f"{named}: there is no such folder")
    return folder


def _copy(folder: Path, name: str, target: Path, limit: int, root: Path | None) -> None:
    """Copy a plain file that is below the root; one that is missing is left out."""
    path = folder / name
    if not os.path.lexists(path):
        return
    if root is None or not path.resolve().is_relative_to(root.resolve()):
        raise _bad(f"{name} is a link out of the folder of adapters")
    try:
        descriptor = os.open(path.resolve(), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise _bad(f"{name} cannot be read ({error.strerror})") from None
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(source.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _bad(f"{name} is no plain file")
        if status.st_size > limit:
            raise _bad(f"{name} has {status.st_size} bytes", possible=f"up to {limit}")
        with target.open("wb") as copy:
            left = limit
            while block := source.read(min(1 << 20, left + 1)):
                left -= len(block)
                if left < 0:
                    raise _bad(f"{name} grows while it is read", possible=f"up to {limit} bytes")
                copy.write(block)


def _check_patterns(folder: Path) -> None:
    if not (folder / CONFIG_FILE).is_file():
        return
    config = read_json(folder / CONFIG_FILE)
    for field in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(field) or {}:
            if not _PLAIN_PATTERN.fullmatch(pattern):
                raise _refused(
                    f"{CONFIG_FILE}: {field} has the pattern {pattern[:80]!r}", "module paths, or their ends"
                )


def _check_named_base(folder: Path, base: Encoder) -> None:
    """An adapter without our record says by a name only which base it is for."""
    if (folder / ADAPTER_FILE).is_file():
        return
    named = str(read_json(folder / CONFIG_FILE).get("base_model_name_or_path") or "")
    last = named.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()
    names = {base.source.id.rsplit("/", 1)[-1].lower(), base.source.files.folder.name.lower()}
    if last and last not in names:
        raise _refused(f"{CONFIG_FILE}: the base is {named[:200]!r}", f"{base.source.id}, which is served")


def _refused(found: str, possible: str) -> ServiceError:
    return ServiceError(found, status=400, field="folder", possible=possible)


def _bad(found: str, possible: str = "") -> ServiceError:
    fix = "" if possible else "Give the folder of an adapter: adapter_config.json and adapter_model.safetensors."
    return ServiceError(found, status=400, field="folder", possible=possible, fix=fix)
