"""How many threads compute: as many as cores are free, by looks at what the cores did that are written out here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from acclimate import cpu
from acclimate.cpu import (
    LONGEST_S,
    LOOKS,
    RECHECK_S,
    Cores,
    Look,
    adjust_threads,
    cores_allowed,
    look,
    sleep_while_waiting,
)


class Machine:
    """Four cores; `pass_time` lets others and this process use some of them."""

    def __init__(self, cores: int = 4) -> None:
        self.cores, self.now, self.used, self.own, self.looks = cores, 0.0, 0.0, 0.0, 0

    def pass_time(self, others: float, own: float = 0.0, seconds: float = RECHECK_S) -> None:
        self.now += seconds
        self.used += (others + own) * seconds
        self.own += own * seconds

    def look(self) -> Look:
        self.looks += 1
        return Look(self.now, self.used, self.own, self.cores)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize(
    ("others", "own", "threads"),
    [
        (0.0, 0.0, 4),
        (0.0, 4.0, 4),  # what we use ourselves is not taken
        (0.3, 3.7, 4),  # the system's own small work
        (0.5, 3.5, 3),  # a process that wants a whole core, and shares it with a thread of ours
        (1.0, 3.0, 3),
        (2.0, 2.0, 2),
        (4.0, 0.0, 1),  # never none
    ],
)
def test_as_many_threads_as_free_cores(machine: Machine, others: float, own: float, threads: int) -> None:
    cores = Cores(machine.look, machine.clock)
    machine.pass_time(others, own)
    assert cores.threads(4) == threads
    assert cores.threads(2) == min(threads, 2)


def test_a_taken_core_counts_at_once_and_a_free_one_after_some_looks(machine: Machine) -> None:
    cores = Cores(machine.look, machine.clock)
    found = []
    for others in (0, 1, *[0] * LOOKS, 1):
        machine.pass_time(others)
        found.append(cores.threads(4))
    assert found == [4, 3, *[3] * (LOOKS - 1), 4, 3]


def test_it_looks_seldom_and_forgets_what_was_long_ago(machine: Machine) -> None:
    cores = Cores(machine.look, machine.clock)
    machine.pass_time(0)
    assert cores.threads(4) == 4
    looks = machine.looks
    for _ in range(10):
        machine.pass_time(4, seconds=RECHECK_S / 20)
        assert cores.threads(4) == 4
    assert machine.looks == looks
    machine.pass_time(4, seconds=2 * LONGEST_S)  # nothing was computed for a minute: that says little about now
    assert cores.threads(4) == 4
    machine.pass_time(1)
    assert cores.threads(4) == 3


def test_a_system_that_does_not_say_counts_as_free(machine: Machine) -> None:
    assert Cores(lambda: None, machine.clock).threads(4) == 4


def test_the_real_cores() -> None:
    first, second = look(), look()
    assert first is not None and second is not None
    assert second.used >= first.used and second.own > first.own and second.at > first.at
    if hasattr(os, "sched_getaffinity"):
        assert first.cores == len(os.sched_getaffinity(0))


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> Iterator[Machine]:
    """Torch has four threads for four cores, which nobody has chosen."""
    for name in cpu.GIVEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu, "_choice", None)
    monkeypatch.setattr(cpu, "look", machine.look)
    monkeypatch.setattr(cpu, "cores_allowed", lambda: machine.cores)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield machine
    torch.set_num_threads(before)
    cpu._own.__dict__.clear()


def watch(machine: Machine) -> None:
    """Begin as `adjust_threads` does, with the machine's clock."""
    cpu._choice = cpu._Choice(4, 4, Cores(machine.look, machine.clock))


def test_torch_gets_as_many_threads_and_it_is_said(four_threads: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    watch(four_threads)
    four_threads.pass_time(0)
    assert adjust_threads() == torch.get_num_threads() == 4
    assert capsys.readouterr().err == ""
    four_threads.pass_time(2)
    assert adjust_threads() == torch.get_num_threads() == 2
    assert capsys.readouterr().err == (
        "CPU threads: 2 from here on, not 4: other processes use 2.0 cores. Sums are rounded in another order.\n"
    )
    for _ in range(LOOKS):
        four_threads.pass_time(0)
        adjust_threads()
    assert torch.get_num_threads() == 4
    assert "4 from here on, not 2: more cores are free" in capsys.readouterr().err


def test_a_number_of_the_users_own_stays(four_threads: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(four_threads)
    four_threads.pass_time(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert adjust_threads() == torch.get_num_threads() == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert adjust_threads() == 1
    torch.set_num_threads(2)
    four_threads.pass_time(4)
    assert adjust_threads() == torch.get_num_threads() == 2


def test_where_fewer_cores_are_allowed(four_threads: Machine) -> None:
    four_threads.cores = 2
    assert adjust_threads() == torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "9900000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_the_limit_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert cores_allowed(tmp_path) == cores


def test_several_processes_share_the_cores(four_threads: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "h"}.items():
        monkeypatch.setenv(name, str(value))
    assert adjust_threads() == torch.get_num_threads() == 2
    assert four_threads.looks == 0  # they keep to it: their sums have to be rounded alike


def test_what_a_user_says_of_waiting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_while_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    sleep_while_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == "20000"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks libgomp")
def test_the_commands_openmp_sleeps_while_it_waits() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-m", "acclimate", "doctor", "--json"],
        env={**environment, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '20000'" in done.stderr
