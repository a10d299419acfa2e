"""Cleaning a segmentation: the largest component where the model's labels were in one piece, or what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..config import ModelSpec, Segment
from ..data.counting import count_values
from ..metrics import bounding_box


@dataclass(frozen=True)
class PostProcessing:
    """``smallest_island_ml``: parts of a segment below this volume are removed; 0 keeps all.

    ``largest_component``: keep nothing else of each segment; None: where all the model's labels were like that.
    """

    largest_component: bool | None = None
    smallest_island_ml: float = 0.0
    fill_holes: bool = False

    def __bool__(self) -> bool:
        return bool(self.largest_component) or self.smallest_island_ml > 0 or self.fill_holes

    def for_model(self, spec: ModelSpec) -> PostProcessing:
        """Return what is done to segmentations of a model, with nothing left to it."""
        return replace(self, largest_component=spec.one_component) if self.largest_component is None else self


#: What the model's own labels call for, and nothing else.
BY_MODEL = PostProcessing()


def clean(labels: np.ndarray, voxel_ml: float, segments: Sequence[Segment], wanted: PostProcessing) -> dict[str, float]:
    """Apply ``wanted`` to labels uint8 [X, Y, Z] in place, segment by segment; return the mL removed from each.

    Segments that lost nothing are not in the result.
    Parts of a segment hang together over faces, edges or corners: thin vessels run diagonally. A hole is background
    that a segment encloses over faces; other segments are never overwritten.
    """
    removed: dict[str, float] = {}
    for segment in segments:
        box = bounding_box(labels == segment.label)
        if box is None:
            continue
        part = labels[box]
        if wanted.largest_component or wanted.smallest_island_ml > 0:
            dropped = _drop_parts(part, segment.label, voxel_ml, wanted)
            if dropped:
                removed[segment.name] = dropped * voxel_ml
        if wanted.fill_holes:
            _fill_holes(part, segment.label)
    return removed


def _drop_parts(part: np.ndarray, label: int, voxel_ml: float, wanted: PostProcessing) -> int:
    from scipy import ndimage  # most predictions need none of this

    numbers, count = ndimage.label(part == label, np.ones((3, 3, 3), bool))
    sizes = count_values(numbers, count + 1)
    keep = sizes * voxel_ml >= wanted.smallest_island_ml
    if wanted.largest_component:
        largest = np.zeros_like(keep)
        largest[1 + int(np.argmax(sizes[1:]))] = True
        keep &= largest
    keep[0] = True
    part[~keep[numbers]] = 0
    return int(sizes[~keep].sum())


def _fill_holes(part: np.ndarray, label: int) -> None:
    from scipy import ndimage

    # A rim around the box joins all that lies outside.
    numbers, _ = ndimage.label(np.pad(part != label, 1, constant_values=True))
    enclosed = numbers[1:-1, 1:-1, 1:-1] != numbers[0, 0, 0]
    part[enclosed & (part == 0)] = label
