"""Centreline Dice (clDice; Shit et al., CVPR 2021): is a tube found in its whole length, and nothing else?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Centreline:
    """Shares of centreline voxels, 0 to 1.

    ``precision``: of the prediction's centreline, what lies in the reference. ``sensitivity``: of the reference's
    centreline, what lies in the prediction.
    """

    precision: float
    sensitivity: float

    @property
    def dice(self) -> float:
        """Their harmonic mean."""
        total = self.precision + self.sensitivity
        return 2.0 * self.precision * self.sensitivity / total if total else 0.0


def centreline(prediction: np.ndarray, reference: np.ndarray) -> Centreline:
    """Compare two masks [X, Y, Z] of equal shape.

    Two empty masks agree wholly; where one alone is empty both shares are 0. Skeletons are those of scikit-image.
    """
    prediction, reference = np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)
    if not prediction.any() or not reference.any():
        value = float(not prediction.any() and not reference.any())
        return Centreline(value, value)
    return Centreline(_share_within(prediction, reference), _share_within(reference, prediction))


def _share_within(tube: np.ndarray, other: np.ndarray) -> float:
    from skimage.morphology import skeletonize

    line = skeletonize(tube)
    return float(np.count_nonzero(line & other) / np.count_nonzero(line)) if line.any() else 0.0
