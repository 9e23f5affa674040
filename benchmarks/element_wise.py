"""What fusing the element-wise parts of an encoder on a CPU gains, beside the products of its linear layers.

One layer of the shapes of MiniLM and multilingual E5 (384 features, 12 heads), in microseconds of CPU time of one
thread: as torch computes its parts, and fused by `torch.compile` or oneDNN, with the share in the whole layer.
Compiling needs a C++ compiler on the machine.

    python benchmarks/element_wise.py [--tokens 2048] [--length 64] [--repeats 20] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from common import has_bfloat16, machine, table
from int8_products import fastest

WIDTH, INNER, HEADS = 384, 1536, 12
WHOLE = ("residual + LayerNorm", "GELU", "mask + softmax", "gather of rows")
"""Parts that make up a layer, with its products."""
Part = Callable[[], object]


def main() -> None:
    """Time every part in both forms; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048, help="in a chunk")
    parser.add_argument("--length", type=int, default=64, help="of a text, in tokens")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--dtype", default="bfloat16" if has_bfloat16() else "float32")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    with torch.inference_mode():
        found = {
            name: (how, times * fastest(plain, arguments.repeats), times * fastest(other, arguments.repeats))
            for name, (how, times, plain, other) in parts(arguments.tokens, arguments.length, arguments.dtype).items()
        }
        products = linears(arguments.tokens, arguments.dtype, arguments.repeats)
    layer = products + sum(plain for name, (_, plain, _) in found.items() if name in WHOLE)
    rows = [
        [name, how, f"{plain:.0f}", f"{other:.0f}", f"{plain / layer:.1%}", f"{(plain - other) / layer:+.1%}"]
        for name, (how, plain, other) in found.items()
    ]
    print(table(["part", "fused by", "apart", "fused", "share of the layer", "the layer gains"], rows))
    print(f"\nThe linear layers: {products:.0f} of {layer:.0f} ({products / layer:.1%}).")


def parts(tokens: int, length: int, dtype: str) -> dict[str, tuple[str, int, Part, Part]]:
    """Part -> what fuses it, how often a layer has it, as it is computed, and the other form."""
    kind = getattr(torch, dtype)
    texts = tokens // length
    x, residual, weight, bias = (torch.randn(*shape, dtype=kind) for shape in ((tokens, WIDTH),) * 2 + ((WIDTH,),) * 2)
    inner, scores = torch.randn(tokens, INNER, dtype=kind), torch.randn(texts * HEADS, length, length, dtype=kind)
    padding = torch.zeros(texts * HEADS, 1, length, dtype=torch.bool)
    padding[:, :, -4:] = True
    rows = torch.randperm(tokens)
    up, laid_out = torch.randn(INNER, dtype=kind), lay_out(torch.randn(INNER, WIDTH, dtype=kind), tokens)

    def multiply(after: str) -> Tensor:
        done: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, up, after, [], "none" if after == "gelu" else "")
        return done

    norm, gelu, softmax = (
        torch.compile(part, dynamic=True) for part in (add_and_norm, functional.gelu, mask_and_softmax)
    )
    narrow = rows.int()
    return {
        "residual + LayerNorm": (
            "torch.compile",
            2,
            lambda: add_and_norm(x, residual, weight, bias),
            lambda: norm(x, residual, weight, bias),
        ),
        "GELU": ("torch.compile", 1, lambda: functional.gelu(inner), lambda: gelu(inner)),
        "mask + softmax": (
            "torch.compile",
            1,
            lambda: mask_and_softmax(scores, padding),
            lambda: softmax(scores, padding),
        ),
        "gather of rows": ("int32 indices", 4, lambda: x.index_select(0, rows), lambda: x.index_select(0, narrow)),
        "product + GELU": ("oneDNN", 1, lambda: functional.gelu(multiply("none")), lambda: multiply("gelu")),
    }


def linears(tokens: int, dtype: str, repeats: int) -> float:
    """Microseconds of a layer's six products."""
    kind = getattr(torch, dtype)
    total = 0.0
    for times, inputs, outputs in ((4, WIDTH, WIDTH), (1, WIDTH, INNER), (1, INNER, WIDTH)):
        x, bias = torch.randn(tokens, inputs, dtype=kind), torch.randn(outputs, dtype=kind)
        laid_out = lay_out(torch.randn(outputs, inputs, dtype=kind), tokens)
        total += times * fastest(lambda a=x, w=laid_out, b=bias: product(a, w, b), repeats)  # type: ignore[misc]
    return total


def product(x: Tensor, laid_out: Tensor, bias: Tensor) -> Tensor:
    """x W' + b, as `FrozenLinear` computes it."""
    done: Tensor = torch.ops.mkldnn._linear_pointwise(x, laid_out, bias, "none", [], "")
    return done


def lay_out(weight: Tensor, tokens: int) -> Tensor:
    """A weight as oneDNN multiplies it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
    return packed


def add_and_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What follows attention's output and the second product."""
    return functional.layer_norm(x + residual, (WIDTH,), weight, bias)


def mask_and_softmax(scores: Tensor, padding: Tensor) -> Tensor:
    """Attention's weights."""
    return torch.softmax(scores.masked_fill(padding, float("-inf")), -1)


if __name__ == "__main__":
    main()
