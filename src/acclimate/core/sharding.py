"""A model spread over the processes by torch's FSDP2 (`fully_shard`): each holds a part of every weight.

A block's weights are gathered from all processes before it computes, and released afterwards, so all processes have to
make every forward and backward pass together. Gradients are summed, and each process keeps the part that
belongs to its weights. Zhao et al. 2023, "PyTorch FSDP"; torch's `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from acclimate.core.blocks import named_blocks
from acclimate.core.frozen_linear import thaw_linears


def shard(model: nn.Module, device: torch.device) -> None:
    """Spread a model's parameters, which may lie on the CPU, over the processes' devices, block by block.

    What is trained must be marked before; parameters that are added later (an adapter) are not sharded.

    Args:
        model: its repeated blocks are found as its longest `ModuleList`.
        device: this process's.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    thaw_linears(model)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for module in (*named_blocks(model).values(), model):
        fully_shard(module, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Every process's gradient is a part of one sum, not one of several that are averaged. Gloo can only sum.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)


def forget_gathered(model: nn.Module) -> None:
    """Release the weights outside of the blocks, which stay gathered after a forward pass without a backward pass.

    Without this, new values that a checkpoint or an optimiser writes into the parts would not be used.
    """
    sharded: Any = model
    sharded.reshard()


def whole(tensor: Tensor) -> Tensor:
    """Gather a whole tensor, sharded or not; all processes have to call this together."""
    sharded: Any = tensor.detach()
    full: Tensor = sharded.full_tensor() if is_sharded(tensor) else sharded
    return full


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Gather whole tensors one by one; those that were sharded are put on the CPU.

    Args:
        tensors: the same names in the same order in all processes, which have to call this together.
        keep: whether this process needs them; if not, the result is empty.
    """
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if keep:
            kept[name] = full.cpu() if is_sharded(tensor) else full
    return kept


def part_like(value: Tensor, like: Tensor) -> Tensor:
    """Lay a whole tensor out like another: on its device, and only this process's part where that is sharded."""
    if not is_sharded(like):
        return value.to(like.device)
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    value = value.to(sharded.to_local().device)
    # No process sends: each has read the same value, and keeps its part.
    return distribute_tensor(value, sharded.device_mesh, sharded.placements, src_data_rank=None)


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of it."""
    return hasattr(tensor, "full_tensor")
