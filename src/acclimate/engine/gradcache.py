"""One training step over many chunks of texts, in as much memory as there is.

The loss needs the vectors of all texts of a step at once, their computation does not: the gradient at the vectors is
taken first, then carried back chunk by chunk. Chunks whose activations fit in memory keep their graph between the two;
the others are computed again (GradCache). Both give the same gradient, because a chunk's texts, dtype and random
numbers are the same whenever it is computed.

Legend: N texts of the step, n texts of a chunk, D vector size.
Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Encode = Callable[[np.ndarray], Tensor]
"""Positions [n] of a chunk's texts -> vectors [n, D], under whatever grad mode is on."""


class Processes(Protocol):
    """The processes that share a step; an `accelerate.Accelerator` is one."""

    @property
    def num_processes(self) -> int: ...
    @property
    def process_index(self) -> int: ...
    def reduce(self, tensor: Any, reduction: str = "mean", scale: float = 1.0) -> Any: ...


def chunked_backward(
    encode: Encode,
    chunks: Sequence[np.ndarray],
    loss_of: Callable[[Tensor], Tensor],
    blank_ND: Tensor,
    *,
    kept: int,
    seed_of: Callable[[int], int],
    processes: Processes | None = None,
) -> float:
    """Add the gradient of `loss_of(all vectors)` to the parameters behind `encode`; returns the loss.

    With several processes each computes every n-th chunk and sees the vectors of all, so the loss is that of one
    process; the caller sums the parameters' gradients over the processes.

    Args:
        encode: computes one chunk.
        chunks: positions 0..N-1, each in exactly one chunk.
        loss_of: vectors [N, D] in order of position -> scalar.
        blank_ND: zeros, in the device and dtype of the loss; the vectors are written here.
        kept: the first `kept` chunks keep their graph, the others are computed twice.
        seed_of: chunk number -> seed of its random numbers (dropout).
        processes: what shares the step; one process if not given.
    """
    index, count = (processes.process_index, processes.num_processes) if processes else (0, 1)
    mine = list(range(len(chunks)))[index::count]
    graphs: dict[int, Tensor] = {}
    for number in mine:
        with torch.set_grad_enabled(number < kept):
            vectors = _seeded(encode, chunks[number], seed_of(number))
        if number < kept:
            graphs[number] = vectors
        blank_ND[_rows(chunks[number], blank_ND)] = vectors.detach().to(blank_ND.dtype)
    vectors_ND = (processes.reduce(blank_ND, "sum") if processes and count > 1 else blank_ND).requires_grad_()
    loss = loss_of(vectors_ND)
    if not torch.isfinite(loss):
        return float(loss.detach())
    (gradient_ND,) = torch.autograd.grad(loss, vectors_ND)
    for number in mine:
        vectors = graphs.pop(number) if number < kept else _seeded(encode, chunks[number], seed_of(number))
        torch.autograd.backward(vectors, gradient_ND[_rows(chunks[number], gradient_ND)].to(vectors.dtype))
    return float(loss.detach())


def kept_chunks(tokens: Sequence[int], max_tokens: float) -> int:
    """How many leading chunks may keep their graph, when any other chunk's graph has to fit beside them.

    Args:
        tokens: of each chunk.
        max_tokens: whose activations fit in memory at a time.
    """
    if sum(tokens) <= max_tokens:
        return len(tokens)
    total = max(tokens)
    for count, chunk in enumerate(tokens):
        total += chunk
        if total > max_tokens:
            return count
    return len(tokens)


def activation_bytes_per_token(config: Any, itemsize: int, checkpointing: bool) -> int:
    """Bytes of activations that one token's graph keeps alive, estimated from a transformers config.

    A frozen layer with LoRA on its linears keeps their inputs, queries, keys and values, the norms' and the activation
    function's inputs, and short products: about 12 hidden and 4 intermediate widths. Attention matrices of long texts
    are not in it: the fused kernels do not keep them. A function of the config alone, never of the memory that
    happens to be free, so that a run repeats bit by bit.
    """
    layers, hidden = int(config.num_hidden_layers), int(config.hidden_size)
    layer = 12 * hidden + 4 * int(getattr(config, "intermediate_size", 4 * hidden))
    return itemsize * (layers * hidden + layer if checkpointing else layers * layer)


def _seeded(encode: Encode, chunk: np.ndarray, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return encode(chunk)


def _rows(chunk: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(chunk)).to(like.device)
