"""Cases and cohorts as plain values. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import Segment

Role = Literal["labeled", "unlabeled", "validation", "excluded"]
ROLES: tuple[Role, ...] = ("labeled", "unlabeled", "validation", "excluded")


@dataclass(frozen=True)
class Case:
    """One patient scan: one image file (or DICOM folder) a channel, and a label map where there is one."""

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    role: Role = "unlabeled"


@dataclass(frozen=True)
class Cohort:
    """Cases with unique ids. ``source`` is the folder or the list they came from.

    ``segments``: the classes that the list declares, with their values in label maps; usually none.
    """

    cases: tuple[Case, ...]
    source: Path
    segments: tuple[Segment, ...] = ()

    def with_role(self, *roles: Role) -> tuple[Case, ...]:
        """Return the cases of these roles, in the cohort's order."""
        return tuple(case for case in self.cases if case.role in roles)
