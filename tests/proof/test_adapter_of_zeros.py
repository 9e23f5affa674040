"""An adapter of zeros is its base: under no setting may a comparison say that it is better.

The test that failed before: `evaluate RUN --dim 16` compared a base of 16 dimensions with an adapter of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from acclimate.configs import EvaluateConfig, RunConfig
from acclimate.errors import UsageError
from acclimate.stages.encode import encode
from acclimate.stages.evaluate import evaluate, evaluate_model
from acclimate.stages.search import search
from acclimate.stages.similarity import similarity
from acclimate.types import Sides
from tests.stages.worlds import tiny_embedder, write_adapter, write_retrieval

FLAGS: dict[str, st.SearchStrategy[Any]] = {
    "dim": st.integers(1, 32),
    "max_tokens": st.integers(2, 40),
    "query_prompt": st.text("w1234567890 :", max_size=12),
    "document_prompt": st.text("w1234567890 :", max_size=12),
    "seed": st.integers(0, 9),
    "limit": st.integers(1, 50),
    "dtype": st.sampled_from(["auto", "float32", "bfloat16"]),
    "pooling": st.sampled_from(["mean"]),  # the model's own; another one is refused below
}
"""Every shared setting that changes how texts become vectors, or what is measured."""


def _filled_by_a_prompt(flags: dict[str, Any]) -> bool:
    """Whether a prompt may fill all that is read, which is refused: a token a character, and two at the ends."""
    prompts = (flags.get(f"{role}_prompt", "") for role in ("query", "document"))
    return max(map(len, prompts)) + 2 >= int(flags.get("max_tokens", 40))


ROUNDING = 1e-6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=["both", "query"])
def run(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_retrieval(folder)
    sides: Sides = request.param
    write_adapter(folder / "adapter", model, strength=0.0, sides=sides)
    return folder


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flags=st.fixed_dictionaries({}, optional=FLAGS))
def test_it_is_never_better_under_any_flag(run: Path, model: Path, flags: dict[str, Any]) -> None:
    assume(not _filled_by_a_prompt(flags))
    alike = {"device": "cpu", "dtype": "float32", "model": str(model)}
    config = RunConfig(**{**alike, **flags}, evaluate=EvaluateConfig(sign_flips=200))
    report = evaluate(run / "dataset", run / "adapter", run / "evaluation", config)
    test = report["test"]
    assert test["adapted"] == pytest.approx(test["base"], abs=ROUNDING)
    assert report["verdict"] == "no evidence"
    hits = search(run, "w1 w2 w3", 5, config)
    assert [hit["id"] for hit in hits["adapted"]] == [hit["id"] for hit in hits["base"]]
    cosines = similarity(run, "w1 w2", "w3 w4", config)
    assert cosines["adapted"] == pytest.approx(cosines["base"], abs=ROUNDING)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flags=st.fixed_dictionaries({}, optional=FLAGS))
def test_one_model_is_measured_and_encoded_alike_with_and_without_it(
    run: Path, model: Path, tmp_path: Path, flags: dict[str, Any]
) -> None:
    assume(not _filled_by_a_prompt(flags))
    alone = RunConfig(model=str(model), **{"device": "cpu", "dtype": "float32", **flags})
    measured = [evaluate_model(str(run), adapter, alone) for adapter in (None, run)]
    assert _flat(measured[0]) == pytest.approx(_flat(measured[1]), abs=ROUNDING)
    (tmp_path / "texts.txt").write_text("w1 w2 w3 w4\nw5\nW6 w7\n")
    for role in ("query", "document"):
        for adapter, name in ((None, "base.npy"), (run, "adapted.npy")):
            encode(tmp_path / "texts.txt", role, adapter, tmp_path / name, alone, replace=True)
        np.testing.assert_allclose(np.load(tmp_path / "base.npy"), np.load(tmp_path / "adapted.npy"), atol=ROUNDING)


def _flat(measured: Mapping[str, Any]) -> dict[str, float]:
    """Measures by name, and the ends of their intervals."""
    ends = {f"{name} {end}": value for end in ("low", "high") for name, value in measured[end].items()}
    return {**{name: value for name, value in measured.items() if name not in ("low", "high")}, **ends}


def test_another_pooling_than_it_was_trained_with_is_refused(run: Path, model: Path) -> None:
    other = RunConfig(model=str(model), pooling="cls", device="cpu")
    with pytest.raises(UsageError, match=r"pooling = 'cls', and the adapter was trained with 'mean'"):
        evaluate(run / "dataset", run / "adapter", run / "evaluation", other)
    with pytest.raises(UsageError, match="trained with 'mean'"):
        search(run, "w1", 5, other)
