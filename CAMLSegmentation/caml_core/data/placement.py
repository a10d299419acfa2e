"""Voxels put from one grid onto another one whose voxels coincide with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .grid import Grid

#: Voxels by which those of two grids may lie apart and still be the same; headers are rounded.
_SAME_VOXEL = 0.2


def place(array: np.ndarray, source: Grid, grid: Grid) -> tuple[np.ndarray | None, bool]:
    """Return values [X, Y, Z] on ``source`` moved onto ``grid`` by whole voxels, and whether both have the same voxels.

    Axes in another order or direction are put right, nothing is interpolated, and the kind of numbers stays. What lies
    outside of ``grid`` is cut off, what ``source`` lacks is 0. None where the voxels of both do not coincide.
    """
    found = _whole_steps(source, grid)
    if found is None:
        return None, False
    turn, first = found
    axes = np.abs(turn).argmax(axis=1)  # which axis of the source runs along each axis of the grid
    signs = turn[np.arange(3), axes]
    moved = array.transpose(axes)
    corner = first + np.where(signs < 0, -(np.asarray(moved.shape) - 1), 0)
    moved = moved[tuple(slice(None, None, int(s)) for s in signs)]
    low = np.maximum(corner, 0).astype(int)
    high = np.minimum(corner + moved.shape, grid.size).astype(int)
    if np.any(high <= low):
        return None, False
    result = np.zeros(tuple(grid.size), dtype=array.dtype, order="F")
    inside = tuple(slice(int(a - c), int(b - c)) for a, b, c in zip(low, high, corner))
    result[tuple(slice(a, b) for a, b in zip(low, high))] = moved[inside]
    return result, moved.shape == result.shape and not np.any(corner)


def joined(a: Grid, b: Grid) -> Grid | None:
    """Return the smallest grid, along the axes of ``a``, that has the voxels of both.

    None where these do not coincide, or no voxel is common to both: they hardly are of one scan then.
    """
    found = _whole_steps(b, a)
    if found is None:
        return None
    turn, first = found
    ends = np.stack([first, first + turn @ (np.asarray(b.size) - 1)])
    last = np.asarray(a.size) - 1
    if np.any(ends.max(axis=0) < 0) or np.any(ends.min(axis=0) > last):
        return None
    low, high = np.minimum(ends.min(axis=0), 0), np.maximum(ends.max(axis=0), last)
    steps = np.reshape(a.direction, (3, 3)) * np.asarray(a.spacing)
    x, y, z = (float(c) for c in np.asarray(a.origin) + steps @ low)
    columns, rows, slices = (int(n) for n in high - low + 1)
    return replace(a, size=(columns, rows, slices), origin=(x, y, z))


def _whole_steps(source: Grid, grid: Grid) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how the index steps of ``source`` run in those of ``grid`` [3, 3], and where its first voxel lies there.

    None where that are no whole voxels.
    """
    to_index = np.linalg.inv(np.reshape(grid.direction, (3, 3)) * np.asarray(grid.spacing))
    step = to_index @ (np.reshape(source.direction, (3, 3)) * np.asarray(source.spacing))
    start = to_index @ np.subtract(source.origin, grid.origin)
    turn, first = np.rint(step), np.rint(start)
    far = np.abs(step - turn) @ np.asarray(source.size) + np.abs(start - first)
    if far.max() > _SAME_VOXEL:
        return None
    if not np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) or abs(np.linalg.det(turn)) != 1:
        return None
    return turn, first
