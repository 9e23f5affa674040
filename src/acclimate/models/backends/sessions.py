"""Sessions: a padded batch of tokens in, unit vectors out, by another engine than torch. CPU only.

Shapes: N texts, L tokens of the longest, D dimensions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.errors import MissingExtraError, ModelError, first_line
from acclimate.formats.engine_folder import Engine, Target
from acclimate.models.backends.graph import EMBEDDING

Ids = NDArray[np.int64]
Session: TypeAlias = Callable[[Ids, Ids], NDArray[np.float32]]
"""Token ids and mask, [N, L] both -> unit vectors [N, D]."""
PACKAGES: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "gguf": ("gguf",),
}
"""Engine, which is also the extra's name -> what it needs."""


def require(engine: Target) -> None:
    """Raise a `MissingExtraError` unless what the engine needs is installed."""
    if any(importlib.util.find_spec(package) is None for package in PACKAGES[engine]):
        raise MissingExtraError(f"A model for {engine}", engine)


def open_session(engine: Engine, graph: Path, threads: int | None = None) -> Session:
    """Load a graph.

    Args:
        engine: runs it.
        graph: the file.
        threads: on which it runs; as many as torch has if None.

    Raises:
        MissingExtraError: the engine is not installed.
        ModelError: the graph is damaged, or no embedding model's.
    """
    require(engine)
    try:
        return _OPENERS[engine](graph, threads or torch.get_num_threads())
    except Exception as error:  # both engines raise classes of their own, by no common name
        raise ModelError(f"{graph} cannot be loaded ({first_line(error)})", fix="Export the model again.") from error


def _open_onnx(graph: Path, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    if EMBEDDING not in [item.name for item in session.get_outputs()]:
        raise ValueError(f"no output {EMBEDDING}")

    def run(ids_NL: Ids, mask_NL: Ids) -> NDArray[np.float32]:
        vectors_ND: NDArray[np.float32] = session.run([EMBEDDING], _inputs(names, ids_NL, mask_NL))[0]
        return vectors_ND

    return run


def _open_openvino(graph: Path, threads: int) -> Session:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(graph), "CPU", options)
    names = [item.get_any_name() for item in compiled.inputs]
    output = compiled.output(EMBEDDING)

    def run(ids_NL: Ids, mask_NL: Ids) -> NDArray[np.float32]:
        # A request of its own: threads may call at once.
        vectors_ND: NDArray[np.float32] = compiled.create_infer_request().infer(_inputs(names, ids_NL, mask_NL))[output]
        return vectors_ND

    return run


_OPENERS: dict[Engine, Callable[[Path, int], Session]] = {"onnx": _open_onnx, "openvino": _open_openvino}


def _inputs(names: Sequence[str], ids_NL: Ids, mask_NL: Ids) -> dict[str, Any]:
    values = {"input_ids": ids_NL, "attention_mask": mask_NL, "token_type_ids": np.zeros_like(ids_NL)}
    return {name: values[name] for name in names}
