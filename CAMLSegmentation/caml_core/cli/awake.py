"""Keeping the computer awake while it trains: systems that save energy do not take computing for use."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Windows' SetThreadExecutionState: from now on, the system is needed.
_CONTINUOUS, _SYSTEM_REQUIRED = 0x80000000, 0x00000001
_CAFFEINATE = "/usr/bin/caffeinate"


@contextmanager
def awake() -> Iterator[None]:
    """Ask the system not to fall asleep by itself meanwhile; where that cannot be asked, nothing happens.

    A closed lid, and a user who asks for it, send it to sleep all the same.
    """
    helper: subprocess.Popen[bytes] | None = None
    try:
        if sys.platform == "win32":
            _windows(_CONTINUOUS | _SYSTEM_REQUIRED)
        elif sys.platform == "darwin":
            helper = _caffeinate()
        yield
    finally:
        if sys.platform == "win32":
            _windows(_CONTINUOUS)
        if helper is not None:
            helper.terminate()


def _windows(state: int) -> None:
    library: Any = getattr(ctypes, "windll", None)  # absent from the type stubs of other systems
    if library is not None:
        library.kernel32.SetThreadExecutionState(ctypes.c_uint32(state))


def _caffeinate() -> subprocess.Popen[bytes] | None:
    """It ends by itself with this process, however that ends."""
    words = [_CAFFEINATE, "-i", "-w", str(os.getpid())]
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return None
