"""Cleaning a segmentation on request: largest component, small islands, holes. Nothing is done unless asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Segment
from ..metrics import bounding_box


@dataclass(frozen=True)
class PostProcessing:
    """``smallest_island_ml``: parts of a segment below this volume are removed; 0 keeps all."""

    largest_component: bool = False
    smallest_island_ml: float = 0.0
    fill_holes: bool = False

    def __bool__(self) -> bool:
        return self.largest_component or self.smallest_island_ml > 0 or self.fill_holes


def clean(labels: np.ndarray, voxel_ml: float, segments: Sequence[Segment], wanted: PostProcessing) -> None:
    """Apply ``wanted`` to labels uint8 [X, Y, Z] in place, segment by segment.

    Parts of a segment hang together over faces, edges or corners: thin vessels run diagonally. A hole is background
    that a segment encloses over faces; other segments are never overwritten.
    """
    for segment in segments:
        box = bounding_box(labels == segment.label)
        if box is None:
            continue
        part = labels[box]
        if wanted.largest_component or wanted.smallest_island_ml > 0:
            _drop_parts(part, segment.label, voxel_ml, wanted)
        if wanted.fill_holes:
            _fill_holes(part, segment.label)


def _drop_parts(part: np.ndarray, label: int, voxel_ml: float, wanted: PostProcessing) -> None:
    from scipy import ndimage  # most predictions need none of this

    numbers, count = ndimage.label(part == label, np.ones((3, 3, 3), bool))
    sizes = np.zeros(count + 1, np.int64)
    for plane in numbers:  # bincount makes a copy of eight bytes a voxel
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    keep = sizes * voxel_ml >= wanted.smallest_island_ml
    if wanted.largest_component:
        largest = np.zeros_like(keep)
        largest[1 + int(np.argmax(sizes[1:]))] = True
        keep &= largest
    keep[0] = True
    part[~keep[numbers]] = 0


def _fill_holes(part: np.ndarray, label: int) -> None:
    from scipy import ndimage

    # A rim around the box joins all that lies outside.
    numbers, _ = ndimage.label(np.pad(part != label, 1, constant_values=True))
    enclosed = numbers[1:-1, 1:-1, 1:-1] != numbers[0, 0, 0]
    part[enclosed & (part == 0)] = label
