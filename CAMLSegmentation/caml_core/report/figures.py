"""Figures of several trainings on the same cases, as tables and as sentences. Standard library only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Training -> segment -> metric -> value, of one case.
CaseFigures = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Shown:
    """A metric in tables: its key, its heading, its decimals, and whether more is better."""

    key: str
    title: str
    decimals: int
    more_is_better: bool


DICE = Shown("dice", "Dice", 3, True)
HD95 = Shown("hd95_mm", "HD95 (mm)", 1, False)
SHOWN = (DICE, HD95)


def header(runs: Sequence[str]) -> list[str]:
    """Return the headings of :func:`rows`."""
    return ["Case", *(f"{metric.title}, {run}" for metric in SHOWN for run in runs)]


def rows(cases: Mapping[str, CaseFigures], runs: Sequence[str], segment: str) -> list[list[tuple[str, str]]]:
    """Return a row of (text, class) for each case and one of the means; the best of each metric has class best."""
    lines = [[(case, ""), *_cells(_values(figures, runs, segment))] for case, figures in cases.items()]
    means = means_of(cases, runs, segment)
    return [*lines, [(f"Mean over {_count(len(cases), 'case')}", ""), *_cells(means)]]


def means_of(cases: Mapping[str, CaseFigures], runs: Sequence[str], segment: str) -> dict[str, dict[str, float]]:
    """Return metric -> training -> mean over the cases."""
    table = [_values(figures, runs, segment) for figures in cases.values()]
    return {m.key: {run: statistics.fmean(row[m.key][run] for row in table) for run in runs} for m in SHOWN}


def verdict(cases: Mapping[str, CaseFigures], runs: Sequence[str], segment: str) -> str:
    """Say in words how the trainings compare, whichever is ahead."""
    means = means_of(cases, runs, segment)
    listed = " and ".join(
        f"{run} reaches a Dice of {means['dice'][run]:.3f} (HD95 {means['hd95_mm'][run]:.1f} mm)" for run in runs
    )
    text = f"{segment}: on the mean of {_count(len(cases), 'test case')}, {listed}."
    if len(runs) != 2:
        return text
    first, second = runs
    gain = 100 * (means["dice"][second] - means["dice"][first])
    if abs(gain) < 0.1:
        return f"{text} Neither is ahead."
    ahead, behind = (second, first) if gain > 0 else (first, second)
    wins = sum(f[ahead][segment]["dice"] > f[behind][segment]["dice"] for f in cases.values())
    return f"{text} {ahead} is ahead by {abs(gain):.1f} points of Dice, and better in {wins} of {len(cases)}."


def _values(figures: CaseFigures, runs: Iterable[str], segment: str) -> dict[str, dict[str, float]]:
    return {metric.key: {run: figures[run][segment][metric.key] for run in runs} for metric in SHOWN}


def _cells(values: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    cells = []
    for metric in SHOWN:
        by_run = values[metric.key]
        best = (max if metric.more_is_better else min)(by_run.values())
        single = len(by_run) == 1 or len({f"{v:.{metric.decimals}f}" for v in by_run.values()}) == 1
        cells += [(f"{v:.{metric.decimals}f}", "" if single or v != best else "best") for v in by_run.values()]
    return cells


def _count(number: int, noun: str) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    return f"{words[number] if number < len(words) else number} {noun}{'' if number == 1 else 's'}"
