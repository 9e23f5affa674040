"""Which settings a command really reads: what code outside of configs/ asks a config for while the command runs."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, get_type_hints

import pytest

from acclimate.configs import PrepareConfig, RunConfig, settings_of
from acclimate.configs.commands import READS

COPIES = {"effective", "with_overrides", "for_dataset", "used", "dump_config", "named"} | {
    "__init__",
    "__post_init__",
    "__eq__",
}
"""Functions that copy, check or write down a whole config, without using what they read; so do those of dataclasses.
`named` lists the files that may not be written over, whether the command reads them or not."""
PLAIN = "guard_data"
"""Guard data is read with the default `prepare` settings, whatever the user's are."""


@contextmanager
def recorded_reads() -> Iterator[set[str]]:
    """Collect the names of the settings that are read; not by a service that another test has left in a thread."""
    reads: set[str] = set()
    others = set(threading.enumerate()) - {threading.current_thread()}
    sections = [hint for hint in get_type_hints(RunConfig).values() if dataclasses.is_dataclass(hint)]
    known = {name for command in READS for name in settings_of(command)}
    with pytest.MonkeyPatch.context() as patch:
        for cls in (RunConfig, *sections):
            names = {item.name for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
            patch.setattr(cls, "__getattribute__", _recording(names & known, cls is PrepareConfig, reads, others))
        yield reads


def _recording(names: set[str], of_prepare: bool, reads: set[str], others: Set[threading.Thread]) -> Any:
    def read(self: Any, name: str) -> Any:
        if name in names and threading.current_thread() not in others and not _is_copied(of_prepare):
            reads.add(name)
        return object.__getattribute__(self, name)

    return read


def _is_copied(of_prepare: bool) -> bool:
    frame: Any = sys._getframe(2)
    while frame.f_globals["__name__"].startswith(("acclimate.configs", "dataclasses")):
        if frame.f_code.co_name in COPIES or frame.f_globals["__name__"] == "dataclasses":
            return True
        frame = frame.f_back
    while of_prepare and frame is not None:
        if frame.f_code.co_name == PLAIN:
            return True
        frame = frame.f_back
    return False
