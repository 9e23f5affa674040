"""Which device a model runs on."""

from __future__ import annotations

import torch
from torch import Tensor

from acclimate import processes
from acclimate.cpu import adjust_threads
from acclimate.errors import UsageError

CHUNK_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 65536}
"""Tokens computed at once, by kind of device (training also minds its memory). On a CPU a chunk should stay in its
cache; a GPU wants to be filled."""
INT8_CHUNK_TOKENS = 2048
"""The same for weights in INT8 on a CPU, beside which the codes of activations want a place in the cache too."""


CPU_ACTIVATION_GB = 2.0
CUDA_ACTIVATION_SHARE = 0.25
"""Share of a GPU's whole memory, never of what happens to be free: a run repeats on the same kind of GPU."""


def activation_gb(device: torch.device) -> float:
    """Memory for one step's activations, in GB, where the settings do not say."""
    if device.type != "cuda":
        return CPU_ACTIVATION_GB
    return CUDA_ACTIVATION_SHARE * torch.cuda.get_device_properties(device).total_memory / 1e9


def choose_device(name: str) -> torch.device:
    """The device of this name; auto is CUDA, else Apple's MPS, else the CPU. Several processes get a GPU each.

    On a CPU torch computes from here on with as many threads as there are free cores.

    Raises:
        UsageError: no such device here, or not one for each process.
    """
    here = available_devices()
    if name != "auto" and name not in here:
        raise UsageError(f"device = {name!r} is not on this machine", possible="auto, " + ", ".join(here))
    if processes.count() > 1:
        device = _own_device(name)
    elif name == "auto":
        device = torch.device(next((kind for kind in ("cuda", "mps") if kind in here), "cpu"))
    else:
        device = torch.device(name)
    if device.type == "cpu":
        adjust_threads()
    return device


def _own_device(name: str) -> torch.device:
    """This process's device, of one machine's several processes."""
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device = {name!r} with {processes.count()} processes", possible="auto, cpu, cuda")
    (index, count), gpus = processes.local(), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or gpus == 0:
        return torch.device("cpu")
    if count > gpus:
        raise UsageError(
            f"{count} processes were started on a machine with {gpus} GPU{'s' if gpus > 1 else ''}",
            fix=f"Start {gpus} (torchrun --nproc-per-node {gpus}), or compute on the CPU: --device cpu.",
        )
    torch.cuda.set_device(index)  # where NCCL talks
    return torch.device("cuda", index)


def available_devices() -> list[str]:
    """Names of the devices of this machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = ["cuda", *(f"cuda:{index}" for index in range(count))] if count else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *cuda, *mps]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; on CUDA by way of pinned memory, so that nobody waits for the work queued there."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
