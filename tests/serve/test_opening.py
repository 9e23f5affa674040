"""What is named -> what is served: runs, adapters' folders, models, their indexes and rerankers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from acclimate.configs import RunConfig, with_overrides
from acclimate.configs.toml import dump_config
from acclimate.errors import ModelError, UsageError
from acclimate.formats.engine_folder import write_engine
from acclimate.formats.facts import write_facts
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index.records import Fusion
from acclimate.serve.engine import Engine
from acclimate.serve.opening import Service, open_service
from acclimate.stages.index import index
from tests.models import tiny
from tests.serve.world import make_adapter, running
from tests.stages.test_index import corpus_run
from tests.stages.worlds import config_for, tiny_embedder

TEXTS = ["wheat rice", "water", "soil field seed"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def config() -> RunConfig:
    return RunConfig(device="cpu", dtype="float32")


def run_of(folder: Path, model: Path, seed: int | None) -> Path:
    """A run with a dataset, its settings and, with a seed, an adapter."""
    corpus_run(folder)
    (folder / "config.toml").write_text(dump_config(config_for(model)), encoding="utf-8")
    if seed is not None:
        base = Encoder.load(str(model), device="cpu", dtype="float32")
        (folder / "adapter").mkdir()
        save_adapter(folder / "adapter", make_adapter(base, seed), base.source)
    return folder


def vectors(service: Service, name: str) -> np.ndarray:
    async def ask(engine: Engine) -> np.ndarray:
        pinned = service.registry.pin(name)
        return (await engine.embed(TEXTS, pinned=pinned, role="query", deadline_s=30.0)).vectors

    return running(service.engine, ask)


def test_two_runs_of_one_base(tmp_path: Path, model: Path) -> None:
    farm, bank = run_of(tmp_path / "farm", model, 1), run_of(tmp_path / "bank", model, 2)
    index(farm, [], None, config_for(model))
    tiny.tiny_reranker(bank / "reranker")
    service = open_service([str(farm), f"credit={bank}"], config())
    assert [one.name for one in service.registry.models()] == ["base", "credit", "farm"]
    indexed, bare = service.runs
    assert (indexed.name, indexed.model, indexed.has_index) == ("farm", "farm", True)
    assert (bare.name, bare.model, bare.has_index) == ("credit", "credit", False)
    assert indexed.place == str(farm / "index") and indexed.fusion != Fusion(constant=0)
    assert service.reranker_id is not None
    base = Encoder.load(str(model), device="cpu", dtype="float32")
    expected = base.with_adapter(make_adapter(base, 2)).encode(TEXTS, "query")
    assert np.abs(vectors(service, "credit") - expected).max() < 1e-5


def test_a_model_and_a_run_without_an_adapter_are_the_base(tmp_path: Path, model: Path) -> None:
    service = open_service([str(model)], config())
    assert service.runs == () and service.reranker_id is None
    assert service.registry.pin(model.name).sha256 is None
    expected = Encoder.load(str(model), device="cpu", dtype="float32").encode(TEXTS)
    assert np.abs(vectors(service, model.name) - expected).max() < 1e-5
    run = run_of(tmp_path / "run", model, None)
    service = open_service([str(run)], config())
    assert [run.model for run in service.runs] == ["base"]


def test_an_adapter_that_changes_on_disk_is_read_again(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model, 1)
    service = open_service([str(run)], config())
    before = service.registry.pin("run").sha256
    assert service.refresh() == []
    base = Encoder.load(str(model), device="cpu", dtype="float32")
    shutil.rmtree(run / "adapter")
    assert service.refresh() == []  # while it is away, the older one is served
    (run / "adapter").mkdir()
    save_adapter(run / "adapter", make_adapter(base, 2), base.source)
    (changed,) = service.refresh()
    assert changed.sha256 == service.registry.pin("run").sha256 != before
    assert service.refresh() == []


def test_what_cannot_be_served_together_is_named(tmp_path: Path, model: Path) -> None:
    other = tiny_embedder(tmp_path / "other", seed=5)
    one, two = run_of(tmp_path / "one", model, 1), run_of(tmp_path / "two", other, 1)
    with pytest.raises(UsageError, match="nothing to serve"):
        open_service([], config())
    with pytest.raises(UsageError, match=r"one is of the base .* and .*two of other"):
        open_service([str(one), str(two)], config())
    with pytest.raises(UsageError, match="two of what is served are called 'one'"):
        open_service([str(one), f"one={one}"], config())
    with pytest.raises(UsageError, match="would be served as 'base'"):
        open_service([f"base={one}"], config())
    with pytest.raises(ModelError):
        open_service([str(tmp_path / "nowhere")], config())


def test_an_export_is_refused_by_one_line_that_says_what_to_serve(tmp_path: Path, model: Path) -> None:
    use = Encoder.load(str(model), device="cpu", dtype="float32").use
    graph = tmp_path / "graph"
    graph.mkdir()
    write_facts(graph, {"id": "farm/base", "sha256": "0" * 64}, use, normalise=True, sides="both")
    write_engine(graph, "onnx", "float32", "made from", None)
    with pytest.raises(UsageError) as refused:
        open_service([str(graph)], config())
    message = str(refused.value)
    assert "graph is an export for onnx, which the service does not run" in message and "\n" not in message
    assert "Serve the run or adapter that it was exported from; its base is farm/base" in message


def test_a_rerankers_hash_is_that_of_all_that_its_scores_depend_on(tmp_path: Path, model: Path) -> None:
    one, other = tiny.tiny_reranker(tmp_path / "one"), tiny.tiny_reranker(tmp_path / "other", seed=1)
    shorter = with_overrides(config(), {"pair_tokens": 20})
    served = [(str(one), config()), (str(one), config()), (str(other), config()), (str(one), shorter)]
    found = [open_service([str(model)], settings, reranker=name).reranker_sha256 for name, settings in served]
    assert found[0] == found[1] and len(set(found)) == 3 and None not in found


def test_an_index_of_another_space_is_refused(tmp_path: Path, model: Path) -> None:
    run = run_of(tmp_path / "run", model, None)
    index(run, [], None, config_for(model))
    base = Encoder.load(str(model), device="cpu", dtype="float32")
    (run / "adapter").mkdir()
    save_adapter(run / "adapter", make_adapter(base, 1), base.source)
    with pytest.raises(UsageError, match="vectors of another space"):
        open_service([str(run)], config())
