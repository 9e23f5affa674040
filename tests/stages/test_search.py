"""`search`: base and adapted side by side, from kept vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.errors import StorageError, UsageError
from acclimate.files import hash_folder, write_json
from acclimate.models.encoder import Encoder
from acclimate.runs.opening import load_base
from acclimate.runs.resolve import load, resolve
from acclimate.runs.run_folder import RunFolder
from acclimate.stages.evaluate import evaluate_model
from acclimate.stages.search import search
from acclimate.stages.similarity import similarity
from acclimate.types import Sides
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_pairs, write_retrieval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


@pytest.mark.parametrize(("sides", "kept"), [("both", 2), ("query", 1)])
def test_both_sides_by_brute_force_and_vectors_are_kept(tmp_path: Path, model: Path, sides: Sides, kept: int) -> None:
    dataset = write_retrieval(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=1.0, sides=sides)
    found = search(tmp_path, "wheat and rain", 4, config_for(model))
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    documents = encoder.encode(list(dataset.corpus.values()), "document")
    cosine = (documents @ encoder.encode(["wheat and rain"], "query")[0]).astype(float)
    best = np.argsort(-cosine)[:4]
    assert [hit["id"] for hit in found["base"]] == [list(dataset.corpus)[index] for index in best]
    assert [hit["score"] for hit in found["base"]] == pytest.approx(cosine[best].tolist(), abs=1e-5)
    assert all(hit["text"] == dataset.corpus[hit["id"]] for hit in found["base"] + found["adapted"])
    assert found["query"] == "wheat and rain" and found["adapted"] != found["base"]

    files = {path: path.stat().st_mtime_ns for path in (tmp_path / ".work" / "cache").rglob("*.npy")}
    assert len(files) == kept
    assert search(tmp_path, "wheat and rain", 4, config_for(model)) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / ".work" / "cache").rglob("*.npy")} == files


def test_a_query_is_read_as_the_corpus_is(tmp_path: Path, model: Path) -> None:
    write_retrieval(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    composed, config = "caf\u00e9 and rain", config_for(model)
    assert search(tmp_path, "\tcafe\u0301 and rain\r\n", 4, config) == search(tmp_path, composed, 4, config)
    found = similarity(tmp_path, "cafe\u0301", " caf\u00e9", config)
    assert found == pytest.approx({"base": 1.0, "adapted": 1.0})
    with pytest.raises(UsageError, match="the text that is given: not valid Unicode"):
        search(tmp_path, "rain \udcff", 4, config)
    with pytest.raises(UsageError, match="the text that is given: not valid Unicode"):
        similarity(tmp_path, "rain", "\udcff", config)


def test_what_it_refuses(tmp_path: Path, model: Path) -> None:
    config = config_for(model)
    with pytest.raises(StorageError, match="acclimate prepare"):
        search(tmp_path, "rain", 5, config)
    write_retrieval(tmp_path)
    with pytest.raises(StorageError, match="acclimate train"):
        search(tmp_path, "rain", 5, config)
    with pytest.raises(UsageError, match="empty"):
        search(tmp_path, "  ", 5, config)
    with pytest.raises(UsageError, match="top = 0"):
        search(tmp_path, "rain", 0, config)
    write_pairs(tmp_path / "pairs")
    write_adapter(tmp_path / "pairs" / "adapter", model, strength=0.1)
    with pytest.raises(UsageError, match="acclimate similarity"):
        search(tmp_path / "pairs", "rain", 5, config)


@pytest.mark.parametrize("place", ["old", "versions"])
@pytest.mark.parametrize("writable", [True, False])
def test_an_adapter_that_a_kill_has_taken_away_is_found(
    tmp_path: Path, model: Path, place: str, writable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames that make an older run's folder a version, or replace it: every reader finds it."""
    write_retrieval(tmp_path)
    run = RunFolder(tmp_path)
    write_adapter(run.adapter, model, strength=1.0)
    config = config_for(model)
    found = search(tmp_path, "wheat and rain", 4, config)
    if place == "old":
        (tmp_path / ".work" / "adapter").mkdir(parents=True)
        run.adapter.rename(tmp_path / ".work" / "adapter" / "old")
    else:
        name = hash_folder(run.adapter)[:16]
        run.adapters.mkdir()
        run.adapter.rename(run.adapters / name)
        write_json(run.adapter_history, {"history": [{"version": name, "by": "training"}]})
    if not writable:
        refuse = StorageError("cannot be written")

        def denied(run: RunFolder) -> None:  # noqa: ARG001
            raise refuse

        monkeypatch.setattr("acclimate.runs.versions.restore", denied)
    for reader in (
        lambda: search(tmp_path, "wheat and rain", 4, config) == found,
        lambda: similarity(tmp_path, "wheat", "rain", config)["adapted"] < 1,
        lambda: resolve(tmp_path, base=str(model)).kind == resolve(run.adapter, base=str(model)).kind == "adapter",
        lambda: evaluate_model(str(tmp_path), run.adapter, config)["queries"] == 12,
        lambda: load_base(run.adapter, config.model).source.sha256 == load(run.path, base=str(model)).source.sha256,
    ):
        assert reader()
        assert run.adapter.is_dir() == writable
