"""Which number format a model computes in: the one asked for, or the one that is faster on this machine.

Whether bfloat16 is faster than float32 depends on processor, library and shapes, and no flag of the processor tells. So
two layers of the model are timed in both, once: the answer is kept in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel
from transformers.initialization import no_init_weights

from acclimate import processes
from acclimate.core.frozen_linear import freeze_linears
from acclimate.core.int8_linear import INT8, activations_dtype, why_not_int8
from acclimate.core.linears import ALL_LINEAR, features, linears
from acclimate.core.lora import attach
from acclimate.cpu import cpu_facts
from acclimate.errors import AcclimateError, UsageError, first_line
from acclimate.files import hash_config, read_json, write_json
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.attention import PACKED_ATTENTION
from acclimate.models.inputs import can_pack, packed_inputs, padded_inputs
from acclimate.models.loading import without_pooler, zero_dropout
from acclimate.progress import say

Format = Literal["float32", "bfloat16"]
DTYPES: dict[Format, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Use = Literal["encoding", "training", "mixed precision"]
"""What a model is loaded for: vectors; LoRA over frozen weights of the format; training of float32 weights, under which
bfloat16 means autocast."""
Milliseconds = Mapping[Format, float]
"""Format -> time of the same work."""

SHAPES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act")
CPU_FACTS = ("vendor_id", "cpu family", "model", "model name", "flags")
MEASURED_PARAMETERS = 1_000_000
"""A model with fewer in its layers is computed in float32: either format takes less time than the measurement."""
MARGIN = 1.1
"""bfloat16 has to be faster by so much: of two that take the same time, float32 rounds less."""

LAYERS, WIDE, WORDS, RANK, VALUE = 2, 2048, 16, 16, 0.01
"""Two layers; one of models so wide that two would take seconds to fill."""
FLOATING_POINT_OPERATIONS = 4e9
"""In one pass forward: some 20 to 60 milliseconds."""
MOST_TOKENS, LEAST_TOKENS, TEXT_TOKENS = 512, 16, 64
ROUNDS, LIMIT_S = 4, 0.6
"""Times that each format runs, after one that does not count, and when no further round begins."""
HOPELESS = 3.0
"""Where one matrix product takes so many times as long in bfloat16, it is emulated, and a whole layer could take
minutes."""

NOT_TWO_LAYERS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What transformers raises where a config makes no model of two layers; the model itself may load all the same."""

_known: dict[str, Format] = {}
"""What this process has measured or read. Base and adapted model of an evaluation agree by it, also where the cache
cannot be written, or the number of threads has changed between them."""


def check_dtype(name: str) -> None:
    """Raise a `UsageError` for a number format that does not exist."""
    if name not in ("auto", INT8):
        named_format(name)


def choose_dtype(name: str, device: torch.device, folder: Path, use: Use = "encoding") -> torch.dtype:
    """The number format of this name.

    auto is bfloat16 on a GPU that computes in it, the faster one on a CPU, else float32. Of int8 it is the format of
    what is not in INT8: activations, norms, adapters.

    Args:
        name: auto, float32, bfloat16 or int8.
        device: where the model runs.
        folder: where its config.json lies.
        use: what it is loaded for.

    Raises:
        UsageError: an unknown name; int8 for training, elsewhere than on a CPU, or on one that cannot.
        ModelError: no config.json, or a damaged one.
    """
    if name == INT8:
        if use != "encoding":
            raise UsageError("dtype = 'int8' for training", possible="auto, " + ", ".join(DTYPES))
        check_int8(device)
        return activations_dtype()
    if name != "auto":
        return DTYPES[named_format(name)]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return DTYPES[faster_dtype(folder, use)] if device.type == "cpu" else torch.float32


def check_int8(device: torch.device) -> None:
    """Raise a `UsageError` where this device cannot compute in INT8."""
    possible = "auto, " + ", ".join(DTYPES)
    if device.type != "cpu":
        raise UsageError(f"dtype = 'int8' on the device {device.type}", possible=possible, fix="Give --device cpu.")
    if (reason := why_not_int8()) is not None:
        fix = "Export the model instead: acclimate export RUN --format onnx --int8"
        raise UsageError(f"dtype = 'int8', and {reason}", possible=possible, fix=fix)


