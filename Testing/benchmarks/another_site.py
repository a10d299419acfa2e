"""Left atria as another site might scan them: contrast, resolution, noise and cropping changed, by simulation.

What is changed is the same for all cases of the site; how much of it varies a little from case to case.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from common import REPOSITORY  # noqa: F401  finds the engine
from scipy import ndimage
from wide_fields import read_scan

from caml_core.anatomy import LEFT_ATRIUM
from caml_core.config import Spacing
from caml_core.data.case import Case
from caml_core.data.grid import Grid
from caml_core.data.io import write_image
from caml_core.data.labels import write_labels

#: Millimetres of the site's voxels.
SPACING: Spacing = (1.0, 1.0, 2.5)
#: Sensitivity of the coil over the field, noise as a share of the bright voxels, most of a side that is cut off.
SHADING, NOISE, CROPPING = 0.35, (0.04, 0.07), 0.15
#: Voxels around the atrium that are never cut off.
MARGIN = 4
_SEED = 31
#: The grey value that stands for the brightest tissue.
_TOP = 1000.0


def rescanned(case: Case, folder: Path) -> Case:
    """Return a copy of a labelled case as the other site would have it; its files are written once.

    ``role`` and label stay. Each case is changed in the same way every time.
    """
    image, label = folder / f"{case.id}_image.nii.gz", folder / f"{case.id}_label.nii.gz"
    if not (image.is_file() and label.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        scan, grid = read_scan(case)
        rng = np.random.default_rng([_SEED, *case.id.encode()])
        array, mask, new = changed(scan.image, scan.mask, grid, rng)
        write_labels(label, mask, new, (LEFT_ATRIUM,))
        write_image(image, array, new)
    return dataclasses.replace(case, images=(image,), label=label)


def changed(
    image: np.ndarray, mask: np.ndarray, grid: Grid, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """Return grey values int16 and mask [x, y, z] on the site's grid. The whole structure stays in the field."""
    start, end = _cropped(mask, rng)
    box = tuple(slice(a, b) for a, b in zip(start, end))
    values = image[box].astype(np.float32)
    values = np.clip((values - values.min()) / max(float(np.percentile(values, 99.5) - values.min()), 1e-6), 0, 1)
    values = _other_contrast(values, rng)
    factors = [own / new for own, new in zip(grid.spacing, SPACING)]
    thick = ndimage.gaussian_filter(values, [0.4 / f if f < 1 else 0.0 for f in factors])
    values = ndimage.zoom(thick, factors, order=1, grid_mode=True, mode="nearest")
    share = ndimage.zoom(mask[box].astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    values = values * _shading(values.shape, rng)
    sigma = rng.uniform(*NOISE)
    real, imaginary = (rng.normal(0, sigma, values.shape).astype(np.float32) for _ in range(2))
    values = np.hypot(values + real, imaginary)  # magnitude images have Rician noise
    origin = tuple(o + d * s + (new - s) / 2 for o, d, s, new in zip(grid.origin, start, grid.spacing, SPACING))
    array = np.rint(_TOP * values).astype(np.int16)
    return array, share >= 0.5, dataclasses.replace(grid, size=array.shape, spacing=SPACING, origin=origin)


def _other_contrast(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blood no longer brighter than everything else: grey values 0-1 rise, and fall again towards the brightest."""
    gamma, fall = rng.uniform(0.6, 0.8), rng.uniform(0.55, 0.7)
    return values**gamma * (1.0 - fall * values)


def _shading(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    direction = rng.normal(size=3)
    direction *= SHADING / np.abs(direction).sum()
    return np.exp(sum(float(d) * axis for d, axis in zip(direction, axes)))


def _cropped(mask: np.ndarray, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """First voxels, and those after the last, of a tighter field that keeps the structure with a margin."""
    places = np.argwhere(mask)
    low, high = places.min(0) - MARGIN, places.max(0) + 1 + MARGIN
    start, end = [], []
    for axis, n in enumerate(mask.shape):
        cuts = rng.uniform(0, CROPPING, 2) * n
        start.append(int(np.clip(min(cuts[0], low[axis]), 0, n)))
        end.append(int(np.clip(max(n - cuts[1], high[axis]), 0, n)))
    return start, end
