"""Label maps and Slicer's segmentations (.seg.nrrd): reading, matching classes by name, writing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..config import GENERIC_TERMINOLOGY, Segment, name_key, palette_color
from ..errors import DataError
from .case import Case
from .counting import count_values
from .files import is_segmentation
from .grid import Grid, right_handed
from .io import describe, grid_difference, grid_of, naming, read_image, write_image
from .placement import place
from .segments import conform, match_segments, plain_name

__all__ = [
    "LabelMap",
    "conform",
    "is_segmentation",
    "labels_on_grid",
    "match_segments",
    "read_case_labels",
    "read_labels",
    "read_scalar",
    "write_labels",
    "write_scalar",
]


@dataclass(frozen=True, eq=False)
class LabelMap:
    """``array`` uint8 [X, Y, Z]; a voxel's value is the ``label`` of one of ``segments``, or 0.

    ``named`` tells whether the names were in the file (.seg.nrrd) or given by the cohort; else a segment is
    called after its value, "segment_1". ``notes`` are sentences on what was lost, such as overlaps.
    """

    array: np.ndarray
    grid: Grid
    segments: tuple[Segment, ...]
    named: bool = False
    notes: tuple[str, ...] = ()


def read_labels(path: Path, case_id: str | None = None, declared: Sequence[Segment] = ()) -> LabelMap:
    """Read a label map or a segmentation on its own grid.

    ``declared``: the classes that the cohort names. A plain label map takes their names by value, and a value that
    is none of theirs is an error; a segmentation takes them by name. Where segments overlap, the later one in the
    file wins. Raises DataError for unreadable files and for values that are not labels. An empty map is no error.
    """
    who = describe(path, case_id)
    with naming(case_id):
        image = read_image(path, case_id)
        if any(key.startswith("Segment0_") for key in image.GetMetaDataKeys()):
            return _read_segmentation(image, who)
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise DataError(f"{who} has several values a voxel; expected a label map with one integer a voxel.")
        array = _as_labels(sitk.GetArrayFromImage(image), who).T
        return LabelMap(array, grid_of(image), _plain_segments(array, declared, who), bool(declared))


def labels_on_grid(label_map: LabelMap, grid: Grid, path: Path, case_id: str | None = None) -> np.ndarray:
    """Return the labels uint8 [X, Y, Z] on the image's ``grid``, voxel for voxel, never interpolated.

    Segmentations that Slicer has cropped are padded; axes stored in another order or direction are put right.
    Raises DataError where the voxels of both do not coincide, or where a plain label map is not exactly the image's.
    """
    if tuple(label_map.grid.size) == tuple(grid.size) and not grid_difference(label_map.grid, grid):
        return label_map.array
    placed, whole = place(label_map.array, label_map.grid, grid)
    if placed is None or not (whole or is_segmentation(path)):
        raise DataError(
            f"{describe(path, case_id)} and the image lie on different grids "
            f"({grid_difference(label_map.grid, grid)}); save the label on the image's own grid.",
            case_id,
        )
    return placed


def read_case_labels(case: Case, grid: Grid, declared: Sequence[Segment] = ()) -> LabelMap:
    """Read the label of a case onto its image's ``grid``; raise DataError also where no voxel is labelled."""
    if case.label is None:
        raise DataError(f"Case {case.id} has no label; give one or make the case unlabeled.", case.id)
    label_map = read_labels(case.label, case.id, declared)
    array = labels_on_grid(label_map, grid, case.label, case.id)
    if not array.any():
        raise DataError(
            f"Case {case.id}: label {case.label.name} is empty inside the image; label the case or make it unlabeled.",
            case.id,
        )
    notes = (*label_map.notes, *_outside(label_map.array, array, f"Case {case.id}: {case.label.name}"))
    return replace(label_map, array=array, grid=grid, notes=notes)


def write_labels(path: Path, array: np.ndarray, grid: Grid, segments: Sequence[Segment]) -> None:
    """Write labels uint8 [X, Y, Z] on ``grid``: as Slicer's segmentation where the name ends in .seg.nrrd (names,
    colours and terminology in it), else as a plain label map. Atomic; raises ResourceError where the disk fails.

    Slices of a segmentation on a left-handed grid are stored in reverse order, on the grid that goes with it: Slicer
    would make its surfaces inside out. ``labels_on_grid`` puts them back.
    """
    metadata: dict[str, str] = {}
    if is_segmentation(path):
        array, grid = right_handed(array, grid)
        metadata = _segmentation_metadata(array, segments)
    write_image(path, array.astype(np.uint8, copy=False), grid, metadata)


