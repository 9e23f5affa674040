"""The processes that share a run's work: one, unless torchrun or accelerate launch has started several.

All of them run the same functions in the same order. The first one alone writes and prints; work that can be divided is
divided; where one process needs what the others have, all exchange it. Standard library only, while there is one
process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from acclimate.errors import AcclimateError, UsageError, first_line

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=2)
"""How long the others wait while the first one prepares data. If a process dies, the others notice it at once."""
BUCKET_BYTES = 256 * 1024 * 1024
"""Size of the tensors summed in one message: few messages, without a second copy of all gradients."""


def count() -> int:
    """How many processes share the work."""
    return int(os.environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ) else 1


def index() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local() -> tuple[int, int]:
    """The number of this process among those on its machine, and their count."""
    if count() == 1:
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return index() == 0


def start() -> None:
    """Connect to the other processes, if there are any. Every function here does so when it first has to.

    Raises:
        UsageError: this build of torch cannot connect processes.
        AcclimateError: the others do not answer.
    """
    if count() == 1:
        return
    import torch
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return
    cuda = torch.cuda.is_available()
    if not dist.is_available() or not dist.is_gloo_available() or (cuda and not dist.is_nccl_available()):
        raise UsageError(
            f"{count()} processes were started, and this build of torch lacks {'NCCL or ' if cuda else ''}gloo",
            fix="Start one process, or install torch's own build.",
        )
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:
        raise AcclimateError(
            f"process {index()} of {count()} does not reach the others ({first_line(error)})",
            fix="Start them with torchrun or accelerate launch.",
        ) from error


def stop() -> None:
    """Disconnect from the other processes."""
    if count() > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def on_main(work: Callable[[], T]) -> T:
    """Call `work()` in the first process only; the others wait, and get its result too."""
    return from_main(work() if is_main() else None)  # type: ignore[return-value]


def from_main(value: T) -> T:
    """Give every process the first one's value, so that all decide alike even if their own values differ in the last
    bit."""
    if count() == 1:
        return value
    box = [value]
    with _connected() as dist:
        dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier() -> None:
    """Wait until all processes have reached this point."""
    gather(None)


def gather(value: T) -> list[T]:
    """Collect every process's value, in their order, in every process."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    with _connected() as dist:
        dist.all_gather_object(values, value)
    return values


def shard(size: int) -> slice:
    """This process's share of `size` items in a row."""
    return slice(size * index() // count(), size * (index() + 1) // count())


def sum_tensors(tensors: Iterable[Any]) -> None:
    """Sum each tensor over the processes, in place; all must be of one device and dtype."""
    if count() == 1:
        return
    import torch

    for bucket in _buckets(list(tensors)):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        with _connected() as dist:
            dist.all_reduce(flat)
        sums = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, summed in zip(bucket, sums, strict=True):
            tensor.copy_(summed.view_as(tensor))


def fails_first() -> bool:
    """Whether this is the first process to fail, and so the one that reports why."""
    if count() == 1:
        return True
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return is_main()  # nothing has been done yet: all fail alike
    try:
        store: Any = dist.distributed_c10d._get_default_store()
        return int(store.add("acclimate failures", 1)) == 1
    except RuntimeError:
        return is_main()  # the first process kept the count, and has ended: it has reported


@contextmanager
def _connected() -> Iterator[Any]:
    start()
    import torch.distributed as dist

    try:
        yield dist
    except RuntimeError as error:
        raise AcclimateError(
            f"process {index()} of {count()} has lost the others ({first_line(error)})",
            fix="One of them has ended; the launcher says how.",
        ) from error


def _buckets(tensors: list[Any]) -> Iterator[list[Any]]:
    bucket: list[Any] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
