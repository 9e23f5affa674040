"""BM25 is what a careful user would set up, and chosen on dev: beating it must mean something."""

from __future__ import annotations

from pathlib import Path

from acclimate.data.dataset import Dataset
from acclimate.evaluation.lexical import DEFAULT, lexical_run
from acclimate.evaluation.measures import evaluate_run
from acclimate.stages.evaluate import evaluate
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_retrieval

CORPUS = {
    "d1": "The farmer harvests wheat in the dry months.",
    "d2": "What is to be done is what the weather is like.",
    "d3": "Running an engine without oil is not a good idea.",
    "d4": "How the rivers of the north are freezing, and where.",
    "d5": "It is what it is, and where it was.",
}
QUERIES = {
    "q1": "How is it that wheat is harvested?",
    "q2": "What is it with engines that run without oil?",
    "q3": "Where is it that a river freezes?",
}
ANSWERS = {"q1": {"d1": 1}, "q2": {"d3": 1}, "q3": {"d4": 1}}


def test_words_that_only_have_another_ending_are_found() -> None:
    """As words stand, "is it that" outweighs what the queries ask for; before, that was the baseline."""
    data = Dataset("retrieval", CORPUS, QUERIES, {"test": ANSWERS})
    run, chosen = lexical_run(data, QUERIES, 5)
    assert evaluate_run(run, ANSWERS)[0]["ndcg@10"] == 1.0
    assert chosen == {
        "language": "english",
        "variant": DEFAULT,
        "chosen": "the default, as all queries are in the test split",
        "tried": {},
    }


def test_the_variant_is_the_best_on_dev() -> None:
    # "Animal" and "animation" have one stem, "import" and "important" too: on these queries stemming harms.
    corpus = {"d1": "an animation of the sea", "d2": "an animal in the zoo", "d3": "the important work of a city"}
    corpus |= {"d4": "the import duty of a city"}
    queries = {
        "q1": "which is the animal",
        "q2": "what is animation",
        "q3": "where is the import",
        "t": "is it important",
    }
    qrels = {"q1": {"d2": 1}, "q2": {"d1": 1}, "q3": {"d4": 1}}
    data = Dataset("retrieval", corpus, queries, {"dev": qrels, "test": {"t": {"d3": 1}}})
    _, chosen = lexical_run(data, {"t": "is it important"}, 3)
    assert chosen["variant"] == "stop words left out" == max(chosen["tried"], key=chosen["tried"].__getitem__)
    assert chosen["chosen"] == "best NDCG@10 of 3 dev queries"
    data.qrels["train"] = data.qrels.pop("dev")
    assert lexical_run(data, {}, 3)[1] == chosen | {"chosen": "best NDCG@10 of 3 training queries"}


def test_a_language_without_lists_has_its_words() -> None:
    corpus = {"d1": "冬小麦条锈病怎么防治", "d2": "水稻纹枯病"}
    run, chosen = lexical_run(Dataset("retrieval", corpus, {"q": "小麦"}, {"test": {"q": {"d1": 1}}}), {"q": "小麦"}, 2)
    assert list(run["q"]) == ["d1"]
    assert (chosen["language"], chosen["variant"]) == (None, "words as they stand")


def test_the_choice_stands_in_the_report(tmp_path: Path) -> None:
    model = tiny_embedder(tmp_path / "model")
    write_retrieval(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    report = evaluate(tmp_path / "dataset", tmp_path / "adapter", tmp_path / "evaluation", config_for(model))
    assert report["lexical"]["variant"] == "words as they stand"  # the tiny world has no sentences
    assert {delta["clusters"] for delta in report["test"]["delta"].values()} == {12}
