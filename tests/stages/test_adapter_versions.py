"""Versions of a trained adapter: loaded through the link, kept, switched, seen by the stages that read it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from acclimate.configs import EvaluateConfig, RunConfig, TrainConfig
from acclimate.files import hash_folder
from acclimate.runs import shared_files
from acclimate.runs.resolve import load
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import promote, rollback, versions
from acclimate.stages.evaluate import evaluate
from acclimate.stages.train import train
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

SETTINGS = TrainConfig(batch_size=8, epochs=1, rank=2, learning_rate=0.02, dev_documents=20)
TEXTS = ["w1 w2 w3", "w4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_sentence_transformer(write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert"))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    write_tiny_retrieval(run.dataset)
    return run


def config_of(model: Path, **train: object) -> RunConfig:
    settings = replace(SETTINGS, **train)  # type: ignore[arg-type]
    return RunConfig(
        model=str(model), device="cpu", dtype="float32", train=settings, evaluate=EvaluateConfig(sign_flips=100)
    )


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("full", [False, True])
def test_whoever_loads_the_adapter_gets_the_version_in_use(
    run: RunFolder, model: Path, links: bool, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our loader and sentence-transformers' own, through the link, and through the copy where there are no links."""
    if not links:

        def refuse(*_: object, **__: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.chdir(model.parent)  # the base's id, its folder's name, leads to it
    found = []
    for rate in (1e-3, 2e-3):
        train(run.dataset, None, run.adapter, config_of(model, full=full, learning_rate=rate))
        assert run.adapter.is_symlink() == links
        ours = load(run.path, device="cpu", dtype="float32").encode(TEXTS, "query")
        theirs = SentenceTransformer(str(run.adapter), device="cpu").encode_query(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        found.append(ours)
    assert np.abs(found[0] - found[1]).max() > 1e-4
    rollback(run)
    np.testing.assert_array_equal(load(run.path, device="cpu", dtype="float32").encode(TEXTS, "query"), found[0])


@pytest.mark.parametrize("sides", ["both", "query"])
def test_versions_share_their_tokenizer_on_disk_and_a_copy_is_whole(
    run: RunFolder, model: Path, sides: Literal["both", "query"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A multilingual tokenizer is 17 MB, and every version held a copy of it, that of a Router three."""
    monkeypatch.setattr(shared_files, "LEAST_BYTES", 100)
    monkeypatch.chdir(model.parent)
    for rank in (1, 2):
        train(run.dataset, None, run.adapter, config_of(model, sides=sides, rank=rank))
    tokenizers = list(run.adapters.rglob("tokenizer.json"))
    assert len(tokenizers) == (2 if sides == "both" else 6)
    assert len({path.stat().st_ino for path in tokenizers}) == 1
    weights = [folder.resolve() / "adapter_model.safetensors" for folder in run.adapters.iterdir() if folder.is_dir()]
    assert len({path.stat().st_ino for path in weights}) == 2
    expected = load(run.path, device="cpu", dtype="float32").encode(TEXTS, "query")
    shutil.copytree(run.adapter, tmp_path / "elsewhere")
    shutil.rmtree(run.path)
    theirs = SentenceTransformer(str(tmp_path / "elsewhere"), device="cpu")
    np.testing.assert_allclose(expected, theirs.encode_query(TEXTS, normalize_embeddings=True), atol=1e-5)


def test_adapt_again_leaves_a_promoted_adapter(run: RunFolder, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(run.dataset, None, run.adapter, config_of(model))
    first = hash_folder(run.adapter)
    train(run.dataset, None, run.adapter, config_of(model, epochs=2))
    promote(run, first[:16])
    capsys.readouterr()
    train(run.dataset, None, run.adapter, config_of(model, epochs=3))
    said = capsys.readouterr().err
    assert "train.epochs changed (1 -> 3)" in said and "was promoted" in said
    assert hash_folder(run.adapter) == first
    assert len(versions(run)) == 3
    train(run.dataset, None, run.adapter, config_of(model, epochs=3))
    assert "is up to date" in capsys.readouterr().err
    assert len(versions(run)) == 3


def test_a_promotion_is_evaluated_anew(run: RunFolder, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(model)
    train(run.dataset, None, run.adapter, config)
    first = hash_folder(run.adapter)[:16]
    before = evaluate(run.dataset, run.adapter, run.evaluation, config)
    train(run.dataset, None, run.adapter, config_of(model, epochs=4))
    promote(run, first)
    assert evaluate(run.dataset, run.adapter, run.evaluation, config) == before
    rollback(run)
    capsys.readouterr()
    evaluate(run.dataset, run.adapter, run.evaluation, config)
    assert "evaluate: runs again, because adapter changed" in capsys.readouterr().err


def test_another_name_is_a_plain_folder(run: RunFolder, model: Path) -> None:
    out = run.path / "mine"
    train(run.dataset, None, out, config_of(model))
    assert (out / "adapter_config.json").is_file() and not out.is_symlink()
    assert not run.adapters.exists()
