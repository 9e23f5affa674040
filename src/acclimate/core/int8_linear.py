"""INT8 on a CPU: frozen linear layers and a table of embeddings with 8-bit weights; what they give stays in 16 bits.

A weight has one scale per output channel (of an embedding: per row), found when the model is loaded. Activations are
rounded while the model runs, with one scale per token, so no text depends on its neighbours in a batch. oneDNN
multiplies the codes and adds up in 32 bits: y = s_T * (code_TI @ code_OI') * s_O + b. LoRA beside such a layer
(`core.lora_linear`) reads the unrounded activations and computes in their format.

Activations are unsigned codes around `ZERO`: with signed ones oneDNN has no fast product on processors without AMX.
Without VNNI, pairs of unsigned and signed products overflow 16 bits, so such a processor is refused.

Shapes: T tokens, I input features, O output features, V words.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.frozen_linear import FrozenLinear
from acclimate.core.linears import linears, replace_module
from acclimate.cpu import cpu_facts
from acclimate.errors import UsageError

INT8 = "int8"
"""What the number format is called in settings."""
LARGEST = 127
ZERO = 128
"""The code of an activation of 0."""
TO_CODE = 1.5 * 2**23 + ZERO
"""Added to a float32 number between -127 and 127 it leaves no bits for a fraction: the sum is rounded to the nearest
whole number, and its last byte is the code."""
SMALLEST = 1e-30
"""The largest value of a row of zeros counts as this: its scale is no divisor of zero."""
BLOCK_NUMBERS = 2**20
"""Activations that are rounded at once: in float32 they stay in the processor's cache. The product takes all rows."""
LEAST_FEATURES = 16
"""Layers with fewer inputs or outputs stay as they are: rounding would take longer than the product."""
INTEGERS = {torch.bfloat16: (torch.int16, 0x7FFF), torch.float32: (torch.int32, 0x7FFFFFFF)}
"""Format -> integers of its size, and the bits that are not the sign: without it, floats are in the order of these."""
FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
SIBLINGS = ({"query", "key", "value"}, {"q_proj", "k_proj", "v_proj"}, {"q_lin", "k_lin", "v_lin"})
PAIRS = ({"gate_proj", "up_proj"},)
"""Names of layers of one module that all get the same input, one after the other: it is rounded once."""

Rounded = tuple[Tensor, Tensor]
"""Codes and scales, [T, I] and [T, 1]."""


