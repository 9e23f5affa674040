"""`similarity`: the cosine of two texts by both models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acclimate.errors import StorageError, UsageError
from acclimate.models.encoder import Encoder
from acclimate.stages.similarity import similarity
from tests.stages.worlds import config_for, tiny_embedder, write_adapter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def test_cosines(tmp_path: Path, model: Path) -> None:
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    config = config_for(model)
    found = similarity(tmp_path, "the earth turns", "the sun shines", config)
    first, second = Encoder.load(str(model), device="cpu", dtype="float32").encode(
        ["the earth turns", "the sun shines"], "query"
    )
    assert found["base"] == pytest.approx(float(np.dot(first, second)), abs=1e-6)
    assert found["adapted"] != pytest.approx(found["base"], abs=1e-3)
    assert similarity(tmp_path, "rain", "rain", config) == pytest.approx({"base": 1.0, "adapted": 1.0})
    swapped = similarity(tmp_path, "the sun shines", "the earth turns", config)
    assert swapped == pytest.approx(found, abs=1e-6)


def test_what_it_refuses(tmp_path: Path, model: Path) -> None:
    with pytest.raises(StorageError, match="acclimate train"):
        similarity(tmp_path, "a", "b", config_for(model))
    with pytest.raises(UsageError, match="empty"):
        similarity(tmp_path, "a", " ", config_for(model))


def test_another_prompt_than_the_adapter_s_is_told(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_adapter(tmp_path / "adapter", model, strength=1.0)
    similarity(tmp_path, "a", "b", config_for(model))
    assert "warning" not in capsys.readouterr().err
    similarity(tmp_path, "a", "b", replace(config_for(model), query_prompt="find: "))
    assert "the adapter was trained with the query prompt '', and 'find: ' is used here" in capsys.readouterr().err
