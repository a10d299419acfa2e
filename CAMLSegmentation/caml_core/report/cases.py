"""What a report shows of a test case: the scan, its reference and the segmentations that are compared, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Geometry, Segment, Spacing
from ..data.case import Case, Cohort
from ..data.geometry import NetworkGrid
from ..data.io import describe, read_case
from ..data.labels import labels_on_grid, read_labels
from ..data.segments import conform, match_segments
from ..errors import DataError
from ..metrics import case_metrics

_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_ENDS = ("", "_label", "-label", "_seg", "-seg")

#: Name of a training -> segment -> metric -> value.
Figures = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, eq=False)
class ComparedCase:
    """Arrays [x, y, z] along left, posterior, superior, with ``spacing`` in mm; ``predictions`` by training."""

    id: str
    image: np.ndarray
    spacing: Spacing
    reference: np.ndarray
    predictions: dict[str, np.ndarray]
    figures: Figures


def reference_segments(cohort: Cohort) -> tuple[Segment, ...]:
    """Return the classes of the references; raise DataError where a case has none."""
    found = {}
    for case in cohort.cases:
        if case.label is None:
            raise DataError(f"Case {case.id} has no label to judge segmentations by; give one or remove it.", case.id)
        found[case.id] = read_labels(case.label, case.id, cohort.segments).segments
    return match_segments(found, cohort.segments)


def compare(
    case: Case,
    folders: Mapping[str, Path],
    segments: Sequence[Segment],
    declared: Sequence[Segment] = (),
    figures: Figures | None = None,
) -> ComparedCase:
    """Read a case and its segmentation in each of ``folders`` (by name of the training), and measure them.

    ``figures``: what was measured already; nothing is measured then.
    Raises DataError where a segmentation is missing or lies on another grid.
    """
    volume = read_case(case)[0]

    def labels(path: Path) -> np.ndarray:
        found = read_labels(path, case.id, declared)
        array = labels_on_grid(found, volume.grid, path, case.id)
        return conform(array, found.segments, segments, describe(path, case.id))

    if case.label is None:
        raise DataError(f"Case {case.id} has no label to judge segmentations by.", case.id)
    reference = labels(case.label)
    predictions = {name: labels(find_segmentation(folder, case.id)) for name, folder in folders.items()}
    spacing = volume.grid.spacing
    if figures is None:
        figures = {n: case_metrics(p, reference, spacing, segments, case.id) for n, p in predictions.items()}
    upright = NetworkGrid.of(volume.grid, Geometry(spacing=spacing, patch=(1, 1, 1), orientation="LPS"))
    x, y, z = (spacing[axis] for axis in upright.permutation)
    return ComparedCase(
        id=case.id,
        image=upright.orient(volume.array),
        spacing=(x, y, z),
        reference=upright.orient(reference),
        predictions={name: upright.orient(prediction) for name, prediction in predictions.items()},
        figures=figures,
    )


def find_segmentation(folder: Path, case_id: str) -> Path:
    """Return the label file of a case in ``folder``; raise DataError where there is none."""
    names = (f"{case_id}{end}{suffix}" for end in _ENDS for suffix in _SUFFIXES)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"Case {case_id} has no segmentation in {folder}; run caml predict on it first, with that output folder.",
            case_id,
        )
    return found
