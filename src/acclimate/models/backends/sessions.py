"""Sessions: a padded batch of tokens in, vectors or scores out, by another engine than torch. CPU only.

Shapes: N texts or pairs, L tokens of the longest, D dimensions.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from acclimate.errors import MissingExtraError, ModelError, UsageError, first_line
from acclimate.formats.engine_folder import Engine, Precision, Target
from acclimate.models.backends.graph import EMBEDDING
from acclimate.models.backends.signal_stack import kept_signal_stack

Ids = NDArray[np.int64]


class Session(Protocol):
    """A loaded graph; any number of threads may call it at once."""

    def __call__(self, ids_NL: Ids, mask_NL: Ids, types_NL: Ids | None = None, /) -> NDArray[np.float32]:
        """Compute a batch.

        Args:
            ids_NL: token ids, padded at the right.
            mask_NL: 1 where a token is.
            types_NL: token types, all 0 if not given; ignored by architectures without.

        Returns:
            What the graph was opened for: unit vectors [N, D], or raw logits [N, 1].
        """


PACKAGES: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("openvino",),
    "gguf": ("gguf",),
}
"""Engine, which is also the extra's name -> what it needs."""
QUANTISERS: dict[Target, tuple[str, ...]] = {"openvino": ("nncf",)}
"""Engine -> what it needs beside these to be written in INT8; of the same extra."""


def require(engine: Target, *, int8: bool = False) -> None:
    """Raise a `MissingExtraError` unless what the engine, or INT8 for it, needs is installed."""
    packages = (*PACKAGES[engine], *(QUANTISERS.get(engine, ()) if int8 else ()))
    if any(importlib.util.find_spec(package) is None for package in packages):
        raise MissingExtraError(f"A model for {engine}{' in INT8' if int8 else ''}", engine)


def check_settings(where: str, engine: Engine, precision: Precision, device: str, dtype: str) -> None:
    """Refuse a device and a number format that an export does not have.

    Args:
        where: the export's name.
        engine: runs it.
        precision: its number format.
        device: asked for.
        dtype: asked for.

    Raises:
        UsageError: it is not the export's own.
    """
    if device not in ("auto", "cpu"):
        raise UsageError(f"device = {device!r} with {where}, an export for {engine}", possible="auto, cpu")
    if dtype not in ("auto", precision):
        raise UsageError(f"dtype = {dtype!r} with {where}", fix="An export has its number format already.")


def open_session(engine: Engine, graph: Path, threads: int | None = None, output: str = EMBEDDING) -> Session:
    """Load a graph.

    Args:
        engine: runs it.
        graph: the file.
        threads: on which it runs; as many as torch has if None.
        output: which of the graph's outputs is computed.

    Raises:
        MissingExtraError: the engine is not installed.
        ModelError: the graph is damaged, or has no such output.
    """
    require(engine)
    try:
        return _OPENERS[engine](graph, threads or torch.get_num_threads(), output)
    except Exception as error:  # both engines raise classes of their own, by no common name
        raise ModelError(f"{graph} cannot be loaded ({first_line(error)})", fix="Export the model again.") from error


def _open_onnx(graph: Path, threads: int, output: str) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    if output not in [item.name for item in session.get_outputs()]:
        raise ValueError(f"no output {output}")

    def run(ids_NL: Ids, mask_NL: Ids, types_NL: Ids | None = None) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run([output], _inputs(names, ids_NL, mask_NL, types_NL))[0]
        return found

    return run


def _open_openvino(graph: Path, threads: int, output: str) -> Session:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    with kept_signal_stack():
        compiled = openvino.Core().compile_model(str(graph), "CPU", options)
    names = [item.get_any_name() for item in compiled.inputs]
    place = compiled.output(output)

    def run(ids_NL: Ids, mask_NL: Ids, types_NL: Ids | None = None) -> NDArray[np.float32]:
        # A request of its own: threads may call at once.
        request = compiled.create_infer_request()
        found: NDArray[np.float32] = request.infer(_inputs(names, ids_NL, mask_NL, types_NL))[place]
        return found

    return run


_OPENERS: dict[Engine, Callable[[Path, int, str], Session]] = {"onnx": _open_onnx, "openvino": _open_openvino}


def _inputs(names: Sequence[str], ids_NL: Ids, mask_NL: Ids, types_NL: Ids | None) -> dict[str, Any]:
    types = np.zeros_like(ids_NL) if types_NL is None else types_NL
    values = {"input_ids": ids_NL, "attention_mask": mask_NL, "token_type_ids": types}
    return {name: values[name] for name in names}
