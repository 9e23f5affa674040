"""Which device each of several processes gets, or the error that says why it gets none.

There is no machine with several GPUs to test on: their number is set.
"""

from __future__ import annotations

import pytest
import torch

from acclimate.errors import UsageError
from acclimate.models.devices import choose_device


@pytest.fixture
def four_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the third of four on one machine."""
    for name, value in {"RANK": 2, "LOCAL_RANK": 2, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 4, "MASTER_ADDR": "h"}.items():
        monkeypatch.setenv(name, str(value))


def set_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)


@pytest.mark.usefixtures("four_processes")
def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 4)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 2)
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"'cuda:1' with 4 processes.*Possible: auto, cpu, cuda"):
        choose_device("cuda:1")


@pytest.mark.usefixtures("four_processes")
def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    set_gpus(monkeypatch, 2)
    with pytest.raises(UsageError, match=r"4 processes were started on a machine with 2 GPUs.*--nproc-per-node 2"):
        choose_device("auto")
    set_gpus(monkeypatch, 0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="'cuda' is not on this machine"):
        choose_device("cuda")
