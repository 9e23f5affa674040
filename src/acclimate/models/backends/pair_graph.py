"""A reranker as one ONNX graph, and a loaded graph in the place of a reranker's torch model.

Shapes: N pairs, L tokens of the longest, D hidden width. Inputs as in `graph`; output: logits [N, 1], raw, before any
sigmoid: of a cross-encoder those of its head, of a yes/no reranker logit(yes) - logit(no).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from acclimate.core.pooling import pool_padded
from acclimate.formats.engine_folder import Engine
from acclimate.formats.folders import position_limit
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.backends.graph import LOGITS, trace
from acclimate.models.backends.sessions import Session, open_session


class CrossEncoderGraph(nn.Module):
    """What is traced of a sequence-classification model with one label."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, types_NL: Tensor | None = None) -> Tensor:
        """[N, L] token ids, mask and maybe types -> raw logits [N, 1]."""
        types = {} if types_NL is None else {"token_type_ids": types_NL}
        model: Any = self.model
        logits_N1: Tensor = model(input_ids=ids_NL, attention_mask=mask_NL, **types).logits
        return logits_N1


class YesNoGraph(nn.Module):
    """What is traced of a causal model that answers yes or no: of its head two rows, at each pair's last position.

    Args:
        model: with its head.
        yes: id of the token.
        no: id of the token.
    """

    def __init__(self, model: nn.Module, yes: int, no: int) -> None:
        super().__init__()
        whole: Any = model
        self.body = whole.base_model
        rows_2D = whole.get_output_embeddings().weight.detach()[[yes, no]]
        self.answer_1D = nn.Parameter((rows_2D[0] - rows_2D[1])[None], requires_grad=False)

    def forward(self, ids_NL: Tensor, mask_NL: Tensor) -> Tensor:
        """[N, L] token ids and mask -> raw logits [N, 1]."""
        hidden_NLD = self.body(input_ids=ids_NL, attention_mask=mask_NL, use_cache=False).last_hidden_state
        return functional.linear(pool_padded(hidden_NLD, mask_NL, "last"), self.answer_1D)


def write_pair_graph(graph: Path, folder: Path, loader: Any, max_tokens: int, answers: tuple[int, int] | None) -> None:
    """Trace a reranker's folder in float32 and write it.

    Args:
        graph: the file to write; its folder is made.
        folder: of the whole model.
        loader: transformers' class that reads it.
        max_tokens: of a pair.
        answers: ids of the tokens yes and no; None: a cross-encoder.

    Raises:
        ModelError: the folder is damaged, or torch cannot trace this architecture.
        StorageError: the file cannot be written.
    """
    with quiet_transformers(), model_errors(folder):
        model: Any = loader.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True)
    model = model.requires_grad_(False).eval()
    module: nn.Module = CrossEncoderGraph(model) if answers is None else YesNoGraph(model, *answers)
    typed = answers is None and "token_type_ids" in inspect.signature(model.forward).parameters
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    config = model.config.to_dict()
    longest = min(position_limit(config), max_tokens)
    trace(graph, module.eval(), inputs, [LOGITS], longest, str(folder), str(config["model_type"]))


class ScoringGraph(nn.Module):
    """A graph of onnxruntime or openvino, called as transformers calls a model; on the CPU, without gradient.

    Args:
        session: opened for `LOGITS`.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    @classmethod
    def open(cls, engine: Engine, graph: Path) -> ScoringGraph:
        """Load a graph, on as many threads as torch has.

        Raises:
            MissingExtraError: the engine is not installed.
            ModelError: the graph is damaged, or no reranker's.
        """
        return cls(open_session(engine, graph, output=LOGITS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """[N, L] token ids, mask and maybe types -> raw logits [N]."""
        types_NL = None if token_type_ids is None else token_type_ids.numpy()
        logits_N1 = self._session(input_ids.numpy(), attention_mask.numpy(), types_NL)
        return torch.from_numpy(np.ascontiguousarray(logits_N1[:, 0]))
