"""Overlapping windows that walk along one axis of a volume and hand on finished rows.

Sums are kept for one window's depth of the volume, never for all of it: memory does not grow with its length.
MONAI's ``sliding_window_inference`` is the peer that tests and benchmarks compare with (docs/architecture.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..config import Triple

Weighting = Literal["gaussian", "uniform"]
#: One window [1, C, *window] -> maps float32 [M, *window], such as class probabilities.
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """Windows of one size over a volume of ``size`` voxels; ``starts``: their first voxels along each axis.

    A window larger than the volume begins before it: what lies outside is 0, the mean of a normalised image.
    """

    size: Triple
    window: Triple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def count(self) -> int:
        """How many windows there are."""
        return math.prod(len(axis) for axis in self.starts)

    @property
    def axis(self) -> int:
        """The axis to walk along: the longest, so that the rows to keep are the smallest."""
        return max(range(3), key=lambda axis: (self.size[axis], axis))


def fitted_windows(size: Triple, patch: Triple, divisor: Triple, overlap: float, stretch: float = 1.5) -> Windows:
    """Return the fewest windows that overlap by a share of at least ``overlap``, evenly spread.

    A window may be up to ``stretch`` times the training patch and is no larger than its share of the volume needs:
    the network is fully convolutional, and a side a little longer than the patch often saves a whole row of windows.
    """
    if not 0 <= overlap < 1:
        msg = f"overlap must be at least 0 and less than 1, got {overlap}"
        raise ValueError(msg)
    sides = [_fit(n, p, d, overlap, stretch) for n, p, d in zip(size, patch, divisor)]
    (a, i), (b, j), (c, k) = ((side, _spread(n, side, count)) for n, (side, count) in zip(size, sides))
    return Windows(size, (a, b, c), (i, j, k))


def strided_windows(size: Triple, window: Triple, stride: Triple) -> Windows:
    """Return windows at multiples of ``stride``, the last one moved back to the volume's end (published protocol)."""
    if min(stride) < 1:
        msg = f"stride must be positive, got {stride}"
        raise ValueError(msg)
    if any(s > w for s, w in zip(stride, window)):
        msg = f"stride {stride} is longer than the window {window} and would leave voxels out"
        raise ValueError(msg)
    i, j, k = (_strided(n, w, s) for n, w, s in zip(size, window, stride))
    return Windows(size, window, (i, j, k))


def importance(window: Triple, weighting: Weighting) -> Tensor:
    """Return the weight of each voxel of a window, float32 [*window].

    ``gaussian``: standard deviation of an eighth of each side, nowhere below 1e-3, so that the volume's own corners,
    which one window alone may see, keep a weight. ``uniform``: 1 everywhere.
    """
    weights = torch.ones(window)
    if weighting == "gaussian":
        for axis, side in enumerate(window):
            position = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
            bell = torch.exp(-0.5 * (position / (side / 8)) ** 2)
            weights *= bell.reshape([-1 if i == axis else 1 for i in range(3)])
        weights.clamp_(min=1e-3)
    return weights


