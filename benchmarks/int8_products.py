"""What INT8 in torch costs (`acclimate.core.int8_linear`): oneDNN's product, and the passes around it.

Of each shape of MiniLM's linear layers, microseconds of CPU time on one thread: the bfloat16 product as `FrozenLinear`
computes it; rounding bfloat16 activations to 8 bits with a scale per token; the product of these with INT8 weights;
scaling its rows and adding the bias. The last row is one whole layer of MiniLM, in which query, key and value are
rounded once.

    python benchmarks/int8_products.py [--tokens 256] [--repeats 50]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from acclimate.core.int8_linear import ZERO, rounded_rows, rounded_tokens
from common import machine, table

SHAPES = ((384, 384), (384, 1536), (1536, 384))
"""Input and output features."""


def main() -> None:
    """Time every part for every shape; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    found = {shape: [fastest(part, arguments.repeats) for part in parts(arguments.tokens, *shape)] for shape in SHAPES}
    square, up, down = found.values()
    layer = [4 * one + wide + back for one, wide, back in zip(square, up, down, strict=True)]
    layer[1] -= 2 * square[1]
    named = {f"{inputs} x {outputs}": times for (inputs, outputs), times in found.items()} | {"a layer": layer}
    rows = [[name, *(f"{t:.0f}" for t in times), f"{times[0] / sum(times[1:]):.2f}"] for name, times in named.items()]
    header = ["layer", "bfloat16 product", "rounding", "INT8 product", "scaling", "bfloat16 / all of INT8"]
    print(table(header, rows))


def parts(tokens: int, inputs: int, outputs: int) -> list[Callable[[], object]]:
    """The bfloat16 product, rounding, the INT8 product, scaling."""
    draw = torch.Generator().manual_seed(0)
    x_TI = torch.randn(tokens, inputs, generator=draw).bfloat16()
    weight_OI, bias_O = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw).bfloat16()
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight_OI.bfloat16(), tokens)
    code_OI, scale_O1 = rounded_rows(weight_OI)
    packed = torch.ops.onednn.qlinear_prepack(code_OI, None)
    scale_O, zeros_O = scale_O1[:, 0].contiguous(), torch.zeros(outputs, dtype=torch.int32)
    x8_TI, scale_T1 = rounded_tokens(x_TI)

    def product() -> Tensor:
        how = (None, 1.0, 0, torch.bfloat16, "none", [], "")
        out_TO: Tensor = torch.ops.onednn.qlinear_pointwise(x8_TI, 1.0, ZERO, packed, scale_O, zeros_O, *how)
        return out_TO

    out_TO = product()
    return [
        lambda: torch.ops.mkldnn._linear_pointwise(x_TI, laid_out, bias_O, "none", [], ""),
        lambda: rounded_tokens(x_TI),
        product,
        lambda: torch.addcmul(bias_O, out_TO, scale_T1),
    ]


def fastest(part: Callable[[], object], repeats: int) -> float:
    """The smallest CPU time of a part, in microseconds."""
    part()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        part()
        times.append(time.process_time() - started)
    return min(times) * 1e6


if __name__ == "__main__":
    main()
