"""Voxels in space. Without PyTorch: whoever only reads and writes files must not wait for it."""

from __future__ import annotations

from dataclasses import dataclass

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