def sweep(
    image: Tensor,
    windows: Windows,
    forward: Forward,
    maps: int,
    *,
    weighting: Weighting = "gaussian",
    device: str = "cpu",
    axis: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, rows float32 [maps, rows, p, q]) along ``axis`` in order, each row once, until all are done.

    image: float [C, x, y, z] anywhere; windows of it and the sums are on ``device``. p and q are the other two axes in
    order. Rows are the windows' weighted mean. ``forward`` may raise to end the sweep.
    """
    axis = windows.axis if axis is None else axis
    middle, last = (i for i in range(3) if i != axis)
    size = windows.size
    weights = importance(windows.window, weighting).to(device)
    moved = weights.movedim(axis, 0)
    depth = min(windows.window[axis], size[axis])
    total = torch.zeros(maps, depth, size[middle], size[last], device=device)
    share = torch.zeros(depth, size[middle], size[last], device=device)
    starts = windows.starts[axis]
    for number, start in enumerate(starts):
        base = max(start, 0)
        for place in itertools.product(*(windows.starts[i] if i != axis else (start,) for i in range(3))):
            result = forward(_cut(image, place, windows.window, device)).movedim(1 + axis, 1)
            inner, outer = _valid(place, windows.window, size)
            target = (slice(0, depth), outer[middle], outer[last])
            source = (inner[axis], inner[middle], inner[last])
            total[(slice(None), *target)].addcmul_(result[(slice(None), *source)], moved[source])
            share[target] += moved[source]
        finished = (max(starts[number + 1], 0) if number + 1 < len(starts) else size[axis]) - base
        yield base, total[:, :finished] / share[:finished]
        _forget(total, finished, 1)
        _forget(share, finished, 0)


def sums_bytes(windows: Windows, maps: int) -> int:
    """Return about how many bytes ``sweep`` takes beside the network: the sums, finished rows and what is cleared."""
    rows = min(windows.window[windows.axis], windows.size[windows.axis])
    others = math.prod(n for axis, n in enumerate(windows.size) if axis != windows.axis)
    return 3 * 4 * (maps + 1) * rows * others


def stitch(
    image: Tensor, windows: Windows, forward: Forward, *, device: str = "cpu"
) -> Iterator[tuple[tuple[slice, slice, slice], Tensor]]:
    """Yield (box of the volume, what ``forward`` makes of it, [maps, *box]), until each voxel was there once.

    A voxel is that of the window in whose middle it lies most; nothing is blended, and no sums are kept. image,
    device, ``forward``: as in ``sweep``.
    """
    owned = [_owned(*axis) for axis in zip(windows.size, windows.window, windows.starts)]
    for parts in itertools.product(*(zip(starts, spans) for starts, spans in zip(windows.starts, owned))):
        place = tuple(start for start, _ in parts)
        x, y, z = (slice(*span) for _, span in parts)
        inner = (slice(low - start, high - start) for start, (low, high) in parts)
        yield (x, y, z), forward(_cut(image, place, windows.window, device))[(slice(None), *inner)]


def _owned(size: int, side: int, starts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the voxels along an axis that lie in the middle of each window most, as (first, end)."""
    cuts = [(a + side + b) // 2 for a, b in itertools.pairwise(starts)]
    return list(zip([0, *cuts], [*cuts, size]))


def _fit(size: int, patch: int, divisor: int, overlap: float, stretch: float) -> tuple[int, int]:
    """Return (side, number) of the windows along one axis."""
    largest = max(patch, math.floor(patch * stretch / divisor) * divisor)
    for number in itertools.count(1):
        side = math.ceil(size / (number - (number - 1) * overlap) / divisor - 1e-9) * divisor
        if side <= largest:
            return side, number
    raise AssertionError  # the side falls with the number


def _spread(size: int, side: int, number: int) -> tuple[int, ...]:
    if side >= size:
        return (-((side - size) // 2),)
    return tuple(round(i * (size - side) / (number - 1)) for i in range(number))


def _strided(size: int, side: int, stride: int) -> tuple[int, ...]:
    if side >= size:
        return (-((side - size) // 2),)
    return tuple(min(i * stride, size - side) for i in range(math.ceil((size - side) / stride) + 1))


def _valid(place: tuple[int, ...], window: Triple, size: Triple) -> tuple[list[slice], list[slice]]:
    """Return the part of a window that lies in the volume: in the window's voxels, and in the volume's."""
    low = [max(start, 0) for start in place]
    high = [min(start + side, n) for start, side, n in zip(place, window, size)]
    inner = [slice(a - start, b - start) for a, b, start in zip(low, high, place)]
    return inner, [slice(a, b) for a, b in zip(low, high)]


def _cut(image: Tensor, place: tuple[int, ...], window: Triple, device: str) -> Tensor:
    inner, outer = _valid(place, window, (image.shape[1], image.shape[2], image.shape[3]))
    piece = image[(slice(None), *outer)]
    if tuple(piece.shape[1:]) != window:
        whole = image.new_zeros(image.shape[0], *window)
        whole[(slice(None), *inner)] = piece
        piece = whole
    return piece[None].to(device)


def _forget(rows: Tensor, number: int, axis: int) -> None:
    """Move what follows the first ``number`` rows to the front and clear the rest."""
    kept = rows.shape[axis] - number
    if kept > 0:
        rows.narrow(axis, 0, kept).copy_(rows.narrow(axis, number, kept).clone())
    rows.narrow(axis, max(kept, 0), min(number, rows.shape[axis])).zero_()
