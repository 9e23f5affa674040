"""An ONNX graph in INT8: matrix products by onnxruntime's dynamic quantisation, the embedding table row by row.

Weights have a scale per output channel, activations one per product that is found while it runs. onnxruntime leaves the
embedding table as it is, or gives all of its rows one scale; here every row has its own, because in small models the
table is half of the weights.

Shapes: V rows of the table, D dimensions, I input and O output features of a product.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from acclimate.files import storage_errors

Recipe: TypeAlias = Literal["all", "wide", "table"]
RECIPES: tuple[Recipe, ...] = ("all", "wide", "table")
"""From the smallest to the largest. all: every product and the table. wide: products that narrow (the second of a
feed-forward block, whose inputs have the outliers) stay in float32. table: the embedding table alone."""
MIN_ROWS = 1000
"""Tables with fewer rows (positions, token types) stay as they are."""


def quantise(graph: Path, out: Path, recipe: Recipe) -> None:
    """Write the INT8 form of a float32 graph.

    Args:
        graph: made by `models.backends.graph.write_onnx`.
        out: the file to write; another one.
        recipe: which products.

    Raises:
        StorageError: it cannot be written.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(graph))
    large = model.ByteSize() > 2**31 - 1 or any(item.external_data for item in model.graph.initializer)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        source: Any = graph
        if recipe != "table":
            narrow = _narrowing(model) if recipe == "wide" else []
            with _quiet():
                quantize_dynamic(
                    str(graph),
                    str(out),
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    op_types_to_quantize=["MatMul"],
                    nodes_to_exclude=narrow,
                    use_external_data_format=large,
                    extra_options={"MatMulConstBOnly": True},
                )
            source = out
        model = onnx.load(str(source))
        _quantise_tables(model)
        onnx.save(model, str(out), save_as_external_data=large, location=f"{out.name}.data")


def _narrowing(model: Any) -> list[str]:
    """Names of the products whose weight has more input than output features."""
    shapes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    found = []
    for node in model.graph.node:
        shape = shapes.get(node.input[1], ()) if node.op_type == "MatMul" else ()
        if len(shape) == 2 and shape[0] > shape[1]:
            found.append(node.name)
    return found


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
    """Without onnxruntime's advice to prepare the graph, which the exporter has done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
