"""The train stage on tiny runs: what it writes, what it keeps, what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.configs import ObjectiveConfig, RunConfig, TrainConfig
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, load_dataset, write_dataset, write_examples
from acclimate.errors import DataError, Interrupted, UsageError
from acclimate.files import hash_folder, write_jsonl
from acclimate.models import dtypes
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import load as load_encoder
from acclimate.stages.mine import mine
from acclimate.stages.train import train
from acclimate.training.checkpoint import Checkpoint, write_checkpoint
from acclimate.types import Example, Qrels, Split
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

SETTINGS = TrainConfig(batch_size=8, epochs=4, rank=4, learning_rate=0.02, dev_documents=20, eval_steps=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")


@pytest.fixture
def config(model: Path) -> RunConfig:
    return RunConfig(model=str(model), pooling="mean", device="cpu", dtype="float32", train=SETTINGS)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_retrieval_is_learnt_and_reported(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    report = train(dataset, None, tmp_path / "adapter", config)
    numbers = report["train"]
    assert numbers["steps"] == 4 * 3
    assert numbers["examples"] == 24
    # All linears of two layers of 16: query, key, value, output (16 -> 16), up (16 -> 32), down (32 -> 16), rank 4.
    assert numbers["trainable"] == 2 * 4 * (4 * (16 + 16) + 2 * (16 + 32))
    assert f"trainable parameters: {numbers['trainable']:,} of {numbers['total']:,}" in capsys.readouterr().err
    assert json.loads((tmp_path / "adapter" / "report.json").read_text()) == report
    assert not (tmp_path / ".work" / "adapter").exists(), "checkpoints are gone once the adapter is there"

    log = rows(tmp_path)
    losses = [row["loss"] for row in log if "loss" in row]
    dev = {row["step"]: row["dev"] for row in log if "dev" in row}
    assert losses[-1] < losses[0]
    assert list(dev) == [0, 4, 8, 12]
    assert set(dev[0]) == {"ndcg@10", "recall@5", "mrr@10", "margin", "positive_cosine", "negative_cosine", "loss"}
    assert numbers["best_step"] == max((4, 8, 12), key=lambda step: dev[step]["ndcg@10"])
    assert numbers["base_score"] == dev[0]["ndcg@10"]
    assert numbers["tokens"] == [row["tokens"] for row in log if "loss" in row][-1]


def test_a_second_start_keeps_and_a_changed_setting_starts_anew(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, out = write_tiny_retrieval(tmp_path / "dataset"), tmp_path / "adapter"
    first = train(dataset, None, out, config)
    before = hash_folder(out)
    assert train(dataset, None, out, config) == first
    assert "up to date" in capsys.readouterr().err
    train(dataset, None, out, replace(config, seed=7))
    assert hash_folder(out) != before


def test_a_training_goes_on_in_its_number_format(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured by then, perhaps on another machine, does not count."""

    def stop(folder: Path, checkpoint: Checkpoint) -> None:
        write_checkpoint(folder, checkpoint)
        raise KeyboardInterrupt

    dataset, out = write_tiny_retrieval(tmp_path / "dataset"), tmp_path / "adapter"
    automatic = replace(config, dtype="auto")
    with monkeypatch.context() as patch:
        patch.setattr(dtypes, "faster_dtype", lambda _folder, _use: "bfloat16")
        patch.setattr("acclimate.training.fit.write_checkpoint", stop)
        with pytest.raises(Interrupted):
            train(dataset, None, out, automatic)
    report = train(dataset, None, out, automatic)["train"]
    assert (report["dtype"], report["threads"]) == ("bfloat16", torch.get_num_threads())
    assert train(dataset, None, tmp_path / "new" / "adapter", automatic)["train"]["dtype"] == "float32"


def test_the_same_seed_gives_the_same_adapter(tmp_path: Path, config: RunConfig) -> None:
    for name in ("a", "b"):
        write_tiny_retrieval(tmp_path / name / "dataset")
        train(tmp_path / name / "dataset", None, tmp_path / name / "adapter", config)
    assert hash_folder(tmp_path / "a" / "adapter") == hash_folder(tmp_path / "b" / "adapter")


def test_mined_negatives_are_used(tmp_path: Path, config: RunConfig) -> None:
    dataset, negatives = write_tiny_retrieval(tmp_path / "dataset"), tmp_path / "negatives"
    negatives.mkdir()
    write_jsonl(negatives / "examples.jsonl", [{"anchor": "w1", "positive": "w2 w3", "negatives": ["w4"]}])
    report = train(dataset, negatives, tmp_path / "adapter", config)
    assert report["train"]["examples"] == 1
    assert report["train"]["tokens"] == report["train"]["steps"] * 4


