"""BEIR folders, read without the code under test."""

from __future__ import annotations

import json
from pathlib import Path

from acclimate.types import Corpus, Qrels, Queries


def read_beir(folder: Path) -> tuple[Corpus, Queries, Qrels]:
    """Corpus, test queries and test qrels of a BEIR folder."""

    def texts(name: str) -> dict[str, str]:
        rows = map(json.loads, (folder / name).read_text(encoding="utf-8").splitlines())
        return {row["_id"]: row["text"] for row in rows}

    qrels: Qrels = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    queries = texts("queries.jsonl")
    return texts("corpus.jsonl"), {query: queries[query] for query in qrels}, qrels
