"""From any scan's grid to the network's grid and back: axis permutation, flips, and resampling along the scan's axes.

The scan is never rotated: an oblique scan stays oblique, its axes are only renamed to the nearest patient axes.
Both grids cover the same field of view, edge to edge (half-voxel convention).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..config import Geometry, Spacing, Triple
from .grid import Grid

#: Letter -> (patient axis, sign) in ITK's LPS coordinates; a letter names the side that an axis points to.
_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
#: Floats of one chunk while resampling: 16 MB, large enough for the matrix products, small beside a scan.
_CHUNK = 4 * 2**20
#: Output positions that share one dense block of weights; a wide band of zeros would waste products.
_BLOCK = 32


@dataclass(frozen=True)
class NetworkGrid:
    """The way from a source grid to the network's grid and back.

    Oriented axis ``i`` is source axis ``permutation[i]``, reversed where ``flips[i]``; ``oriented_size`` counts
    source voxels, ``size`` network voxels along the oriented axes.
    """

    source: Grid
    permutation: Triple
    flips: tuple[bool, bool, bool]
    oriented_size: Triple
    size: Triple

    @classmethod
    def of(cls, source: Grid, geometry: Geometry) -> NetworkGrid:
        """Return the way from ``source`` to ``geometry``'s orientation and spacing."""
        permutation, flips = _nearest_axes(source.direction, geometry.orientation)
        x, y, z = (source.size[axis] for axis in permutation)
        millimetres = (source.size[axis] * source.spacing[axis] for axis in permutation)
        i, j, k = (max(1, round(length / step)) for length, step in zip(millimetres, geometry.spacing))
        return cls(source, permutation, flips, (x, y, z), (i, j, k))

    @property
    def spacing(self) -> Spacing:
        """The network voxels' true spacing in mm: the field of view divided by a whole number of voxels."""
        x, y, z = (
            self.source.spacing[axis] * old / new
            for axis, old, new in zip(self.permutation, self.oriented_size, self.size)
        )
        return x, y, z

    def orient(self, array: np.ndarray) -> np.ndarray:
        """Return a view of ``array`` [X, Y, Z] with the oriented axes; writing to it writes to ``array``."""
        return array.transpose(self.permutation)[_flip_slices(self.flips)]

    def unorient(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an oriented array with the source's axes: the exact inverse of :meth:`orient`."""
        return array[_flip_slices(self.flips)].transpose(_inverse(self.permutation))

    def image_to_network(self, array: np.ndarray) -> np.ndarray:
        """Return ``array`` [X, Y, Z] as float32 [x, y, z] on the network's grid, by antialiased linear resampling.

        Each axis has a triangle filter as wide as the larger of both voxels. At equal size nothing is computed.
        """
        return _resample(self.orient(array), self.size)

    def labels_to_network(self, array: np.ndarray, classes: int) -> np.ndarray:
        """Return a label map [X, Y, Z] as uint8 [x, y, z] on the network's grid. ``classes`` counts the background.

        Every class is resampled like an image. A voxel is foreground where all foreground classes together reach
        one half, and takes the strongest of them. What is thinner than a network voxel never reaches one half and
        would vanish: where a network voxel contains voxels of a class, and neither it nor its 26 neighbours got that
        class, it is given to that class. Thick structures are not touched by this, thin ones stay in one piece.
        """
        oriented = self.orient(array)
        if self.size == self.oriented_size:
            return np.array(oriented, dtype=np.uint8)
        total = np.zeros(self.size, np.float32)
        best = np.zeros(self.size, np.float32)
        strongest = np.zeros(self.size, np.uint8)
        for label in range(1, classes):
            mask = oriented == label
            if mask.any():
                share = _resample(mask, self.size)
                total += share
                wins = share > best
                strongest[wins] = label
                np.maximum(best, share, out=best)
        # The tolerance keeps a face in the middle of a voxel from depending on the order of additions.
        result = np.where(total >= 0.5 - 1e-4, strongest, np.uint8(0))
        if any(new < old for new, old in zip(self.size, self.oriented_size)):
            _rescue_thin(result, oriented, strongest, classes)
        return result

    def rows_needed(self, start: int, stop: int, axis: int = 0) -> tuple[int, int]:
        """Return the network rows [first, last) along ``axis`` that the oriented rows [start, stop) depend on."""
        first, last, _ = _weights(self.size[axis], self.oriented_size[axis], start, stop)
        return first, last

    def rows_complete(self, finished: int, axis: int = 0) -> int:
        """Return how many oriented rows along ``axis`` depend on the first ``finished`` network rows alone."""
        return _rows_complete(self.size[axis], self.oriented_size[axis], finished)

    def upsample_rows(self, block: Tensor, first: int, start: int, stop: int, axis: int = 0) -> Tensor:
        """Return the oriented rows [start, stop) along ``axis`` of a map on the network's grid, on its device.

        ``block`` float [C, rows, p, q]: the map's rows from number ``first`` on; p and q are the other two axes in
        order. It must hold :meth:`rows_needed`. Returns float [C, stop - start, P, Q] with source voxels.
        """
        low, high, weights = _weights(self.size[axis], self.oriented_size[axis], start, stop)
        middle, last = (i for i in range(3) if i != axis)
        rows = block[:, low - first : high - first]
        if self.size[axis] != self.oriented_size[axis]:
            rows = torch.einsum("or,crpq->copq", weights.to(rows), rows)
        rows = contract(rows, self.oriented_size[middle], 2)
        return contract(rows, self.oriented_size[last], 3)


def _nearest_axes(direction: tuple[float, ...], orientation: str) -> tuple[Triple, tuple[bool, bool, bool]]:
    """Return the permutation and the flips that bring the axes nearest to ``orientation``."""
    matrix = np.asarray(direction, dtype=float).reshape(3, 3)
    wanted = [_LETTERS[letter] for letter in orientation]

    def closeness(axes: tuple[int, ...]) -> float:
        # Rounded, so that an axis half way between two patient axes does not depend on the last bit.
        return round(sum(abs(matrix[patient, axis]) for (patient, _), axis in zip(wanted, axes)), 6)

    i, j, k = max(itertools.permutations(range(3)), key=closeness)
    a, b, c = (bool(matrix[patient, axis] * sign < 0) for (patient, sign), axis in zip(wanted, (i, j, k)))
    return (i, j, k), (a, b, c)


def _flip_slices(flips: tuple[bool, bool, bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)


def _inverse(permutation: Triple) -> tuple[int, ...]:
    return tuple(permutation.index(axis) for axis in range(3))


def _weights(old: int, new: int, start: int, stop: int) -> tuple[int, int, Tensor]:
    """Return (first, last, weights): new positions [start, stop) are weights @ old positions [first, last)."""
    factor = old / new
    width = max(1.0, factor)
    centers = (np.arange(start, stop) + 0.5) * factor - 0.5
    first = max(0, int(np.ceil(centers[0] - width + 1e-9)))
    last = min(old, int(np.floor(centers[-1] + width - 1e-9)) + 1)
    weights = np.clip(1.0 - np.abs(np.arange(first, last) - centers[:, None]) / width, 0.0, None)
    # At the edges of the field of view the filter is cut off, what remains counts as the whole.
    weights /= weights.sum(axis=1, keepdims=True)
    return first, last, torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=64)
def _bands(old: int, new: int) -> tuple[tuple[int, int, int, int, Tensor], ...]:
    """Return (start, stop, first, last, weights) of all blocks of new positions."""
    starts = range(0, new, _BLOCK)
    return tuple((s, min(s + _BLOCK, new), *_weights(old, new, s, min(s + _BLOCK, new))) for s in starts)


@lru_cache(maxsize=16384)
def _rows_complete(old: int, new: int, finished: int) -> int:
    if finished >= old:
        return new
    low, high = 0, new
    while low < high:  # the last network row that a row needs grows with the row
        middle = (low + high) // 2
        if _weights(old, new, middle, middle + 1)[1] <= finished:
            low = middle + 1
        else:
            high = middle
    return low


def contract(array: Tensor, new: int, axis: int) -> Tensor:
    """Resample one axis of ``array`` to ``new`` positions by small matrix products; untouched at equal size."""
    old = array.shape[axis]
    if old == new:
        return array
    shape = [*array.shape[:axis], new, *array.shape[axis + 1 :]]
    if axis == array.ndim - 1:
        result = array.new_empty(shape)
        for start, stop, first, last, weights in _bands(old, new):
            # Not by out=: Metal's product does not write into a part of a tensor on some systems, without an error.
            result[..., start:stop] = torch.matmul(array[..., first:last], weights.to(array).T)
        return result
    flat = array.reshape(*array.shape[: axis + 1], -1)
    result = flat.new_empty(*shape[: axis + 1], flat.shape[-1])
    for start, stop, first, last, weights in _bands(old, new):
        result[..., start:stop, :] = torch.matmul(weights.to(flat), flat[..., first:last, :])
    return result.reshape(shape)


def _resample(array: np.ndarray, size: Triple) -> np.ndarray:
    """Resample a view [X, Y, Z] of any type and strides to float32 ``size``.

    The two faster axes are done chunk by chunk along the slowest one, so that no float copy of a scan is made.
    """
    if array.shape == size:
        return np.array(array, dtype=np.float32)
    slow, middle, fast = (int(i) for i in np.argsort([-abs(stride) for stride in array.strides], kind="stable"))
    ordered = array.transpose(slow, middle, fast)
    partly = torch.empty(ordered.shape[0], size[middle], size[fast])
    rows = max(1, _CHUNK // max(1, ordered.shape[1] * ordered.shape[2]))
    for start in range(0, ordered.shape[0], rows):
        chunk = torch.from_numpy(np.array(ordered[start : start + rows], dtype=np.float32, order="C"))
        partly[start : start + rows] = contract(contract(chunk, size[fast], 2), size[middle], 1)
    result = contract(partly, size[slow], 0).numpy()
    return result.transpose(_inverse((slow, middle, fast)))


def _rescue_thin(result: np.ndarray, oriented: np.ndarray, strongest: np.ndarray, classes: int) -> None:
    """Give network voxels back to structures too thin for the majority; see ``labels_to_network``."""
    from scipy import ndimage  # slow to import, needed by label maps alone

    found = result.copy()
    for label in range(1, classes):
        present = _contains(oriented == label, result.shape)
        if not present.any():
            continue
        near = ndimage.binary_dilation(found == label, np.ones((3, 3, 3), bool))
        lost = present & ~near
        # Where two thin structures share a network voxel the stronger one keeps it.
        result[lost & ((result == found) | (strongest == label))] = label


def _contains(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return for each network voxel whether ``mask`` is set in any source voxel whose centre lies inside it."""
    for axis, new in enumerate(size):
        old = mask.shape[axis]
        if new < old:
            starts = np.ceil(np.arange(new) * old / new - 0.5).astype(int).clip(0, old - 1)
            mask = np.logical_or.reduceat(mask, starts, axis=axis)
        elif new > old:
            mask = mask.take(((np.arange(new) + 0.5) * old / new).astype(int), axis=axis)
    return mask
