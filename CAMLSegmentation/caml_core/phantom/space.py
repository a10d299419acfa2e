"""Where a phantom's voxels lie: a random scanner grid around the anatomy, and smooth random fields on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..config import Spacing, Triple
from ..data.grid import Grid

#: Signs of the grid's axes against LPS: as scanners (LPS), NIfTI tools (RAS) and older archives (feet first) store.
_AXIS_SIGNS = ((1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, 1, -1), (-1, 1, 1))


@dataclass(frozen=True, eq=False)
class Space:
    """A grid and the anatomy's pose on it. ``matrix`` and ``offset`` take voxel indices to anatomical mm.

    Anatomical axes are LPS (left, posterior, superior) with the organ of interest near the origin.
    """

    grid: Grid
    matrix: np.ndarray
    offset: np.ndarray

    def points(self) -> np.ndarray:
        """Return the anatomical position of every voxel centre, float32 [3, X, Y, Z], mm."""
        axes = [np.arange(n, dtype=np.float32) for n in self.grid.size]
        columns = self.matrix.astype(np.float32)
        offset = self.offset.astype(np.float32)
        x, y, z = np.ix_(*axes)
        return np.stack([columns[i, 0] * x + columns[i, 1] * y + (columns[i, 2] * z + offset[i]) for i in range(3)])

    def window(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice] | None:
        """Return the voxels that hold the anatomical box ``low`` .. ``high``; None where it lies outside."""
        corners = np.array([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        index = (corners - self.offset) @ np.linalg.inv(self.matrix).T
        starts = np.maximum(np.floor(index.min(axis=0)).astype(int), 0)
        stops = np.minimum(np.ceil(index.max(axis=0)).astype(int) + 1, self.grid.size)
        if np.any(starts >= stops):
            return None
        x, y, z = (slice(int(a), int(b)) for a, b in zip(starts, stops))
        return x, y, z

    def field(self, rng: np.random.Generator, wavelength: float, modes: int = 10) -> np.ndarray:
        """Return a smooth random field float32 [X, Y, Z] of mean about 0 and standard deviation about 1.

        A sum of plane waves of ``wavelength`` mm to twice that. On a regular grid each wave is the product of three
        one-dimensional ones, so a field costs a few multiplications a voxel.
        """
        total = np.zeros(self.grid.size, dtype=np.float32)
        for _ in range(modes):
            direction = rng.normal(size=3)
            wave = 2 * np.pi * direction / np.linalg.norm(direction) / (wavelength * rng.uniform(1.0, 2.0))
            steps = wave @ self.matrix
            phase = wave @ self.offset + rng.uniform(0, 2 * np.pi)
            x, y, z = (np.exp(1j * step * np.arange(n)) for step, n in zip(steps, self.grid.size))
            plane = (np.exp(1j * phase) * x[:, None] * y[None, :]).astype(np.complex64)
            line = z.astype(np.complex64)
            total += plane.real[..., None] * line.real - plane.imag[..., None] * line.imag
        return total * np.float32(np.sqrt(2.0 / modes))

    def warped(self, rng: np.random.Generator, amplitude: float, wavelength: float) -> np.ndarray:
        """Return :meth:`points` displaced smoothly by about ``amplitude`` mm (standard deviation along each axis)."""
        points = self.points()
        for axis in range(3):
            points[axis] += np.float32(amplitude) * self.field(rng, wavelength, modes=8)
        return points


def random_space(
    rng: np.random.Generator,
    size: Triple,
    spacing: Spacing,
    center: tuple[float, float, float],
    scale: float,
    pose_degrees: float,
    shift: float,
) -> Space:
    """Return a slightly oblique grid of ``size`` voxels around ``center`` of the anatomy (anatomical mm).

    ``scale`` enlarges the anatomy, ``pose_degrees`` turns it, ``shift`` moves the field of view (mm, at most).
    """
    signs = np.diag(_AXIS_SIGNS[rng.integers(len(_AXIS_SIGNS))])
    oblique = Rotation.from_rotvec(np.radians(rng.uniform(-5, 5, size=3))).as_matrix()
    direction = oblique @ signs
    middle = rng.uniform(-40, 40, size=3)
    steps = direction * np.asarray(spacing)
    origin = middle - steps @ ((np.asarray(size) - 1) / 2)
    grid = Grid(
        size,
        spacing,
        (float(origin[0]), float(origin[1]), float(origin[2])),
        tuple(float(v) for v in direction.ravel()),
    )
    pose = Rotation.from_rotvec(np.radians(rng.uniform(-pose_degrees, pose_degrees, size=3))).as_matrix()
    focus = np.asarray(center) + rng.uniform(-shift, shift, size=3)
    matrix = pose @ steps / scale
    return Space(grid, matrix, focus - matrix @ ((np.asarray(size) - 1) / 2))
