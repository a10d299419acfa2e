"""What every phantom is: a scan, its true label map, its grid, and the names of what is labelled."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..config import Segment, Triple
from ..data.grid import Grid

Size = Literal["small", "full"]
SIZES: tuple[Size, ...] = ("small", "full")


@dataclass(frozen=True, eq=False)
class Phantom:
    """``image`` uint8 (MR) or int16 (HU) [X, Y, Z], ``label`` uint8 [X, Y, Z] with the values of ``segments``."""

    image: np.ndarray
    label: np.ndarray
    grid: Grid
    segments: tuple[Segment, ...]
    modality: Literal["MR", "CT"]


def generator(seed: int, kind: str, index: int) -> np.random.Generator:
    """Return the generator of one case; it depends on its arguments alone, so cases can be made in any order."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(kind.encode("ascii")), index]))


def vary_size(rng: np.random.Generator, size: Triple) -> Triple:
    """Return ``size`` give or take a tenth along each axis."""
    x, y, z = (int(round(n * rng.uniform(0.92, 1.1))) for n in size)
    return x, y, z
