"""Start the command line in several processes, as torchrun does, but forked from a server that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from acclimate.cli.main import main

PRELOADED = ["acclimate.cli.main", "acclimate.flows.adapt", "transformers.models.bert.modeling_bert", "faiss"]
PATIENCE_S = 60.0
POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Ended:
    """One process of a launch."""

    code: int
    stdout: str
    stderr: str


def launch(
    folder: Path,
    *commands: Sequence[str],
    kill_when: Callable[[], bool] = lambda: False,
    killed: Sequence[int] | None = None,
) -> list[Ended]:
    """Run one command line per process, all in one group, and wait for their ends.

    Args:
        folder: for what they print.
        commands: the arguments of each process.
        kill_when: polled; as soon as it holds, processes are killed (SIGKILL).
        killed: which of them; all if not given. The others then have to end by themselves.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    port = _free_port()
    processes = []
    for rank, arguments in enumerate(commands):
        place = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(commands)),
            "LOCAL_WORLD_SIZE": str(len(commands)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        started: Any = context.Process(target=_run, args=(folder, rank, place, list(arguments)))
        started.start()
        processes.append(started)
    deadline = time.monotonic() + PATIENCE_S
    while any(process.is_alive() for process in processes):
        too_late = time.monotonic() > deadline
        if too_late or kill_when():
            for rank, process in enumerate(processes):
                if too_late or killed is None or rank in killed:
                    process.kill()
            if too_late or killed is None:
                break
            kill_when = lambda: False  # noqa: E731
        time.sleep(POLL_S)
    for process in processes:
        process.join()
    return [
        Ended(process.exitcode, *((folder / f"{name}-{rank}.txt").read_text() for name in ("stdout", "stderr")))
        for rank, process in enumerate(processes)
    ]


def _run(folder: Path, rank: int, place: dict[str, str], arguments: list[str]) -> None:
    os.environ.update(place)
    sys.stdout, sys.stderr = ((folder / f"{name}-{rank}.txt").open("w", buffering=1) for name in ("stdout", "stderr"))
    torch.set_num_threads(1)
    main(arguments)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
