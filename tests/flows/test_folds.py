"""`adapt --folds`: from 60 pairs to a pooled verdict and one adapter on all of them, by the real stages."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.configs import (
    DatasetConfig,
    EvaluateConfig,
    ObjectiveConfig,
    RunConfig,
    StagesConfig,
    TrainConfig,
    load_config,
)
from acclimate.data.dataset import load_dataset
from acclimate.errors import DataError, UsageError
from acclimate.flows import verbs
from acclimate.flows.final import proven_run
from acclimate.flows.folds import adapt_in_folds
from acclimate.flows.plan import plan
from acclimate.flows.settings import configured
from acclimate.formats.trained_on import read_trained_on
from acclimate.report.folder import read_run
from acclimate.report.html import render
from acclimate.stages.compare_runs import compare_runs
from acclimate.stages.evaluate import evaluate_model
from tests.proof.leaks import find_leaks, prepared_runs
from tests.tiny_run import WORDS, write_tiny_bert

FOLDS, PAIRS = 3, 60


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")
    return RunConfig(
        model=str(model),
        pooling="mean",
        device="cpu",
        dtype="float32",
        train=TrainConfig(batch_size=16, epochs=0.5, rank=2, dev_documents=20),
        evaluate=EvaluateConfig(sign_flips=100),
        stages=StagesConfig(folds=FOLDS),
    )


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    draw = random.Random(0)
    drawn = [" ".join(draw.sample(WORDS, 5)) for _ in range(2 * PAIRS)]
    rows = [{"query": drawn[2 * n], "response": drawn[2 * n + 1]} for n in range(PAIRS)]
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def run(source: str, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    verbs.adapt(source, out=folder, config=config)
    return folder


def test_it_is_recorded_as_called(run: Path, source: str) -> None:
    report = json.loads((run / "report.json").read_text())
    assert report["made"]["adapter"]["command"] == f"acclimate.adapt({source!r}, out={str(run)!r})"


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_query_is_tested_once_and_the_pooled_means_are_those_of_all_queries(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    rows = rows_of(run / "evaluation" / "per_query.jsonl")
    assert len(rows) == report["test"]["queries"] == PAIRS and report["test"]["documents"] == PAIRS
    tested = [load_dataset(run / "folds" / str(row["fold"]) / "dataset").queries[row["query_id"]] for row in rows]
    assert len(set(tested)) == PAIRS
    for side in ("base", "adapted"):
        for name in ("ndcg@10", "map@100"):
            assert report["test"][side][name] == pytest.approx(np.mean([row[side][name] for row in rows]))
    delta = report["test"]["delta"]["ndcg@10"]
    assert delta["value"] == pytest.approx(np.mean([r["adapted"]["ndcg@10"] - r["base"]["ndcg@10"] for r in rows]))
    assert delta["clusters"] == PAIRS and delta["low"] <= delta["value"] <= delta["high"]
    assert [row["tested"] for row in report["folds"]] == [20, 20, 20]
    better = report["test"]["base"] if report["verdict"] != "better" else report["test"]["adapted"]
    ahead = better["ndcg@10"] - report["test"]["bm25"]["ndcg@10"]
    assert report["against_bm25"]["value"] == pytest.approx(ahead) and report["against_bm25"]["clusters"] == PAIRS


def test_the_adapter_that_is_kept_has_seen_all_and_each_fold_s_nothing_of_its_test(run: Path) -> None:
    seen = read_trained_on(run / "adapter")
    for fold in range(1, FOLDS + 1):
        folder = run / "folds" / str(fold)
        data, own = load_dataset(folder / "dataset"), read_trained_on(folder / "adapter")
        queries = [data.queries[query] for query in data.qrels["test"]]
        assert len(queries) == 20
        assert all(seen.has_text(query) for query in queries) and not any(own.has_text(query) for query in queries)
        assert find_leaks(folder) == []
    assert not (run / "dataset" / "qrels" / "test.tsv").exists()
    warnings = json.loads((run / "dataset" / "dataset.json").read_text())["warnings"]
    assert not any("test queries, fewer" in warning for warning in warnings)  # the verdict does not rest on it
    assert {path.name for path in prepared_runs(run)} == {run.name, *"123"} and find_leaks(run) == []


def test_a_second_start_keeps_everything(
    run: Path, source: str, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    capsys.readouterr()
    adapt_in_folds(source, run, config)
    said = capsys.readouterr().err
    assert "runs again" not in said and "because" not in said and said.count("is kept") >= 4 * FOLDS + 4
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_a_fold_that_is_gone_is_made_again_and_the_others_are_kept(
    run: Path, source: str, config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a kill in the second fold's training: nothing else runs again, and all ends as without the kill."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, symlinks=True)
    second = copy / "folds" / "2"
    (second / "adapter").unlink()
    for part in ("adapters", "evaluation"):
        shutil.rmtree(second / part)
    capsys.readouterr()
    report = adapt_in_folds(source, copy, config)
    said = capsys.readouterr().err
    made = [line for line in said.splitlines() if " runs" in line]
    assert [line.partition(":")[0] for line in made] == ["train", "evaluate"]
    before = json.loads((run / "report.json").read_text())
    assert report["test"] == before["test"] and report["folds"] == before["folds"]
    assert (copy / "adapter").readlink() == (run / "adapter").readlink()


def test_the_report_says_what_the_numbers_are_about(run: Path) -> None:
    page = render(read_run(run))
    for words in (
        "3 adapters, each trained on 2 of 3 parts of the data",
        "it has no test of its own",
        "Fold 3",
        "guards are measured with",
    ):
        assert words in page, words


def test_a_run_of_folds_cannot_be_compared_by_test_split(run: Path, config: RunConfig) -> None:
    with pytest.raises(UsageError, match="was proven by folds"):
        compare_runs([run, run], config)


def test_what_needs_a_test_split_says_where_the_folds_were_measured(run: Path, config: RunConfig) -> None:
    with pytest.raises(DataError, match=r"all of the data was trained on. What was measured by folds is .*evaluation"):
        evaluate_model(str(run), None, config)
    with pytest.raises(UsageError, match="was proven by folds, and its adapter is trained on all of its data already"):
        proven_run(run)


def test_a_fold_by_itself_goes_by_the_settings_of_its_run(run: Path) -> None:
    assert configured("evaluate", {}, run=run / "folds" / "1") == load_config(run / "config.toml")


def test_every_fold_is_trained_with_the_same_settings(source: str, config: RunConfig, tmp_path: Path) -> None:
    """What guards is measured once, but in every fold it is part of the training: what tests it is not retained."""
    guarded = replace(config, evaluate=replace(config.evaluate, guard=(source,)))
    texts = write(tmp_path / "texts.jsonl", [{"text": word} for word in WORDS])
    retaining = replace(guarded, objective=ObjectiveConfig(retain_data=texts))
    adapt_in_folds(source, tmp_path / "run", retaining)
    inputs = [json.loads((tmp_path / f"run/folds/{n}/adapter/inputs.json").read_text()) for n in (1, 2, 3)]
    assert f"guard {source}" in inputs[0] and all(one.keys() == inputs[0].keys() for one in inputs)
    reports = [json.loads((tmp_path / f"run/folds/{n}/evaluation/report.json").read_text()) for n in (1, 2)]
    assert [len(report["guard"]) for report in reports] == [1, 0]


def test_the_dry_run_counts_all_trainings(source: str, config: RunConfig) -> None:
    found = plan(source, config)
    fold, whole = found["each fold, as the first"], found["the adapter that is kept"]
    assert (fold["test_queries"], whole["test_queries"]) == (20, 0)
    assert fold["training_examples"] < whole["training_examples"] < PAIRS  # dev is out of both
    assert found["steps"] == FOLDS * fold["steps"] + whole["steps"]


def test_labelled_pairs_are_correlated_within_each_fold(config: RunConfig, tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = []
    for number in range(PAIRS):
        first = draw.sample(WORDS, 5)
        second = first[: number % 6] + draw.sample(WORDS, 5 - number % 6)
        rows.append({"sentence1": " ".join(first), "sentence2": " ".join(second), "label": number % 6})
    run = tmp_path / "run"
    report = adapt_in_folds(write(tmp_path / "pairs.jsonl", rows), run, config)
    assert report["test"]["pairs"] == PAIRS
    parts = [json.loads((run / "folds" / str(n) / "evaluation" / "report.json").read_text()) for n in (1, 2, 3)]
    own = [part["test"]["delta"]["spearman"]["value"] for part in parts]
    sizes = [part["test"]["pairs"] for part in parts]
    assert report["test"]["delta"]["spearman"]["value"] == pytest.approx(np.average(own, weights=sizes))


def test_what_cannot_be_is_said_in_one_line(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folds = 1"):
        StagesConfig(folds=1)
    two = replace(
        config, datasets=(DatasetConfig(source="a.jsonl", name="a"), DatasetConfig(source="b.jsonl", name="b"))
    )
    with pytest.raises(UsageError, match="--folds 3 with 2 datasets"):
        adapt_in_folds(None, tmp_path / "run", two)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_share_for_a_test_split_beside_folds_is_refused(
    source: str, config: RunConfig, tmp_path: Path, dry_run: bool
) -> None:
    """It was read and had no effect."""
    with_share = replace(config, prepare=replace(config.prepare, test_fraction=0.3))
    for given, settings in ((with_share, {}), (config, {"test_fraction": 0.1})):
        with pytest.raises(UsageError, match=r"--folds 3 and --test-fraction 0.[13] exclude each other"):
            verbs.adapt(source, out=tmp_path / "run", config=given, dry_run=dry_run, **settings)
    assert not (tmp_path / "run").exists()


def test_three_stages_that_no_fold_can_have_are_refused_before_anything_is_prepared(
    source: str, config: RunConfig, tmp_path: Path
) -> None:
    """Documents of five words give no weak pair: that was found after the first fold was prepared."""
    staged = replace(config, stages=StagesConfig(folds=FOLDS, recipe="three-stage"))
    with pytest.raises(DataError, match="no document outside of dev and test is long enough"):
        adapt_in_folds(source, tmp_path / "run", staged)
    assert not (tmp_path / "run").exists()
