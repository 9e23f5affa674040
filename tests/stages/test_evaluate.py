"""`evaluate`: its report, its files, what it refuses, on a tiny random model."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from acclimate.configs import DomainConfig
from acclimate.data.dataset import write_dataset
from acclimate.errors import DataError, StorageError
from acclimate.evaluation.measures import RETRIEVAL_MEASURES
from acclimate.files import hash_folder
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.models.encoder import Encoder
from acclimate.stages.evaluate import evaluate, evaluate_model, evaluate_only
from acclimate.types import Sides
from tests.stages.worlds import WORDS, config_for, tiny_embedder, write_adapter, write_pairs, write_retrieval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def evaluated(run: Path, model: Path, **settings: object) -> dict[str, Any]:
    return evaluate(run / "dataset", run / "adapter", run / "evaluation", config_for(model, **settings))


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A run whose adapter turns only the queries away from their documents."""
    run = tmp_path_factory.mktemp("harmed")
    write_retrieval(run)
    write_adapter(run / "adapter", model, strength=1.0, sides="query")
    evaluated(run, model)
    return run


def report_of(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "evaluation" / "report.json").read_text(encoding="utf-8"))
    return value


def test_a_harmful_adapter_is_found_worse(harmed: Path) -> None:
    report = report_of(harmed)
    test = report["test"]
    # A query that is a document's text has that document's vector: found first, NDCG 1; q00 has one that is not found
    # first, of grade 2.
    assert test["base"]["mrr@10"] == 1.0
    assert test["adapted"]["ndcg@10"] < test["base"]["ndcg@10"]
    assert (report["kind"], report["sides"], report["verdict"], report["recommend"]) == (
        "retrieval",
        "query",
        "worse",
        "base",
    )
    assert (test["queries"], test["queries_without_relevant"], test["documents"]) == (12, 1, 40)
    assert set(test["delta"]) == set(RETRIEVAL_MEASURES)
    for name, delta in test["delta"].items():
        assert delta["value"] == pytest.approx(test["adapted"][name] - test["base"][name])
        assert delta["low"] <= delta["value"] <= delta["high"]
        assert 0 < delta["p"] <= 1


def test_run_files_and_per_query_scores_are_those_behind_the_report(harmed: Path) -> None:
    report, rows = report_of(harmed), read_rows(harmed / "evaluation" / "per_query.jsonl")
    assert len(rows) == 12
    for model in ("base", "adapted", "bm25"):
        found = read_trec(harmed / "evaluation" / "runs" / f"{model}.trec", model)
        for row in rows:
            ranking, number = found[row["query_id"]], row["query_id"][1:]
            relevant = {f"d{number}", "d39"} if number == "00" else {f"d{number}"}
            place = next((place for place, document in enumerate(ranking, 1) if document in relevant), math.inf)
            assert row[model]["mrr@10"] == pytest.approx(1 / place if place <= 10 else 0)
        for name in RETRIEVAL_MEASURES:
            assert report["test"][model][name] == pytest.approx(np.mean([row[model][name] for row in rows]))


def test_the_ranking_is_the_brute_force_one_and_documents_stay_with_the_base(harmed: Path, model: Path) -> None:
    corpus = {row["_id"]: row["text"] for row in read_rows(harmed / "dataset" / "corpus.jsonl")}
    base = Encoder.load(str(model), device="cpu", dtype="float32")
    cosine = base.encode([corpus["d03"]], "query") @ base.encode(list(corpus.values()), "document").T
    expected = [list(corpus)[index] for index in np.argsort(-cosine[0])]
    assert read_trec(harmed / "evaluation" / "runs" / "base.trec", "base")["q03"][:5] == expected[:5]
    assert len(list((harmed / ".work" / "cache").rglob("*.npy"))) == 1


def test_lost_queries_show_what_both_models_found(harmed: Path) -> None:
    report = report_of(harmed)
    assert report["lost"] and len(report["lost"]) <= 10
    changes = [row["delta"] for row in report["lost"]]
    assert changes == sorted(changes) and max(changes) < 0
    worst = report["lost"][0]
    assert worst["delta"] == pytest.approx(worst["adapted"] - worst["base"])
    assert len(worst["base_top"]) == 3 and worst["base_rank"] == 1
    # The relevant document is shown too, wherever it stands.
    assert len(worst["adapted_top"]) == 4 and worst["adapted_rank"] > 3 and worst["adapted_top"][3]["relevant"]
    assert worst["base_top"][0]["relevant"] and worst["base_top"][0]["text"] == worst["query"]


