"""Settings of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acclimate.configs.checks import check_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """A model for other engines."""

    format: Literal["sentence-transformers", "onnx", "openvino", "gguf"] = "sentence-transformers"
    """What is written: a folder of sentence-transformers, a graph for ONNX Runtime, one for OpenVINO, or a file for
    llama.cpp."""
    float16: bool = False
    """Matrices in float16 (openvino, gguf): half of the size. Vectors are compared as in float32."""
    int8: bool = False
    """Weights in INT8 (onnx), if the gate holds: non-inferior on the test split."""
    max_loss: float = 0.02
    """int8: the largest relative loss of NDCG@10 (of Spearman's correlation for labelled pairs) that the interval of
    the paired difference may reach."""

    def __post_init__(self) -> None:
        check_fraction("max_loss", self.max_loss)