def named_format(name: str) -> Format:
    """The number format of this name.

    Raises:
        UsageError: there is none.
    """
    for known in DTYPES:
        if name == known:
            return known
    raise UsageError(f"dtype = {name!r}", possible="auto, " + ", ".join((*DTYPES, INT8)))


def faster_dtype(folder: Path, use: Use, measure: Callable[[Any, Use], Milliseconds] | None = None) -> Format:
    """The name of the format that is faster on this CPU, measured unless the cache knows.

    Several processes wait for the first one's answer.

    Args:
        folder: where the model's config.json lies.
        use: what the model is loaded for.
        measure: (transformers config, use) -> times; `time_formats` if None.
    """
    with quiet_transformers(), model_errors(folder):
        config = AutoConfig.from_pretrained(folder)
    if _layer_parameters(config) < MEASURED_PARAMETERS:
        return "float32"
    key = _key(config, use)
    model_and_use = hash_config({**key, "threads": None})
    if model_and_use not in _known:
        path = cache_folder() / f"{hash_config(key)[:16]}.json"
        try:
            _known[model_and_use] = _answer(path, key, lambda: (measure or time_formats)(config, use))
        except NOT_TWO_LAYERS as error:
            say(f"dtype = auto: {config.model_type} cannot be measured ({first_line(error)}), so it is float32")
            _known[model_and_use] = "float32"
    return _known[model_and_use]


def _answer(path: Path, key: Mapping[str, Any], measure: Callable[[], Milliseconds]) -> Format:
    """The faster format, by the file at `path`, which is written where there is none that makes sense."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / "lock").open("w")
    except OSError:
        if processes.count() > 1:
            return "float32"  # they could not agree on another answer
        return _faster(measure())
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        times = _read(path)
        if times is None:
            times = measure()
            say(f"dtype = auto: {_in_words(times)} for {key['use']}, measured once here for this model's shapes")
            with contextlib.suppress(AcclimateError):  # a full disk: measured again next time
                write_json(path, {**key, "milliseconds": times})
    return _faster(times)


def measured_here() -> dict[str, str]:
    """What the cache knows of this processor and this torch: model, use and threads -> the faster format, and times."""
    lines = {}
    for path in sorted(cache_folder().glob("*.json")):
        times = _read(path)
        found = read_json(path) if times else {}
        if times and found["cpu"] == _cpu() and found["torch"] == torch.__version__:
            model = f"{found['model']['model_type']} of width {found['model']['hidden_size']}"
            lines[f"{model}, {found['use']}, threads: {found['threads']}"] = _in_words(times)
    return lines


def cache_folder() -> Path:
    """Where measurements are kept: in $ACCLIMATE_CACHE, else in the user's cache folder."""
    of_user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acclimate"
    return Path(os.environ.get("ACCLIMATE_CACHE") or of_user) / "number-formats"


def time_formats(config: Any, use: Use) -> Milliseconds:
    """Time two layers of a model in both formats, on this CPU, in about a second at most.

    The weights are numbers that mean nothing: products take the same time whatever is multiplied.

    Args:
        config: the model's, by transformers.
        use: without gradient, with that of LoRA, or with that of all weights.
    """
    started = time.perf_counter()
    products = _shortest({name: _product(dtype) for name, dtype in DTYPES.items()}, ROUNDS, started)
    if products["bfloat16"] > HOPELESS * products["float32"]:
        return products
    with torch.random.fork_rng(devices=[]):
        calls = {name: _layers(config, use, dtype) for name, dtype in DTYPES.items()}
        return _shortest(calls, ROUNDS, time.perf_counter())


def _shortest(calls: Mapping[Format, Callable[[], object]], rounds: int, started: float) -> Milliseconds:
    """Milliseconds of each function: the shortest of several rounds in turn, as what else runs here adds to some."""
    seconds: dict[Format, list[float]] = {name: [] for name in calls}
    for number in range(1 + rounds):
        if number > 1 and time.perf_counter() - started > LIMIT_S:
            break
        for name, call in calls.items():
            before = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - before)
    return {name: round(1000 * min(times[1:]), 3) for name, times in seconds.items()}


