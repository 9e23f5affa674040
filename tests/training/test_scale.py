"""Temperature and in-batch margin of a training: given, the family's, or fitted to the base; kept on resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.configs import ObjectiveConfig, RunConfig, TrainConfig
from acclimate.core.lora import attach
from acclimate.core.losses import learned_temperature
from acclimate.core.losses.temperature import log_excess
from acclimate.core.spread import spread
from acclimate.files import read_json, write_json
from acclimate.formats.families import find_family
from acclimate.models.encoder import Encoder
from acclimate.models.loading import transformer_size
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task
from acclimate.stages.train import train
from acclimate.training.reports import Scale
from acclimate.training.scale import settle_scales
from acclimate.training.task_training import TrainingTask, read_task
from tests.tiny_run import write_tiny_bert, write_tiny_pairs, write_tiny_retrieval


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")
    return Encoder.load(str(folder), pooling="mean", device="cpu", dtype="float32")


def part_of(folder: Path, objective: ObjectiveConfig, pairs: bool = False) -> TrainingTask:
    dataset = folder / "dataset"
    if not dataset.exists():
        (write_tiny_pairs if pairs else write_tiny_retrieval)(dataset)
    return read_task(Task(None, RunConfig(objective=objective), RunFolder(folder), dataset, dataset, mined=False))


def settled(
    folder: Path, encoder: Encoder, objective: ObjectiveConfig, identity: str = "a"
) -> tuple[Scale, TrainingTask]:
    part = part_of(folder, objective)
    (scale,) = settle_scales([part], encoder, folder / ".work" / "scale.json", identity)
    assert scale is not None
    return scale, part


def test_temperature_and_margin_are_fitted_to_the_base(
    tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    scale, part = settled(tmp_path, encoder, ObjectiveConfig())
    queries, texts = list(dict.fromkeys(e.anchor for e in part.examples)), list(dict.fromkeys(part.texts))
    cosines = encoder.encode(queries, "query") @ encoder.encode(texts, "document").T
    positives = {(example.anchor, example.positive) for example in part.examples}
    usable = np.array([[(query, text) not in positives and query != text for text in texts] for query in queries])
    unit = spread(cosines, usable)
    assert scale["spread"] == pytest.approx(unit, rel=1e-4)
    assert scale["temperature"] == pytest.approx(0.45 * unit, rel=1e-4)
    assert scale["false_negative_margin"] == pytest.approx(0.9 * unit, rel=1e-4)
    assert f"0.45 of the base's spread {unit:.4g}" in capsys.readouterr().err
    objective = part.task.config.objective
    assert objective.temperature == scale["temperature"] and objective.effective_spread_margin is None
    assert objective.false_negative_margin == scale["false_negative_margin"]


def test_what_is_given_wins(tmp_path: Path, encoder: Encoder) -> None:
    given = ObjectiveConfig(temperature=0.07, false_negative_relative_margin=0.2)
    scale, part = settled(tmp_path, encoder, given)
    assert scale == {"temperature": 0.07, "temperature_from": "as given", "spread": None, "false_negative_margin": None}
    assert part.task.config.objective == replace(given, loss="info-nce")
    none = settled(tmp_path / "none", encoder, ObjectiveConfig(false_negative_spread_margin=None))[0]
    assert none["false_negative_margin"] is None and none["spread"]


def test_a_resumed_training_keeps_its_spread(tmp_path: Path, encoder: Encoder) -> None:
    first, _ = settled(tmp_path, encoder, ObjectiveConfig())
    kept = tmp_path / ".work" / "scale.json"
    write_json(kept, {**read_json(kept), "spreads": [0.1]})
    assert settled(tmp_path, encoder, ObjectiveConfig())[0]["temperature"] == pytest.approx(0.045)
    assert settled(tmp_path, encoder, ObjectiveConfig(), identity="another")[0] == first


def test_a_loss_without_a_temperature_has_no_scale(tmp_path: Path, encoder: Encoder) -> None:
    part = part_of(tmp_path, ObjectiveConfig(), pairs=True)
    assert part.loss == "cosine-mse"
    assert settle_scales([part], encoder, tmp_path / "scale.json", "a") == [None]


def test_a_family_brings_its_own_temperature() -> None:
    """MiniLM's behaviour stays as it was, at 0.05."""
    for name, temperature in (
        ("sentence-transformers/all-MiniLM-L6-v2", 0.05),
        ("intfloat/multilingual-e5-small", 0.01),
        ("BAAI/bge-small-zh", 0.01),
        ("BAAI/bge-small-zh-v1.5", None),
        ("Qwen/Qwen3-Embedding-0.6B", None),
    ):
        family = find_family(name)
        assert family is not None and family.temperature == temperature, name


def test_the_run_reports_its_scale(tmp_path: Path) -> None:
    model = write_tiny_bert(tmp_path / "tiny-bert")
    config = RunConfig(model=str(model), pooling="mean", device="cpu", dtype="float32", train=TrainConfig(epochs=1))
    report = train(write_tiny_retrieval(tmp_path / "dataset"), None, tmp_path / "adapter", config)
    scale = report["train"]["scale"]
    assert scale["spread"] and scale["temperature"] == pytest.approx(0.45 * scale["spread"])


def test_a_learned_temperature_may_start_as_low_as_a_model_s_own() -> None:
    for start in (0.05, 0.0098):
        lowest = ObjectiveConfig(temperature=start, temperature_kind="learned").lowest_learned
        assert lowest == pytest.approx(min(0.01, start / 5))
        assert float(learned_temperature(torch.tensor(log_excess(start, lowest)), lowest)) == pytest.approx(start)


def test_an_adaptive_temperature_goes_with_the_temperature() -> None:
    assert ObjectiveConfig(temperature=0.05).adaptive_temperatures == pytest.approx((0.08, 0.01, 0.03))
    fitted = ObjectiveConfig(temperature=0.01, temperature_floor=0.002)
    assert fitted.adaptive_temperatures == pytest.approx((0.016, 0.002, 0.002))


def test_the_transformer_s_size_counts_no_embedding_and_no_adapter(tmp_path: Path) -> None:
    model = Encoder.load(str(write_tiny_bert(tmp_path / "tiny-bert")), pooling="mean", device="cpu").model
    size, count = transformer_size(model)
    layers = sum(p.numel() for name, p in model.named_parameters() if name.startswith("encoder."))
    norm = sum(p.numel() for name, p in model.named_parameters() if name.startswith("embeddings.LayerNorm"))
    assert size == layers + norm and count == model.config.num_hidden_layers
    attach(model, ("all-linear",), rank=4)
    assert transformer_size(model) == (size, count)
