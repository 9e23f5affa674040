"""The CPU: which one it is, and how many threads compute on it.

OpenMP divides every operation among its threads and waits for the last of them. A thread whose core another process is
using is that last one, again and again: two threads on one free core and one taken are slower than one thread. So there
are as many threads as free cores, counted again during long work. Standard library only, until something is computed.
"""

from __future__ import annotations

import math
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from acclimate import processes
from acclimate.progress import say

GIVEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Where a user, or a launcher such as torchrun, says how many threads there shall be: then there are so many."""
LIMITS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Where control groups of version 2, and of version 1, say how many microseconds of cores a period may hold."""
SHORTEST_S = 0.1
"""Time between the first two looks at least: the system counts in hundredths of a second."""
RECHECK_S = 2.0
LONGEST_S = 30.0
"""What was in use over a longer time says little about now."""
LOOKS = 3
"""A core counts as free again after so many looks, so that short pauses of the others do not count."""
SPINS = 20_000
"""How often a waiting thread looks, before it sleeps."""
STILL_FREE = 0.35
"""A core of which others use at most this share counts as free. One that they want whole shows as half in use, while a
thread of ours is there too."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the cores that this process may use have done so far; only differences between two looks mean something."""

    at: float
    """Seconds."""
    used: float
    """Seconds of all these cores together, by all processes."""
    own: float
    """Seconds of them that this process used."""
    cores: int


class Cores:
    """The cores that other processes have left free, over the last few looks.

    Args:
        look: looks; None where the system does not say what its cores do, which then all count as free.
        clock: seconds.
    """

    def __init__(self, look: Callable[[], Look | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._look, self._clock = look, clock
        self._last = look()
        self._taken: deque[float] = deque(maxlen=LOOKS)

    def taken(self) -> float:
        """How many cores others use, at the most of the last looks; waits a moment before the first answer only."""
        now = self._clock()
        if self._last is None:
            return 0.0
        if not self._taken:
            time.sleep(max(0.0, SHORTEST_S - (now - self._last.at)))
            self._add(self._look())
        elif now - self._last.at > LONGEST_S:
            self._last = self._look()
        elif now - self._last.at >= RECHECK_S:
            self._add(self._look())
        return max(self._taken, default=0.0)

    def threads(self, most: int) -> int:
        """How many threads the free cores take, from 1 to `most`."""
        taken = self.taken()
        if self._last is None:
            return most
        return max(1, min(most, math.floor(self._last.cores - taken + STILL_FREE)))

    def _add(self, look: Look | None) -> None:
        last, self._last = self._last, look
        if last is not None and look is not None:
            own, used = look.own - last.own, look.used - last.used
            self._taken.append(max(0.0, used - own) / max(look.at - last.at, 1e-9))


@dataclass(slots=True)
class _Choice:
    """What this process has chosen, for all its threads of Python."""

    most: int
    threads: int
    cores: Cores | None
    """None where several processes share them."""


_lock = threading.Lock()
_own = threading.local()
"""`number`: how many threads were set in this thread of Python, for which alone OpenMP takes it."""
_choice: _Choice | None = None


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep where they wait for one another, instead of spinning on a core that others could use.

    They sleep after some microseconds of spinning: sleeping at once took a fifth to a third from a training on two free
    cores (benchmarks/threads.py). OpenMP reads this when it is loaded, so torch must not have been imported. libgomp,
    which is torch's on Linux, knows the variable; what a user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


def adjust_threads() -> int:
    """Compute with as many threads as cores are free, from here on; says so where that is a change.

    To be called between pieces of work: it looks at most every two seconds, and else costs nothing. Several processes
    divide the cores once, and keep to it: their sums have to be rounded alike.

    Returns:
        The number of threads, which is a user's own where there is one: by an environment variable, or by
        `torch.set_num_threads` in this thread of Python after the first call.
    """
    import torch

    number = torch.get_num_threads()
    if any(os.environ.get(name) for name in GIVEN) or number != getattr(_own, "number", number):
        return number
    with _lock:
        wanted = _choose(number)
    if wanted != number:
        torch.set_num_threads(wanted)
    _own.number = wanted
    return wanted


def _choose(number: int) -> int:
    """How many threads there shall be, when torch has `number` of them."""
    global _choice
    if _choice is None:
        most = min(number, cores_allowed())
        shared = processes.count() > 1
        _choice = _Choice(most, most, None if shared else Cores(look))
        if shared:
            _choice.threads = max(1, most // processes.local()[1])
    if _choice.cores is not None and (wanted := _choice.cores.threads(_choice.most)) != _choice.threads:
        fewer = wanted < _choice.threads
        why = f"other processes use {_choice.cores.taken():.1f} cores" if fewer else "more cores are free"
        say(f"CPU threads: {wanted} from here on, not {_choice.threads}: {why}. Sums are rounded in another order.")
        _choice.threads = wanted
    return _choice.threads


def cores_allowed(control_groups: Path = Path("/sys/fs/cgroup")) -> int:
    """How many cores this process may use: by its affinity, and by the limit of its container, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in LIMITS:
        try:
            quota, period = map(int, " ".join((control_groups / name).read_text("ascii") for name in names).split())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0:
            return min(cores, math.ceil(quota / period))
    return cores


def look() -> Look | None:
    """Look at what the cores that this process may use have done; None where the system does not say."""
    import psutil

    try:
        all_cores = psutil.cpu_times(percpu=True)
    except (OSError, RuntimeError, psutil.Error):
        return None
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(len(all_cores)))
    kinds = ["user", "system", "irq", "softirq"]
    if hasattr(os, "nice") and os.nice(0) > 0:
        kinds.append("nice")  # else we go before those who are
    times = [core for number, core in enumerate(all_cores) if number in allowed]
    used = sum(getattr(core, kind, 0.0) for core in times for kind in kinds)
    return Look(time.monotonic(), used, time.process_time(), len(times)) if times else None


@cache
def cpu_facts() -> dict[str, str]:
    """What the system says of its processor, by the names of /proc/cpuinfo; elsewhere its name alone."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        pass  # no Linux: the platform's own word has to do
    facts.setdefault("model name", platform.processor() or platform.machine())
    return facts
