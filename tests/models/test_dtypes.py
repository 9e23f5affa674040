"""`dtype = auto`: the faster number format, measured once; and kept where a training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, MPNetConfig, PreTrainedConfig, Qwen3Config

from acclimate.errors import UsageError
from acclimate.models import dtypes
from acclimate.models.dtypes import Milliseconds, Use, choose_dtype, faster_dtype, measured_here, time_formats
from acclimate.training.checkpoint import Checkpoint, Progress, write_checkpoint
from acclimate.training.setup import training_dtype

CPU = torch.device("cpu")
WIDTH = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**WIDTH, num_hidden_layers=6),
    "qwen3": Qwen3Config(**WIDTH, num_key_value_heads=4, head_dim=32, num_hidden_layers=6),
    "mpnet, padded": MPNetConfig(**WIDTH, num_hidden_layers=6),
}
USES: tuple[Use, ...] = ("encoding", "training", "mixed precision")


class Stopwatch:
    """Gives times that are written down, and counts how often it is asked."""

    def __init__(self, float32: float, bfloat16: float) -> None:
        self.times: Milliseconds = {"float32": float32, "bfloat16": bfloat16}
        self.asked: list[Use] = []

    def __call__(self, _config: Any, use: Use) -> Milliseconds:
        self.asked.append(use)
        return self.times


@pytest.fixture
def forget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """An empty cache; calling it makes this process forget what it has read there, as the next process would."""
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dtypes, "_known", {})
    return dtypes._known.clear


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    CONFIGS["bert"].save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("float32", "bfloat16", "faster"),
    [(20.0, 10.0, "bfloat16"), (10.0, 20.0, "float32"), (10.0, 9.5, "float32")],  # the last is no gain worth rounding
)
@pytest.mark.usefixtures("forget")
def test_the_faster_one(folder: Path, float32: float, bfloat16: float, faster: str) -> None:
    assert faster_dtype(folder, "encoding", Stopwatch(float32, bfloat16)) == faster


def test_measured_once_for_each_use(folder: Path, forget: Callable[[], None]) -> None:
    watch, other = Stopwatch(20, 10), Stopwatch(10, 20)
    assert faster_dtype(folder, "encoding", watch) == faster_dtype(folder, "encoding", watch) == "bfloat16"
    assert faster_dtype(folder, "training", other) == "float32"
    forget()
    assert faster_dtype(folder, "encoding", other) == "bfloat16"  # as the cache says
    assert (watch.asked, other.asked) == (["encoding"], ["training"])
    assert measured_here() == {
        f"bert of width 384, {use}, threads: {torch.get_num_threads()}": said
        for use, said in (
            ("encoding", "bfloat16 (float32 20 ms, bfloat16 10 ms)"),
            ("training", "float32 (float32 10 ms, bfloat16 20 ms)"),
        )
    }


def test_other_shapes_and_another_number_of_threads_are_measured_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    watch = Stopwatch(20, 10)
    faster_dtype(folder, "encoding", watch)
    BertConfig(**{**WIDTH, "intermediate_size": 1024}).save_pretrained(tmp_path / "narrow")
    faster_dtype(tmp_path / "narrow", "encoding", watch)
    BertConfig(**WIDTH, vocab_size=9, num_hidden_layers=12).save_pretrained(tmp_path / "deep")
    faster_dtype(tmp_path / "deep", "encoding", watch)  # the same layers, and more of them
    assert len(watch.asked) == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    other = Stopwatch(10, 20)
    assert faster_dtype(folder, "encoding", other) == "bfloat16"  # as this process has chosen
    forget()
    assert faster_dtype(folder, "encoding", other) == "float32"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:20],
        lambda _: "[]",
        lambda text: json.dumps({**json.loads(text), "milliseconds": {"float32": 3.0}}),
        lambda text: json.dumps({**json.loads(text), "milliseconds": {"float32": 3.0, "bfloat16": "fast"}}),
        lambda text: json.dumps({**json.loads(text), "milliseconds": {"float32": 0.0, "bfloat16": -1.0}}),
    ],
)
def test_a_damaged_file_is_measured_again(
    folder: Path, forget: Callable[[], None], damage: Callable[[str], str]
) -> None:
    faster_dtype(folder, "encoding", Stopwatch(20, 10))
    (path,) = dtypes.cache_folder().glob("*.json")
    path.write_text(damage(path.read_text()))
    forget()
    assert measured_here() == {}
    again = Stopwatch(10, 20)
    assert faster_dtype(folder, "encoding", again) == "float32"
    assert again.asked == ["encoding"] and json.loads(path.read_text())["milliseconds"] == again.times


def test_a_cache_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ACCLIMATE_CACHE", str(tmp_path / "file"))
    watch = Stopwatch(20, 10)
    assert faster_dtype(folder, "encoding", watch) == faster_dtype(folder, "encoding", watch) == "bfloat16"
    assert len(watch.asked) == 1  # base and adapted model of one evaluation never differ
    forget()
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "h"}.items():
        monkeypatch.setenv(name, str(value))
    assert faster_dtype(folder, "encoding", watch) == "float32"


@pytest.mark.usefixtures("forget")
def test_a_small_model_is_not_measured(tmp_path: Path) -> None:
    BertConfig(hidden_size=32, intermediate_size=64, num_attention_heads=2).save_pretrained(tmp_path)
    watch = Stopwatch(20, 10)
    assert faster_dtype(tmp_path, "encoding", watch) == "float32"
    assert watch.asked == []


def test_a_model_that_cannot_be_cut_to_two_layers_is_computed_in_float32(
    folder: Path, capsys: pytest.CaptureFixture[str], forget: Callable[[], None]
) -> None:
    def fails(_config: Any, _use: Use) -> Milliseconds:
        raise ValueError("layer_types has 6 entries\nand more")

    assert faster_dtype(folder, "encoding", fails) == "float32"
    assert "bert cannot be measured (layer_types has 6 entries)" in capsys.readouterr().err
    forget()
    assert faster_dtype(folder, "encoding", Stopwatch(20, 10)) == "bfloat16"  # nothing was kept


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("use", USES)
def test_the_real_measurement(name: str, use: Use) -> None:
    state = torch.random.get_rng_state()
    times = time_formats(CONFIGS[name], use)
    assert set(times) == {"float32", "bfloat16"} and min(times.values()) > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert CONFIGS[name].num_hidden_layers == 6  # the model's own is as it was


@pytest.mark.usefixtures("forget")
def test_a_name_is_taken_as_it_is(folder: Path) -> None:
    assert choose_dtype("bfloat16", CPU, folder) == torch.bfloat16
    assert choose_dtype("float32", CPU, folder) == torch.float32
    assert not dtypes.cache_folder().exists()
    with pytest.raises(UsageError, match=r"'float8'.*auto, float32, bfloat16"):
        choose_dtype("float8", CPU, folder)


def test_a_training_that_goes_on_keeps_its_format(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]
) -> None:
    monkeypatch.setattr(dtypes, "time_formats", Stopwatch(10, 20))
    checkpoints = tmp_path / "checkpoints"
    assert training_dtype("auto", CPU, folder, "training", checkpoints, "this one") == "float32"
    write_checkpoint(checkpoints, Checkpoint(Progress("this one", step=3, dtype="bfloat16"), {}, {}))
    forget()
    assert training_dtype("auto", CPU, folder, "training", checkpoints, "this one") == "bfloat16"
    assert training_dtype("auto", CPU, folder, "training", checkpoints, "another") == "float32"
