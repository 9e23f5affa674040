"""The holes between the stages of a run, and between runs, each as a small end-to-end case; and the leak detector."""

from __future__ import annotations

import json
import random
import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import (
    EvaluateConfig,
    MergeConfig,
    MineConfig,
    ObjectiveConfig,
    PrepareConfig,
    RerankConfig,
    RunConfig,
    TrainConfig,
)
from acclimate.core.same_text import same_text_key
from acclimate.data.dataset import load_dataset, read_examples
from acclimate.errors import DataError
from acclimate.files import hash_folder
from acclimate.flows.adapt import adapt
from acclimate.formats.trained_on import read_trained_on
from acclimate.runs.guards import guard_data
from acclimate.stages.evaluate import evaluate, evaluate_model
from acclimate.stages.merge import merge
from acclimate.stages.mine import mine
from acclimate.stages.prepare import prepare, prepare_together
from acclimate.stages.train import train
from acclimate.stages.train_reranker import train_reranker
from tests.leak_check import no_run_leaks  # noqa: F401
from tests.proof.leaks import find_leaks
from tests.tiny_run import WORDS, write_tiny_bert

TRAIN = TrainConfig(batch_size=16, epochs=0.5, rank=2, dev_documents=20)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")
    shared: dict[str, Any] = {"model": str(model), "pooling": "mean", "device": "cpu", "dtype": "float32"}
    return RunConfig(**shared, train=TRAIN, evaluate=EvaluateConfig(sign_flips=100))


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    draw = random.Random(seed)
    texts = set[str]()
    while len(texts) < 2 * count:
        texts.add(" ".join(draw.choices(WORDS, k=5)))
    ordered = sorted(texts)
    return [{"query": ordered[2 * n], "response": ordered[2 * n + 1]} for n in range(count)]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows(300))


