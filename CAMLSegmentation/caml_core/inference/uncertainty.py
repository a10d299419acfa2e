"""What the two sub-models, trained to be diverse, say of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..config import Segment


def labels_of(foreground: Tensor) -> Tensor:
    """Return labels uint8 [...] of probabilities [classes - 1, ...] of the foreground; the background has the rest.

    The most probable class wins, and the background every tie.
    """
    if foreground.shape[0] == 1:
        return (foreground[0] > 0.5).to(torch.uint8)
    best, index = foreground.max(dim=0)
    return torch.where(best > 1.0 - foreground.sum(dim=0), index + 1, 0).to(torch.uint8)


def disagreement(v: Tensor, a: Tensor) -> Tensor:
    """Return the total variation distance of two distributions given as foreground probabilities [classes - 1, ...].

    0 where both sub-models say the same, 1 where each is sure of something else; |p_v - p_a| for one segment.
    """
    difference = v - a
    return 0.5 * (difference.abs().sum(dim=0) + difference.sum(dim=0).abs())


class AgreementCounter:
    """Dice of sub-model v's segments against a's, summed over parts of a volume."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = tuple(segments)
        self._common = [0] * len(self._segments)
        self._total = [0] * len(self._segments)

    def add(self, v: Tensor, a: Tensor, within: Tensor | None = None) -> None:
        """Count one part: foreground probabilities [classes - 1, ...] of both sub-models.

        within: uint8 [...]; where it is 0, nothing counts.
        """
        labels_v, labels_a = labels_of(v), labels_of(a)
        if within is not None:
            labels_v, labels_a = labels_v * within, labels_a * within
        for index, segment in enumerate(self._segments):
            ours, theirs = labels_v == segment.label, labels_a == segment.label
            self._common[index] += int((ours & theirs).sum())
            self._total[index] += int(ours.sum()) + int(theirs.sum())

    def result(self) -> dict[str, float]:
        """Return segment name -> Dice, 1 where neither sub-model found the segment."""
        return {
            segment.name: 2.0 * common / total if total else 1.0
            for segment, common, total in zip(self._segments, self._common, self._total)
        }


def case_score(agreement: Mapping[str, float], volumes_ml: Mapping[str, float]) -> float | None:
    """Return one figure for a case, to sort a batch by what needs a look first: the mean agreement of its segments.

    A segment that neither sub-model found is left out: its agreement of 1 says nothing, and would put an organ that
    both missed among the best. None where nothing was found, or only one sub-model ran. ``volumes_ml``: the
    prediction's volume of each segment, which tells a segment that both found alike from one that neither found.
    """
    found = [dice for name, dice in agreement.items() if dice < 1.0 or volumes_ml.get(name, 0.0) > 0.0]
    return sum(found) / len(found) if found else None