def test_a_training_without_mining_says_that_negatives_are_missing(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """`prepare` warned of it, also where mining followed."""
    warning = "0% of the training pairs bring hard negatives, and none were mined"
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    rows = load_dataset(dataset).examples
    write_examples(dataset / EXAMPLES_FILE, [replace(row, negatives=()) for row in rows])
    train(dataset, None, tmp_path / "adapter", config)
    assert warning in capsys.readouterr().err
    train(dataset, None, tmp_path / "adapter", replace(config, train=replace(SETTINGS, group_size=1)))
    mine(dataset, tmp_path / "negatives", config)
    train(dataset, tmp_path / "negatives", tmp_path / "adapter", config)
    assert warning not in capsys.readouterr().err


def test_query_side_leaves_documents_alone(tmp_path: Path, config: RunConfig, model: Path) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    config = replace(config, train=replace(SETTINGS, sides="query"))
    train(dataset, None, tmp_path / "adapter", config)
    assert load_adapter(tmp_path / "adapter").sides == "query"
    base = Encoder.load(str(model), pooling="mean", device="cpu")
    adapted = load_encoder(tmp_path / "adapter", base=str(model), device="cpu")
    texts = ["w1 w2 w3", "w4"]
    np.testing.assert_array_equal(adapted.encode(texts, "document"), base.encode(texts, "document"))
    assert np.abs(adapted.encode(texts, "query") - base.encode(texts, "query")).max() > 0.01


@pytest.mark.parametrize("full", [False, True])
def test_pairs_are_learnt_by_cosine_mse(tmp_path: Path, config: RunConfig, full: bool) -> None:
    dataset = write_tiny_pairs(tmp_path / "dataset")
    config = replace(config, train=replace(SETTINGS, full=full, epochs=8, patience=9))
    report = train(dataset, None, tmp_path / "adapter", config)
    log = rows(tmp_path)
    assert all(set(row["dev"]) == {"spearman", "pearson", "loss"} for row in log if "dev" in row)
    losses = [row["loss"] for row in log if "loss" in row]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])  # three steps are one pass over the pairs
    assert report["train"]["loss"] == "cosine-mse"
    assert (report["train"]["trainable"] == report["train"]["total"]) == full


@pytest.mark.parametrize("loss", ["info-nce", "cosine-mse", "embedding-distillation"])
@pytest.mark.parametrize("sides", ["both", "query"])
def test_both_sentences_of_a_pair_are_queries_whatever_the_loss(
    tmp_path: Path, config: RunConfig, loss: Any, sides: Any
) -> None:
    """So they are measured: the prompt of documents means nothing to labelled pairs, nor do their fixed vectors."""
    dataset = write_tiny_pairs(tmp_path / "dataset")
    teacher = as_sentence_transformer(write_tiny_bert(tmp_path / "teacher", 0.4))
    taught = {"embedding_teacher": str(teacher)} if loss == "embedding-distillation" else {}
    objective = ObjectiveConfig(loss=loss, **taught)
    config = replace(config, objective=objective, train=replace(SETTINGS, sides=sides, epochs=1))
    hashes = set()
    for name, prompt in (("plain", None), ("prompted", "w9 w8 ")):
        train(dataset, None, tmp_path / name / "adapter", replace(config, document_prompt=prompt, query_prompt="w7 "))
        hashes.add(load_adapter(tmp_path / name / "adapter").sha256)
    assert len(hashes) == 1


def test_full_training_is_saved_as_a_model(tmp_path: Path, config: RunConfig, model: Path) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    train(dataset, None, tmp_path / "adapter", replace(config, train=replace(SETTINGS, full=True)))
    trained = Encoder.load(str(tmp_path / "adapter"), device="cpu")
    base = Encoder.load(str(model), pooling="mean", device="cpu")
    assert np.abs(trained.encode(["w1 w2"]) - base.encode(["w1 w2"])).max() > 0.01


def test_gradient_checkpointing_changes_nothing(tmp_path: Path, config: RunConfig) -> None:
    folders = []
    for checkpointing in (False, True):
        run = tmp_path / str(checkpointing)
        write_tiny_retrieval(run / "dataset")
        settings = replace(SETTINGS, gradient_checkpointing=checkpointing, lora_dropout=0.2, epochs=1)
        train(run / "dataset", None, run / "adapter", replace(config, train=settings))
        folders.append(load_adapter(run / "adapter").modules)
    for name, matrices in folders[0].items():
        for one, other in zip(matrices, folders[1][name], strict=True):
            torch.testing.assert_close(one, other)


def test_layers_are_compiled_on_cuda_only(tmp_path: Path, config: RunConfig) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    with pytest.raises(UsageError, match="--compile-layers on the device cpu"):
        train(dataset, None, tmp_path / "adapter", replace(config, train=replace(SETTINGS, compile_layers=True)))


def test_a_learned_temperature_is_seen_and_reported(tmp_path: Path, config: RunConfig) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    objective = ObjectiveConfig(temperature_kind="learned", temperature=0.05)
    report = train(dataset, None, tmp_path / "adapter", replace(config, objective=objective))
    seen = [row["temperature"] for row in rows(tmp_path) if "temperature" in row]
    assert len(seen) == report["train"]["steps"]
    assert seen[0] == pytest.approx(0.05)
    assert len(set(seen)) == len(seen)
    # A row has the temperature that its step was computed with; what is kept is that after the best step.
    after = [*seen[1:], None][report["train"]["best_step"] - 1]
    assert after is None or report["train"]["temperature"] == pytest.approx(after)


