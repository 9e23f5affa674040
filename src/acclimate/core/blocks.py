"""The equal blocks that a transformer is a row of."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn


def named_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """List a model's blocks by their paths, in their order: its longest `ModuleList`; none if it has no such list."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    name = max(lists, key=lambda name: len(lists[name]), default="")
    return {f"{name}.{number}": block for number, block in enumerate(lists[name])} if name else {}


def first_block_of(model: nn.Module, names: Collection[str]) -> int:
    """Number of the first block that holds any of the modules of these paths; 0 if one is in no block."""
    places = {path + ".": number for number, path in enumerate(named_blocks(model))}
    found = [[number for path, number in places.items() if name.startswith(path)] for name in names]
    return min((min(numbers, default=0) for numbers in found), default=0)
