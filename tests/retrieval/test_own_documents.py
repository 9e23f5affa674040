"""A query that is a document too does not find itself, wherever queries are ranked."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from acclimate.data.dataset import Dataset, write_dataset
from acclimate.evaluation.dev import dev_set, retrieval_scores
from acclimate.evaluation.lexical import lexical_run
from acclimate.models.encoder import Encoder
from acclimate.retrieval.own_documents import own_documents, without_own
from acclimate.retrieval.rank import rank
from acclimate.stages.evaluate import evaluate
from acclimate.stages.search import search
from tests.stages.worlds import WORDS, config_for, tiny_embedder, write_adapter

CORPUS = {f"a{number}": f"{one} {two} {one}" for number, (one, two) in enumerate(pairwise(WORDS))}
QRELS = {f"a{number}": {f"a{number + 1}": 1} for number in range(8)}
DATA = Dataset("retrieval", CORPUS, {name: CORPUS[name] for name in QRELS}, {"test": QRELS})


def test_ids_that_are_both_unless_they_are_judged_relevant() -> None:
    qrels = {"a0": {"a1": 1}, "a1": {"a1": 1}, "a2": {"a2": 0}, "q": {"a3": 1}}
    assert own_documents(qrels, CORPUS, qrels) == {"a0", "a2"}
    run = {"a0": {"a0": 1.0, "a1": 0.5, "a2": 0.2}, "a1": {"a1": 1.0, "a0": 0.9, "a2": 0.1}}
    assert without_own(run, {"a0"}, 2) == {"a0": {"a1": 0.5, "a2": 0.2}, "a1": {"a1": 1.0, "a0": 0.9}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def test_every_ranking_leaves_it_out(model: Path) -> None:
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    own = own_documents(QRELS, CORPUS, QRELS)
    runs = [rank(encoder, DATA.queries, CORPUS, 5, own=own), lexical_run(DATA, DATA.queries, 5)[0]]
    for run in runs:
        assert all(query not in found for query, found in run.items())
    assert {len(found) for found in runs[0].values()} == {5}
    corpus_MD = encoder.encode(list(CORPUS.values()), "document")
    dev = dev_set(encoder, CORPUS, corpus_MD, DATA.queries, QRELS, 20, 0)
    everything = rank(encoder, DATA.queries, dev.corpus, 20)
    found = [list(ranking).index(f"a{int(query[1:]) + 1}") for query, ranking in everything.items()]
    mine = [sum(name != query for name in list(everything[query])[:at]) for query, at in zip(QRELS, found, strict=True)]
    expected = sum(1 / (at + 1) for at in mine if at < 10) / len(mine)
    assert retrieval_scores(encoder, dev)(0)["mrr@10"] == pytest.approx(expected)


def test_the_evaluation_counts_them_and_search_does_not_skip(tmp_path: Path, model: Path) -> None:
    (tmp_path / "dataset").mkdir()
    corpus = CORPUS | {"query": "wheat rain"}  # the id that `search` gives to the words it searches for
    write_dataset(tmp_path / "dataset", Dataset("retrieval", corpus, DATA.queries, {"test": QRELS}), [])
    write_adapter(tmp_path / "adapter", model, strength=0.5)
    report = evaluate(tmp_path / "dataset", tmp_path / "adapter", tmp_path / "evaluation", config_for(model))
    assert report["test"]["own_documents"] == 8
    for name in ("base", "adapted", "bm25"):
        rows = (tmp_path / "evaluation" / "runs" / f"{name}.trec").read_text().splitlines()
        assert rows and all(row.split()[0] != row.split()[2] for row in rows)
    assert search(tmp_path, "wheat rain", 1, config_for(model))["base"][0]["id"] == "query"
