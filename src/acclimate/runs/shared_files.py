"""What several adapters of one base hold alike, the tokenizer above all (17 MB of a multilingual model): on disk once.

By hard links: a folder that is copied or archived has whole files, so it can be taken anywhere. PEFT and we ourselves
take the tokenizer from the base; sentence-transformers reads it from the adapter's own folder, so it must be there.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from acclimate.files import PARTIAL, fsync

LEAST_BYTES = 100_000
"""Smaller files are not worth a link."""


def share_files(fresh: Path, others: Iterable[Path]) -> None:
    """Make large files of a folder hard links to equal ones of the same name, in other folders or in itself.

    Args:
        fresh: the folder; where the disk has no links, it stays as it is.
        others: folders on the same disk, whose files nobody changes.
    """
    known: defaultdict[tuple[str, int], list[Path]] = defaultdict(list)
    for folder in others:
        for path, size in _large_files(folder):
            known[path.name, size].append(path)
    for path, size in _large_files(fresh):
        alike = next((one for one in known[path.name, size] if filecmp.cmp(one, path, shallow=False)), None)
        if alike is None:
            known[path.name, size].append(path)
            continue
        link = path.with_name(f".{path.name}.{PARTIAL}")
        with contextlib.suppress(OSError):
            os.link(alike, link)
            link.replace(path)
            fsync(path.parent)


def _large_files(folder: Path) -> list[tuple[Path, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return [(path, size) for path in files if (size := path.stat().st_size) >= LEAST_BYTES]
