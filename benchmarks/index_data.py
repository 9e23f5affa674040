"""Real texts and their vectors for benchmarks/index.py, and perturbations of them up to a million.

Texts are queries and documents of the shared data sets, then paragraphs of the docstrings of the standard library and
of installed packages; vectors are MiniLM's, of each text's first 64 tokens. Both are cached: made once.
"""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096
MAX_TOKENS = 64
DATA_SETS = ("banking77_en", "bioasq_en", "nl2bash_en", "scifact_en")
MIN_WORDS = 5
NOISE = 0.5
"""Length of the noise that is added to a unit vector before it is made a unit vector again: cosine 0.89 to the text's
own, about that of a paraphrase."""


def real_vectors(shared: Path, cache: Path, count: int) -> tuple[list[str], NDArray[np.float16]]:
    """Up to `count` different texts and their unit vectors [N, 384], from the cache as far as it goes."""
    cache.mkdir(parents=True, exist_ok=True)
    listed = cache / "texts.json"
    if not listed.exists() or len(json.loads(listed.read_text(encoding="utf-8"))) < count:
        listed.write_text(json.dumps(texts(shared, count), ensure_ascii=False), encoding="utf-8")
        for stale in cache.glob("vectors-*.npy"):
            stale.unlink()
    found = json.loads(listed.read_text(encoding="utf-8"))[:count]
    encoder = None
    parts = []
    for start in range(0, len(found), BLOCK):
        part = cache / f"vectors-{start}.npy"
        if not part.exists() or len(np.load(part)) < min(BLOCK, len(found) - start):
            if encoder is None:
                from acclimate.models.encoder import Encoder

                encoder = Encoder.load("all-MiniLM-L6-v2", device="cpu", max_tokens=MAX_TOKENS)
            np.save(part, encoder.encode(found[start : start + BLOCK], "document").astype(np.float16))
            print(f"encoded {min(start + BLOCK, len(found)):,} of {len(found):,} texts", flush=True)
        parts.append(np.load(part))
    return found, np.concatenate(parts)[: len(found)]


def texts(shared: Path, count: int) -> list[str]:
    """Different texts in an order that is mixed but always the same for the same files."""
    found: dict[str, None] = {}
    for text in (*_shared_texts(shared), *_paragraphs(Path(sysconfig.get_path("stdlib")))):
        found[text] = None
        if len(found) >= count:
            break
    for text in _paragraphs(Path(sysconfig.get_path("purelib"))):
        if len(found) >= count:
            break
        found[text] = None
    mixed = list(found)
    np.random.default_rng(0).shuffle(mixed)
    return mixed


def perturbed(vectors: NDArray[np.float16], rows: int) -> Iterator[NDArray[np.float32]]:
    """The real vectors, then perturbations of them, `rows` in all: unit rows in blocks."""
    random = np.random.default_rng(1)
    for start in range(0, rows, len(vectors)):
        block = vectors[: rows - start].astype(np.float32)
        if start:
            noise = random.standard_normal(block.shape, np.float32)
            block += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def _shared_texts(shared: Path) -> Iterator[str]:
    for name in DATA_SETS:
        for file in ("corpus.jsonl", "queries.jsonl"):
            for line in (shared / name / file).read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                yield " ".join(f"{row.get('title', '')} {row['text']}".split())


def _paragraphs(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if "site-packages" in path.relative_to(root).parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    # An index refuses NULs and halves of surrogate pairs, which some docstrings of tests have.
                    words = paragraph.replace("\0", " ").encode(errors="ignore").decode().split()
                    if len(words) >= MIN_WORDS:
                        yield " ".join(words)
