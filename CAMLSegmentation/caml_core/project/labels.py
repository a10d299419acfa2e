"""Is a label map fit to train on? Asked before a case counts as labelled."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Segment, name_key
from ..data.case import Case
from ..errors import DataError

if TYPE_CHECKING:
    from ..data.grid import Grid
    from .project import Project


@dataclass(frozen=True)
class LabelFacts:
    """What a label map holds: segments with voxels, those that are listed but empty, and notes for the user."""

    segments: tuple[Segment, ...]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_label_file(case: Case, known: Sequence[Segment], settled: bool = True) -> LabelFacts:
    """Read a case's label on its image's grid; raise DataError where it cannot serve as a label.

    known: the cohort's segments, empty where it has none yet. settled: whether their values in plain label maps are
    known; where they are not, the only segment of a cohort takes the only value of the map (a mask of 0 and 255). The
    image's header alone is read, but of DICOM folders the whole series.
    """
    from ..data.counting import count_values
    from ..data.labels import is_segmentation, read_case_labels

    declared = tuple(known) if case.label is not None and not is_segmentation(case.label) else ()
    grid = _grid(case.images[0], case.id)
    if not settled and len(declared) == 1 and len(values := read_case_labels(case, grid).segments) == 1:
        declared = (replace(declared[0], label=values[0].label),)
    found = read_case_labels(case, grid, declared)
    counts = count_values(found.array)
    filled = tuple(s for s in found.segments if counts[s.label])
    empty = tuple(s.name for s in found.segments if not counts[s.label])
    check_names(case.id, [s.name for s in filled], known)
    return LabelFacts(filled, empty, found.notes)


def check_names(case_id: str, names: Iterable[str], known: Sequence[Segment]) -> None:
    """Raise DataError where a segment's name is none of the cohort's."""
    listed = {s.name.strip().casefold() for s in known}
    wrong = [name for name in names if name.strip().casefold() not in listed]
    if known and wrong:
        raise DataError(
            f"Case {case_id} has the segment {wrong[0]!r}, and the cohort has "
            f"{', '.join(repr(s.name) for s in known)}; rename or remove the segment, or add it to the cohort's.",
            case_id,
        )


def rename_segments(project: Project, names: Mapping[str, str]) -> None:
    """Give segments (old name -> new name) their new names in all accepted labels, so that these stay the cohort's.

    Slicer's segmentations are written anew into the project's folder; the files of before stay. Plain label maps have
    no names. The project remembers the names, for models and predictions of before. Raises CamlError where one cannot
    be read or written; then the project is as it was.
    """
    from ..data.labels import is_segmentation, read_labels, write_labels

    by_key = {name_key(old): new for old, new in names.items()}
    changes: dict[str, dict[str, Any]] = {}
    for case in project.cases.values():
        named = any(name_key(n) in by_key for n in case.segments)
        if not case.has_own_label or case.label is None or not named:
            continue
        changes[case.id] = {"segments": tuple(by_key.get(name_key(n), n) for n in case.segments)}
        if not is_segmentation(case.label):
            continue
        found, path = read_labels(case.label, case.id), project.label_path(case.id)
        segments = [replace(s, name=by_key.get(name_key(s.name), s.name)) for s in found.segments]
        write_labels(path, found.array, found.grid, segments)
        changes[case.id]["label"] = path
    for identity, fields in changes.items():
        project.update(identity, **fields)
    project.note_renamed(names)


def _grid(path: Path, case_id: str) -> Grid:
    from ..data.files import has_dicom_mark
    from ..data.io import read_volume
    from .headers import read_grid

    grid = None if not os.path.isfile(path) or has_dicom_mark(path) else read_grid(path)
    return read_volume(path, case_id).grid if grid is None else grid  # it says what is wrong, where something is