def test_histograms_count_every_query(harmed: Path) -> None:
    histograms = report_of(harmed)["histograms"]
    for model in ("base", "adapted"):
        for side in ("positive", "negative"):
            counts = histograms[model][side]
            assert (sum(counts), len(counts)) == (12, len(histograms["edges"]) - 1)


def test_one_model_alone_has_the_same_measures(harmed: Path, model: Path) -> None:
    report, config = report_of(harmed), config_for(model)
    base = evaluate_model(str(harmed), None, config)
    adapted = evaluate_model(str(harmed / "dataset"), harmed / "adapter", config)
    for found, expected in ((base, report["test"]["base"]), (adapted, report["test"]["adapted"])):
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert (found["queries"], found["documents"]) == (12, 40)


def test_a_second_evaluation_is_kept_and_another_config_is_not(harmed: Path, model: Path) -> None:
    before = (harmed / "evaluation" / "report.json").stat().st_mtime_ns
    assert evaluated(harmed, model) == report_of(harmed)
    assert (harmed / "evaluation" / "report.json").stat().st_mtime_ns == before
    wide = evaluated(harmed, model, confidence=0.5)["test"]["delta"]["mrr@10"]
    assert (harmed / "evaluation" / "report.json").stat().st_mtime_ns > before
    narrow = evaluated(harmed, model)["test"]["delta"]["mrr@10"]
    assert narrow["high"] - narrow["low"] > wide["high"] - wide["low"]


@pytest.mark.parametrize("sides", ["both", "query"])
def test_an_adapter_that_changes_nothing_is_no_evidence(tmp_path: Path, model: Path, sides: Sides) -> None:
    write_retrieval(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=0.0, sides=sides)
    report = evaluated(tmp_path, model)
    assert (report["verdict"], report["recommend"], report["sides"]) == ("no evidence", "base", sides)
    assert report["test"]["base"] == pytest.approx(report["test"]["adapted"], abs=1e-6)
    assert report["test"]["delta"]["ndcg@10"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "clusters": 12}
    assert report["won"] == report["lost"] == []


def test_a_fully_trained_model_in_place_of_an_adapter(tmp_path: Path, model: Path) -> None:
    write_retrieval(tmp_path)
    tiny_embedder(tmp_path / "adapter", seed=5)
    report = evaluated(tmp_path, model)
    assert report["sides"] == "both"
    expected = evaluate_model(str(tmp_path), None, config_for(tmp_path / "adapter"))
    assert report["test"]["adapted"]["map@100"] == pytest.approx(expected["map@100"])
    assert report["test"]["adapted"]["negative_cosine"] != pytest.approx(report["test"]["base"]["negative_cosine"])


