"""Keep the stack that this thread's signal handlers run on, while a library is called that replaces it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signal_stack", "signal_stack_kept"]


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def _current() -> _Stack | None:
    if not sys.platform.startswith("linux"):
        return None
    stack = _Stack()
    return stack if ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0 else None


def signal_stack() -> tuple[int | None, int] | None:
    """Address and size of the alternate signal stack of this thread; address None if there is none.

    Returns None where it cannot be known (not on Linux).
    """
    found = _current()
    return None if found is None else (found.sp, found.size)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put back this thread's alternate signal stack at the end.

    OpenVINO sets one of 20 kB where the processor has tile registers (AMX). Saved registers fill more than half of it,
    so that a Python signal handler overflows it now and then, and the kernel ends the process without a word.
    """
    before = _current()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
