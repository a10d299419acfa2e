"""Whether the process that this one works for is still there. Standard library only."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_SYNCHRONIZE, _WAIT_TIMEOUT, _ACCESS_DENIED = 0x00100000, 0x102, 5


class ParentProcess:
    """Call ``alive()`` to ask for the process ``pid``, now and again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # A parent that died without being waited for still has its number on POSIX systems, but no children.
        self._is_ours = sys.platform != "win32" and os.getppid() == pid
        self._handle = _windows_handle(pid) if sys.platform == "win32" else None

    def alive(self) -> bool:
        """Return False once the process has ended. One that may not be asked counts as alive."""
        if sys.platform == "win32":
            return self._alive_on_windows()
        if self._is_ours:
            return os.getppid() == self.pid
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            return True
        return True

    def _alive_on_windows(self) -> bool:
        if self._handle is None or isinstance(self._handle, bool):
            return bool(self._handle)
        return bool(_kernel().WaitForSingleObject(self._handle, 0) == _WAIT_TIMEOUT)


def _windows_handle(pid: int) -> Any:
    """A handle, which keeps the number from being given to another process; True: alive but closed to us, else None."""
    kernel = _kernel()
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
    if handle:
        return ctypes.c_void_p(handle)
    return True if _of_ctypes("get_last_error")() == _ACCESS_DENIED else None


def _kernel() -> Any:
    return _of_ctypes("WinDLL")("kernel32", use_last_error=True)


def _of_ctypes(name: str) -> Any:
    """What ctypes has on Windows alone, and the type stubs of other systems lack."""
    return getattr(ctypes, name)
