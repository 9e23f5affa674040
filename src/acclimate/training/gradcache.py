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
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from acclimate import processes
from acclimate.core.batching import deal
from acclimate.models.devices import to_device

Encode = Callable[[np.ndarray], Tensor]
"""Positions [n] of a chunk's texts -> vectors [n, D], under whatever grad mode is on."""


def chunked_backward(
    encode: Encode,
    chunks: Sequence[np.ndarray],
    loss_of: Callable[[Tensor], Tensor],
    blank_ND: Tensor,
    *,
    tokens: Sequence[int],
    max_tokens: float,
    seed_of: Callable[[int], int],
    in_step: bool = False,
    parameters: Sequence[nn.Parameter] = (),
) -> float | Tensor:
    """Add the gradient of `loss_of(all vectors)` to the parameters behind `encode`; returns the loss.

    On a GPU the loss is a tensor: nothing here waits for it.

    Several processes deal the chunks out, and each sees the vectors of all: the loss is that of one process, and so is
    the sum of the processes' gradients, which the caller takes.

    Args:
        encode: computes one chunk.
        chunks: positions 0..N-1, each in exactly one chunk, the shortest text at the end of the last.
        loss_of: vectors [N, D] in order of position -> scalar.
        blank_ND: zeros, in the device and dtype of the loss; the vectors are written here.
        tokens: of each chunk.
        max_tokens: whose activations fit in one process's memory at a time: as many chunks as fit keep their graph,
            the others are computed twice.
        seed_of: chunk number -> seed of its random numbers (dropout).
        in_step: `encode` needs all processes at once (a model sharded over them): who has fewer chunks computes a text
            more, without effect. All know all chunks, so nobody has to be asked how many there are.
        parameters: what else `loss_of` depends on. Their gradient is the whole one: the first process adds it.
    """
    dealt = deal(tokens, processes.count())
    mine = dealt[processes.index()]
    idle = max(map(len, dealt)) - len(mine) if in_step else 0
    fitting = [kept_chunks([tokens[number] for number in share], max_tokens) for share in dealt]
    kept = min((fits for fits, share in zip(fitting, dealt, strict=True) if fits < len(share)), default=len(chunks))
    graphs: dict[int, Tensor] = {}
    for place, number in enumerate(mine):
        with torch.set_grad_enabled(place < kept):
            vectors = _seeded(encode, chunks[number], seed_of(number))
        if place < kept:
            graphs[number] = vectors
        blank_ND[_rows(chunks[number], blank_ND)] = vectors.detach().to(blank_ND.dtype)
    spare = [_spare(encode, chunks, len(mine) + place < kept) for place in range(idle)]
    processes.sum_tensors([blank_ND])
    vectors_ND = blank_ND.requires_grad_()
    loss = loss_of(vectors_ND)
    if not loss.is_cuda and not torch.isfinite(loss):
        return float(loss.detach())
    gradient_ND, *others = torch.autograd.grad(loss, [vectors_ND, *parameters])
    if processes.is_main():
        _add_gradients(parameters, others)
    for number in mine:
        vectors = graphs.pop(number) if number in graphs else _seeded(encode, chunks[number], seed_of(number))
        torch.autograd.backward(vectors, gradient_ND[_rows(chunks[number], gradient_ND)].to(vectors.dtype))
    for vectors in spare:
        vectors = vectors if vectors.requires_grad else _spare(encode, chunks, True)
        torch.autograd.backward(vectors, torch.zeros_like(vectors))
    return loss.detach() if loss.is_cuda else float(loss.detach())


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


def _add_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _seeded(encode: Encode, chunk: np.ndarray, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return encode(chunk)


def _spare(encode: Encode, chunks: Sequence[np.ndarray], graph: bool) -> Tensor:
    with torch.set_grad_enabled(graph):
        return encode(chunks[-1][-1:])


def _rows(chunk: np.ndarray, like: Tensor) -> Tensor:
    return to_device(torch.from_numpy(np.ascontiguousarray(chunk)), like.device)