class Int8Linear(nn.Module):
    """A frozen Linear whose weight is kept in 8 bits alone.

    Attributes:
        family: what layers share that get the same input; None for a layer that shares it with no other.

    Args:
        linear: whose weight, as it is, is rounded.
        dtype: of the bias, the inputs and the outputs: float32 or bfloat16.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        codes_OI, scale_O1 = rounded_rows(linear.weight.detach())
        # Buffers: forks of a model share them, and they are no parameters that could train.
        self.packed: Tensor
        self.scale_O: Tensor
        self.zero_O: Tensor
        self.bias: Tensor | None
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(codes_OI, None))
        self.register_buffer("scale_O", scale_O1[:, 0].contiguous())
        self.register_buffer("zero_O", torch.zeros(self.out_features, dtype=torch.int32))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(dtype, copy=True))
        self.family: Family | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O].

        Raises:
            UsageError: a gradient is asked for at its input.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise UsageError("a gradient through a layer in INT8", fix="Train with --dtype auto, float32 or bfloat16.")
        x_TI = x.reshape(-1, self.in_features)
        code_TI, scale_T1 = rounded_tokens(x_TI) if self.family is None else self.family.rounded(x_TI)
        if not len(x_TI):
            return x.new_zeros(*x.shape[:-1], self.out_features)
        weight = (self.packed, self.scale_O, self.zero_O, None)
        how: tuple[Any, ...] = (1.0, 0, x.dtype, "none", [], "")
        y_TO: Tensor = torch.ops.onednn.qlinear_pointwise(code_TI, 1.0, ZERO, *weight, *how)
        y_TO = y_TO.mul_(scale_T1) if self.bias is None else torch.addcmul(self.bias, y_TO, scale_T1)
        return y_TO.view(*x.shape[:-1], self.out_features)


class Int8Embedding(nn.Module):
    """A frozen Embedding kept in 8 bits, with a scale for each row.

    Args:
        embedding: whose weight, as it is, is rounded.
        dtype: of what it gives.
    """

    def __init__(self, embedding: nn.Embedding, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        codes_VI, scale_V1 = rounded_rows(embedding.weight.detach())
        self.code_VI: Tensor
        self.scale_V1: Tensor
        self.register_buffer("code_VI", codes_VI)
        self.register_buffer("scale_V1", scale_V1)
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """[...] -> [..., I]."""
        flat = ids.reshape(-1)
        rows = self.code_VI.index_select(0, flat).float().mul_(self.scale_V1.index_select(0, flat))
        return rows.to(self.dtype).view(*ids.shape, self.embedding_dim)


class Family:
    """Layers that get the same input one after the other, in one thread: the first one rounds it for all.

    What is rounded is kept with the input itself, so that no other tensor can have its memory, until all have had it.

    Args:
        members: how many layers.
    """

    def __init__(self, members: int) -> None:
        self.members = members

    def rounded(self, x_TI: Tensor) -> Rounded:
        """What `rounded_tokens` gives, by this call or by that of the member before."""
        last: _Last | None = getattr(_thread, "last", None)
        if last is None or last.family is not self or not _is_same(last.x_TI, x_TI):
            last = _thread.last = _Last(self, x_TI)
        last.left -= 1
        if not last.left:
            _thread.last = None
        return last.rounded


class _Last:
    """What a thread has rounded last, and how many layers will still ask for it."""

    def __init__(self, family: Family, x_TI: Tensor) -> None:
        self.family, self.x_TI, self.left = family, x_TI, family.members
        self.rounded = rounded_tokens(x_TI)


_thread = threading.local()


def _is_same(first: Tensor, second: Tensor) -> bool:
    facts = [(x.data_ptr(), x.shape, x.stride(), x.dtype) for x in (first, second)]
    return facts[0] == facts[1]


def rounded_tokens(x_TI: Tensor) -> Rounded:
    """Round activations to 8 bits with a scale per token: x is about (code - ZERO) * scale.

    Args:
        x_TI: float32 or bfloat16.

    Returns:
        Codes from 1 to 255, uint8 [T, I], and scales [T, 1] in the format of x. A row with a NaN or an infinity has
        such a scale too.
    """
    blocks = [_round(block) for block in torch.split(x_TI, max(1, BLOCK_NUMBERS // x_TI.shape[1]))]
    if len(blocks) == 1:
        return blocks[0]
    codes, scales = zip(*blocks, strict=True)
    return torch.cat(codes), torch.cat(scales)


def _round(x_TI: Tensor) -> Rounded:
    integers, magnitude = INTEGERS[x_TI.dtype]
    # In integers the largest magnitude takes a third of the time. The scale is rounded to the format of x before it
    # divides, so that what it multiplies in the end is what it has divided.
    largest_T1 = (x_TI.view(integers) & magnitude).amax(1, keepdim=True).view(x_TI.dtype)
    scale_T1 = largest_T1.clamp_(min=SMALLEST).mul_(1 / LARGEST)
    factor_T1 = scale_T1.float().reciprocal()
    units_TI = x_TI * factor_T1 if x_TI.dtype == torch.float32 else x_TI.float().mul_(factor_T1)
    return units_TI.add_(TO_CODE).view(torch.int32).to(torch.int8).view(torch.uint8), scale_T1


def rounded_rows(weight_OI: Tensor) -> Rounded:
    """Round a weight to 8 bits with a scale per row: codes from -127 to 127, int8 [O, I], and float32 scales [O, 1]."""
    scale_O1 = weight_OI.float().abs().amax(1, keepdim=True).clamp_(min=SMALLEST).div_(LARGEST)
    return (weight_OI.float() / scale_O1).round_().to(torch.int8), scale_O1


def quantise(model: Any, dtype: torch.dtype) -> None:
    """Put a frozen CPU model's linear layers and word embeddings into INT8, in place; the rest into `dtype`.

    Left in `dtype` are layers with fewer than `LEAST_FEATURES` inputs or outputs, layers of other classes than Linear,
    norms, and the embeddings of positions and types. Float weights are given up layer by layer.

    Args:
        model: a transformers model in float32; weights are rounded from what it holds.
        dtype: float32 or bfloat16: of activations, and of what is left.
    """
    embedding = model.get_input_embeddings()
    for name, layer in [*model.named_modules()]:
        if layer is embedding and type(layer) is nn.Embedding:
            replace_module(model, name, Int8Embedding(layer, dtype))
    found = {name: layer for name, layer in linears(model).items() if isinstance(layer, nn.Linear) and _fits(layer)}
    names = list(found)
    del layer, embedding
    while found:
        name, linear = found.popitem()
        replace_module(model, name, Int8Linear(linear, dtype))
    _share_inputs(model, names)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def is_int8(model: nn.Module) -> bool:
    """Whether a model's linear layers are in INT8."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def int8_numbers(model: nn.Module) -> int:
    """How many weights a model keeps in 8 bits, their biases included: they are no parameters."""
    count = 0
    for module in model.modules():
        if isinstance(module, Int8Linear):
            count += module.out_features * (module.in_features + (module.bias is not None))
        elif isinstance(module, Int8Embedding):
            count += module.code_VI.numel()
    return count


@cache
def activations_dtype() -> torch.dtype:
    """The format of activations beside INT8 weights: bfloat16 where the processor computes in it."""
    return torch.bfloat16 if BFLOAT16_FLAGS & _flags() else torch.float32


def why_not_int8() -> str | None:
    """Say why this machine cannot compute in INT8; None where it can."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this torch has no oneDNN"
    if not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return f"oneDNN's INT8 product is missing in torch {torch.__version__}"
    if not FLAGS & _flags():
        return f"the processor ({cpu_facts()['model name']}) has neither VNNI nor AMX"
    return None


def _flags() -> frozenset[str]:
    return frozenset(cpu_facts().get("flags", "").split())


def _fits(layer: nn.Linear) -> bool:
    if type(layer) not in (nn.Linear, FrozenLinear):
        return False
    return min(layer.in_features, layer.out_features) >= LEAST_FEATURES and not layer.weight.requires_grad


def _share_inputs(model: nn.Module, names: list[str]) -> None:
    """Give the layers of one attention, and of one gated feed-forward, a family."""
    for parent in dict.fromkeys(name.rpartition(".")[0] for name in names):
        module = model.get_submodule(parent)
        for siblings in (*SIBLINGS, *PAIRS):
            there = [getattr(module, name, None) for name in siblings]
            layers = [layer for layer in there if isinstance(layer, Int8Linear)]
            if len(layers) == len(siblings):
                family = Family(len(layers))
                for layer in layers:
                    layer.family = family
