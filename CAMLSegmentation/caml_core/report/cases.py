"""What a report shows of a test case: the scan, its reference and the segmentations that are compared, with figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..config import Geometry, Segment, Spacing
from ..data.case import Case, Cohort
from ..data.files import LABEL_SUFFIXES
from ..data.geometry import NetworkGrid
from ..data.io import describe, read_case
from ..data.labels import LabelMap, labels_on_grid, read_labels
from ..data.segments import conform, match_segments, named_as_references, plain_value, taken_note
from ..data.structures import read_structures
from ..errors import DataError
from ..metrics import case_metrics

_ENDS = ("", "_label", "-label", "_seg", "-seg")

#: A label map, and sentences on what was made of it.
Told = tuple[LabelMap, tuple[str, ...]]
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


def with_one_structure(
    cohort: Cohort, folders: Mapping[str, Path], segments: Sequence[Segment], check: Callable[[], None] = lambda: None
) -> frozenset[str]:
    """Return the trainings whose segmentations hold a single structure, where the plain references do, too.

    It is the same then, whatever its value (masks of 255). Where classes are declared, these tell.
    """
    if cohort.segments or len(segments) != 1 or plain_value(segments[0].name) is None:
        return frozenset()
    cases = judged(cohort)
    files = {n: {case.id: find_segmentation(folder, case.id) for case in cases} for n, folder in folders.items()}
    return frozenset(name for name, found in files.items() if read_structures(found, check).single)


def compare(
    case: Case,
    folders: Mapping[str, Path],
    segments: Sequence[Segment],
    declared: Sequence[Segment] = (),
    figures: Figures | None = None,
    single: Collection[str] = (),
) -> ComparedCase:
    """Read a case and its segmentation in each of ``folders`` (by name of the training), and measure them.

    ``figures``: what was measured already; nothing is measured then. ``single``: of ``with_one_structure``.
    Raises DataError where a segmentation is missing or lies on another grid, or its values may mean two things.
    """
    volume = read_case(case)[0]
    notes: list[str] = []

    def labels(path: Path, found: LabelMap) -> np.ndarray:
        notes.extend(found.notes)
        array = labels_on_grid(found, volume.grid, path, case.id)
        return conform(array, found.segments, segments, describe(path, case.id))

    def predicted(name: str, folder: Path) -> np.ndarray:
        path = find_segmentation(folder, case.id)
        found = read_labels(path, case.id)
        taken: tuple[str, ...] = ()
        if name in single:
            found, taken = _as_lone(found, segments[0])
        elif declared and not found.named:
            found, taken = _as_declared(found, declared, describe(path, case.id))
        elif not found.named and all(plain_value(s.name) is not None for s in segments):
            found, taken = _of_known_values(found, segments, name)
        notes.extend(taken)
        return labels(path, found)

    if case.label is None:
        raise DataError(f"Case {case.id} has no label to judge segmentations by.", case.id)
    reference = labels(case.label, read_labels(case.label, case.id, declared))
    predictions = {name: predicted(name, folder) for name, folder in folders.items()}
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


def _as_lone(found: LabelMap, segment: Segment) -> Told:
    """A segmentation of a single structure as the references' only ``segment``."""
    value = plain_value(segment.name) or segment.label
    taken = {s.label: value for s in found.segments if plain_value(s.name) != value}
    named = tuple(replace(s, name=segment.name) for s in found.segments)
    return replace(found, segments=named, named=True), taken_note(taken)


def _as_declared(found: LabelMap, declared: Sequence[Segment], who: str) -> Told:
    """A plain segmentation with the names of declared classes."""
    named = named_as_references(found.segments, {s.label: s for s in declared}, who)
    value = {s.name: s.label for s in declared}
    return replace(found, segments=named, named=True), taken_note({s.label: value[s.name] for s in named})


def _of_known_values(found: LabelMap, segments: Sequence[Segment], training: str) -> Told:
    """A plain segmentation without what no plain reference has: values are compared as they are."""
    known = {s.name for s in segments}
    kept = tuple(s for s in found.segments if s.name in known)
    left = [str(s.label) for s in found.segments if s.name not in known]
    if not left:
        return found, ()
    array = np.where(np.isin(found.array, [s.label for s in kept]), found.array, np.uint8(0))
    note = (
        f"{training}: segmentations have the value(s) {', '.join(left)}, which no reference has; they are left out. If "
        "other classes are meant, list these with their values in a JSON cohort, or save segmentations as .seg.nrrd."
    )
    return replace(found, array=array, segments=kept), (note,)


def find_segmentation(folder: Path, case_id: str) -> Path:
    """Return the label file of a case in ``folder``; raise DataError where there is none."""
    names = (f"{case_id}{end}{suffix}" for end in _ENDS for suffix in LABEL_SUFFIXES)
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise DataError(
            f"Case {case_id} has no segmentation in {folder}; run caml predict on it first, with that output folder.",
            case_id,
        )
    return found
