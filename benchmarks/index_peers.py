"""One peer of the local index, on the files that benchmarks/index.py prepared; run by it, in the peer's own Python.

python benchmarks/index_peers.py flat|hnsw|lancedb FOLDER
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TOP = 10
TIMED = 300
HNSW_LINKS, HNSW_BUILDING, HNSW_SEARCHING = 32, 100, 128

Search = Callable[[Any], list[int]]
"""A query's vector -> the numbers of the rows found."""


def flat(vectors: Any, _: Path) -> Search:
    """Use FAISS's exact search in float32."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    for start in range(0, len(vectors), 50_000):
        index.add(vectors[start : start + 50_000].astype(np.float32))
    return lambda query: index.search(query[None], TOP)[1][0].tolist()


def hnsw(vectors: Any, _: Path) -> Search:
    """Use FAISS's HNSW over float32."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILDING
    index.hnsw.efSearch = HNSW_SEARCHING
    for start in range(0, len(vectors), 20_000):
        index.add(vectors[start : start + 20_000].astype(np.float32))
        print(f"hnsw: {min(start + 20_000, len(vectors)):,} rows", flush=True)
    return lambda query: index.search(query[None], TOP)[1][0].tolist()


def lancedb(vectors: Any, folder: Path) -> Search:
    """Use LanceDB as its documentation has it: IVF_PQ, with refinement by the full vectors."""
    import lancedb
    import pyarrow as pa

    place = folder / "lancedb"
    shutil.rmtree(place, ignore_errors=True)
    width = vectors.shape[1]
    schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), width))])

    def batches() -> Any:
        for start in range(0, len(vectors), 20_000):
            block = np.ascontiguousarray(vectors[start : start + 20_000], np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), width)
            yield pa.RecordBatch.from_arrays([pa.array(np.arange(start, start + len(block))), values], schema=schema)

    rows = lancedb.connect(str(place)).create_table("rows", data=batches(), schema=schema)
    rows.create_index(metric="dot", vector_column_name="vector")
    return lambda query: [
        row["id"]
        for row in rows.search(query)
        .distance_type("dot")
        .nprobes(64)
        .refine_factor(10)
        .select(["id"])
        .limit(TOP)
        .to_list()
    ]


PEERS = {"flat": flat, "hnsw": hnsw, "lancedb": lancedb}


def main() -> None:
    """Build one peer, search it, print the result as the last line."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    exact = np.load(folder / "exact.npz")
    queries, wanted = exact["queries"], exact["all"]
    started = time.perf_counter()
    search = PEERS[kind](vectors, folder)
    seconds = time.perf_counter() - started
    found = [search(query) for query in queries]
    recall = np.mean([len({*one} & {*best.tolist()}) / len(best) for one, best in zip(found, wanted, strict=True)])
    spans = []
    for query in queries[:TIMED]:
        began = time.perf_counter()
        search(query)
        spans.append(1000 * (time.perf_counter() - began))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    result = {
        "s": seconds,
        "recall": float(recall),
        "dense": {"p50_ms": float(np.median(spans)), "p99_ms": float(np.percentile(spans, 99))},
        "rss_gb": pages * resource.getpagesize() / 1e9,
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
