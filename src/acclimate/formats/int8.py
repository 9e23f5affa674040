"""A graph in INT8, whichever engine runs it: which forms there are, which layers, how one is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from acclimate.formats import onnx_int8, openvino_int8
from acclimate.formats.engine_folder import Engine

Recipe: TypeAlias = Literal["dynamic", "blocks", "calibrated"]
"""dynamic and blocks are ONNX Runtime's (see `onnx_int8`), calibrated is OpenVINO's (see `openvino_int8`)."""
RECIPES: dict[Engine, tuple[Recipe, ...]] = {"onnx": ("dynamic", "blocks"), "openvino": ("calibrated",)}
"""Engine -> its forms, the fastest first."""


def write_form(
    graph: Path,
    out: Path,
    recipe: Recipe,
    *,
    kept: Sequence[str] = (),
    calibration: Sequence[openvino_int8.Batch] = (),
) -> None:
    """Write a form of a float32 graph.

    Args:
        graph: of an export.
        out: the file to write; another one.
        recipe: the form.
        kept: layers that stay in float32, by the names that `layers_of` gives.
        calibration: batches of texts, where the form is calibrated on them.

    Raises:
        StorageError: it cannot be written.
    """
    if recipe == "calibrated":
        openvino_int8.quantise(graph, out, calibration, kept)
    else:
        onnx_int8.quantise(graph, out, recipe, kept)


def layers_of(graph: Path, engine: Engine) -> list[str]:
    """Names of the layers whose products INT8 changes, in the order of the graph."""
    return onnx_int8.layers_of(graph) if engine == "onnx" else openvino_int8.layers_of(graph)
