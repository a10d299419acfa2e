"""How often each value occurs in a volume of small whole numbers."""

from __future__ import annotations

import numpy as np


def count_values(array: np.ndarray, length: int = 256) -> np.ndarray:
    """Return int64 [length]: the voxels of each value 0 .. length - 1 of an array of integers, of any layout.

    One plane at a time, as they follow each other in memory: ``np.bincount`` makes a copy of eight bytes a voxel, which
    of a large scan are gigabytes. A value beyond ``length`` raises ValueError.
    """
    counts = np.zeros(length, np.int64)
    for plane in array.transpose(np.argsort([-abs(stride) for stride in array.strides])):
        counts += np.bincount(plane.ravel(), minlength=length)
    return counts
