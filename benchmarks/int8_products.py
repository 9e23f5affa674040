"""What a torch INT8 path has to pay for: oneDNN's INT8 product beside its bfloat16 one, and the passes around it.

Of each shape of MiniLM's linear layers, microseconds of CPU time on one thread: the bfloat16 product as `FrozenLinear`
computes it; rounding bfloat16 activations to 8 bits with a scale per token; the product of these with INT8 weights;
scaling its rows and adding the bias. Activations have to be unsigned: with signed ones oneDNN has no fast product on
processors without AMX, and is more than a thousand times slower.

    python benchmarks/int8_products.py [--tokens 256] [--repeats 20]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from common import machine, table

SHAPES = ((384, 384), (384, 1536), (1536, 384))
"""Input and output features."""
ZERO = 128
"""What stands for 0 among unsigned activations."""


def main() -> None:
    """Time every part for every shape; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    rows = []
    for inputs, outputs in SHAPES:
        found = [fastest(part, arguments.repeats) for part in parts(arguments.tokens, inputs, outputs)]
        whole = sum(found[1:])
        rows.append([f"{inputs} x {outputs}", *(f"{part:.0f}" for part in found), f"{found[0] / whole:.2f}"])
    header = ["layer", "bfloat16 product", "rounding", "INT8 product", "scaling", "bfloat16 / all of INT8"]
    print(table(header, rows))


def parts(tokens: int, inputs: int, outputs: int) -> list[Callable[[], object]]:
    """The bfloat16 product, rounding, the INT8 product, scaling."""
    draw = torch.Generator().manual_seed(0)
    x_TI = torch.randn(tokens, inputs, generator=draw).bfloat16()
    weight_OI, bias_O = torch.randn(outputs, inputs, generator=draw), torch.randn(outputs, generator=draw).bfloat16()
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight_OI.bfloat16(), tokens)
    scale_O = weight_OI.abs().amax(1) / 127
    packed = torch.ops.onednn.qlinear_prepack((weight_OI / scale_O[:, None]).round().to(torch.int8), [tokens, inputs])
    zeros_O = torch.zeros(outputs, dtype=torch.int32)

    def rounded() -> tuple[Tensor, Tensor]:
        scale_T1 = x_TI.abs().amax(1, keepdim=True) / 127
        return (x_TI / scale_T1).round().add_(ZERO).to(torch.uint8), scale_T1

    x8_TI, scale_T1 = rounded()

    def product() -> Tensor:
        how = (None, 1.0, 0, torch.bfloat16, "none", [], "")
        out_TO: Tensor = torch.ops.onednn.qlinear_pointwise(x8_TI, 1.0, ZERO, packed, scale_O, zeros_O, *how)
        return out_TO

    out_TO = product()
    return [
        lambda: torch.ops.mkldnn._linear_pointwise(x_TI, laid_out, bias_O, "none", [], ""),
        rounded,
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
