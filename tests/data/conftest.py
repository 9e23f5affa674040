"""Helpers that write small sources and build datasets from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import PrepareConfig
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset
from acclimate.types import Rejected

Build = Callable[..., tuple[Dataset, list[Rejected]]]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write content to a file of this name and build it; splits are off unless asked for, so that all rows show."""

    def run(name: str, content: str | bytes, **settings: Any) -> tuple[Dataset, list[Rejected]]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return build_source(path, **settings)

    return run


def build_source(source: Path | str, **settings: Any) -> tuple[Dataset, list[Rejected]]:
    """Build with no splits of our own unless the settings ask for them."""
    shared = {"seed": 42} | {name: settings.pop(name) for name in ("seed", "limit") if name in settings}
    prepare = PrepareConfig(**{"test_fraction": 0.0, "dev_fraction": 0.0, **settings})
    return build_dataset(str(source), prepare, **shared)


def jsonl(*rows: Mapping[str, Any]) -> str:
    """Rows as JSONL."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_beir(
    folder: Path, corpus: Mapping[str, str], queries: Mapping[str, str], **qrels: Sequence[tuple[str, str, int]]
) -> Path:
    """A BEIR folder."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text(jsonl(*({"_id": key, "text": text} for key, text in texts.items())))
    for split, rows in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t{grade}" for query, document, grade in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder
