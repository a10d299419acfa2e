"""What a report shows of a test case: the scan, its reference and the segmentations that are compared, with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import Geometry, Segment, Spacing
from ..data.case import Case, Cohort
from ..data.geometry import NetworkGrid
from ..data.io import describe, read_case
from ..data.labels import LabelMap, labels_on_grid, read_labels
from ..data.segments import conform, match_segments, named_as_references, plain_classes, plain_name
from ..errors import DataError
from ..metrics import case_metrics

_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_ENDS = ("", "_label", "-label", "_seg", "-seg")

#: Name of a training -> segment -> metric -> value.
Figures = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, eq=False)
class ComparedCase:
    """Arrays [x, y, z] along left, posterior, superior, with ``spacing`` in mm; ``predictions`` by training.

    ``notes``: sentences on what label maps lost when they were read, such as overlaps.
    """

    id: str
    image: np.ndarray
    spacing: Spacing
    reference: np.ndarray
    predictions: dict[str, np.ndarray]
    figures: Figures
    notes: tuple[str, ...] = ()


def reference_segments(cohort: Cohort) -> tuple[Segment, ...]:
    """Return the classes of the references; raise DataError where a case that counts has none."""
    found = {}
    for case in judged(cohort):
        if case.label is None:
            raise DataError(f"Case {case.id} has no label to judge segmentations by; give one or remove it.", case.id)
        found[case.id] = read_labels(case.label, case.id, cohort.segments).segments
    return match_segments(found, cohort.segments)


def judged(cohort: Cohort) -> list[Case]:
    """Return the cases that count: all but those that are excluded."""
    return [case for case in cohort.cases if case.role != "excluded"]


def compare(
    case: Case,
    folders: Mapping[str, Path],
    segments: Sequence[Segment],
    declared: Sequence[Segment] = (),
    figures: Figures | None = None,
) -> ComparedCase:
    """Read a case and its segmentation in each of ``folders`` (by name of the training), and measure them.

    ``figures``: what was measured already; nothing is measured then.
    Raises DataError where a segmentation is missing or lies on another grid, or its values may mean two things.
    """
    volume = read_case(case)[0]
    notes: list[str] = []

    def labels(path: Path, found: LabelMap) -> np.ndarray:
        notes.extend(found.notes)
        array = labels_on_grid(found, volume.grid, path, case.id)
        return conform(array, found.segments, segments, describe(path, case.id))

    def predicted(folder: Path) -> np.ndarray:
        path = find_segmentation(folder, case.id)
        found = read_labels(path, case.id)
        if classes and not found.named:
            named = named_as_references(found.segments, classes, describe(path, case.id))
            found = replace(found, segments=named, named=True)
        return labels(path, found)

    if case.label is None:
        raise DataError(f"Case {case.id} has no label to judge segmentations by.", case.id)
    classes = _values_of_references(segments, declared)
    reference = labels(case.label, read_labels(case.label, case.id, declared))
    predictions = {name: predicted(folder) for name, folder in folders.items()}
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
        notes=tuple(notes),
    )


def _values_of_references(segments: Sequence[Segment], declared: Sequence[Segment]) -> dict[int, Segment]:
    """Value in plain references -> class; empty where they are a model's own 1, 2, ..., or only the names tell."""
    if declared:
        return {s.label: s for s in declared}
    values = [v for v in range(1, 256) if plain_name(v) in {s.name for s in segments}]
    return plain_classes(values) if len(values) == len(segments) else {}


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
