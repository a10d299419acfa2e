"""Cases and cohorts as plain values. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import Segment

Role = Literal["labeled", "unlabeled", "validation", "excluded"]
#: What is said of an id that ``leads_outside``.
NO_NAME = "leads out of the folder that files of the case are written to; give the case a plain name, such as CASE_01"
#: Cases that a sentence names.
_MOST_NAMES = 5
ROLES: tuple[Role, ...] = ("labeled", "unlabeled", "validation", "excluded")


@dataclass(frozen=True)
class Case:
    """One patient scan: one image file (or DICOM folder) a channel, and a label map where there is one.

    label_began: what the label was first, where that is known: "prediction", which it is still, or "correction" of one.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    role: Role = "unlabeled"
    label_began: str = ""


@dataclass(frozen=True)
class Cohort:
    """Cases with unique ids. ``source`` is the folder or the list they came from.

    ``segments``: the classes that the list declares, with their values in label maps; usually none. ``channels``: what
    it calls the images of each case, in their order ("T1", "FLAIR"); none, or empty, where it does not say.
    """

    cases: tuple[Case, ...]
    source: Path
    segments: tuple[Segment, ...] = ()
    channels: tuple[str, ...] = ()

    def with_role(self, *roles: Role) -> tuple[Case, ...]:
        """Return the cases of these roles, in the cohort's order."""
        return tuple(case for case in self.cases if case.role in roles)


def some_names(ids: Iterable[str]) -> str:
    """Return the first of many ids for a sentence that cannot name them all."""
    listed = list(ids)
    return ", ".join(listed[:_MOST_NAMES]) + (", ..." if len(listed) > _MOST_NAMES else "")


def leads_outside(identity: str) -> bool:
    """Whether a file that is named after a case could lie outside of the folder that is meant, on any system.

    Lists come from others, too, and what is written is named after their ids.
    """
    parts = re.split(r"[/\\]", identity)
    upwards = any(part and not part.strip(" .") for part in parts)
    is_absolute = not parts[0] or re.match("[A-Za-z]:", identity)
    return bool(upwards or is_absolute or "\0" in identity)