def test_pairs(tmp_path: Path, model: Path) -> None:
    dataset = write_pairs(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    report = evaluated(tmp_path, model)
    rows, test = read_rows(tmp_path / "evaluation" / "per_query.jsonl"), report["test"]
    assert (report["kind"], test["pairs"], len(rows)) == ("pairs", 60, 60)
    labels = [pair.label for pair in dataset.pairs["test"]]
    for name in ("base", "adapted"):
        cosines = [row[name] for row in rows]
        assert test[name]["spearman"] == pytest.approx(stats.spearmanr(cosines, labels).statistic)
        assert set(test[name]) == {"spearman", "pearson", "roc_auc", "best_f1", "best_f1_threshold"}
        # Scores of at least 0.5 are labels 2, 3 and 4: three of five.
        assert sum(report["histograms"][name]["positive"]) == 36
        assert sum(report["histograms"][name]["negative"]) == 24
    assert set(test["delta"]) == {"spearman", "pearson"}
    alone = evaluate_model(str(tmp_path), tmp_path / "adapter", config_for(model))
    assert [set(alone.pop(end)) for end in ("low", "high")] == [{"spearman", "pearson"}] * 2
    assert alone == pytest.approx(test["adapted"] | {"pairs": 60})


def test_guard_data_of_both_kinds(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "run")
    write_adapter(tmp_path / "run" / "adapter", model, strength=1.0, sides="query")
    write_retrieval(tmp_path / "general")
    write_pairs(tmp_path / "sentences")
    guard = (str(tmp_path / "general" / "dataset"), str(tmp_path / "sentences" / "dataset"))
    general, sentences = evaluated(tmp_path / "run", model, guard=guard, guard_bound=0.05)["guard"]
    assert general["base"]["mrr@10"] == 1.0
    assert general["delta"]["ndcg@10"]["high"] < 0
    expected = 1 - general["adapted"]["ndcg@10"] / general["base"]["ndcg@10"]
    assert general["relative_loss"] == pytest.approx(expected)
    assert expected > 0.05 and general["warn"]
    assert "below the base's" in capsys.readouterr().err
    assert sentences["kind"] == "pairs"
    assert sentences["warn"] == (sentences["relative_loss"] > 0.05)


def test_without_dataset_or_adapter_the_error_names_the_command(tmp_path: Path, model: Path) -> None:
    with pytest.raises(StorageError, match="acclimate prepare DATA --out"):
        evaluated(tmp_path, model)
    write_retrieval(tmp_path)
    with pytest.raises(StorageError, match="acclimate train"):
        evaluated(tmp_path, model)
    assert not (tmp_path / "evaluation").exists()


def test_guard_data_that_is_not_there_leaves_the_older_evaluation(harmed: Path, model: Path) -> None:
    before = hash_folder(harmed / "evaluation")
    with pytest.raises(DataError, match="nowhere"):
        evaluated(harmed, model, guard=(str(harmed / "nowhere.jsonl"),))
    assert hash_folder(harmed / "evaluation") == before


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_trec(path: Path, tag: str) -> dict[str, list[str]]:
    """Query -> documents in the order of the rank column, which must be that of the lines and of the scores."""
    found: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        query, zero, document, rank, score, name = line.split()
        assert (zero, name, int(rank)) == ("Q0", tag, len(found.setdefault(query, [])) + 1)
        found[query].append(document)
        scores.setdefault(query, []).append(float(score))
    assert all(values == sorted(values, reverse=True) for values in scores.values())
    return found


def test_terms_and_topics_of_the_domain(tmp_path: Path, model: Path) -> None:
    write_retrieval(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    lexicon, topics = tmp_path / "l.txt", tmp_path / "t.jsonl"
    settings = config_for(model, topics=str(topics))
    settings = dataclasses.replace(settings, domain=DomainConfig(lexicon=str(lexicon)))

    def domain() -> dict[str, Any]:
        found: dict[str, Any] = evaluate(tmp_path / "dataset", tmp_path / "adapter", tmp_path / "evaluation", settings)
        return dict(found["domain"])

    with pytest.raises(DataError, match=r"l.txt: no such file"):
        domain()
    lexicon.write_text("rain water\nthe like of which is not there\n", encoding="utf-8")
    topics.write_text('{"text": "rain"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"no column 'topic'; columns found: 'text'"):
        domain()
    rows = [{"text": f"{word} in the {place}", "topic": place} for word in WORDS for place in ("field", "soil")]
    topics.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    first = domain()
    corpus = [row["text"] for row in read_rows(tmp_path / "dataset" / "corpus.jsonl")]
    holding = sum("rain water" in text for text in corpus)
    assert 2 <= holding <= 4
    assert read_rows(tmp_path / "evaluation" / "per_term.jsonl")[0]["documents"] == holding
    assert first["term_accuracy"]["terms"] == 1 and first["lexicon"]["terms"] == 2
    assert (tmp_path / "evaluation" / "lexicon.txt").read_text().splitlines()[0] == "rain water"
    assert (first["relatedness"]["topics"], first["relatedness"]["texts"]) == (2, 26)
    assert set(first["term_accuracy"]["delta"]) == {"term_accuracy@1", "term_r_precision", "text_accuracy@1"}
    lexicon.write_text("snow\n", encoding="utf-8")  # the content counts, not only the name
    assert "no term of the lexicon stands in 2 to 100 documents" in domain()["term_accuracy"]["skipped"]


def test_one_model_is_measured_on_all_of_a_file(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained, so nothing is held apart; before, 100 of 300 queries were, and 18 were refused."""
    draw = random.Random(7)
    for count in (300, 18):
        rows = [
            {"query": " ".join(draw.sample(WORDS, 5)) + f" {number}", "positive": " ".join(draw.choices(WORDS, k=8))}
            for number in range(count)
        ]
        file = tmp_path / f"{count}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = evaluate_model(str(file), None, config_for(model))
        assert found["queries"] == count == len({row["query"] for row in rows})
        assert "all of the data" in capsys.readouterr().err


def test_one_model_has_intervals_that_are_as_wide_as_its_queries_are_few(tmp_path: Path, model: Path) -> None:
    """They were left out. Queries that share a document count as one, as where two models are compared."""
    widths = {}
    for name, documents in (("alone", 60), ("together", 6)):
        rows = [
            {"query": f"{number} {WORDS[number % 7]}", "positive": f"d{number % documents}"} for number in range(60)
        ]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = evaluate_model(str(file), None, config_for(model))
        assert set(found["low"]) == set(found["high"]) == set(RETRIEVAL_MEASURES)
        for measure in RETRIEVAL_MEASURES:
            assert 0 <= found["low"][measure] <= found[measure] <= found["high"][measure] <= 1
        widths[name] = found["high"]["recall@5"] - found["low"]["recall@5"]
    assert widths["together"] > widths["alone"] > 0


def test_pairs_have_intervals_too(tmp_path: Path, model: Path) -> None:
    write_pairs(tmp_path)
    found = evaluate_model(str(tmp_path), None, config_for(model))
    for measure in ("spearman", "pearson"):
        assert -1 <= found["low"][measure] < found[measure] < found["high"][measure] <= 1


def test_what_cannot_be_kept_is_measured_all_the_same(harmed: Path, model: Path) -> None:
    before = sorted(harmed.rglob("*"))
    folders = harmed / "dataset", harmed / "adapter", harmed / "evaluation"
    kept = evaluate_only(*folders, config_for(model))
    assert kept == report_of(harmed)
    again = evaluate_only(*folders, config_for(model, confidence=0.9))
    assert again["test"]["adapted"] == kept["test"]["adapted"] and again["confidence"] == 0.9
    assert sorted(harmed.rglob("*")) == before and report_of(harmed) == kept


def test_an_adapter_is_measured_on_all_that_it_was_not_trained_on(tmp_path: Path, model: Path) -> None:
    rows = [{"query": f"{one} {two}", "positive": f"{two} {one} {one}"} for one, two in permutations(WORDS[:6], 2)]
    file = tmp_path / "other.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_adapter(tmp_path / "adapter", model, strength=0.5)
    write_trained_on(tmp_path / "adapter", TrainedOn.of({rows[0]["query"], rows[5]["query"]}, set()))
    found = evaluate_model(str(file), tmp_path / "adapter", config_for(model))
    assert (found["queries"], found["trained_on"]) == (len(rows) - 2, 2)


def test_a_test_split_of_its_own_is_what_is_measured(tmp_path: Path, model: Path) -> None:
    data = write_retrieval(tmp_path)
    data.qrels["train"] = {"q00": data.qrels["test"].pop("q00")}
    (tmp_path / "again").mkdir()
    write_dataset(tmp_path / "again", data, [])
    assert evaluate_model(str(tmp_path / "again"), None, config_for(model))["queries"] == 11


def test_a_guard_that_is_too_small_to_be_divided_is_all_measured(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before: refused, with the advice to give flags that are about the run's own data."""
    write_pairs(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=0.5)
    rows = [
        {"query": f"{one} {two}", "positive": f"{two} {one} {one}"} for one, two in list(permutations(WORDS, 2))[:18]
    ]
    guard = tmp_path / "general.jsonl"
    guard.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluated(tmp_path, model, guard=(str(guard),))["guard"][0]["queries"] == 18
    assert "too small to be divided" in capsys.readouterr().err
