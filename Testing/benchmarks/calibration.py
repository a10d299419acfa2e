"""From a signal of a case to its predicted Dice: fits, cross-fitting over cases, and what the predictions are worth.

Everything is a matrix [models, cases]: all models have predicted the same cases. A signal is higher for a better case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from intervals import RESAMPLES

#: Values of the signal -> predicted Dice.
Predictor = Callable[[np.ndarray], np.ndarray]
#: Signal and true Dice of known pairs -> predictor.
Fit = Callable[[np.ndarray, np.ndarray], Predictor]
#: Whose pairs a prediction may know: those of all models, of the model itself, or of the other models.
Source = Literal["all", "own", "others"]


def mean(signal: np.ndarray, dice: np.ndarray) -> Predictor:
    """The trivial predictor: the mean Dice of the known pairs, whatever the signal says."""
    level = float(dice.mean())
    return lambda values: np.full(np.shape(values), level)


def linear(signal: np.ndarray, dice: np.ndarray) -> Predictor:
    """Least squares, held to 0 .. 1; the mean where all signals are alike."""
    if np.ptp(signal) == 0:
        return mean(signal, dice)
    slope, offset = np.polyfit(signal, dice, 1)
    return lambda values: np.clip(offset + slope * values, 0.0, 1.0)


def isotonic(signal: np.ndarray, dice: np.ndarray) -> Predictor:
    """The rising curve of least squares: straight between known signals, level beyond them."""
    from scipy.optimize import isotonic_regression  # scipy >= 1.12

    knots, place = np.unique(signal, return_inverse=True)  # equal signals have one prediction
    weights = np.bincount(place)
    levels = isotonic_regression(np.bincount(place, dice) / weights, weights=weights).x
    return lambda values: np.interp(values, knots, levels)


def folds(cases: int, count: int) -> np.ndarray:
    """The fold of each case; folds hold every ``count``-th case. Raises ValueError for fewer than two folds."""
    if not 2 <= count <= cases:
        msg = f"expected 2 to {cases} folds of {cases} cases, got {count}"
        raise ValueError(msg)
    return np.arange(cases) % count


def cross_fitted(
    fit: Fit, signal: np.ndarray, dice: np.ndarray, fold: np.ndarray, source: Source = "all"
) -> np.ndarray:
    """Return the predicted Dice [models, cases] of all pairs, each from pairs of other folds' cases alone.

    signal, dice: [models, cases]; fold: [cases]. A case is in one fold with the pairs of all models, for those are not
    independent. Raises ValueError for other models' pairs where there is one model.
    """
    if source == "others" and len(dice) < 2:
        msg = "a single model has no other models' pairs"
        raise ValueError(msg)
    predicted, models = np.empty(dice.shape), np.arange(len(dice))
    for number in np.unique(fold):
        inside = fold == number
        for model in models:
            used = {"all": models >= 0, "own": models == model, "others": models != model}[source]
            known = np.ix_(used, ~inside)
            predicted[model, inside] = fit(signal[known].ravel(), dice[known].ravel())(signal[model, inside])
    return predicted


def threshold_for(sensitivity: float, signal: np.ndarray, failed: np.ndarray) -> float:
    """Return the lowest threshold below which the signals of at least this share of the failures lie.

    Halfway to the next known signal, so that it does not hang on one pair's last digit; -inf without failures.
    """
    bad = np.sort(signal[failed])
    if not len(bad):
        return -math.inf
    last = bad[max(math.ceil(sensitivity * len(bad) - 1e-9), 1) - 1]
    above = signal[signal > last]
    return float((last + above.min()) / 2 if len(above) else np.nextafter(last, math.inf))


@dataclass(frozen=True)
class Flags:
    """``flagged`` and ``failed``: bool [models, cases]. ``thresholds``: those that were used, one a fold."""

    flagged: np.ndarray
    failed: np.ndarray
    thresholds: tuple[float, ...]

    def of(self, models: Sequence[int]) -> Flags:
        """The same for some of the models."""
        return Flags(self.flagged[list(models)], self.failed[list(models)], self.thresholds)

    @property
    def sensitivity(self) -> Share:
        """How many of the failures are flagged."""
        return Share(self.flagged & self.failed, self.failed)

    @property
    def specificity(self) -> Share:
        """How many of the others are not."""
        return Share(~self.flagged & ~self.failed, ~self.failed)


@dataclass(frozen=True)
class Share:
    """``hit`` of ``whole``: bool [models, cases]."""

    hit: np.ndarray
    whole: np.ndarray

    @property
    def value(self) -> float | None:
        """None where there is nothing to have a share of."""
        return float(self.hit.sum() / self.whole.sum()) if self.whole.any() else None

    def interval(self) -> tuple[float, float] | None:
        """95 % percentile bootstrap over cases; None where fewer than half of the draws have something to count."""
        drawn = np.random.default_rng(0).integers(0, self.hit.shape[1], (RESAMPLES, self.hit.shape[1]))
        hit, whole = (part.sum(axis=0)[drawn].sum(axis=1) for part in (self.hit, self.whole))
        known = whole > 0
        if known.mean() < 0.5:
            return None
        low, high = np.percentile(hit[known] / whole[known], [2.5, 97.5])
        return float(low), float(high)


def flags_below(threshold: float, signal: np.ndarray, failed: np.ndarray) -> Flags:
    """Flag the pairs with a signal below a fixed threshold, as the product does."""
    return Flags(signal < threshold, failed, (threshold,))


def cross_fitted_flags(sensitivity: float, signal: np.ndarray, failed: np.ndarray, fold: np.ndarray) -> Flags:
    """Flag each pair by the threshold that reaches ``sensitivity`` on the other folds' cases."""
    flagged, thresholds = np.zeros(signal.shape, bool), []
    for number in np.unique(fold):
        inside = fold == number
        thresholds.append(threshold_for(sensitivity, signal[:, ~inside], failed[:, ~inside]))
        flagged[:, inside] = signal[:, inside] < thresholds[-1]
    return Flags(flagged, failed, tuple(thresholds))


@dataclass(frozen=True)
class Bin:
    """Pairs with a predicted Dice from ``low`` to below ``high``: means of the predicted and the true Dice."""

    low: float
    high: float
    predicted: float
    true: float
    count: int


def reliability(predicted: np.ndarray, dice: np.ndarray, edges: Sequence[float]) -> list[Bin]:
    """Return the bins between ``edges`` that hold any pair; the last one includes its upper edge."""
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, len(edges) - 2)
    bins = []
    for index in np.unique(place):
        held = place == index
        means = float(predicted[held].mean()), float(dice[held].mean())
        bins.append(Bin(edges[index], edges[index + 1], *means, int(held.sum())))
    return bins
