"""What a score of a case is worth: does it follow the true error, and does it find the failures?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000


@dataclass(frozen=True)
class Pairs:
    """One model's held-out cases: ``score`` (higher: more suspicious) and true ``dice``, in the order of the cases."""

    score: np.ndarray
    dice: np.ndarray


def pearson(models: Sequence[Pairs]) -> float | None:
    """Pearson correlation of score and error over all pairs of model and case."""
    return _correlation(models, stats.pearsonr)


def spearman(models: Sequence[Pairs]) -> float | None:
    """Spearman correlation of score and error over all pairs of model and case."""
    return _correlation(models, stats.spearmanr)


def spearman_within(models: Sequence[Pairs]) -> float | None:
    """Mean over models of the correlation within each: how well one model ranks its cases, as a user sees it."""
    return _mean([_correlation([model], stats.spearmanr) for model in models])


def auroc_below(threshold: float) -> Callable[[Sequence[Pairs]], float | None]:
    """AUROC over all pairs of model and case, where a Dice below ``threshold`` is a failure."""

    def statistic(models: Sequence[Pairs]) -> float | None:
        return auroc(*(np.concatenate(parts) for parts in zip(*((m.score, m.dice < threshold) for m in models))))

    return statistic


def auroc_worst(limits: Sequence[float]) -> Callable[[Sequence[Pairs]], float | None]:
    """Mean over models of the AUROC, where the failures of each are its cases with a Dice of at most its limit."""

    def statistic(models: Sequence[Pairs]) -> float | None:
        return _mean([auroc(m.score, m.dice <= limit) for m, limit in zip(models, limits)])

    return statistic


def auroc(score: np.ndarray, failed: np.ndarray) -> float | None:
    """Chance that a failure has the higher score than a success, ties a half; None where one kind is missing."""
    bad, good = score[failed], score[~failed]
    if not len(bad) or not len(good):
        return None
    difference = bad[:, None] - good[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def interval(
    models: Sequence[Pairs], statistic: Callable[[Sequence[Pairs]], float | None]
) -> tuple[float, float] | None:
    """95 % percentile bootstrap over cases; None where fewer than half of the draws allow the statistic."""
    return _limits(_resampled(models, statistic))


def interval_of_difference(
    ours: Sequence[Pairs], theirs: Sequence[Pairs], statistic: Callable[[Sequence[Pairs]], float | None]
) -> tuple[float, float] | None:
    """The same for ``theirs`` minus ``ours``, two scores of the same cases: both are drawn alike."""
    return _limits(_resampled(theirs, statistic) - _resampled(ours, statistic))


def shown(models: Sequence[Pairs], statistic: Callable[[Sequence[Pairs]], float | None]) -> str:
    """The figure with its interval, for a table; a dash where there is none."""
    value = statistic(models)
    if value is None:
        return "-"
    limits = interval(models, statistic)
    return f"{value:.2f}" if limits is None else f"{value:.2f} [{limits[0]:.2f}, {limits[1]:.2f}]"


def _resampled(models: Sequence[Pairs], statistic: Callable[[Sequence[Pairs]], float | None]) -> np.ndarray:
    """The statistic of each draw, NaN where there is none. A case is drawn with the pairs of all models, for those are
    not independent; the draws are the same every time.
    """
    random, count = np.random.default_rng(0), len(models[0].dice)
    values = np.full(RESAMPLES, np.nan)
    for index in range(RESAMPLES):
        drawn = random.integers(0, count, count)
        value = statistic([Pairs(m.score[drawn], m.dice[drawn]) for m in models])
        values[index] = np.nan if value is None else value
    return values


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    known = values[~np.isnan(values)]
    if len(known) < RESAMPLES / 2:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _correlation(models: Sequence[Pairs], function: Callable[..., tuple[float, float]]) -> float | None:
    score = np.concatenate([m.score for m in models])
    error = 1.0 - np.concatenate([m.dice for m in models])
    if np.ptp(score) == 0 or np.ptp(error) == 0:
        return None
    return float(function(score, error)[0])


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
