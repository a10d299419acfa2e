"""Voxels in space. Without PyTorch: whoever only reads and writes files must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..config import Spacing, Triple


@dataclass(frozen=True)
class Grid:
    """Voxels in space as ITK describes them: LPS millimetres, ``direction`` row-major, its columns are the axes."""

    size: Triple
    spacing: Spacing
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def is_left_handed(self) -> bool:
        """Whether the axes are a left hand's, as in files in "radiological" order (LAS)."""
        return bool(np.linalg.det(np.reshape(self.direction, (3, 3))) < 0)

    def reversed(self) -> Grid:
        """Return the grid of the same voxels in the same places with the slices (third axis) in reverse order."""
        axes = np.reshape(self.direction, (3, 3))
        last = np.asarray(self.origin) + (self.size[2] - 1) * self.spacing[2] * axes[:, 2]
        turned = axes * (1.0, 1.0, -1.0)
        x, y, z = (float(c) for c in last)
        return replace(self, origin=(x, y, z), direction=tuple(float(c) for c in turned.ravel()))

    def right_handed(self) -> Grid:
        """Return the grid of the same voxels in the order in which Slicer has a file's: never left-handed."""
        return self.reversed() if self.is_left_handed else self


def right_handed(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Return voxels [X, Y, Z] on ``grid``, as a view, and the grid in right-handed order; every voxel stays in place.

    Slicer makes surfaces of a left-handed label map inside out.
    """
    return (array[:, :, ::-1], grid.reversed()) if grid.is_left_handed else (array, grid)
