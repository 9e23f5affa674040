"""An ONNX graph in INT8: matrix products in one of two ways, the embedding table row by row.

dynamic: onnxruntime's dynamic quantisation, in operators of the ONNX standard. Weights have a scale per output channel,
activations one for the whole batch, found while it runs. The fastest form; a text's vector depends a little on the
others in its batch.

blocks: onnxruntime's own operator MatMulNBits. Weights and each token's activations have a scale for every `BLOCK` of
their input features, so that vectors are nearer to float32's and depend on no other text; slower in large batches.

onnxruntime leaves the embedding table as it is, or gives all of its rows one scale; here every row has its own, because
in small models the table is half of the weights.

Shapes: V rows of the table, D dimensions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from acclimate.files import storage_errors

Recipe: TypeAlias = Literal["dynamic", "blocks"]
BLOCK = 128
INTEGER_PRODUCT = 4
"""MatMulNBits' accuracy_level that rounds activations to 8 bits too."""
MIN_ROWS = 1000
"""Tables with fewer rows (positions, token types) stay as they are."""


def quantise(graph: Path, out: Path, recipe: Recipe, kept: Sequence[str] = ()) -> None:
    """Write the INT8 form of a float32 graph.

    Args:
        graph: made by `models.backends.graph.write_onnx`.
        out: the file to write; another one.
        recipe: see the top of this file.
        kept: layers whose matrix products stay in float32, by the names that `layers_of` gives.

    Raises:
        StorageError: it cannot be written.
    """
    import onnx

    large = any(part != graph for part in graph.parent.iterdir())  # its weights lie beside it
    with storage_errors(out), _quiet():
        out.parent.mkdir(parents=True, exist_ok=True)
        model = _dynamic(graph, out, large, kept) if recipe == "dynamic" else _blocks(graph, kept)
        _quantise_tables(model)
        onnx.save(model, str(out), save_as_external_data=large, location=f"{out.name}.data")


def layers_of(graph: Path) -> list[str]:
    """Names of the matrix products with a weight, in the order of the graph."""
    import onnx

    found = onnx.load(str(graph), load_external_data=False).graph
    weights = {item.name for item in found.initializer}
    return [node.name for node in found.node if node.op_type == "MatMul" and node.input[1] in weights]


def _dynamic(graph: Path, out: Path, large: bool, kept: Sequence[str]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(graph),
        str(out),
        per_channel=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=list(kept),
        use_external_data_format=large,
        extra_options={"MatMulConstBOnly": True},
    )
    model = onnx.load(str(out))
    for part in out.parent.iterdir():  # weights beside it would be appended to
        part.unlink()
    return model


def _blocks(graph: Path, kept: Sequence[str]) -> Any:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(str(graph))
    quantiser = MatMulNBitsQuantizer(
        model,
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INTEGER_PRODUCT,
        nodes_to_exclude=list(kept),
    )
    quantiser.process()
    return quantiser.model.model


def _quantise_tables(model: Any) -> None:
    """Replace every lookup in a large float table [V, D] by one in INT8 [V, D] times one of scales [V, 1]."""
    from onnx import helper, numpy_helper

    graph = model.graph
    tables = {item.name: item for item in graph.initializer if len(item.dims) == 2 and item.dims[0] >= MIN_ROWS}
    readers: dict[str, list[Any]] = {name: [] for name in tables}
    for node in graph.node:
        for name in node.input:
            if name in readers:
                readers[name].append(node)
    for name, nodes in readers.items():
        if not nodes or any(node.op_type != "Gather" or _axis(node) != 0 for node in nodes):
            continue  # read in another way too (a tied head): it has to stay
        table_VD = numpy_helper.to_array(tables[name]).astype(np.float32)
        scale_V1 = np.maximum(np.abs(table_VD).max(1, keepdims=True), np.finfo(np.float32).tiny) / 127
        rounded_VD = np.clip(np.rint(table_VD / scale_V1), -127, 127).astype(np.int8)
        graph.initializer.remove(tables[name])
        graph.initializer.extend(
            [
                numpy_helper.from_array(rounded_VD, f"{name}.int8"),
                numpy_helper.from_array(scale_V1.astype(np.float32), f"{name}.scale"),
            ]
        )
        for number, node in enumerate(nodes):
            new = f"{name}.{number}"
            ids, output = node.input[1], node.output[0]
            place = list(graph.node).index(node)
            graph.node.remove(node)
            for offset, made in enumerate(
                [
                    helper.make_node("Gather", [f"{name}.int8", ids], [f"{new}.row"], f"{new}.row"),
                    helper.make_node("Gather", [f"{name}.scale", ids], [f"{new}.of"], f"{new}.of"),
                    helper.make_node("Cast", [f"{new}.row"], [f"{new}.float"], f"{new}.float", to=1),
                    helper.make_node("Mul", [f"{new}.float", f"{new}.of"], [output], f"{new}.mul"),
                ]
            ):
                graph.node.insert(place + offset, made)


def _axis(node: Any) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's account of every node."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
