"""A test case as one picture: three slices with contours and a view through the whole, a row for each training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.intensity import looks_like_ct, sample_voxels
from .cases import ComparedCase
from .style import PREDICTION, REFERENCE, as_written, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 11.0  # inches
_MATCH = (0.86, 0.88, 0.90)

#: An array [x, y, z] in LPS order -> the picture [row, column] as radiologists hang it.
_VIEWS: dict[str, tuple[int, bool]] = {"axial": (2, False), "coronal": (1, True), "sagittal": (0, True)}


def draw_case(case: ComparedCase, path: Path) -> Path:
    """Draw ``case`` as PNG; rows are the trainings in the order of ``case.predictions``."""
    low, high = _window(case.image)
    slices = {name: _busiest(case.reference, axis) for name, (axis, _) in _VIEWS.items()}
    widths = [_shape_mm(case, axis)[1] / _shape_mm(case, axis)[0] for axis, _ in _VIEWS.values()]
    widths.append(widths[1])
    row, caption = _WIDTH / sum(widths), 0.27
    rows = len(case.predictions)
    figure = new_figure(_WIDTH, rows * (row + caption), dark=True)
    for index, (name, prediction) in enumerate(case.predictions.items()):
        top = 1 - (index * (row + caption) + caption) / (rows * (row + caption))
        figure.text(0.004, top + 0.06 / (rows * (row + caption)), _caption(case, name), color="white", fontsize=9)
        left = 0.0
        for width, view in zip(widths, (*_VIEWS, "through")):
            share = width / sum(widths)
            box = (left, top - row / (rows * (row + caption)), share * 0.993, row / (rows * (row + caption)))
            axes = figure.add_axes(box)
            if view == "through":
                _draw_through(axes, case, prediction)
            else:
                _draw_slice(axes, case, prediction, view, slices[view], (low, high))
            left += share
    return save(figure, path, dpi=105)


def _caption(case: ComparedCase, name: str) -> str:
    figures = case.figures[name]
    parts = (f"{segment}: Dice {v['dice']:.3f}, HD95 {v['hd95_mm']:.1f} mm" for segment, v in figures.items())
    return as_written(f"{name}   |   " + "   |   ".join(parts))


def _draw_slice(
    axes: Axes, case: ComparedCase, prediction: np.ndarray, view: str, index: int, window: tuple[float, float]
) -> None:
    axis, upward = _VIEWS[view]
    cut = _cutter(axis, index)
    height, width = _shape_mm(case, axis)
    axes.imshow(
        cut(case.image),
        cmap="gray",
        vmin=window[0],
        vmax=window[1],
        origin="lower" if upward else "upper",
        interpolation="bilinear",
        aspect="auto",
        extent=(0, width, 0, height) if upward else (0, width, height, 0),
    )
    for labels, color, line in ((case.reference, REFERENCE, 1.5), (prediction, PREDICTION, 1.1)):
        for value in np.unique(labels):
            mask = cut(labels) == value
            if value and mask.any():
                _contour(axes, mask, (width, height), color, line)
    axes.text(0.02, 0.03, view, color="#aab4bd", fontsize=7, transform=axes.transAxes)
    axes.axis("off")


def _contour(axes: Axes, mask: np.ndarray, size: tuple[float, float], color: str, line: float) -> None:
    """Draw the border of a mask [row, column]; the frame of zeros closes it at the picture's edge."""
    framed = np.pad(mask.astype(np.float32), 1)
    rows, columns = mask.shape
    x = (np.arange(columns + 2) - 0.5) * size[0] / columns
    y = (np.arange(rows + 2) - 0.5) * size[1] / rows
    axes.contour(x, y, framed, levels=[0.5], colors=[color], linewidths=line)


def _draw_through(axes: Axes, case: ComparedCase, prediction: np.ndarray) -> None:
    """Look through both segmentations from the front: what agrees, what is missed, what is too much."""
    wanted, found = case.reference > 0, prediction > 0
    right = wanted & (case.reference == prediction)
    thickness = [m.sum(axis=1).T.astype(float) for m in (right, wanted & ~right, found & ~right)]
    total = np.maximum(sum(thickness), 1e-9)
    colors = np.array([_MATCH, _rgb(REFERENCE), _rgb(PREDICTION)])
    mixed = sum(t[..., None] * c for t, c in zip(thickness, colors)) / total[..., None]
    deep = max(float(np.percentile(total[total > 0.5], 95)) if (total > 0.5).any() else 1.0, 1.0)
    light = np.where(total > 0.5, 0.4 + 0.6 * np.minimum(total / deep, 1), 0)
    axes.imshow(np.clip(mixed * light[..., None], 0, 1), origin="lower", aspect="auto", interpolation="nearest")
    axes.text(0.02, 0.03, "from the front, all of it", color="#aab4bd", fontsize=7, transform=axes.transAxes)
    axes.axis("off")


def _cutter(axis: int, index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.take(array, index, axis=axis).T


def _shape_mm(case: ComparedCase, axis: int) -> tuple[float, float]:
    """Height and width of a slice across ``axis``."""
    x, y = (a for a in range(3) if a != axis)
    return case.image.shape[y] * case.spacing[y], case.image.shape[x] * case.spacing[x]


def _busiest(reference: np.ndarray, axis: int) -> int:
    """The slice that shows most of the reference; the middle one where it is empty."""
    counts = np.count_nonzero(reference, axis=tuple(a for a in range(3) if a != axis))
    return int(counts.argmax()) if counts.any() else len(counts) // 2


def _window(image: np.ndarray) -> tuple[float, float]:
    """Soft tissue and contrast medium in CT; nearly the whole range in MR."""
    values = sample_voxels(image)
    if looks_like_ct(values):
        return -200.0, 600.0
    low, high = np.percentile(values, (0.5, 99.7))
    return float(low), float(max(high, low + 1e-6))


def _rgb(color: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(color)
