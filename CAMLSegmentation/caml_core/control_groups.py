"""What Linux lets this process have of the machine: limits of its control groups. Standard library only.

Containers, jobs of a cluster and services have theirs in the group that the process is in, or in one of those around
it; every one of them counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Limits:
    """``memory`` and ``free``, what is left of it, in bytes, and ``cores``; 0: no limit."""

    memory: int = 0
    free: int = 0
    cores: int = 0


def limits(root: Path | None = None, own: Path | None = None) -> Limits:
    """Return the tightest limits of the groups that this process is in; all 0 where there are none.

    root: where the groups are mounted. own: the list of this process's groups, as /proc/self/cgroup has it.
    """
    root, groups = root or ROOT, _groups(own or OWN)
    memory = list(filter(None, map(_memory, _levels(root, groups, "memory"))))
    cores = filter(None, map(_cores, _levels(root, groups, "cpu")))
    limit, free = (min(column) for column in zip(*memory)) if memory else (0, 0)
    return Limits(limit, free, min(cores, default=0))


def _groups(own: Path) -> dict[str, str]:
    """Controller -> this process's group; "" for the one hierarchy of version 2."""
    found = {}
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _levels(root: Path, groups: dict[str, str], controller: str) -> Iterator[Path]:
    """The folders of the group and of those around it, in either version; within a container some are not there."""
    for mounted, path in ((root, groups.get("", "/")), (root / controller, groups.get(controller, "/"))):
        # ".." leads out of what a container sees.
        names = [] if ".." in PurePosixPath(path).parts else [part for part in path.split("/") if part]
        for depth in range(len(names), -1, -1):
            yield mounted.joinpath(*names[:depth])


def _memory(group: Path) -> tuple[int, int] | None:
    """(limit, free) in bytes; the file cache gives way and counts as free. None where there is no limit."""
    for limit_name, used_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit = _read(group / limit_name).strip()
        if limit.isdecimal() and int(limit) < 1 << 60:  # version 1 writes a huge number for "no limit"
            used = _read(group / used_name).strip()
            # Version 1 counts a group without those within it first, and with them under "total_".
            found = re.findall(r"^(total_)?inactive_file (\d+)", _read(group / "memory.stat"), re.MULTILINE)
            cache = int(max(found)[1]) if found else 0
            held = max(int(used) - cache, 0) if used.isdecimal() else 0
            return int(limit), max(int(limit) - held, 1)
    return None


def _cores(group: Path) -> int:
    """Whole cores that the group may keep busy, at least 1; 0 where there is no limit."""
    quota, _, period = _read(group / "cpu.max").strip().partition(" ")
    if not period:
        quota, period = (_read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return max(1, int(quota) // int(period)) if quota.isdecimal() and period.isdecimal() and int(period) else 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""
