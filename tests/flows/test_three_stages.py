"""`adapt --recipe three-stage` on a tiny world: its folders, its choices, and what a second start keeps."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.configs import EvaluateConfig, MergeConfig, RunConfig, StagesConfig, TrainConfig
from acclimate.errors import DataError, ModelError, UsageError
from acclimate.files import hash_folder
from acclimate.flows.adapt import adapt
from acclimate.flows.plan import plan
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import promote, rollback, versions
from acclimate.stages.blend import blend
from acclimate.stages.merge import merge
from acclimate.stages.train import train
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

TRAIN = TrainConfig(batch_size=8, epochs=3, rank=2, learning_rate=0.02, dev_documents=20, eval_steps=3)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(
        model=str(write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")),
        pooling="mean",
        device="cpu",
        dtype="float32",
        train=TRAIN,
        evaluate=EvaluateConfig(sign_flips=100),
        stages=StagesConfig(recipe="three-stage", weak_epochs=2),
    )


@pytest.fixture
def plain(config: RunConfig) -> RunConfig:
    """The same, of one training."""
    return replace(config, stages=StagesConfig())


def write_source(folder: Path) -> Path:
    """A BEIR folder of sixty documents of ten words; queries share three words with theirs."""
    draw = random.Random(3)
    documents = [draw.choices(WORDS, k=10) for _ in range(60)]
    (folder / "qrels").mkdir(parents=True)
    texts = {"corpus": [" ".join(words) for words in documents]}
    texts["queries"] = [" ".join(draw.sample(words, 3)) for words in documents[:40]]
    for name, rows in texts.items():
        lines = (json.dumps({"_id": f"{name[0]}{number}", "text": text}) for number, text in enumerate(rows))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for split, numbers in (("train", range(20)), ("dev", range(20, 30)), ("test", range(30, 40))):
        rows = [f"q{number}\tc{number}\t1" for number in numbers]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """A run, its source, and what it reported."""
    folder = tmp_path_factory.mktemp("three")
    source = str(write_source(folder / "source"))
    return folder / "run", source, adapt(source, folder / "run", config)


def test_every_stage_is_a_folder_and_a_row_of_the_report(finished: tuple[Path, str, dict[str, Any]]) -> None:
    run, _, summary = finished
    first, second, third = summary["stages"]
    assert [row["stage"] for row in summary["stages"]] == ["1-pretrain", "2-finetune", "3-merge"]
    assert json.loads((run / "report.json").read_text())["stages"] == summary["stages"]
    assert first["examples"] == sum(first["weak_pairs"].values()) == first["weak_pairs"]["crop"] <= 60 - 20
    assert second["examples"] == 20
    for folder in ("stages/1-pretrain/pairs", "stages/1-pretrain/adapter", "stages/2-finetune/adapter", "adapter"):
        assert {"settings.json", "inputs.json", "report.json"} <= {path.name for path in (run / folder).iterdir()}
    merge = json.loads((run / "adapter" / "report.json").read_text())["merge"]
    assert third["best_of"] == len(merge["candidates"])
    for row, path in ((first, "stages/1-pretrain"), (second, "stages/2-finetune")):
        logged = [json.loads(line) for line in (run / path / "metrics.jsonl").read_text().splitlines()]
        assert row["best_of"] == sum("dev" in line and line["step"] > 0 for line in logged) > 0
    assert third["dev_after"] == merge["chosen"]["dev"] == max(row["dev"] for row in merge["candidates"])
    # The trainings and the merge look at the same dev queries and the same pool.
    assert first["dev_before"] == pytest.approx(merge["base"])
    assert third["dev_before"] == pytest.approx(second["dev_after"])
    if first["dev_after"] > first["dev_before"]:
        assert second["dev_before"] == pytest.approx(first["dev_after"])
        assert json.loads((run / "negatives" / "settings.json").read_text())["mine"]["teacher"].endswith(
            "1-pretrain/adapter"
        )
    assert (run / "metrics.jsonl").read_text() == (run / "stages" / "2-finetune" / "metrics.jsonl").read_text()
    assert {"weak_pairs_s", "pretrain_s", "train_s", "merge_s"} <= set(summary["timings"])


def test_the_plan_counts_both_trainings(finished: tuple[Path, str, dict[str, Any]], config: RunConfig) -> None:
    _, source, summary = finished
    first, second, _ = summary["stages"]
    expected = plan(source, config)
    assert expected["weak_pairs"] == first["examples"]
    # Batches of 8: two passes over the weak pairs, three over the 20 training examples.
    assert expected["steps"] == 2 * math.ceil(first["examples"] / 8) + 3 * math.ceil(second["examples"] / 8)
    alone = plan(source, replace(config, stages=StagesConfig()))
    assert "weak_pairs" not in alone and alone["training_tokens"] < expected["training_tokens"]


def test_a_second_start_keeps_everything(
    finished: tuple[Path, str, dict[str, Any]], config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run, source, summary = finished
    stamps = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    again = adapt(source, run, config)
    assert again["stages"] == summary["stages"] and again["test"] == summary["test"]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")} == stamps
    assert capsys.readouterr().err.count("up to date") == 7  # dataset, pairs, both trainings, mining, merge, evaluation


def test_going_on_starts_where_the_adapter_is(finished: tuple[Path, str, dict[str, Any]], plain: RunConfig) -> None:
    run, _, _ = finished
    start = run / "stages" / "1-pretrain" / "adapter"
    settings = replace(TRAIN, alpha=4.0, learning_rate=1e-12, epochs=0.1, start_adapter=str(start))
    out = run.parent / "same" / "adapter"
    report = train(run / "dataset", None, out, replace(plain, train=settings))["train"]
    assert report["base_score"] == pytest.approx(report["best_score"])
    before, after = load_adapter(start).modules, load_adapter(out).modules
    for name, matrices in before.items():
        for one, other in zip(matrices, after[name], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    with pytest.raises(UsageError, match="rank 2, the training 12 of rank 3"):
        train(run / "dataset", None, out, replace(plain, train=replace(settings, rank=3)))
    with pytest.raises(ModelError, match="holds no adapter"):
        train(run / "dataset", None, out, replace(plain, train=replace(settings, start_adapter="nowhere")))


def test_going_on_leaves_documents_with_the_base_where_only_queries_are_adapted(
    finished: tuple[Path, str, dict[str, Any]], plain: RunConfig
) -> None:
    """The vectors that training looks up, and caches as the base's, are the base's though an adapter is attached."""
    run, _, _ = finished
    start = run / "stages" / "1-pretrain" / "adapter"
    folder = run.parent / "query-side"
    settings = replace(TRAIN, sides="query", start_adapter=str(start), epochs=1)
    train(run / "dataset", None, folder / "adapter", replace(plain, train=settings))
    rows = (run / "dataset" / "corpus.jsonl").read_text().splitlines()
    expected = Encoder.load(plain.base_model, **plain.loading).encode(
        [json.loads(row)["text"] for row in rows], "document"
    )
    (kept,) = (folder / ".work" / "cache").rglob("*.npy")
    np.testing.assert_allclose(np.load(kept), expected, atol=1e-6)


def test_the_merge_is_the_weighted_sum_of_the_updates(
    finished: tuple[Path, str, dict[str, Any]], plain: RunConfig
) -> None:
    run, _, _ = finished
    stages = {name: run / "stages" / name / "adapter" for name in ("1-pretrain", "2-finetune")}
    settings = replace(plain, train=replace(TRAIN, sides="both"))
    out = run.parent / "merged" / "adapter"
    merge = blend(run / "dataset", stages, out, settings)["merge"]
    weights = [merge["chosen"][name] for name in stages]
    assert merge["chosen"]["base"] == pytest.approx(1 - sum(weights), abs=1e-4)
    parts = [load_adapter(folder).modules for folder in stages.values()]
    for name, (A, B) in load_adapter(out).modules.items():
        expected = sum(weight * part[name][1] @ part[name][0] for weight, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(B @ A, expected, atol=1e-5, rtol=1e-4)


def test_a_first_stage_that_does_not_help_is_dropped(config: RunConfig, tmp_path: Path) -> None:
    """A learning rate of almost nothing changes nothing: the second stage starts from the base."""
    source = str(write_source(tmp_path / "source"))
    idle = replace(config, train=replace(TRAIN, learning_rate=1e-12, epochs=1))
    summary = adapt(source, tmp_path / "run", idle)
    first, second, third = summary["stages"]
    assert first["dev_after"] <= first["dev_before"] and not first["kept"]
    assert second["dev_before"] == pytest.approx(first["dev_before"])
    assert "1-pretrain" not in third["weights"]
    assert "start_adapter" not in json.loads((tmp_path / "run/stages/2-finetune/adapter/inputs.json").read_text())
    inputs = hash_folder(tmp_path / "run" / "stages" / "2-finetune" / "adapter")
    assert json.loads((tmp_path / "run/adapter/inputs.json").read_text())["2-finetune"] == inputs


def test_only_the_second_stage_mines_again(config: RunConfig, tmp_path: Path) -> None:
    """Weak pairs have no negatives."""
    source = str(write_source(tmp_path / "source"))
    summary = adapt(source, tmp_path / "run", replace(config, train=replace(TRAIN, epochs=2, remine_steps=3)))
    first, second = (
        json.loads((tmp_path / "run/stages" / name / "adapter/report.json").read_text())["train"]
        for name in ("1-pretrain", "2-finetune")
    )
    assert "remined" not in first
    assert second["remined"]["times"] == 1 and summary["train"]["remined"] == second["remined"]


def test_what_cannot_have_three_stages_is_refused(config: RunConfig, tmp_path: Path) -> None:
    write_tiny_pairs(tmp_path / "pairs")
    with pytest.raises(UsageError, match="corpus"):
        adapt(str(tmp_path / "pairs"), tmp_path / "a", config)
    source = write_tiny_retrieval(tmp_path / "retrieval")
    (source / "qrels" / "dev.tsv").unlink()
    undevised = replace(config, prepare=replace(config.prepare, dev_fraction=0.0))
    with pytest.raises(DataError, match="no dev split"):
        adapt(str(source), tmp_path / "b", undevised)
    for impossible in (TrainConfig(full=True), TrainConfig(start_adapter="somewhere")):
        with pytest.raises(UsageError, match="three-stage"):
            replace(config, train=impossible)


def test_adapt_again_reports_the_adapter_that_was_promoted(
    tmp_path: Path, plain: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a promotion a training adds a version; what is evaluated, and reported, is the one in use."""
    source, run = str(write_source(tmp_path / "source")), RunFolder(tmp_path / "run")
    first = adapt(source, run.path, plain)
    promote(run, hash_folder(run.adapter)[:16])
    capsys.readouterr()
    again = adapt(source, run.path, replace(plain, train=replace(TRAIN, rank=4)))
    said = capsys.readouterr().err
    assert "train: runs again, because train.rank changed (2 -> 4)" in said and "was promoted" in said
    assert "evaluate: " in said and "evaluation is kept" in said
    assert len(versions(run)) == 2
    assert again["train"] == first["train"] and again["test"] == first["test"]
    rollback(run)
    (newer,) = (version for version in versions(run) if version.set_by is None)
    promote(run, newer.name)
    assert adapt(source, run.path, plain)["train"]["trainable"] == 2 * first["train"]["trainable"]
    merged = merge([newer.folder], tmp_path / "merged", replace(plain, merge=MergeConfig(method="interpolate")))
    assert merged["curve"]["split"] == "dev"  # a version finds the dataset of its run
