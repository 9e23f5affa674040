"""Mining beside sentence-transformers' `mine_hard_negatives`, and its memory as the corpus grows.

Same model, pairs, corpus and settings, models loaded beforehand; medians of runs in turn. The peer runs by its default
(float32), we in `--dtype` (auto: bfloat16 where the CPU computes in it). "Texts in" encodes
everything anew; "vectors at hand" finds both sides' embeddings in their caches. The memory check mines the same queries
from 10^4 and from 10^6 stored vectors, each in a process of its own, and compares the peaks of anonymous memory.

    python benchmarks/mine.py PATH/TO/BEIR [--limit 1000] [--repeats 3] [--model FOLDER]
    python benchmarks/mine.py --memory
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import MineConfig
from acclimate.data.dataset import Dataset
from acclimate.mining.audit import Audit
from acclimate.mining.mine import mine_negatives
from acclimate.mining.mining_input import mining_input
from acclimate.models.encoder import Encoder
from acclimate.retrieval.vector_cache import vectors_path
from acclimate.types import Example
from common import MINILM, alternate, machine, peer_folder, read_beir, table

SETTINGS = MineConfig(num_negatives=3, range_max=50, relative_margin=0.05)
SIZES = (10_000, 1_000_000)
MEMORY_QUERIES = 512
MEMORY_BOUND_MB = 300


def main() -> None:
    """Time both miners, or check the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a BEIR folder")
    parser.add_argument("--limit", type=int, help="use this many training queries, and their documents only")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="ours")
    parser.add_argument("--model", default=MINILM, help="a model's folder")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(peak_anonymous_mb(arguments.memory_of))
    elif arguments.memory:
        check_memory()
    elif arguments.data:
        compare(arguments.data, arguments.limit, arguments.repeats, arguments.dtype, arguments.model)
    else:
        parser.error("give a BEIR folder, or --memory")


def compare(data: Path, limit: int | None, repeats: int, dtype: str, model: str) -> None:
    """Print the table of wall times."""
    dataset = read(data, limit)
    ours, theirs = OurMiner(dataset, dtype, model), TheirMiner(dataset, model)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in (("texts in", None), ("vectors at hand", Path(scratch))):
            seconds, peer = alternate(lambda at=folder: ours(at), lambda at=folder: theirs(at), repeats)
            rows.append((name, f"{seconds:.2f}", f"{peer:.2f}", f"{peer / seconds:.2f}"))
    print(f"{machine()}; {ours.encoder.dtype}; {len(dataset.examples)} pairs, {len(dataset.corpus)} documents")
    print(table(("", "Acclimate, s", "sentence-transformers, s", "ratio"), rows))


def read(data: Path, limit: int | None) -> Dataset:
    """The training pairs of a BEIR folder as a dataset; no other split, because the peer knows none."""
    corpus, queries, qrels = read_beir(data)
    train = dict(list(qrels["train"].items())[:limit])
    if limit:
        judged = {document for grades in train.values() for document in grades}
        corpus = {key: text for key, text in corpus.items() if key in judged}
    examples = [Example(queries[query], corpus[document]) for query, grades in train.items() for document in grades]
    return Dataset("retrieval", corpus, {key: queries[key] for key in train}, {"train": train}, examples)


class OurMiner:
    """From a dataset to negatives and their audit."""

    def __init__(self, dataset: Dataset, dtype: str, model: str) -> None:
        self.dataset = dataset
        self.encoder = Encoder.load(model, device="cpu", dtype=dtype)

    def __call__(self, cache: Path | None) -> dict[str, Any]:
        audit = Audit(SETTINGS, {})
        for block in mine_negatives(mining_input(self.dataset), self.encoder, SETTINGS, seed=0, cache=cache):
            audit.add(block)
        return audit.summary()


class TheirMiner:
    """The same with `mine_hard_negatives`."""

    def __init__(self, dataset: Dataset, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self.dataset = dataset
        self.model = SentenceTransformer(peer_folder(model), device="cpu")

    def __call__(self, cache: Path | None) -> object:
        from datasets import Dataset as Table
        from sentence_transformers.util import mine_hard_negatives

        examples = self.dataset.examples
        return mine_hard_negatives(
            Table.from_dict({"anchor": [e.anchor for e in examples], "positive": [e.positive for e in examples]}),
            self.model,
            corpus=list(self.dataset.corpus.values()),
            num_negatives=SETTINGS.num_negatives,
            range_max=SETTINGS.range_max,
            relative_margin=SETTINGS.relative_margin,
            output_format="n-tuple",
            use_faiss=True,
            verbose=False,
            cache_folder=None if cache is None else str(cache / "peer"),
        )


def check_memory() -> None:
    """Print the peaks of anonymous memory; exit 1 if they differ by more than the bound."""
    peaks = [
        float(
            subprocess.run([sys.executable, __file__, "--memory-of", str(size)], check=True, capture_output=True).stdout
        )
        for size in SIZES
    ]
    print(machine())
    rows = [(f"{size:,}", f"{peak:.0f}") for size, peak in zip(SIZES, peaks, strict=True)]
    print(table(("stored vectors", "peak anonymous memory, MB"), rows))
    growth = peaks[1] - peaks[0]
    print(f"growth {growth:.0f} MB, bound {MEMORY_BOUND_MB} MB")
    sys.exit(growth > MEMORY_BOUND_MB)


def peak_anonymous_mb(size: int) -> float:
    """Mine from `size` short texts whose vectors (random) lie in the cache already; texts count in the memory."""
    encoder = Encoder.load(MINILM, device="cpu", dtype="float32")
    corpus = {f"d{index}": f"document number {index}" for index in range(size)}
    examples = [Example(f"query {index}", corpus[f"d{index}"]) for index in range(MEMORY_QUERIES)]
    dataset = Dataset("retrieval", corpus, examples=examples)
    with tempfile.TemporaryDirectory() as scratch, AnonymousPeak() as peak:
        cache = Path(scratch)
        write_random(vectors_path(encoder, list(corpus.values()), cache, "document"), size, encoder.use.dim)
        for _ in mine_negatives(mining_input(dataset), encoder, SETTINGS, seed=0, cache=cache):
            pass
    return peak.megabytes


def write_random(path: Path, rows: int, dim: int) -> None:
    """Random unit vectors as .npy, block by block."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)})
        for start in range(0, rows, 10_000):
            block = rng.standard_normal((min(10_000, rows - start), dim), dtype=np.float32)
            stream.write((block / np.linalg.norm(block, axis=1, keepdims=True)).data)


class AnonymousPeak:
    """Samples this process's anonymous memory (RssAnon: no pages of mapped files) while the block runs."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> AnonymousPeak:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            status = Path(f"/proc/{os.getpid()}/status").read_text()
            anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.megabytes = max(self.megabytes, int(anonymous.split()[1]) / 1000)


if __name__ == "__main__":
    main()
