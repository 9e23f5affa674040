"""Fault 10: what is changed in a local model's files makes the stages that depend on it run again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import EvaluateConfig, MineConfig, RunConfig, TrainConfig
from acclimate.flows.adapt import adapt
from acclimate.formats.trained_on import read_trained_on, write_trained_on
from tests.leak_check import no_run_leaks  # noqa: F401
from tests.models.tiny import as_sentence_transformer
from tests.proof.test_runs import rows, write
from tests.tiny_run import write_tiny_bert

PREPARE, OTHERS = "prepare", ["evaluate", "mine", "train"]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def prompts(model: Path) -> None:
    edit(model / "config_sentence_transformers.json", lambda it: it.update(prompts={"query": "w1 "}))


def pooling(model: Path) -> None:
    switched = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    edit(model / "1_Pooling/config.json", lambda it: it.update(switched))


def activation(model: Path) -> None:
    edit(model / "config.json", lambda it: it.update(hidden_act="relu"))


def tokenizer(model: Path) -> None:
    """Words 2 and 3 change places in the vocabulary."""
    edit(model / "tokenizer.json", lambda it: it["model"]["vocab"].update(w2=5, w3=4))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return as_sentence_transformer(write_tiny_bert(tmp_path / "tiny-bert"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows(300))


def config(model: Path) -> RunConfig:
    return RunConfig(
        model=str(model),
        device="cpu",
        dtype="float32",
        mine=MineConfig(num_negatives=1),
        train=TrainConfig(batch_size=16, epochs=0.5, rank=2, dev_documents=20),
        evaluate=EvaluateConfig(sign_flips=100),
    )


def run_again(text: str) -> list[str]:
    """The stages of which a start says that they ran again."""
    return sorted(re.findall(r"^(\w+): runs again", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("change", "expected"),
    [(prompts, OTHERS), (pooling, OTHERS), (activation, OTHERS), (tokenizer, sorted([*OTHERS, PREPARE]))],
)
def test_a_changed_model_reruns_what_depends_on_it(
    change: Callable[[Path], None],
    expected: list[str],
    model: Path,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And no vector of the former model comes from a cache: the scores are those of a run that begins anew."""
    adapt(str(source), tmp_path / "run", config(model))
    change(model)
    capsys.readouterr()
    again = adapt(str(source), tmp_path / "run", config(model))
    assert run_again(capsys.readouterr().err) == expected
    fresh = adapt(str(source), tmp_path / "fresh", config(model))
    assert again["test"] == fresh["test"] and again["train"]["best_score"] == fresh["train"]["best_score"]


def test_what_an_adapter_was_trained_on_is_an_input_of_its_evaluation(
    model: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    adapt(str(source), run, config(model))
    assert json.loads((run / "evaluation" / "report.json").read_text(encoding="utf-8"))["training_known"]
    write_trained_on(run / "adapter", replace(read_trained_on(run / "adapter"), complete=False))
    capsys.readouterr()
    adapt(str(source), run, config(model))
    said = capsys.readouterr().err
    assert run_again(said) == ["evaluate"] and "because trained_on changed" in said
    assert not json.loads((run / "evaluation" / "report.json").read_text(encoding="utf-8"))["training_known"]


@pytest.mark.parametrize(("role", "section"), [("start_adapter", "train"), ("guide", "objective"), ("teacher", "mine")])
def test_what_a_training_inherits_is_an_input_of_it(
    role: str, section: str, model: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    adapt(str(source), first, config(model))
    going_on = config(model)
    going_on = replace(going_on, **{section: replace(getattr(going_on, section), **{role: str(first)})})
    other = write(tmp_path / "other.jsonl", rows(300, seed=1))
    adapt(str(other), second, going_on)
    write_trained_on(first / "adapter", replace(read_trained_on(first / "adapter"), complete=False))
    capsys.readouterr()
    adapt(str(other), second, going_on)
    said = capsys.readouterr().err
    assert f"{'mine' if section == 'mine' else 'train'}: runs again, because trained_on changed" in said
    assert not json.loads((second / "evaluation" / "report.json").read_text(encoding="utf-8"))["training_known"]
