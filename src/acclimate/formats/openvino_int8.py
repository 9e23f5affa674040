"""An OpenVINO graph in INT8, calibrated: weights with a scale per output channel, activations with one range per layer.

The ranges are those of training texts that run through the float32 graph (nncf's post-training quantisation for
transformers, with SmoothQuant). The embedding table is quantised row by row.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import StorageError, first_line
from acclimate.files import storage_errors

Batch: TypeAlias = Mapping[str, NDArray[np.int64]]
"""Names of a graph's inputs -> [N, L]; those that it does not have are left out."""


def quantise(graph: Path, out: Path, calibration: Sequence[Batch], kept: Sequence[str] = ()) -> None:
    """Write the INT8 form of a float32 graph.

    Args:
        graph: the .xml file of a float32 graph.
        out: the .xml file to write; another one.
        calibration: batches of training texts, of one text each.
        kept: layers that stay in float32, by the names that `layers_of` gives.

    Raises:
        StorageError: it cannot be written.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(str(graph))
    names = {item.get_any_name() for item in model.inputs}
    batches = [{name: values for name, values in batch.items() if name in names} for batch in calibration]
    with _quiet():
        smaller = nncf.quantize(
            model,
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=list(kept)) if kept else None,
        )
    save_graph(smaller, out, half=False)


def layers_of(graph: Path) -> list[str]:
    """Names of the matrix products with a weight, in the order of the graph."""
    import openvino

    model = openvino.Core().read_model(str(graph))
    return [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and _is_weight(node.input_value(1).get_node())
    ]


def save_graph(model: Any, graph: Path, *, half: bool) -> None:
    """Write an OpenVINO model.

    Args:
        model: of openvino.
        graph: the .xml file to write, with a .bin file of weights beside it; its folder is made.
        half: weights in float16; what is computed stays float32.

    Raises:
        StorageError: it cannot be written.
    """
    import openvino

    with storage_errors(graph):
        graph.parent.mkdir(parents=True, exist_ok=True)
        try:
            openvino.save_model(model, str(graph), compress_to_fp16=half)
        except RuntimeError as error:  # it has no other name for a disk that takes no more
            raise StorageError(f"{graph} cannot be written ({first_line(error)})") from error


def _is_weight(node: Any) -> bool:
    """Whether a node is a constant, maybe converted to another type or transposed."""
    while node.get_type_name() in ("Convert", "Transpose"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without nncf's account and bars, which go to standard output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
