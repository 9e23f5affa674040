"""What is shown of two models: histograms over common bins, the queries most won and lost."""

from __future__ import annotations

import numpy as np
import pytest

from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.evaluation.compare import (
    BIN_WIDTH,
    SHOWN_CHARS,
    ModelScores,
    RankingScores,
    histograms,
    judged_queries,
    won_and_lost,
)

NONE = np.empty(0)


def test_histograms_by_hand() -> None:
    base = ModelScores({}, np.array([0.51, 0.52, 0.56]), np.array([0.455]))
    adapted = ModelScores({}, np.array([0.61]), np.array([0.46, 0.48]))
    found = histograms(base, adapted)
    # From the bin of the smallest, 0.455, to that of the largest, 0.61.
    assert found["edges"] == pytest.approx([0.45, 0.475, 0.5, 0.525, 0.55, 0.575, 0.6, 0.625])
    assert found["base"] == {"positive": [0, 0, 2, 0, 1, 0, 0], "negative": [1, 0, 0, 0, 0, 0, 0]}
    assert found["adapted"] == {"positive": [0, 0, 0, 0, 0, 0, 1], "negative": [1, 1, 0, 0, 0, 0, 0]}


@pytest.mark.parametrize("cosine", [-1.0, -0.025, 0.0, 0.3, 0.9999999, 1.0, 1.0000001])
def test_histograms_lose_nothing_at_the_borders(cosine: float) -> None:
    scores = ModelScores({}, np.array([cosine], np.float32), NONE)
    found = histograms(scores, scores)
    assert sum(found["base"]["positive"]) == 1
    assert np.diff(found["edges"]) == pytest.approx(BIN_WIDTH)


def test_histograms_of_nothing() -> None:
    scores = ModelScores({}, NONE, NONE)
    assert sum(histograms(scores, scores)["base"]["positive"]) == 0


def test_won_and_lost_are_sorted_cut_and_leave_out_what_is_equal() -> None:
    before = {f"q{number:02}": 0.5 for number in range(30)}
    # q00..q11 rise by 0.01 to 0.12, q12 and q13 fall by 0.2 and 0.3, the others stay.
    after = before | {f"q{number:02}": 0.51 + number / 100 for number in range(12)} | {"q12": 0.3, "q13": 0.2}
    dataset = Dataset(
        "retrieval",
        corpus={"d": "x" * 2 * SHOWN_CHARS, "e": "short"},
        queries={query: f"text of {query}" for query in before},
        qrels={"test": {query: {"e": 1} for query in before}},
    )
    won, lost = won_and_lost(_scores(before), _scores(after), dataset)
    assert [row["query_id"] for row in won] == [f"q{number:02}" for number in range(11, 1, -1)]
    assert [row["query_id"] for row in lost] == ["q13", "q12"]
    assert won[0]["delta"] == pytest.approx(0.12)
    assert won[0]["query"] == "text of q11"
    first, second = won[0]["base_top"]
    assert (first["id"], len(first["text"]), first["relevant"]) == ("d", SHOWN_CHARS, False)
    assert second == {"rank": 2, "id": "e", "text": "short", "score": 0.5, "relevant": True}
    assert (won[0]["base_rank"], won[0]["adapted_rank"], won[0]["ranked"]) == (2, 2, 2)


def test_a_relevant_document_below_the_first_ones_is_shown_at_its_place() -> None:
    """Place 5 of 6 before; not ranked at all after."""
    dataset = Dataset(
        "retrieval", {f"d{n}": f"text {n}" for n in range(7)}, {"q": "query"}, qrels={"test": {"q": {"d5": 1}}}
    )
    ranked = {f"d{n}": 1.0 - n / 10 for n in (0, 1, 2, 3, 5, 6)}
    without = {f"d{n}": 1.0 - n / 10 for n in (0, 1, 2, 3, 6)}
    before = RankingScores({}, NONE, NONE, {"q": ranked}, {"q": {"ndcg@10": 0.4}})
    after = RankingScores({}, NONE, NONE, {"q": without}, {"q": {"ndcg@10": 0.0}})
    _, (lost,) = won_and_lost(before, after, dataset)
    assert [(row["rank"], row["relevant"]) for row in lost["base_top"]] == [
        (1, False),
        (2, False),
        (3, False),
        (5, True),
    ]
    assert [row["rank"] for row in lost["adapted_top"]] == [1, 2, 3]
    assert (lost["base_rank"], lost["adapted_rank"]) == (5, None)


def test_a_test_split_without_a_relevant_document_is_refused() -> None:
    with pytest.raises(DataError, match="no query with a relevant document"):
        judged_queries(Dataset("retrieval", {"d": "text"}, {"q": "query"}, {"test": {"q": {"d": 0}}}))


def _scores(ndcg: dict[str, float]) -> RankingScores:
    return RankingScores(
        {}, NONE, NONE, {query: {"d": 0.9, "e": 0.5} for query in ndcg}, {q: {"ndcg@10": v} for q, v in ndcg.items()}
    )
