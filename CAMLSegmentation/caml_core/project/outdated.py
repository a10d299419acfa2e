"""Whether a scan was replaced after its prediction had been made. Standard library only."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..data.listing import list_folder
from .cases import ProjectCase


def is_outdated(case: ProjectCase) -> bool:
    """Whether an image of a case was written after its prediction, as far as the times of its files tell.

    Of a DICOM folder three slices are asked: a new export writes all of them, and to ask a network drive about a
    thousand takes its time. Files that cannot be reached tell nothing, nor does a time to come: a scan from a computer
    whose clock is fast would seem newer however often it is segmented.
    """
    made = _written(case.prediction) if case.prediction is not None else None
    if made is None:
        return False
    now = time.time_ns()
    times = (_written(path) for image in case.images for path in _asked(image))
    return any(written is not None and made < written <= now for written in times)


def _asked(image: Path) -> tuple[Path, ...]:
    """The files whose times stand for an image."""
    if not os.path.isdir(image):
        return (image,)
    try:
        slices = list_folder(image).slices
    except OSError:
        return ()
    return tuple(image / slices[place] for place in sorted({0, len(slices) // 2, len(slices) - 1})) if slices else ()


def _written(path: Path) -> int | None:
    """When a file was written, in ns; None where it cannot be asked."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None
