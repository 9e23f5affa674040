"""`merge`: a folder that needs neither acclimate nor PEFT, and gives the adapter's vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acclimate.configs import RunConfig
from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_folder, write_json
from acclimate.formats.full_model import save_weights
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.runs.resolve import load as load_encoder
from acclimate.stages.merge import merge
from acclimate.types import Sides
from tests.models.adapted import TEXTS, random_adapter, write_model


def trained(tmp_path: Path, family: str = "bert", *, sides: Sides = "both", dim: int = 32) -> tuple[Path, RunConfig]:
    base = write_model(tmp_path / "base", family)
    encoder = Encoder.load(str(base), dim=dim, device="cpu", dtype="float32")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_adapter(folder, random_adapter(encoder, sides=sides, dim=dim), encoder.source)
    return tmp_path / "run", RunConfig(model=str(base), device="cpu", dtype="float32")


def plain_vectors(folder: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """Through sentence-transformers alone, in a process where acclimate and PEFT cannot be imported."""
    script = (
        "import sys, numpy; sys.modules['acclimate'] = sys.modules['peft'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "numpy.savez(sys.argv[2], q=model.encode_query(sys.argv[3:]), d=model.encode_document(sys.argv[3:]))"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "vectors.npz"), *TEXTS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, env={**environment, "HF_HUB_OFFLINE": "1"}, cwd=tmp_path, check=True, timeout=300)
    return dict(np.load(tmp_path / "vectors.npz"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "sides", "dim"), [("bert", "both", 32), ("qwen3", "both", 32), ("bert", "query", 16)]
)
def test_merged_is_the_adapter(tmp_path: Path, family: str, sides: Sides, dim: int) -> None:
    run, config = trained(tmp_path, family, sides=sides, dim=dim)
    report = merge([run], tmp_path / "merged", config)
    assert report["kind"] == "merged" and report["base"]["id"] == "base"
    live = load_encoder(run, base=config.model, device="cpu", dtype="float32")
    vectors = plain_vectors(tmp_path / "merged", tmp_path)
    assert np.abs(vectors["q"] - live.encode(TEXTS, "query")).max() < 1e-5
    assert np.abs(vectors["d"] - live.encode(TEXTS, "document")).max() < 1e-5


def test_the_folder_is_whole_and_reads_in_our_encoder(tmp_path: Path) -> None:
    run, config = trained(tmp_path)
    merge([run], tmp_path / "merged", config)
    live = load_encoder(run, base=config.model, device="cpu", dtype="float32")
    merged = load_encoder(tmp_path / "merged", device="cpu", dtype="float32")
    assert np.abs(merged.encode(TEXTS, "query") - live.encode(TEXTS, "query")).max() < 1e-5
    assert merged.use.prompts == Prompts({"": "find : "}, {"": ""})
    pooling = json.loads((tmp_path / "merged" / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode"] == "mean" and pooling["pooling_mode_mean_tokens"] is True
    assert pooling["pooling_mode_cls_token"] is False
    architecture = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert architecture["model_type"] == "bert" and architecture["hidden_dropout_prob"] == 0.1
    assert json.loads((tmp_path / "merged" / "settings.json").read_text())["model"] == config.model


@pytest.mark.parametrize(("sides", "dim"), [("query", 32), ("both", 16), ("query", 16)])
def test_query_sides_and_fewer_dimensions_read_in_our_encoder(tmp_path: Path, sides: Sides, dim: int) -> None:
    """A Router with two transformers, a Dense that keeps leading dimensions."""
    run, config = trained(tmp_path, sides=sides, dim=dim)
    merge([run], tmp_path / "merged", config)
    live = load_encoder(run, base=config.model, device="cpu", dtype="float32")
    merged = Encoder.load(str(tmp_path / "merged"), device="cpu", dtype="float32")
    for role in ("query", "document"):
        vectors = merged.encode(TEXTS, role)  # type: ignore[arg-type]
        assert vectors.shape[1] == dim
        assert np.abs(vectors - live.encode(TEXTS, role)).max() < 1e-5  # type: ignore[arg-type]
    same = merged.role_fingerprint("query") == merged.role_fingerprint("document")
    assert same is False  # another prompt, and with two transformers other weights
    if sides == "query":
        base = Encoder.load(config.model, dim=dim, device="cpu", dtype="float32")
        assert np.abs(merged.encode(TEXTS) - base.encode(TEXTS)).max() < 1e-5
        with pytest.raises(ModelError, match="another transformer for queries"):
            merged.require_one_transformer()
        with pytest.raises(ModelError, match="another transformer for queries"):
            merge([tmp_path / "merged", config.model], tmp_path / "two", config)


def test_a_second_start_keeps_what_is_there(tmp_path: Path) -> None:
    run, config = trained(tmp_path)
    first = merge([run], tmp_path / "merged", config)
    when = (tmp_path / "merged" / "model.safetensors").stat().st_mtime_ns
    assert merge([run], tmp_path / "merged", config) == first
    assert (tmp_path / "merged" / "model.safetensors").stat().st_mtime_ns == when


def test_the_card_gives_the_evidence(tmp_path: Path) -> None:
    run, config = trained(tmp_path, sides="query")
    difference = {"value": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}
    test = {"base": {"ndcg@10": 0.5}, "adapted": {"ndcg@10": 0.7}, "delta": {"ndcg@10": difference}}
    write_json(run / "report.json", {"test": test, "verdict": "better", "dataset": {"counts": {"corpus": 40}}})
    merge([run], tmp_path / "merged", config)
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "| ndcg@10 | 0.5000 | 0.7000 | +0.2000 [+0.1000, +0.3000], p = 0.0010 |" in card
    assert "Verdict: better." in card and "40 corpus" in card
    assert "document vectors are the base model's own" in card
    assert "base_model:" not in card  # "base" is a folder's name, the hub knows nothing of it


def test_a_fully_trained_run_is_copied(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", "bert")
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_weights(folder, encoder.model.state_dict(), encoder.source, encoder.use, encoder.source.identity)
    write_json(folder / "settings.json", {"of": "training"})
    report = merge([tmp_path / "run"], tmp_path / "copy", RunConfig(model=str(base)))
    assert report["kind"] == "full"
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "of" not in json.loads((tmp_path / "copy" / "settings.json").read_text())
    assert "all of its weights were trained" in (tmp_path / "copy" / "README.md").read_text()


def test_failures_are_named_and_leave_everything_as_it_was(tmp_path: Path) -> None:
    run, config = trained(tmp_path)
    before = hash_folder(run)
    with pytest.raises(UsageError, match="holds no adapter"):
        merge([tmp_path / "base"], tmp_path / "merged", config)
    with pytest.raises(UsageError, match="lies inside"):
        merge([run], run / "adapter" / "merged", config)
    other = write_model(tmp_path / "other", "bert", seed=1)
    with pytest.raises(ModelError, match="made for base base"):
        merge([run], tmp_path / "merged", RunConfig(model=str(other)))
    assert not (tmp_path / "merged").exists()
    assert hash_folder(run) == before
