"""A whole model as one ONNX graph.

An embedding model's: transformer, pooling, Dense layers, fewer dimensions, unit rows. A reranker's is in `pair_graph`.

Shapes: N texts, L tokens of the longest, D dimensions. Inputs: input_ids, attention_mask and, where the architecture
has them, token_type_ids, int64 [N, L]. Outputs: last_hidden_state [N, L, hidden], for readers that pool themselves, and
sentence_embedding [N, D], unit rows.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.frozen_linear import thaw_linears
from acclimate.core.pooling import pool_padded, truncate_dim, unit
from acclimate.errors import ModelError, first_line
from acclimate.files import storage_errors
from acclimate.formats.openvino_int8 import save_graph
from acclimate.formats.sources import ModelSource
from acclimate.models.heads import load_heads
from acclimate.models.loading import load_base
from acclimate.text_use import TextUse

HIDDEN, EMBEDDING, LOGITS = "last_hidden_state", "sentence_embedding", "logits"
ONE_FILE_BYTES = 1_900_000_000
"""Weights beyond it lie in a file beside the graph: protobuf ends at 2 GiB."""


class TextGraph(nn.Module):
    """What is traced: [N, L] token ids and mask in, hidden states and unit vectors out."""

    def __init__(self, model: nn.Module, heads: nn.Module | None, source: ModelSource, use: TextUse) -> None:
        super().__init__()
        self.model, self.heads = model, heads
        self.pooling, self.dim = use.pooling, use.dim
        self.cut = use.dim < source.files.dim
        accepted = inspect.signature(model.forward).parameters
        self.has_types = "token_type_ids" in accepted
        self.options = {"use_cache": False} if "use_cache" in accepted else {}

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs, in their order."""
        return ["input_ids", "attention_mask", *(["token_type_ids"] if self.has_types else [])]

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, types_NL: Tensor | None = None) -> tuple[Tensor, Tensor]:
        types = {} if types_NL is None else {"token_type_ids": types_NL}
        model: Any = self.model
        hidden_NLD = model(input_ids=ids_NL, attention_mask=mask_NL, **types, **self.options).last_hidden_state
        pooled_ND = pool_padded(hidden_NLD, mask_NL, self.pooling)
        if self.heads is not None:
            pooled_ND = self.heads(pooled_ND)
        return hidden_NLD, truncate_dim(pooled_ND, self.dim) if self.cut else unit(pooled_ND)


def write_onnx(graph: Path, transformer: Path, source: ModelSource, use: TextUse) -> None:
    """Trace a folder's model in float32 and write it.

    Args:
        graph: the file to write; its folder is made.
        transformer: where config and weights lie.
        source: the model that it is a part of.
        use: pooling and dimensions.

    Raises:
        ModelError: torch cannot trace this architecture.
        StorageError: the file cannot be written.
    """
    cpu = torch.device("cpu")
    model = load_base(transformer, torch.float32, cpu, None)
    thaw_linears(model)  # a layout of oneDNN's is no operation of ONNX
    text_graph = TextGraph(model, load_heads(source.files.heads, cpu), source, use).eval()
    longest = min(source.files.position_limit, use.max_tokens)
    trace(graph, text_graph, text_graph.inputs, [HIDDEN, EMBEDDING], longest, str(transformer), source.files.model_type)


def trace(
    graph: Path,
    module: nn.Module,
    inputs: Sequence[str],
    outputs: Sequence[str],
    longest: int,
    where: str,
    model_type: str,
) -> None:
    """Write a module as an ONNX graph in float32, for batches of any size.

    Args:
        graph: the file to write; its folder is made.
        module: takes int64 [N, L], as many as there are inputs.
        inputs: their names.
        outputs: names of what it gives.
        longest: the largest L.
        where: the model's folder, for the message.
        model_type: its architecture, for the message.

    Raises:
        ModelError: torch cannot trace this architecture.
        StorageError: the file cannot be written.
    """
    ids_NL = torch.ones(2, min(7, longest), dtype=torch.int64)
    given = tuple(torch.zeros_like(ids_NL) if name == "token_type_ids" else ids_NL.clone() for name in inputs)
    axes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=longest)}
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                module,
                given,
                dynamo=True,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=(axes,) * len(given),
                verbose=False,
            )
    except Exception as error:
        raise ModelError(
            f"{where}: torch.onnx cannot trace the architecture {model_type} ({first_line(error)})",
            fix="Export it as sentence-transformers, which every tool that runs torch reads.",
        ) from error
    size = sum(parameter.nbytes for parameter in module.parameters())
    with storage_errors(graph):
        graph.parent.mkdir(parents=True, exist_ok=True)
        program.save(str(graph), external_data=size > ONE_FILE_BYTES)


def convert_to_openvino(onnx: Path, graph: Path, *, half: bool = False) -> None:
    """Write an ONNX graph as OpenVINO's.

    Args:
        onnx: the graph.
        graph: the .xml file to write, with a .bin file of weights beside it; its folder is made.
        half: weights in float16; what is computed stays float32.

    Raises:
        ModelError: OpenVINO cannot read it.
        StorageError: it cannot be written.
    """
    import openvino

    try:
        model = openvino.convert_model(str(onnx))
    except Exception as error:  # its classes have no common name
        raise ModelError(f"OpenVINO cannot read the model's graph ({first_line(error)})") from error
    save_graph(model, graph, half=half)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about packages and versions that nobody asked for."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)
