"""Arms of an evaluation of hypernetworks, summed up by hand."""

from __future__ import annotations

from acclimate.data.task_library import TaskFacts
from acclimate.evaluation.arms import compared, corpora_of, gains, groups_of, means
from acclimate.evaluation.task_scores import TaskScore

FACTS = [
    TaskFacts("e", "f", "farm", "topic", "known-definition"),
    TaskFacts("a", "f", "farm", "topic+length", "new-definition"),
    TaskFacts("b", "f", "farm", "ending", "new-attribute"),
    TaskFacts("c", "g", "pond", "topic", "new-data"),
    TaskFacts("d", "f", "farm", "domain 4", "domain"),
]


def score(value: float) -> TaskScore:
    return TaskScore(value, value / 2, value / 4)


SCORES = {
    "base": {name: score(0.2) for name in "abcde"},
    "own": {"a": score(0.6), "c": score(0.4)},
    "made": {"a": score(0.4), "b": score(0.1), "c": score(0.4), "d": score(0.2)},
}


def test_domains_are_a_group_apart() -> None:
    assert groups_of(FACTS) == {
        "known attributes": ["e", "a"],
        "known-definition": ["e"],
        "new-definition": ["a"],
        "new-attribute": ["b"],
        "new-data": ["c"],
        "domain": ["d"],
    }
    assert corpora_of(FACTS) == {"pond": ["c"]}


def test_means_are_over_the_tasks_that_were_measured() -> None:
    found = means(SCORES, ["a", "b"])
    assert found["own"] == {"tasks": 1, "ndcg": 0.6, "recall": 0.3, "mrr": 0.15}
    assert found["made"]["ndcg"] == 0.25


def test_gains_and_the_chart_compare_equal_tasks() -> None:
    rivals = {"made": ["base", "own", "absent"]}
    found = gains(SCORES, ["a", "b", "c"], rivals, flips=63, confidence=0.95, seed=0)["made"]
    assert set(found) == {"base", "own"}
    assert abs(found["base"]["value"] - 0.1) < 1e-9 and abs(found["own"]["value"] + 0.1) < 1e-9
    chart = compared(SCORES, {"base": "base", "LoRA": "own", "generated": "made", "other": "absent"})
    assert chart is not None and chart["tasks"] == 2
    assert {name: row["ndcg"] for name, row in chart["means"].items()} == {"base": 0.2, "LoRA": 0.5, "generated": 0.4}
    assert compared(SCORES, {"base": "base", "other": "absent"}) is None
