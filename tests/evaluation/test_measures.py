"""Measures of a run against a plain reference of each definition, and of pairs against scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from acclimate.evaluation.measures import (
    RETRIEVAL_MEASURES,
    evaluate_run,
    extreme_cosines,
    margin_measures,
    pair_measures,
    relative_loss,
)
from acclimate.types import LabelledPair, Qrels, Run


def reference(ranking: list[str], grades: dict[str, int]) -> dict[str, float]:
    """Each measure by its definition, one query."""
    gains = [max(grades.get(document, 0), 0) for document in ranking]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    hits = [gain > 0 for gain in gains]

    def dcg(values: list[int]) -> float:
        return sum(value / math.log2(place + 1) for place, value in enumerate(values[:10], start=1))

    first = next((place for place, hit in enumerate(hits[:10], start=1) if hit), None)
    precisions = [sum(hits[:place]) / place for place, hit in enumerate(hits, start=1) if hit]
    return {
        "ndcg@10": dcg(gains) / dcg(ideal),
        "recall@5": sum(hits[:5]) / len(ideal),
        "mrr@10": 1 / first if first else 0.0,
        "map@100": sum(precisions) / len(ideal),
        "recall@100": sum(hits[:100]) / len(ideal),
    }


def run_of(rankings: dict[str, list[str]]) -> Run:
    """Scores that are all the same: only the order may count."""
    return {query: dict.fromkeys(ranking, 0.5) for query, ranking in rankings.items()}


def test_one_query_by_hand() -> None:
    # Relevant: b (grade 2) at place 2 and x (grade 1), not found.
    # DCG = 2 / log2(3); ideal = 2 / log2(2) + 1 / log2(3). Recall 1/2. RR 1/2. AP = (1/2) / 2.
    means, per_query = evaluate_run(run_of({"q": ["a", "b", "c"]}), {"q": {"b": 2, "x": 1}})
    ndcg = (2 / math.log2(3)) / (2 + 1 / math.log2(3))
    expected = {"ndcg@10": ndcg, "recall@5": 0.5, "mrr@10": 0.5, "map@100": 0.25, "recall@100": 0.5}
    assert means == pytest.approx(expected)
    assert per_query == {"q": means}


def test_cutoffs() -> None:
    ranking = [f"d{place:03}" for place in range(1, 121)]
    qrels: Qrels = {"six": {"d006": 1}, "eleven": {"d011": 1}, "beyond": {"d101": 1}}
    _, found = evaluate_run(run_of(dict.fromkeys(qrels, ranking)), qrels)
    assert found["six"] == pytest.approx(
        {"ndcg@10": 1 / math.log2(7), "recall@5": 0, "mrr@10": 1 / 6, "map@100": 1 / 6, "recall@100": 1}
    )
    assert found["eleven"] == pytest.approx(
        {"ndcg@10": 0, "recall@5": 0, "mrr@10": 0, "map@100": 1 / 11, "recall@100": 1}
    )
    assert found["beyond"] == pytest.approx({"ndcg@10": 0, "recall@5": 0, "mrr@10": 0, "map@100": 0, "recall@100": 0})


def test_a_query_without_results_scores_0_and_one_without_relevant_documents_is_left_out() -> None:
    qrels: Qrels = {"found": {"a": 1}, "empty": {"a": 1}, "absent": {"a": 1}, "unjudged": {"a": 0}, "bare": {}}
    run = run_of({"found": ["a"], "empty": [], "unjudged": ["a"], "bare": ["a"], "stranger": ["a"]})
    means, per_query = evaluate_run(run, qrels)
    assert set(per_query) == {"found", "empty", "absent"}
    assert means == pytest.approx(dict.fromkeys(RETRIEVAL_MEASURES, 1 / 3))


def test_nothing_to_measure() -> None:
    assert evaluate_run({}, {}) == (dict.fromkeys(RETRIEVAL_MEASURES, 0.0), {})


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["q1", "q2", "q3"]),
        st.tuples(
            st.permutations([f"d{number}" for number in range(15)]),
            st.integers(0, 15),
            st.dictionaries(
                st.sampled_from([f"d{number}" for number in range(18)]), st.integers(0, 3), min_size=1, max_size=12
            ).filter(lambda grades: any(grades.values())),
        ),
        min_size=1,
    )
)
def test_any_run_equals_the_reference(rows: dict[str, tuple[list[str], int, dict[str, int]]]) -> None:
    run = run_of({query: ranking[:depth] for query, (ranking, depth, _) in rows.items()})
    qrels = {query: grades for query, (_, _, grades) in rows.items()}
    means, per_query = evaluate_run(run, qrels)
    for query in qrels:
        assert per_query[query] == pytest.approx(reference(list(run[query]), qrels[query]))
    for name, mean in means.items():
        assert mean == pytest.approx(np.mean([row[name] for row in per_query.values()]))


def pairs_of(labels: list[float], high: float = 5.0) -> list[LabelledPair]:
    return [LabelledPair(f"a{place}", f"b{place}", label, label / high) for place, label in enumerate(labels)]


def test_pair_measures_equal_scipy_and_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 6, 200).astype(float)
    cosine = np.round(labels / 10 + generator.normal(0, 0.2, 200), 2)
    found = pair_measures(cosine, pairs_of(labels.tolist()))
    positive = labels >= 2.5
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosine, labels).statistic)
    assert found["pearson"] == pytest.approx(np.corrcoef(cosine, labels)[0, 1])
    assert found["roc_auc"] == pytest.approx(roc_auc_score(positive, cosine))
    assert found["best_f1"] == pytest.approx(max(f1_score(positive, cosine >= cut) for cut in cosine))
    assert f1_score(positive, cosine >= found["best_f1_threshold"]) == pytest.approx(found["best_f1"])


def test_pairs_by_hand() -> None:
    # Ranks of the cosines 1 3 2 against 1 2 3: Spearman = 1 - 6 (0 + 1 + 1) / (3 * 8) = 0.5.
    # Positive are labels 4 and 5; they win 2 of 2 comparisons.
    found = pair_measures(np.array([0.1, 0.9, 0.5]), pairs_of([0, 4, 5]))
    assert found["spearman"] == pytest.approx(0.5)
    assert (found["roc_auc"], found["best_f1"], found["best_f1_threshold"]) == (1.0, 1.0, 0.5)


@pytest.mark.parametrize("labels", [[5.0, 5.0, 4.0], [0.0, 1.0, 0.0]])
def test_one_class_only_has_no_auc(labels: list[float]) -> None:
    found = pair_measures(np.array([0.1, 0.9, 0.5]), pairs_of(labels))
    assert found["roc_auc"] is found["best_f1"] is found["best_f1_threshold"] is None
    assert found["spearman"] is not None


def test_a_collapsed_model_orders_nothing() -> None:
    found = pair_measures(np.full(4, 0.7), pairs_of([0, 1, 4, 5]))
    assert (found["spearman"], found["pearson"], found["roc_auc"]) == (0.0, 0.0, 0.5)


def test_margins_by_hand() -> None:
    query = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    document = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]], np.float32)
    # q1 with a, b, c: 0.6, 0.8, 1.0; q2: 0.8, 0.6, 0.0. Relevant for q1 are a and c: mean 0.8, hardest negative b 0.8.
    # Relevant for q2 is a: 0.8, hardest negative b: 0.6. q3 holds relevant documents only: left out.
    run: Run = {"q1": {"c": 1.0, "b": 0.8, "a": 0.6}, "q2": {"a": 0.8, "b": 0.6, "c": 0.0}, "q3": {"a": 0.9}}
    qrels: Qrels = {"q1": {"a": 1, "c": 2, "b": 0}, "q2": {"a": 1}, "q3": {"a": 1}}
    positive, negative = extreme_cosines(run, qrels, ["q1", "q2"], query, ["a", "b", "c"], document)
    assert positive == pytest.approx([0.8, 0.8])
    assert negative == pytest.approx([0.8, 0.6])
    found = margin_measures(run, qrels, ["q1", "q2"], query, ["a", "b", "c"], document)
    assert found == pytest.approx({"positive_cosine": 0.8, "negative_cosine": 0.7, "margin": 0.1}, abs=1e-6)


def test_relative_loss() -> None:
    assert relative_loss({"map": 0.5}, {"map": 0.4}, "map") == pytest.approx(0.2)
    assert relative_loss({"map": 0.5}, {"map": 0.6}, "map") == pytest.approx(-0.2)
    assert relative_loss({"map": 0.0}, {"map": 0.6}, "map") == 0.0
