"""What a comparison rests on, end to end: clusters, not queries; measures whose depth no flag moves."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from acclimate.data.dataset import Dataset, write_dataset
from acclimate.evaluation.clusters import pair_clusters, query_clusters
from acclimate.stages.compare_runs import compare_runs
from acclimate.stages.evaluate import evaluate
from acclimate.types import LabelledPair
from tests.stages.worlds import WORDS, config_for, tiny_embedder, write_adapter

WORLD = random.Random(3)
TEXTS = [" ".join(WORLD.choices(WORDS, k=6)) + f" {place}" for place in range(300)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model"))


def evaluated(run: Path, model: Path, dataset: Dataset, **settings: object) -> dict[str, Any]:
    """Evaluate a random adapter on a dataset."""
    if not (run / "dataset").exists():
        (run / "dataset").mkdir(parents=True)
        write_dataset(run / "dataset", dataset, [])
        write_adapter(run / "adapter", model, strength=1.0)
    return evaluate(run / "dataset", run / "adapter", run / "evaluation", config_for(model, **settings))


def of_five_documents() -> Dataset:
    """A hundred queries, all about five of three hundred documents; the same in every call."""
    world = random.Random(4)
    queries = {f"q{n}": " ".join(world.choices(WORDS, k=4)) + f" {n}" for n in range(100)}
    qrels = {f"q{n}": {f"d{n % 5}": 1} for n in range(100)}
    return Dataset("retrieval", {f"d{n}": text for n, text in enumerate(TEXTS)}, queries, {"test": qrels})


def test_a_hundred_queries_about_five_documents_prove_nothing(tmp_path: Path, model: Path) -> None:
    """Before, the hundred counted as independent, and moving five vectors was a significant difference."""
    report = evaluated(tmp_path, model, of_five_documents())
    found = report["test"]["delta"]["ndcg@10"]
    assert found["clusters"] == 5
    assert (found["low"], found["high"]) == (-1.0, 1.0) and found["p"] >= 2 / 32
    assert report["verdict"] == "no evidence"


def test_no_measure_moves_with_the_depth_of_the_run_files(tmp_path: Path, model: Path) -> None:
    """Before, average precision reached as deep as `--top-k`, or to 100."""
    shallow, deep = (evaluated(tmp_path, model, of_five_documents(), top_k=depth)["test"] for depth in (10, 300))
    for name in ("base", "adapted", "bm25"):
        assert shallow[name] == pytest.approx(deep[name], abs=1e-6)
    assert shallow["base"]["map@100"] > 0


def test_pairs_that_share_a_sentence_are_one_cluster(tmp_path: Path, model: Path) -> None:
    pairs = [LabelledPair(TEXTS[n // 4], TEXTS[100 + n], n % 5 * 1.0, n % 5 / 4) for n in range(80)]
    report = evaluated(tmp_path, model, Dataset("pairs", pairs={"test": pairs}, info={"label_range": [0, 4]}))
    assert {delta["clusters"] for delta in report["test"]["delta"].values()} == {20}


def test_finished_runs_are_compared_by_clusters_too(tmp_path: Path, model: Path) -> None:
    for name in ("one", "other"):
        evaluated(tmp_path / name, model, of_five_documents())
    result = compare_runs([tmp_path / "one", tmp_path / "other"], config_for(model))
    assert (result["shared"], result["runs"][1]["delta"]["ndcg@10"]["clusters"]) == (100, 5)


def test_clusters_by_hand() -> None:
    corpus = {"a": "Wheat rust", "b": "barley", "c": "ＷＨＥＡＴ  rust", "d": "oats"}
    queries = {"q1": "one", "q2": "two", "q3": "three", "q4": "four", "q5": "Four", "q6": "six"}
    qrels = {
        "q1": {"a": 1, "d": 0},
        "q2": {"b": 2, "a": 1},  # shares a with q1
        "q3": {"c": 1},  # has the text of a
        "q4": {"d": 1},  # was judged for q1, and is not relevant to it
        "q5": {"gone": 1},  # the text of q4
        "q6": {"elsewhere": 1},
    }
    found = query_clusters(qrels, queries, corpus)
    assert [found.index(number) for number in found] == [0, 0, 0, 3, 3, 5]
    pairs = [LabelledPair(a, b, 1.0, 1.0) for a, b in (("x", "y"), ("z", "Y"), ("u", "v"), ("v", "w"), ("y ", "s"))]
    found = pair_clusters(pairs)
    assert [found.index(number) for number in found] == [0, 0, 2, 2, 0]