def test_the_adaptive_temperature_needs_terms(tmp_path: Path, config: RunConfig) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    config = replace(config, objective=ObjectiveConfig(temperature_kind="adaptive"))
    with pytest.raises(UsageError, match=r"no terms.*--lexicon"):
        train(dataset, None, tmp_path / "adapter", config)
    (tmp_path / "terms.txt").write_text("w1\nw2\nw3\n", encoding="utf-8")
    config = replace(config, domain=replace(config.domain, lexicon=str(tmp_path / "terms.txt")))
    assert train(dataset, None, tmp_path / "adapter", config)["train"]["steps"] == 12


@pytest.mark.parametrize("full", [False, True])
def test_retain_weight_keeps_the_vectors_near_the_base(
    tmp_path: Path, config: RunConfig, model: Path, full: bool
) -> None:
    moved = []
    for weight in (0.0, 100.0):
        run = tmp_path / str(weight)
        write_tiny_retrieval(run / "dataset")
        changed = replace(config, train=replace(SETTINGS, full=full), objective=ObjectiveConfig(retain_weight=weight))
        train(run / "dataset", None, run / "adapter", changed)
        options = {} if full else {"base": str(model)}
        adapted = load_encoder(run / "adapter", device="cpu", **options)
        base = Encoder.load(str(model), pooling="mean", device="cpu")
        texts = ["w1 w2 w3", "w4", "w5 w6"]
        moved.append(float((1 - (adapted.encode(texts) * base.encode(texts)).sum(1)).mean()))
    assert moved[1] < 0.5 * moved[0]


def test_out_of_domain_texts_are_retained_while_the_domain_is_learnt(
    tmp_path: Path, config: RunConfig, model: Path
) -> None:
    (tmp_path / "other.txt").write_text("w40 w41\nw42\nw43 w44 w45\n", encoding="utf-8")
    distance: dict[str, dict[str | None, float]] = {"other": {}, "domain": {}}
    for source in (None, str(tmp_path / "other.txt")):
        run = tmp_path / str(source is None)
        write_tiny_retrieval(run / "dataset")
        changed = replace(config, train=SETTINGS, objective=ObjectiveConfig(retain_data=source))
        train(run / "dataset", None, run / "adapter", changed)
        adapted = load_encoder(run / "adapter", device="cpu", base=str(model))
        base = Encoder.load(str(model), pooling="mean", device="cpu")
        for name, texts in {"other": ["w40 w41", "w42", "w43 w44 w45"], "domain": ["w1 w2 w3", "w4"]}.items():
            moved = 1 - (adapted.encode(texts) * base.encode(texts)).sum(1)
            distance[name][source] = float(moved.mean())
    for name, kept in {"other": 0.5, "domain": 1.0}.items():
        free, retained = distance[name].values()
        assert retained < kept * free
    assert distance["other"][source] < distance["domain"][source]


def test_what_cannot_be_trained_is_refused(tmp_path: Path, config: RunConfig) -> None:
    dataset = write_tiny_retrieval(tmp_path / "dataset")
    with pytest.raises(UsageError, match="cosine-mse"):
        train(dataset, None, tmp_path / "adapter", replace(config, objective=ObjectiveConfig(loss="cosine-mse")))
    with pytest.raises(UsageError, match="no linear layer"):
        train(dataset, None, tmp_path / "adapter", replace(config, train=replace(SETTINGS, targets=("nowhere",))))
    (tmp_path / "negatives").mkdir()
    write_jsonl(tmp_path / "negatives" / "examples.jsonl", [])
    with pytest.raises(DataError, match="no training examples"):
        train(dataset, tmp_path / "negatives", tmp_path / "adapter", config)
    assert not (tmp_path / "adapter").exists()


def test_a_query_that_is_a_document_is_not_pushed_from_itself(tmp_path: Path, config: RunConfig) -> None:
    """Two arguments that answer each other: of both, one document is the answer, and the other is the query."""
    queries = {"x": "w1 w2", "y": "w3 w4", "z": "w5 w6"}
    corpus = {name: f"w9 {text}" for name, text in queries.items()}
    qrels: dict[Split, Qrels] = {"train": {"x": {"y": 1}, "y": {"x": 1}}, "dev": {"z": {"x": 1}}}
    examples = [Example(queries["x"], corpus["y"]), Example(queries["y"], corpus["x"])]
    (tmp_path / "dataset").mkdir()
    write_dataset(tmp_path / "dataset", Dataset("retrieval", corpus, queries, qrels, examples), [])
    train(tmp_path / "dataset", None, tmp_path / "adapter", replace(config, train=replace(SETTINGS, epochs=1)))
    assert [row["loss"] for row in rows(tmp_path) if "loss" in row] == [0.0], "nothing is left to tell apart"