def write_scalar(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write a map of uint8, int16 or floating values [X, Y, Z] on ``grid``; float16 becomes float32. Atomic."""
    write_image(path, array.astype(np.float32) if array.dtype == np.float16 else array, grid)


def read_scalar(path: Path) -> tuple[np.ndarray, Grid]:
    """Read a map that :func:`write_scalar` wrote: its numbers [X, Y, Z] as they are in the file, and its own grid.

    Unlike a scan it may be the same everywhere. Raises DataError where it cannot be read.
    """
    image = read_image(path)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(f"{path} has several values a voxel; expected a map with one.")
    return sitk.GetArrayFromImage(image).T, grid_of(image)


def _as_labels(array: np.ndarray, who: str) -> np.ndarray:
    """Return integral values 0 .. 255 as uint8."""
    if array.dtype == np.uint8:
        return array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{who} has NaN or infinite label values; expected integers from 0 to 255.")
    if low < 0 or high > 255:
        wrong = low if low < 0 else high
        raise DataError(f"{who} has the label value {wrong:g}; expected integers from 0 to 255.")
    labels = array.astype(np.uint8)
    if array.dtype.kind == "f" and not np.array_equal(labels, array):
        wrong = array[labels != array][0]
        raise DataError(f"{who} has the label value {wrong:g}; expected integers: is it an image or a probability map?")
    return labels


def _plain_segments(array: np.ndarray, declared: Sequence[Segment], who: str) -> tuple[Segment, ...]:
    values = [int(v) for v in np.flatnonzero(count_values(array)) if v > 0]
    if not declared:
        if len(values) > 64:
            raise DataError(f"{who} has {len(values)} label values; expected a label map, and it seems to be an image.")
        return tuple(Segment(plain_name(v), v, palette_color(v)) for v in values)
    known = {s.label for s in declared}
    wrong = [v for v in values if v not in known]
    if wrong:
        raise DataError(
            f"{who} has the label value {wrong[0]}, which is no class of the cohort "
            f"({', '.join(f'{s.label} {s.name}' for s in declared)}); correct the label, or list a "
            "class with this value."
        )
    return tuple(s for s in declared if s.label in values)


def _read_segmentation(image: sitk.Image, who: str) -> LabelMap:
    layers = sitk.GetArrayViewFromImage(image)  # a copy is not needed: the image outlives it
    layers = layers[..., None] if layers.ndim == 3 else layers
    segments: list[Segment] = []
    array = np.zeros(layers.shape[:3], dtype=np.uint8)
    overlap = 0
    try:
        listed = _listed_segments(image, layered=layers.shape[3] > 1)
    except ValueError as error:
        raise DataError(f"{who} has a damaged list of segments ({error}); save the segmentation again.") from error
    for index, (segment, layer, value) in enumerate(listed):
        if not 0 <= layer < layers.shape[3]:
            raise DataError(f"{who} names layer {layer} but has {layers.shape[3]}; save the segmentation again.")
        if index >= 255:
            raise DataError(f"{who} has more than 255 segments; expected at most 255.")
        for plane, drawn in zip(array, layers[..., layer]):  # a mask of the whole would take as much as the labels
            mask = drawn == value
            overlap += int(np.count_nonzero(plane[mask]))
            plane[mask] = segment.label
        segments.append(segment)
    _check_names_unique(segments, who)
    notes = (f"{who}: {overlap} voxels lie in several segments; the later segment was kept.",) if overlap else ()
    return LabelMap(array.T, grid_of(image), tuple(segments), True, notes)


def _listed_segments(image: sitk.Image, layered: bool) -> list[tuple[Segment, int, int]]:
    """Return (segment, layer, value in the layer) in the file's order.

    Several layers may use one value twice, so the segments are renumbered where their values are not unique.
    Slicer 4.10 and before named neither layers nor values: each segment had a layer of its own, and was 1 in it.
    """
    keys = set(image.GetMetaDataKeys())

    def get(index: int, name: str, default: str) -> str:
        key = f"Segment{index}_{name}"
        return image.GetMetaData(key).strip() if key in keys else default

    listed: list[tuple[int, str, int, int]] = []
    while any(f"Segment{len(listed)}_{name}" in keys for name in ("ID", "Name")):
        i = len(listed)
        name = get(i, "Name", "") or get(i, "ID", "") or plain_name(i + 1)
        value = int(get(i, "LabelValue", "1" if layered else str(i + 1)))
        listed.append((i, name, int(get(i, "Layer", str(i) if layered else "0")), value))
    values = [value for *_, value in listed]
    keep = len(set(values)) == len(values) and all(1 <= v <= 255 for v in values)
    return [
        (
            Segment(
                name,
                value if keep else i + 1,
                _color(get(i, "Color", "")) or palette_color(i + 1),
                _terminology(get(i, "Tags", "")) or GENERIC_TERMINOLOGY,
            ),
            layer,
            value,
        )
        for i, name, layer, value in listed[:255]
    ]


def _color(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (min(max(float(part), 0.0), 1.0) for part in text.split())
    except ValueError:
        return None
    return red, green, blue


def _terminology(tags: str) -> str | None:
    for tag in tags.split("|"):
        name, _, value = tag.partition(":")
        if name == "TerminologyEntry" and value:
            return value
    return None


def _outside(before: np.ndarray, placed: np.ndarray, who: str) -> tuple[str, ...]:
    """A note on labelled voxels that lie beside the image."""
    if before is placed or not (lost := int(np.count_nonzero(before)) - int(np.count_nonzero(placed))):
        return ()
    return (f"{who}: {lost} labelled voxels lie outside the image and are left out.",)


def _check_names_unique(segments: Iterable[Segment], who: str) -> None:
    seen: set[str] = set()
    for segment in segments:
        if name_key(segment.name) in seen:
            raise DataError(f"{who} has two segments called {segment.name!r}; give every segment its own name.")
        seen.add(name_key(segment.name))


def _segmentation_metadata(array: np.ndarray, segments: Sequence[Segment]) -> dict[str, str]:
    """Header entries as Slicer's vtkMRMLSegmentationStorageNode reads and writes them (one layer)."""
    metadata = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extent = " ".join(f"0 {n - 1}" for n in array.shape)
    for index, segment in enumerate(segments):
        prefix = f"Segment{index}_"
        metadata |= {
            f"{prefix}ID": f"Segment_{segment.label}",
            f"{prefix}Name": segment.name,
            f"{prefix}NameAutoGenerated": "0",
            f"{prefix}Color": " ".join(f"{c:g}" for c in segment.color),
            f"{prefix}ColorAutoGenerated": "0",
            f"{prefix}LabelValue": str(segment.label),
            f"{prefix}Layer": "0",
            f"{prefix}Extent": extent,
            f"{prefix}Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{segment.terminology}|",
        }
    return metadata
