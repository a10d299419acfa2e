"""Is a label map fit to train on? Asked before a case counts as labelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Segment
from ..data.case import Case
from ..errors import DataError

if TYPE_CHECKING:
    from ..data.grid import Grid


@dataclass(frozen=True)
class LabelFacts:
    """What a label map holds: segments with voxels, those that are listed but empty, and notes for the user."""

    segments: tuple[Segment, ...]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_label_file(case: Case, known: Sequence[Segment]) -> LabelFacts:
    """Read a case's label on its image's grid; raise DataError where it cannot serve as a label.

    known: the cohort's segments, empty where it has none yet. The image's header alone is read, but of DICOM folders
    the whole series.
    """
    import numpy as np

    from ..data.labels import read_case_labels

    declared = known if case.label is not None and not case.label.name.lower().endswith(".seg.nrrd") else ()
    found = read_case_labels(case, _grid(case.images[0], case.id), declared)
    counts = np.bincount(found.array.ravel(order="K"), minlength=256)
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


def _grid(path: Path, case_id: str) -> Grid:
    import SimpleITK as sitk

    from ..data.grid import Grid
    from ..data.io import read_volume

    if path.is_dir() or path.name.lower().endswith(".dcm"):
        return read_volume(path, case_id).grid
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"Case {case_id}: {path.name} cannot be read; the file is damaged or no volume.") from error
    if reader.GetDimension() != 3:
        return read_volume(path, case_id).grid
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
