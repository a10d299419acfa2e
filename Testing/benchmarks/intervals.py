"""How sure a mean over cases is: bootstrap intervals and the paired test of two runs on the same cases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """Ours minus theirs over the same cases: mean with its 95 % interval, and in how many cases ours is higher.

    ``p_value``: Wilcoxon's signed-rank test, two-sided; 1 where no case differs.
    """

    mean: float
    interval: tuple[float, float]
    better: int
    count: int
    p_value: float


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean of ``values`` [cases]; the draws are the same every time."""
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.asarray(values, dtype=float)[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def paired(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Paired:
    """Compare two runs case by case; raise ValueError where they do not have the same cases."""
    from scipy import stats

    if set(ours) != set(theirs):
        msg = "the runs were scored on different cases"
        raise ValueError(msg)
    gains = np.array([ours[case] - theirs[case] for case in ours])
    p_value = float(stats.wilcoxon(gains).pvalue) if gains.any() else 1.0
    return Paired(float(gains.mean()), mean_interval(gains), int((gains > 0).sum()), len(gains), p_value)
