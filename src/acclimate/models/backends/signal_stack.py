"""The memory on which a thread handles signals, kept as it was while OpenVINO compiles.

Wherever a model is compiled, OpenVINO's plugin for processors gives the thread a signal stack of its own, large enough
for AMX (`SigAltStackSetup`, https://github.com/openvinotoolkit/openvino/pull/11894), and frees it with the model.
Python may free a model in any thread, by collecting garbage; then the thread that compiled it still points at memory
that is gone, and its next signal, ctrl-C or SIGTERM, ends the process by a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux; see sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread the signal stack back, at the end, that it has now; it may have none."""
    if sys.platform != "linux":  # elsewhere OpenVINO sets none
        yield
        return
    own = _Stack()
    sigaltstack = ctypes.CDLL(None).sigaltstack
    known = sigaltstack(None, ctypes.byref(own)) == 0
    try:
        yield
    finally:
        if known:
            sigaltstack(ctypes.byref(own), None)
