"""Distances to simple bodies, and painting them into a volume with partial volume at their borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .space import Space

#: Distances beyond this are not told apart (mm): tubes are only computed near themselves.
REACH = 8.0


def ellipsoid(
    points: np.ndarray, center: np.ndarray, radii: np.ndarray, rotation: np.ndarray | None = None
) -> np.ndarray:
    """Return about the signed distance [...] of ``points`` [3, ...] to an ellipsoid, negative inside, mm.

    The first-order estimate f / |grad f|: exact on the surface, good near it. ``rotation``: columns are the axes.
    """
    shape = points.shape[1:]
    relative = points.reshape(3, -1) - np.asarray(center, dtype=points.dtype)[:, None]
    if rotation is not None:
        relative = rotation.T.astype(points.dtype) @ relative
    relative = relative / np.asarray(radii, dtype=points.dtype)[:, None]
    norm = np.sqrt(np.einsum("ij,ij->j", relative, relative))
    relative /= np.asarray(radii, dtype=points.dtype)[:, None]
    slope = np.sqrt(np.einsum("ij,ij->j", relative, relative))
    return (norm * (norm - 1) / np.maximum(slope, np.float32(1e-6))).reshape(shape)


def smooth_union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """Return the distance to the union of two bodies, with a fillet of about ``blend`` mm where they meet."""
    share = np.clip(0.5 + 0.5 * (b - a) / blend, 0, 1)
    return b + (a - b) * share - np.float32(blend) * share * (1 - share)


@dataclass(frozen=True, eq=False)
class Tube:
    """A curved tube: ``nodes`` [n, 3] of its centreline (anatomical mm) and the ``radii`` [n] there."""

    nodes: np.ndarray
    radii: np.ndarray

    def distance(self, points: np.ndarray, space: Space, margin: float) -> np.ndarray:
        """Return the distance float32 [X, Y, Z] to the tube, at most REACH.

        ``points``: the voxels' positions, which may lie up to ``margin`` mm off ``space``'s own (a warp).
        """
        result = np.full(points.shape[1:], REACH, dtype=np.float32)
        ends = zip(self.nodes[:-1], self.nodes[1:], self.radii[:-1], self.radii[1:])
        for start, stop, first, last in ends:
            room = max(first, last) + REACH / 2 + margin
            window = space.window(np.minimum(start, stop) - room, np.maximum(start, stop) + room)
            if window is not None:
                near = _segment_distance(points[(slice(None), *window)], start, stop, first, last)
                np.minimum(result[window], near, out=result[window])
        return result

    def distance_at(self, points: np.ndarray) -> np.ndarray:
        """Return the distance [...] of a few ``points`` [3, ...] to the tube, wherever they lie."""
        ends = zip(self.nodes[:-1], self.nodes[1:], self.radii[:-1], self.radii[1:])
        return np.min([_segment_distance(points, *end) for end in ends], axis=0)

    def upto(self, length: float) -> Tube:
        """Return the part of the tube within ``length`` mm from its start."""
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(self.nodes, axis=0), axis=1))])
        count = max(2, int(np.searchsorted(along, length)))
        return Tube(self.nodes[:count], self.radii[:count])


def paint(image: np.ndarray, distance: np.ndarray, value: float | np.ndarray, softness: float) -> None:
    """Paint a body into ``image`` in place; voxels within ``softness`` / 2 of its border are mixed."""
    weight = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    image += weight * (value - image)


def _segment_distance(points: np.ndarray, start: np.ndarray, stop: np.ndarray, first: float, last: float) -> np.ndarray:
    start = start.astype(np.float32)
    axis = stop.astype(np.float32) - start
    relative = points - start.reshape(3, *[1] * (points.ndim - 1))
    along = np.tensordot(axis, relative, axes=1) / np.float32(max(float(axis @ axis), 1e-9))
    along = np.clip(along, 0, 1)
    squared = np.zeros_like(along)
    for i in range(3):
        squared += (relative[i] - along * axis[i]) ** 2
    return np.sqrt(squared) - (np.float32(first) + along * np.float32(last - first))
