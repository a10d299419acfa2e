"""Ending a process with all its descendants. Slicer's Python is started through a launcher; ending that alone would
leave the worker behind. Standard library only: psutil does not come with Slicer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def endTree(pids: Iterable[int]) -> None:
    """End the processes ``pids`` and everything they started, at once. Processes that have gone are no error."""
    roots = [pid for pid in dict.fromkeys(pids) if pid and pid > 1 and pid != os.getpid()]
    if sys.platform == "win32":
        for pid in roots:
            _taskkill(pid)
        return
    for pid in _withDescendants(roots):
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


def _taskkill(pid: int) -> None:
    try:
        subprocess.run(
            ["taskkill", "/PID", str(pid), "/T", "/F"],
            capture_output=True,
            check=False,
            timeout=2,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except (OSError, subprocess.SubprocessError):
        pass  # the caller ends the launcher itself, too


def _withDescendants(roots: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.append(pid)
            waiting += children.get(pid, [])
    return found


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) of all processes of the machine that can be seen."""
    if Path("/proc/self/stat").exists():
        return [pair for entry in Path("/proc").iterdir() if entry.name.isdigit() for pair in _procEntry(entry)]
    try:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2]


def _procEntry(entry: Path) -> list[tuple[int, int]]:
    try:
        text = (entry / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:  # it ended meanwhile
        return []
    # The name stands in parentheses and may hold anything; state and parent follow the last one.
    fields = text.rpartition(")")[2].split()
    return [(int(entry.name), int(fields[1]))] if len(fields) > 1 else []