def _product(dtype: torch.dtype) -> Callable[[], object]:
    x, weight = torch.ones(64, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    return lambda: functional.linear(x, weight)


def _layers(config: Any, use: Use, dtype: torch.dtype) -> Callable[[], object]:
    """Build two layers of a model as it would be loaded for this use, and a function that runs them over some texts."""
    packed = can_pack(config.to_dict())
    model = _small_model(config, packed, torch.float32 if use == "mixed precision" else dtype)
    parameters = sum(d_in * d_out for d_in, d_out in map(features, linears(model).values()))
    tokens = int(np.clip(FLOATING_POINT_OPERATIONS / (2 * parameters), LEAST_TOKENS, MOST_TOKENS))
    lengths = np.full(max(1, tokens // TEXT_TOKENS), min(tokens, TEXT_TOKENS))
    ids, positions = np.ones(lengths.sum(), np.int32), np.concatenate([np.arange(length) for length in lengths])
    texts = (model, ids, positions, lengths)
    inputs = packed_inputs(*texts) if packed else padded_inputs(*texts, pad_id=0)
    freeze_linears(model)
    if use == "training":
        attach(model, [ALL_LINEAR], rank=RANK)
    elif use == "mixed precision":
        model.requires_grad_(True)
    autocast = use == "mixed precision" and dtype == torch.bfloat16

    def run() -> None:
        if use == "encoding":
            with torch.inference_mode():
                model(**inputs)
            return
        with torch.enable_grad():
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                hidden = model(**inputs).last_hidden_state
            hidden.float().sum().backward()

    return run


def _small_model(config: Any, packed: bool, dtype: torch.dtype) -> nn.Module:
    small = copy.deepcopy(config)
    small.num_hidden_layers = LAYERS if small.hidden_size < WIDE else 1
    small.vocab_size, small.pad_token_id = WORDS, 0
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:LAYERS]
    zero_dropout(small)
    arguments: dict[str, Any] = {"attn_implementation": PACKED_ATTENTION} if packed else {}
    with quiet_transformers(), no_init_weights():
        model: nn.Module = AutoModel.from_config(small, dtype=dtype, **without_pooler(small), **arguments)
    model.requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.fill_(VALUE)
    return model


def _faster(times: Milliseconds) -> Format:
    return "bfloat16" if times["bfloat16"] * MARGIN < times["float32"] else "float32"


def _in_words(times: Milliseconds) -> str:
    return f"{_faster(times)} ({', '.join(f'{name} {value:g} ms' for name, value in times.items())})"


def _read(path: Path) -> Milliseconds | None:
    """What was measured; None where there is nothing, or nothing that makes sense."""
    try:
        value = read_json(path)
        times = {name: float(value["milliseconds"][name]) for name in DTYPES}
        said = {"cpu", "torch", "threads", "use"} <= set(value) and {"model_type", "hidden_size"} <= set(value["model"])
    except (AcclimateError, OSError, KeyError, TypeError, ValueError):
        return None
    return times if said and min(times.values()) > 0 else None


def _key(config: Any, use: Use) -> dict[str, Any]:
    shapes = {name: getattr(config, name, None) for name in ("model_type", *SHAPES)}
    return {
        "cpu": _cpu(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "use": use,
        "model": {name: value for name, value in shapes.items() if isinstance(value, int | str)},
    }


def _cpu() -> str:
    facts = cpu_facts()
    return f"{facts['model name']} {hash_config({name: facts.get(name) for name in CPU_FACTS})[:8]}"


def _layer_parameters(config: Any) -> int:
    """Parameters of all layers, estimated; 0 where the config does not say how wide they are."""
    layers, hidden = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not isinstance(layers, int) or not isinstance(hidden, int):
        return 0
    return layers * (4 * hidden**2 + 2 * hidden * int(getattr(config, "intermediate_size", None) or 4 * hidden))
