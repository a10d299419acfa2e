"""From rows of probabilities on the network's grid to a segmentation on the scan's own grid, slab by slab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import Segment
from ..data.counting import count_values
from ..data.geometry import NetworkGrid
from .uncertainty import AgreementCounter, disagreement, labels_of

#: Floats of one slab on the scan's grid: 32 MB.
_SLAB = 8 * 2**20


class Assembly:
    """Takes finished rows of the sub-models and fills the maps asked for, each uint8 [X, Y, Z] on the source grid.

    Rows are float [maps, rows, p, q] along ``axis``, maps being the foreground probabilities of the sub-models in
    ``models`` ("v", "a") one after the other. ``use``: those whose mean makes the labels.
    ``disagreement`` and ``probability`` (of any foreground) run from 0 to 255 for 0 to 1.
    ``within``: uint8 [x, y, z] on the network's grid, 0 or 1; agreement is that of the voxels where it is 1.
    """

    def __init__(
        self,
        way: NetworkGrid,
        axis: int,
        segments: Sequence[Segment],
        models: Sequence[str],
        use: Sequence[str],
        *,
        uncertainty: bool = False,
        probability: bool = False,
        within: np.ndarray | None = None,
    ) -> None:
        self._way, self._axis, self._models, self._use = way, axis, tuple(models), tuple(use)
        both = len(self._models) == 2
        self._counter = AgreementCounter(segments) if both else None
        self._within = None if within is None else torch.from_numpy(within).movedim(axis, 0)
        self.labels = _empty_map(way)
        self.disagreement = _empty_map(way) if uncertainty and both else None
        self.probability = _empty_map(way) if probability else None
        self._pending: Tensor | None = None
        self._first = 0  # network row of the first pending one
        self._done = 0  # finished rows of the scan

    @property
    def agreement(self) -> dict[str, float]:
        """Dice of v against a per segment on the network's grid; empty where one sub-model ran."""
        return self._counter.result() if self._counter else {}

    def add(self, rows: Tensor) -> None:
        """Take the next rows and write what they make complete."""
        maps = self._reduced(rows)
        self._pending = maps if self._pending is None else torch.cat([self._pending, maps], dim=1)
        ready = self._way.rows_complete(self._first + self._pending.shape[1], self._axis)
        _, _, p, q = self._pending.shape
        per_row = maps.shape[0] * int(np.prod([n for i, n in enumerate(self._way.oriented_size) if i != self._axis]))
        step = max(1, _SLAB // per_row)
        for start in range(self._done, ready, step):
            stop = min(start + step, ready)
            self._write(start, stop, self._way.upsample_rows(self._pending, self._first, start, stop, self._axis))
        self._done = ready
        if ready < self._way.oriented_size[self._axis]:
            needed, _ = self._way.rows_needed(ready, ready + 1, self._axis)
            self._pending = self._pending[:, needed - self._first :].clone()
            self._first = needed
        else:
            self._pending = None

    def _reduced(self, rows: Tensor) -> Tensor:
        """The mean of the sub-models in use and, on request, their disagreement as one more map."""
        by_model = dict(zip(self._models, rows.chunk(len(self._models))))
        mean = by_model[self._use[0]]
        if len(self._use) > 1:
            mean = (mean + by_model[self._use[1]]).mul_(0.5)
        if self._counter is None:
            return mean
        self._counter.add(by_model["v"], by_model["a"], self._within_of(mean))
        if self.disagreement is None:
            return mean
        return torch.cat([mean, disagreement(by_model["v"], by_model["a"])[None]])

    def _within_of(self, rows: Tensor) -> Tensor | None:
        """Where the next rows count."""
        if self._within is None:
            return None
        start = self._first + (0 if self._pending is None else self._pending.shape[1])
        return self._within[start : start + rows.shape[1]].to(rows.device)

    def _write(self, start: int, stop: int, maps: Tensor) -> None:
        foreground = maps[:-1] if self.disagreement is not None else maps
        self._slab(self.labels, start, stop)[:] = labels_of(foreground).cpu().numpy()
        if self.disagreement is not None:
            self._slab(self.disagreement, start, stop)[:] = _to_byte(maps[-1])
        if self.probability is not None:
            self._slab(self.probability, start, stop)[:] = _to_byte(foreground.sum(dim=0))

    def _slab(self, array: np.ndarray, start: int, stop: int) -> np.ndarray:
        return np.moveaxis(self._way.orient(array), self._axis, 0)[start:stop]


def volumes_ml(labels: np.ndarray, voxel_ml: float, segments: Sequence[Segment]) -> dict[str, float]:
    """Return segment name -> volume in mL of labels uint8 [X, Y, Z]."""
    counts = count_values(labels)
    return {segment.name: float(counts[segment.label]) * voxel_ml for segment in segments}


def _empty_map(way: NetworkGrid) -> np.ndarray:
    """Zeros laid out as files are, first axis fastest, so that writing needs no copy in another order."""
    return np.zeros(way.source.size, np.uint8, order="F")


def _to_byte(share: Tensor) -> np.ndarray:
    return (share.clamp(0.0, 1.0) * 255.0).round_().to(torch.uint8).cpu().numpy()
