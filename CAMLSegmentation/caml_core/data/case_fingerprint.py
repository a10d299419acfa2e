"""What one case is like, with all that the cohort's fingerprint takes of it. Whoever has this needs no voxel."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..config import Geometry, Segment, Spacing, Triple
from .case import Case
from .counting import count_values
from .geometry import NetworkGrid
from .grid import Grid
from .intensity import foreground, looks_like_ct, sample_voxels
from .io import Volume, read_case
from .labels import LabelMap, read_case_labels
from .preparation import uses_label

#: Voxels of a case that intensity statistics are taken from.
SAMPLE_VOXELS = 2**20
#: How far around a labelled structure a CT window must tell tissues apart, in mm.
_NEIGHBOURHOOD = 5.0
#: Hounsfield units outside this are air, metal or padding.
HU_RANGE = (-1024, 3071)
#: A segment is one compact piece when this share of it hangs together, and when it fills this share of its bounding
#: box: organs fill 15 to 40 %, vessel trees 0.5 to 7 %, and what lies beyond a gap of a tree must not be taken away.
_ONE_COMPONENT_SHARE, _COMPACT_SHARE = 0.97, 0.1
#: Of the voxels' digest: two scans of one digest are one.
DIGEST_BYTES = 16
BINS = HU_RANGE[1] - HU_RANGE[0] + 1
#: So many different whole numbers at most are values of a label map; a scan has hundreds.
_LABEL_VALUES = 12


@dataclass(frozen=True)
class ChannelStatistics:
    """Grey values of one channel of one case: of all voxels, and of those above the background."""

    minimum: float
    maximum: float
    mean: float
    std: float
    percentile_00_5: float
    median: float
    percentile_99_5: float
    foreground_mean: float
    foreground_std: float
    modality: str


@dataclass(frozen=True)
class CaseFingerprint:
    """One case. ``size`` and ``spacing`` go along the patient axes L, P, S; ``orientation`` is the file's own.

    ``voxels`` counts each class's labelled voxels by name and ``extent_mm`` is the box around them all; both are
    empty or None for cases without a label that may be used.
    """

    id: str
    role: str
    size: Triple
    spacing: Spacing
    orientation: str
    channels: tuple[ChannelStatistics, ...]
    voxels: dict[str, int]
    extent_mm: Spacing | None


@dataclass(frozen=True, eq=False)
class Sighting:
    """What was seen of a case. Counts are int64 [channels, bins] over the range of Hounsfield units.

    ``around``: counts near the labelled structures, zero for others than labelled cases; of these ``compact`` tells
    whether each segment is one compact piece. ``segments``: None where no label is used. ``notes``: sentences on the
    label, and where the scan seems to be one. ``scan``: ``digest_of_voxels``, empty
    where no label is used. ``seconds``: what it took to look.
    """

    case: CaseFingerprint
    segments: tuple[Segment, ...] | None
    notes: tuple[str, ...]
    compact: bool
    everywhere: np.ndarray
    around: np.ndarray
    scan: str
    seconds: float


def look_at(case: Case, channels: int, declared: Sequence[Segment]) -> Sighting:
    """Read a case and describe it; raises DataError where it cannot be used."""
    start = time.monotonic()
    volumes = read_case(case, channels)
    grid = volumes[0].grid
    label_map = read_case_labels(case, grid, declared) if uses_label(case) else None
    voxels: dict[str, int] = {}
    extent, compact, around = None, True, np.zeros((channels, BINS), np.int64)
    if label_map is not None:
        counts = count_values(label_map.array)
        voxels = {s.name: int(counts[s.label]) for s in label_map.segments}
        box = ndimage.find_objects((label_map.array > 0).view(np.uint8))[0]
        extent = _along_patient([(s.stop - s.start) * w for s, w in zip(box, grid.spacing)], grid)
        if case.role == "labeled":
            around, compact = _around(volumes, label_map, box), _is_compact(label_map)
    samples = [sample_voxels(volume.array, SAMPLE_VOXELS) for volume in volumes]
    statistics = tuple(_statistics(volume, values) for volume, values in zip(volumes, samples))
    histograms = np.stack([_histogram(values) for values in samples])
    size, spacing = _along_patient(grid.size, grid), _along_patient(grid.spacing, grid)
    return Sighting(
        CaseFingerprint(case.id, case.role, size, spacing, _orientation(grid), statistics, voxels, extent),
        None if label_map is None else label_map.segments,
        (*_like_labels(case.id, samples, histograms), *(() if label_map is None else label_map.notes)),
        compact,
        histograms,
        around,
        "" if label_map is None else digest_of_voxels(volume.array for volume in volumes),
        time.monotonic() - start,
    )


def digest_of_voxels(channels: Iterable[np.ndarray]) -> str:
    """Return what tells a scan from others by its grey values [x, y, z] alone, whatever file and type they are in.

    Neither names nor places count, nor in which order the slices are (Slicer reverses those of left-handed files): a
    scan that was moved, or saved in another format, is the same one still.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for array in channels:
        digest.update(f"{array.shape}".encode())
        slices = [_digest_of_slice(plane) for plane in array.T]  # as it lies in memory, and no copy of the whole
        digest.update(b"".join(min(slices, slices[::-1])))
    return digest.hexdigest()


