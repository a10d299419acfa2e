"""Wider fields of view than the left atria of the challenge have, with surroundings that are synthesised.

The published scans are cropped around the reference label, so no scan shows what a model makes of the rest of a chest.
Here a whole crop is laid anywhere into the tissue of another case, whose atrium is filled with what lies around it and
which is mirrored at its faces until it fills the field; lungs and the air around a body are darkened into it. All of
it is made up: it shows whether a model mistakes other bright structures, not how it does on a real wide scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from common import REPOSITORY  # noqa: F401  finds the engine
from scipy import ndimage

#: Widest blend between a crop and its surroundings, and the rim around a label that keeps its own voxels.
BLEND, RIM = 8, 3
#: Voxels around an atrium that are taken away with it: its wall.
WALL = 3
#: How dark lungs and air are, as a share of the tissue's grey values.
LUNGS, AIR = (0.1, 0.35), (0.0, 0.08)
#: Voxels between the values of a smooth random field.
COARSE = 48


@dataclass(frozen=True)
class Scan:
    """Grey values [x, y, z] and the structure's mask of the same shape."""

    image: np.ndarray
    mask: np.ndarray


def embedded(scan: Scan, donor: Scan, factors: tuple[float, float, float], rng: np.random.Generator) -> Scan:
    """Return ``scan`` anywhere in a field that is larger by ``factors``, among the tissue of ``donor``.

    The structure's voxels and mask are unchanged; the donor's structure is not in it. Grey values keep their type.
    """
    image = scan.image.astype(np.float32)
    size = tuple(round(n * f) for n, f in zip(image.shape, factors))
    field = surroundings(donor, size, rng)
    field = (field - field.mean()) / max(float(field.std()), 1e-6) * image.std() + image.mean()
    field = _darkened(np.maximum(field, 0.0), rng)
    start = [int(rng.integers(0, m - n + 1)) for n, m in zip(image.shape, size)]
    box = tuple(slice(s, s + n) for s, n in zip(start, image.shape))
    own = _share_of_the_scan(scan.mask, [(s > 0, s + n < m) for s, n, m in zip(start, image.shape, size)])
    field[box] = own * image + (1.0 - own) * field[box]
    mask = np.zeros(size, dtype=bool)
    mask[box] = scan.mask
    return Scan(_as_type_of(scan.image, field), mask)


def surroundings(donor: Scan, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the donor's tissue without its structure, float32 of ``size``, mirrored at its faces to fill it."""
    tissue = without_structure(donor, rng)
    tissue = np.flip(tissue, [axis for axis in range(3) if rng.random() < 0.5])
    widths = []
    for n, m in zip(tissue.shape, size):
        before = int(rng.integers(0, max(m - n, 0) + 1))
        widths.append((before, max(m - n, 0) - before))
    padded = np.pad(tissue, widths, mode="symmetric")
    return padded[tuple(slice(0, m) for m in size)]


def without_structure(scan: Scan, rng: np.random.Generator) -> np.ndarray:
    """Return the scan, float32, with structure and wall filled by the mean around them and the tissue's own noise."""
    image = scan.image.astype(np.float32)
    hole = ndimage.binary_dilation(scan.mask, iterations=WALL)
    weight = (~hole).astype(np.float32)
    smooth = ndimage.gaussian_filter(image * weight, 6) / np.maximum(ndimage.gaussian_filter(weight, 6), 1e-3)
    texture = image - ndimage.gaussian_filter(image, 2)
    filled = image.copy()
    filled[hole] = smooth[hole] + rng.choice(texture[~hole], int(hole.sum()))
    return filled


def _darkened(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lungs where a smooth random field is high, and air outside of a body's outline, in most fields."""
    if rng.random() < 0.7:
        smooth = _smooth_noise(field.shape, rng)
        inside = _soft_step(smooth - np.quantile(smooth[::4, ::4, ::4], rng.uniform(0.5, 0.8)), 0.1)
        field = field * (1.0 - inside * (1.0 - rng.uniform(*LUNGS)))
    if rng.random() < 0.5:
        x, y = (np.linspace(-1, 1, n, dtype=np.float32) for n in field.shape[:2])
        radius = np.sqrt((x[:, None] / rng.uniform(0.8, 1.3)) ** 2 + (y[None] / rng.uniform(0.8, 1.3)) ** 2)
        outside = _soft_step(radius - 1.0, 0.01)[:, :, None]
        noise = rng.rayleigh(rng.uniform(*AIR) * float(field.mean()) + 1e-3, field.shape).astype(np.float32)
        field = (1.0 - outside) * field + outside * noise
    return field


def _smooth_noise(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    coarse = rng.standard_normal([n // COARSE + 3 for n in size]).astype(np.float32)
    fine = ndimage.zoom(coarse, [(n + COARSE) / m for n, m in zip(size, coarse.shape)], order=1)
    return fine[tuple(slice(0, n) for n in size)]


def _soft_step(values: np.ndarray, width: float) -> np.ndarray:
    return np.clip(values / width + 0.5, 0.0, 1.0).astype(np.float32)


def _share_of_the_scan(mask: np.ndarray, inner: list[tuple[bool, bool]]) -> np.ndarray:
    """1 within the scan, falling to its faces where there is something beyond (``inner``); 1 at the structure."""
    share = np.ones(mask.shape, dtype=np.float32)
    for axis, (first, last) in enumerate(inner):
        n = mask.shape[axis]
        ramp = np.ones(n, dtype=np.float32)
        rising = (np.arange(n) + 0.5) / BLEND
        if first:
            ramp = np.minimum(ramp, rising)
        if last:
            ramp = np.minimum(ramp, rising[::-1])
        share = np.minimum(share, ramp.reshape([-1 if i == axis else 1 for i in range(3)]))
    if not mask.any():
        return share
    near = ndimage.distance_transform_edt(~mask)
    return np.maximum(share, np.clip(1.0 - (near - RIM) / BLEND, 0.0, 1.0)).astype(np.float32)


def _as_type_of(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    if image.dtype.kind not in "iu":
        return values.astype(image.dtype)
    limits = np.iinfo(image.dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(image.dtype)