@pytest.fixture(scope="module")
def run(source: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    adapt(str(source), folder, config)
    return folder


def test_a_run_says_what_it_was_trained_on_and_its_test_is_not_in_it(run: Path) -> None:
    data, seen = load_dataset(run / "dataset"), read_trained_on(run / "adapter")
    assert all(seen.has_text(text) for row in data.examples for text in (row.anchor, row.positive))
    assert all(seen.has_text(data.queries[query]) for query in data.qrels["dev"])  # they chose the best step
    assert not any(seen.has_text(data.queries[query]) for query in data.qrels["test"])
    report = json.loads((run / "evaluation" / "report.json").read_text())
    assert report["test"]["trained_on"] == 0 and report["training_known"]
    assert find_leaks(run) == []


# Fault 7.
def test_evaluating_the_source_of_a_run_uses_its_own_split(
    run: Path, source: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """70 of 100 queries of a fresh cut had been trained on."""
    measured = evaluate_model(str(source), run, replace(config, seed=7))
    assert "its own split is used" in capsys.readouterr().err
    test = json.loads((run / "evaluation" / "report.json").read_text())["test"]
    assert measured["ndcg@10"] == pytest.approx(test["adapted"]["ndcg@10"]) and "trained_on" not in measured


def test_a_fresh_cut_of_the_same_texts_is_tested_without_what_was_trained_on(
    run: Path, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dressed = [{"query": f"{row['query'].upper()} ?", "response": row["response"]} for row in rows(300)]
    copied = write(tmp_path / "copied.jsonl", dressed)
    measured = evaluate_model(str(copied), run / "adapter", replace(config, seed=7))
    assert measured["trained_on"] + measured["queries"] == 300  # all of the file is measured
    assert measured["trained_on"] == 200  # all but the run's own test
    assert "were in the training: they are left out" in capsys.readouterr().err
    unseen = write(tmp_path / "unseen.jsonl", rows(300, seed=1))
    assert "trained_on" not in evaluate_model(str(unseen), run / "adapter", config)


def test_a_test_that_was_trained_on_altogether_is_refused(run: Path, config: RunConfig, tmp_path: Path) -> None:
    data = load_dataset(run / "dataset")
    trained = [{"query": row.anchor, "response": row.positive} for row in data.examples]
    copied = write(tmp_path / "trained.jsonl", trained)
    by_query = replace(config, prepare=PrepareConfig(split_by="query"))
    with pytest.raises(DataError, match=r"all 190 test queries of .* were in the training"):
        evaluate_model(str(copied), run / "adapter", by_query)


# Fault 6: what an ingredient has seen.
def test_what_a_start_adapter_saw_is_left_out_of_the_test(run: Path, config: RunConfig, tmp_path: Path) -> None:
    other = replace(config, seed=7)
    prepare(str(write(tmp_path / "pairs.jsonl", rows(300))), tmp_path / "run" / "dataset", other)
    going_on = replace(other, train=replace(TRAIN, start_adapter=str(run)))
    train(tmp_path / "run" / "dataset", None, tmp_path / "run" / "adapter", going_on)
    folder = tmp_path / "run"
    report = evaluate(folder / "dataset", folder / "adapter", folder / "evaluation", other)
    assert report["test"]["trained_on"] > 40
    assert report["test"]["trained_on"] + report["test"]["queries"] == 100
    leaks = find_leaks(folder)
    assert len(leaks) == report["test"]["trained_on"] and all("trained_on.safetensors" in leak for leak in leaks)
    shutil.rmtree(folder)  # it has the leaks that it is here to show


@pytest.mark.parametrize("role", ["guide", "embedding_teacher"])
def test_what_a_guide_or_a_teacher_saw_is_inherited(role: str, run: Path, config: RunConfig, tmp_path: Path) -> None:
    prepare(str(write(tmp_path / "pairs.jsonl", rows(300, seed=1))), tmp_path / "dataset", config)
    objective = ObjectiveConfig(
        **({"loss": "embedding-distillation"} if role == "embedding_teacher" else {}), **{role: str(run)}
    )  # type: ignore[arg-type]
    train(tmp_path / "dataset", None, tmp_path / "adapter", replace(config, objective=objective))
    seen, theirs = read_trained_on(tmp_path / "adapter"), read_trained_on(run / "adapter")
    assert set(theirs.ids.tolist()) < set(seen.ids.tolist())


def test_a_merged_model_has_seen_what_its_parts_have(run: Path, config: RunConfig, tmp_path: Path) -> None:
    prepare(str(write(tmp_path / "pairs.jsonl", rows(300, seed=1))), tmp_path / "other" / "dataset", config)
    train(tmp_path / "other" / "dataset", None, tmp_path / "other" / "adapter", config)
    merge([run, tmp_path / "other"], tmp_path / "merged", replace(config, merge=MergeConfig(method="linear")))
    merge([run], tmp_path / "folded", config)
    parts = [set(read_trained_on(folder / "adapter").ids.tolist()) for folder in (run, tmp_path / "other")]
    assert set(read_trained_on(tmp_path / "merged").ids.tolist()) == parts[0] | parts[1]
    assert set(read_trained_on(tmp_path / "folded").ids.tolist()) == parts[0]


def test_an_adapter_that_does_not_say_is_reported(run: Path, config: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "trained_on.safetensors").unlink()
    assert not evaluate(run / "dataset", tmp_path / "adapter", tmp_path / "evaluation", config)["training_known"]


# Fault 8.
@pytest.mark.parametrize(
    "dress", [str, str.upper, lambda text: unicodedata.normalize("NFD", text), lambda text: text + " ?"]
)
def test_what_guards_is_not_retained(
    dress: Any, run: Path, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of the guard's test queries and answers were anchored: the guard measured what had been held fast."""
    guard = write(tmp_path / "guard.jsonl", [{name: text + " é" for name, text in row.items()} for row in rows(250, 2)])
    other = [{name: dress(text) for name, text in json.loads(line).items()} for line in guard.open()]
    retained = write(tmp_path / "retained.jsonl", other)
    guarded = replace(
        config,
        evaluate=replace(config.evaluate, guard=(str(guard),)),
        objective=ObjectiveConfig(retain_data=str(retained)),
    )
    report = train(run / "dataset", None, tmp_path / "adapter", guarded)
    (data,) = guard_data([str(guard)], seed=config.seed, limit=None)
    held = {data.queries[query] for split in ("dev", "test") for query in data.qrels[split]}  # type: ignore[index]
    held |= {
        data.corpus[document]
        for split in ("dev", "test")
        for grades in data.qrels[split].values()
        for document in grades
    }  # type: ignore[index]
    seen = read_trained_on(tmp_path / "adapter")
    assert len(held) > 200 and not any(seen.has_text(text) for text in held)
    assert report["train"]["retained_excluded"] == len(held)
    assert "in dev or test of this run or of a guard, and not retained" in capsys.readouterr().err


# Fault 9.
def test_a_test_query_in_the_corpus_is_not_mined(config: RunConfig, tmp_path: Path) -> None:
    """45 of 100 test queries became negatives where the corpus holds questions."""
    source = write(tmp_path / "pairs.jsonl", rows(300))
    corpus = write(tmp_path / "corpus.jsonl", [{"text": f"{row['query']}?"} for row in rows(300)])
    asking = replace(
        config, prepare=PrepareConfig(corpus=str(corpus)), mine=MineConfig(range_max=400, num_negatives=20, range_min=0)
    )
    prepare(str(source), tmp_path / "dataset", asking)
    report = mine(tmp_path / "dataset", tmp_path / "negatives", asking)
    data = load_dataset(tmp_path / "dataset")
    held = {same_text_key(data.queries[query]) for split in ("dev", "test") for query in data.qrels[split]}  # type: ignore[index]
    mined = {
        same_text_key(text)
        for row in read_examples(tmp_path / "negatives" / "examples.jsonl")
        for text in row.negatives
    }
    assert mined and held.isdisjoint(mined)
    assert report["never_mined"] == {"queries": len(held)}
    answers = {same_text_key(data.corpus[key]) for grades in data.qrels["test"].values() for key in grades}
    assert mined & answers  # as the answers of queries to come are: mining knows of neither


def test_a_positive_in_other_dress_is_not_mined(config: RunConfig, tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", rows(300))
    corpus = write(tmp_path / "corpus.jsonl", [{"text": f"« {row['response']} »"} for row in rows(300)])
    many = MineConfig(range_max=400, num_negatives=20, range_min=0)
    dressed = replace(config, prepare=PrepareConfig(corpus=str(corpus)), mine=many)
    prepare(str(source), tmp_path / "dataset", dressed)
    mine(tmp_path / "dataset", tmp_path / "negatives", dressed)
    mined = read_examples(tmp_path / "negatives" / "examples.jsonl")
    assert sum(len(row.negatives) for row in mined) > 1000
    for row in mined:
        keys = list(map(same_text_key, row.negatives))
        assert same_text_key(row.positive) not in keys and len(set(keys)) == len(keys)


def test_what_the_teacher_of_mining_saw_is_inherited(run: Path, config: RunConfig, tmp_path: Path) -> None:
    prepare(str(write(tmp_path / "pairs.jsonl", rows(300, seed=1))), tmp_path / "dataset", config)
    taught = replace(config, mine=MineConfig(teacher=str(run)))
    mine(tmp_path / "dataset", tmp_path / "negatives", taught)
    train(tmp_path / "dataset", tmp_path / "negatives", tmp_path / "adapter", config)
    seen, theirs = read_trained_on(tmp_path / "adapter"), read_trained_on(run / "adapter")
    assert seen.complete and set(theirs.ids.tolist()) < set(seen.ids.tolist())


def test_so_does_a_reranker_that_learns_from_these_negatives(run: Path, config: RunConfig, tmp_path: Path) -> None:
    prepare(str(write(tmp_path / "pairs.jsonl", rows(300, seed=1))), tmp_path / "dataset", config)
    mine(tmp_path / "dataset", tmp_path / "negatives", replace(config, mine=MineConfig(teacher=str(run))))
    short = replace(config, rerank=RerankConfig(rerank_batch_size=64, rerank_epochs=0.2, rerank_group_size=2))
    base, out = str(write_tiny_bert(tmp_path / "base")), tmp_path / "reranker"
    train_reranker(tmp_path / "dataset", tmp_path / "negatives", tmp_path / "none", base, out, short)
    seen, theirs = read_trained_on(out), read_trained_on(run / "adapter")
    assert set(theirs.ids.tolist()) < set(seen.ids.tolist())


# Fault 6: the data sets of one run.
def test_data_sets_of_one_run_are_prepared_together(config: RunConfig, tmp_path: Path) -> None:
    """65 of 100 test queries of the one were training rows of the other."""
    one = write(tmp_path / "one.jsonl", rows(300))
    other = write(tmp_path / "other.jsonl", [{**row, "query": row["query"].upper()} for row in rows(300)])
    run = tmp_path / "run"
    parts = [(str(path), run / "tasks" / path.stem / "dataset", config) for path in (one, other)]
    prepare_together(parts)
    assert find_leaks(run) == []
    data = [load_dataset(out) for _, out, _ in parts]
    trained = {same_text_key(text) for found in data for row in found.examples for text in (row.anchor, row.positive)}
    tested = {same_text_key(found.queries[query]) for found in data for query in found.qrels["test"]}
    assert len(tested) == 100 and tested.isdisjoint(trained)  # the same queries are the test of both
    before = [hash_folder(out) for _, out, _ in parts]
    write(other, rows(300, seed=3))  # the other one's split depends on it: both are made again
    prepare_together(parts)
    assert all(hash_folder(out) != old for (_, out, _), old in zip(parts, before, strict=True))


# The detector itself.
@pytest.mark.parametrize("where", ["anchor", "positive", "negatives"])
def test_the_detector_finds_a_planted_leak(where: str, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    (copy / "negatives").mkdir(parents=True)
    shutil.copytree(run / "dataset", copy / "dataset")
    assert find_leaks(copy) == []
    data = load_dataset(copy / "dataset")
    query = f"“{data.queries[next(iter(data.qrels['test']))].title()}”"
    row: dict[str, Any] = {"anchor": "a", "positive": "b", "negatives": ["c"]}
    row[where] = [query] if where == "negatives" else query
    write(copy / "negatives" / "examples.jsonl", [row])
    (leak,) = find_leaks(copy)
    assert "row 1: test query" in leak
    shutil.rmtree(copy)
