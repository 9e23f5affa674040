"""BM25: scores by hand, ranks by brute force, and its numbers on shared data."""

from __future__ import annotations

import math

import pytest

from acclimate.core.analyser import Analyser
from acclimate.evaluation.measures import evaluate_run
from acclimate.retrieval.bm25 import BM25, K1, B
from tests.beir import read_beir
from tests.conftest import shared_data


def test_scores_by_hand() -> None:
    index = BM25({"a": "red red fox", "b": "blue fox", "c": "blue"})
    assert index.ids == ["a", "b", "c"]
    # 3 documents of mean length 2; "red" is in 1 of them: idf = ln(1 + 2.5 / 1.5); "fox" in 2: ln(1 + 1.5 / 2.5).
    red, fox = math.log(1 + 2.5 / 1.5), math.log(1 + 1.5 / 2.5)
    norm_a, norm_b = K1 * (1 - B + B * 3 / 2), K1 * (1 - B + B * 2 / 2)
    expected = [red * 2 / (2 + norm_a) + fox * 1 / (1 + norm_a), fox * 1 / (1 + norm_b), 0.0]
    assert index.scores("Red fox and unknown words") == pytest.approx(expected)
    # A repeated query term counts as often as it is there.
    assert index.scores("fox fox")[1] == pytest.approx(2 * fox / (1 + norm_b))


def test_rank_leaves_out_what_shares_no_term_and_orders_ties_by_id() -> None:
    corpus = {"d": "one two", "b": "one two", "c": "one two", "a": "three"}
    index = BM25(corpus)
    assert list(index.rank({"q": "one"}, 10)["q"]) == ["b", "c", "d"]
    assert list(index.rank({"q": "one"}, 2)["q"]) == ["b", "c"]
    assert index.rank({"q": "nothing"}, 2) == {"q": {}}


def test_the_best_k_are_the_first_k_of_all() -> None:
    corpus = {f"d{n:02}": " ".join(f"w{n * m % 7}" for m in range(1, 2 + n % 5)) for n in range(40)}
    index, queries = BM25(corpus), {"q": "w1 w3", "r": "w0 w2 w4"}
    every = index.rank(queries, len(corpus))
    for k in (1, 3, 8, 17):
        assert {query: list(found) for query, found in index.rank(queries, k).items()} == {
            query: list(found)[:k] for query, found in every.items()
        }


def test_a_corpus_without_any_token() -> None:
    assert BM25({"a": "!", "b": "?"}).rank({"q": "word"}, 3) == {"q": {}}


PLAIN = Analyser()
STOPPED = Analyser("english", stop_words=True)
STEMMED = Analyser("english", stop_words=True, stemming=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "analyser", "expected"),
    [
        # An independent BM25 over runs of letters and digits has 0.3583, 0.6622, and 0.6335 (its bigrams are unknown).
        # Words by Unicode's rules keep "file.txt" whole, as Lucene's do: in shell commands that costs a little.
        ("nl2bash_en", PLAIN, 0.3455),
        ("scifact_en", PLAIN, 0.6622),
        ("agrieval_zh", PLAIN, 0.6265),
        ("nl2bash_en", STOPPED, 0.4233),
        ("scifact_en", STEMMED, 0.6848),
    ],
)
def test_on_shared_data(name: str, analyser: Analyser, expected: float) -> None:
    corpus, queries, qrels = read_beir(shared_data("data", name))
    measures, _ = evaluate_run(BM25(corpus, analyser).rank(queries, 100), qrels)
    assert measures["ndcg@10"] == pytest.approx(expected, abs=0.002)
