"""How well a segmentation meets its reference: overlap and surface distances, in millimetres and in voxels.

A surface is the set of voxels of a segment that touch, over a face, something else or the image's edge; distances run
between the centres of surface voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .config import Segment, Spacing
from .errors import DataError

#: Names of :func:`case_metrics`, those of the distances once with _mm and once with _voxel.
OVERLAPS = ("dice", "jaccard")
DISTANCES = ("hd95", "hd95_pooled", "assd", "asd")
UNITS = ("mm", "voxel")
#: The order of columns in tables.
COLUMNS = (*OVERLAPS, *(f"{name}_{unit}" for unit in UNITS for name in DISTANCES))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces, in the unit of the spacing given.

    ``hd95``: the larger of both directions' 95th percentiles. ``hd95_pooled``: the 95th percentile of both directions
    taken together, as MedPy and most published tables have it. ``assd``: mean over both directions' distances taken
    together. ``asd``: mean from the prediction's surface to the reference's, one direction only, as in CAML's tables.
    """

    hd95: float
    hd95_pooled: float
    assd: float
    asd: float


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks of equal shape; 1 where both are empty."""
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return float(2.0 * np.count_nonzero(np.logical_and(prediction, reference)) / total) if total else 1.0


def jaccard(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Return |A and B| / |A or B| of two masks of equal shape; 1 where both are empty."""
    overlap = dice(prediction, reference)
    return overlap / (2.0 - overlap)


def surface_distances(prediction: np.ndarray, reference: np.ndarray, spacing: Spacing) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks [X, Y, Z].

    Two empty masks are at distance 0. Where only one is empty every distance is the image's diagonal, the worst that
    a segmentation on this grid can reach: a missed structure must never look perfect.
    """
    box = bounding_box(np.logical_or(prediction, reference))
    if box is None:
        return SurfaceDistances(0.0, 0.0, 0.0, 0.0)
    if not prediction[box].any() or not reference[box].any():
        diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
        return SurfaceDistances(diagonal, diagonal, diagonal, diagonal)
    ours, theirs = (_surface_points(mask[box]) * np.asarray(spacing, float) for mask in (prediction, reference))
    there, back = _nearest(ours, theirs), _nearest(theirs, ours)
    both = np.concatenate([there, back])
    return SurfaceDistances(
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        hd95_pooled=float(np.percentile(both, 95)),
        assd=float(both.mean()),
        asd=float(there.mean()),
    )


def case_metrics(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Spacing,
    segments: Sequence[Segment],
    case_id: str = "",
) -> dict[str, dict[str, float]]:
    """Return segment name -> metrics of two label maps uint8 [X, Y, Z] on one grid; all values are finite.

    Keys are :data:`COLUMNS`, the volumes ``prediction_ml`` and ``reference_ml``, and the flags (0 or 1)
    ``missed`` (the reference has the segment, the prediction has nothing of it) and ``invented`` (the reverse).

    Raises:
        DataError: the label maps differ in size.
    """
    if prediction.shape != reference.shape:
        raise DataError(
            f"Case {case_id or '?'}: the prediction has {_size(prediction)} voxels and the reference "
            f"{_size(reference)}; compare label maps that lie on the same grid.",
            case_id or None,
        )
    voxel_ml = float(np.prod(spacing)) / 1000.0
    return {
        segment.name: _segment_metrics(prediction == segment.label, reference == segment.label, spacing, voxel_ml)
        for segment in segments
    }


def summarize(rows: Iterable[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return column -> {mean, std} over cases (std of the sample, 0 for one case), and ``count`` of the flags."""
    table = list(rows)
    result: dict[str, dict[str, float]] = {}
    for column in table[0] if table else ():
        values = np.array([row[column] for row in table], dtype=float)
        if column in ("missed", "invented"):
            result[column] = {"count": float(values.sum())}
        else:
            result[column] = {
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            }
    return result


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the slices of the smallest box around a mask [X, Y, Z], None where it is empty."""
    sides = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(i for i in range(mask.ndim) if i != axis)))
        if not occupied.size:
            return None
        sides.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(sides)


def _segment_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing: Spacing, voxel_ml: float
) -> dict[str, float]:
    ours, theirs = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    metrics = {"dice": dice(prediction, reference), "jaccard": jaccard(prediction, reference)}
    for unit, steps in (("mm", spacing), ("voxel", (1.0, 1.0, 1.0))):
        distances = surface_distances(prediction, reference, steps)
        metrics |= {f"{name}_{unit}": getattr(distances, name) for name in DISTANCES}
    metrics |= {"prediction_ml": ours * voxel_ml, "reference_ml": theirs * voxel_ml}
    return metrics | {"missed": float(not ours and theirs > 0), "invented": float(not theirs and ours > 0)}


def _surface_points(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage  # the trainer needs Dice alone

    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _nearest(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the distance of each point to the nearest target. A tree of surface points is smaller than a map."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(targets).query(points)[0])


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))