def _digest_of_slice(plane: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(plane, np.dtype("<f4")).data, digest_size=DIGEST_BYTES).digest()


def _statistics(volume: Volume, values: np.ndarray) -> ChannelStatistics:
    """``values``: a sample of the volume's."""
    low, median, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    above = foreground(values)
    return ChannelStatistics(
        minimum=float(volume.array.min()),
        maximum=float(volume.array.max()),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        percentile_00_5=low,
        median=median,
        percentile_99_5=high,
        foreground_mean=float(above.mean(dtype=np.float64)),
        foreground_std=float(above.std(dtype=np.float64)),
        modality="CT" if looks_like_ct(values) else "MR",
    )


def _around(volumes: Sequence[Volume], label_map: LabelMap, box: tuple[slice, ...]) -> np.ndarray:
    reach = [max(1, round(_NEIGHBOURHOOD / step)) for step in label_map.grid.spacing]
    region = tuple(slice(max(s.start - r, 0), s.stop + r) for s, r in zip(box, reach))
    near = ndimage.maximum_filter(label_map.array[region] > 0, size=[2 * r + 1 for r in reach])
    found = [_histogram(volume.array[region][near]) for volume in volumes]
    # Every case weighs the same, however large its structures are.
    return np.stack([np.rint(counts * (SAMPLE_VOXELS / counts.sum())).astype(np.int64) for counts in found])


def _is_compact(label_map: LabelMap) -> bool:
    """Whether each segment that a case has is one compact piece."""
    for value, box in enumerate(ndimage.find_objects(label_map.array), 1):
        if box is None:
            continue
        inside = label_map.array[box] == value
        voxels = np.count_nonzero(inside)
        if voxels < _COMPACT_SHARE * inside.size:
            return False
        components, count = ndimage.label(inside)
        if int(count_values(components, count + 1)[1:].max()) < _ONE_COMPONENT_SHARE * voxels:
            return False
    return True


def _histogram(values: np.ndarray) -> np.ndarray:
    low, high = HU_RANGE
    return np.bincount(np.clip(np.rint(values), low, high).astype(np.int64).ravel() - low, minlength=high - low + 1)


def _like_labels(case: str, samples: Sequence[np.ndarray], histograms: np.ndarray) -> tuple[str, ...]:
    """Say so where a channel seems to be a label map: masks that lie in a folder of their own are listed as scans."""
    for values, counts in zip(samples, histograms):
        different = int(np.count_nonzero(counts))
        inside = HU_RANGE[0] <= values.min() and values.max() <= HU_RANGE[1]
        if inside and different <= _LABEL_VALUES and np.array_equal(values, np.rint(values)):
            return (
                f"Case {case} has {different} different grey values alone, as a label map has and no scan; if it is "
                "one, remove or exclude the case.",
            )
    return ()


def _along_patient(values: Sequence[float], grid: Grid) -> tuple:
    way = NetworkGrid.of(grid, Geometry((1.0, 1.0, 1.0), (1, 1, 1)))
    return tuple(values[axis] for axis in way.permutation)


def _orientation(grid: Grid) -> str:
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)
