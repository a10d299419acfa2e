"""The tables and sentences of the accuracy benchmarks, all of them from the figures that the runs left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import PAGE, table
from intervals import Paired, mean_interval, paired
from trainings import Finished
from variants import VARIANTS

from caml_core.report.curves import draw_runs

#: Case -> column -> value, of one sub-model.
Rows = Mapping[str, Mapping[str, float]]
SUB_MODELS = {"mean": "mean of both sub-models", "v": "sub-model v", "a": "sub-model a"}


@dataclass(frozen=True)
class Column:
    """A figure of a case, and what the tables make of it."""

    key: str
    title: str
    factor: float = 1.0


DICE = Column("dice", "Dice %", 100)
OVERLAPS = (DICE, Column("jaccard", "Jaccard %", 100))
DISTANCES = (
    Column("hd95_pooled_mm", "95HD mm, both directions pooled (MedPy)"),
    Column("hd95_mm", "95HD mm, larger of the two (MONAI)"),
    Column("assd_mm", "ASSD mm"),
)
COLUMNS = (*OVERLAPS, *DISTANCES)


@dataclass(frozen=True)
class Result:
    """One run: sub-model -> case -> figures, its plan, and what was measured of it.

    main: the sub-model whose figures stand for the run.
    """

    name: str
    seed: int
    main: str
    sub_models: Mapping[str, Rows]
    plan: Mapping[str, Any]
    measured: Mapping[str, Any]

    @property
    def cases(self) -> Rows:
        """Figures of the main sub-model."""
        return self.sub_models[self.main]


def main_sub_model(name: str, finished: Finished) -> str:
    """Return whose figures stand for a run of this name: both sub-models' mean, or v's.

    They are v's where it was trained alone, and where a lacks in evaluation the attention that it was trained with.
    """
    assert finished.scores is not None
    both = all("mean" in models for models in finished.scores["cases"].values())
    attentive = name not in VARIANTS or VARIANTS[name].changes.get("attention", True)
    lacking = attentive and finished.plan["network"]["attention_evaluation"] == "skip"
    return "mean" if both and not lacking else "v"


def result(name: str, seed: int, finished: Finished, more: Rows | None = None) -> Result:
    """The figures of a finished run with one segment; ``more``: further figures of its main sub-model."""
    assert finished.scores is not None
    by_model: dict[str, dict[str, dict[str, float]]] = {}
    for case, models in finished.scores["cases"].items():
        for model, segments in models.items():
            (figures,) = segments.values()
            by_model.setdefault(model, {})[case] = dict(figures)
    main = main_sub_model(name, finished)
    for case, figures in (more or {}).items():
        by_model[main][case] |= figures
    return Result(name, seed, main, by_model, finished.plan, finished.measured)


def runs_table(results: Sequence[Result], columns: Sequence[Column] = COLUMNS) -> str:
    """A row for each run, for CAML one for each sub-model: mean and standard deviation over the cases."""
    rows = []
    for one in results:
        for model in one.sub_models if one.name == "caml" else (one.main,):
            figures = one.sub_models[model]
            cells = [_spread(figures, column) if _has(figures, column) else "-" for column in columns]
            title = f"{one.name}, {SUB_MODELS[model]}"
            rows.append((title, one.seed, *cells, one.plan["iterations"], _minutes(one), f"{_peak(one):.0f}"))
    titles = [column.title for column in columns]
    return table(("run", "seed", *titles, "iterations", "minutes of training (of processor)", "memory MB"), rows)


def comparison_table(results: Sequence[Result], column: Column = DICE, reference: str = "caml") -> str:
    """A row for each name: the mean over its seeds with its interval, and the reference minus it, paired by case.

    Paired are the seeds that both have: a mean over more seeds is smoother, which is no merit of the method.
    """
    rows = []
    for name, values in _means(results, column).items():
        low, high = mean_interval(np.array(list(values.values())))
        row = [name, _listed(_seeds(results, name))]
        row += [f"{np.mean(list(values.values())):.2f} [{low:.2f}, {high:.2f}]"]
        rows.append([*row, *(("-",) * 4 if name == reference else _against(results, reference, name, column))])
    return table(
        (
            *("run", "seeds", f"{column.title} [95 % interval]"),
            *(f"{reference} minus it [95 % interval]", "seeds of both", "better in", "Wilcoxon signed-rank p"),
        ),
        rows,
    )


def _against(results: Sequence[Result], reference: str, name: str, column: Column) -> tuple[str, ...]:
    """The reference minus ``name`` over the seeds that both have."""
    shared = _seeds(results, reference) & _seeds(results, name)
    if not shared:
        return ("-",) * 4
    means = _means([one for one in results if one.seed in shared], column)
    difference, better, p_value = _paired(paired(means[reference], means[name]))
    return difference, _listed(shared), better, p_value


def _seeds(results: Sequence[Result], name: str) -> set[int]:
    return {one.seed for one in results if one.name == name}


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def cases_table(results: Sequence[Result], column: Column = DICE, titles: Mapping[str, str] | None = None) -> str:
    """A row for each held-out case, a column for each name: the figure of the main sub-model, mean over seeds."""
    means = _means(results, column)
    cases = list(next(iter(means.values())))
    rows = [((titles or {}).get(case, case), *(f"{values[case]:.1f}" for values in means.values())) for case in cases]
    return table((f"case, {column.title}", *means), rows)


def words_of_runs(results: Sequence[Result]) -> str:
    """A list that says what each name stands for."""
    names = dict.fromkeys(one.name for one in results)
    return "\n".join(f"- {name}: {VARIANTS[name].words}." for name in names)


def curves(done: Mapping[str, Finished], name: str, page: Path = PAGE) -> str:
    """Draw the runs' live validation beside ``page`` as curves/NAME.png; return the line of the page that shows it."""
    picture = page.parent / "curves" / f"{name}.png"
    picture.parent.mkdir(exist_ok=True)
    draw_runs({title: finished.folder for title, finished in done.items()}, picture)
    return f"![Dice on the held-out cases at the network's resolution and supervised loss](curves/{picture.name})"


def conditions(results: Sequence[Result]) -> str:
    """Grid, arithmetic and width of the runs; what differs between them is given for each."""
    settings: dict[str, list[str]] = {}
    for one in results:
        geometry, plan = one.plan["geometry"], one.plan
        numbers = (" x ".join(f"{value:g}" for value in geometry[key]) for key in ("spacing", "patch"))
        text = "spacing {} mm, patch {}".format(*numbers)
        text += f", {plan['network']['base_filters']} base filters, {plan['numeric']['dtype']}"
        settings.setdefault(text, []).append(one.name)
    if len(settings) == 1:
        return f"All with {next(iter(settings))}."
    return "; ".join(f"{', '.join(dict.fromkeys(names))}: {text}" for text, names in settings.items()) + "."


def machines(results: Sequence[Result]) -> str:
    """Where the runs were trained, which need not be where the table is written."""
    return "\n\n".join(dict.fromkeys(str(one.measured["machine"]) for one in results))


def _means(results: Sequence[Result], column: Column) -> dict[str, dict[str, float]]:
    """Name -> case -> mean over its seeds, in the units of the column."""
    values: dict[str, dict[str, list[float]]] = {}
    for one in results:
        by_case = values.setdefault(one.name, {})
        for case, figures in one.cases.items():
            by_case.setdefault(case, []).append(column.factor * figures[column.key])
    return {name: {case: float(np.mean(v)) for case, v in by_case.items()} for name, by_case in values.items()}


def _paired(difference: Paired) -> tuple[str, str, str]:
    low, high = difference.interval
    return (
        f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{difference.better} of {difference.count}",
        f"{difference.p_value:.3f}",
    )


def _has(figures: Rows, column: Column) -> bool:
    return all(column.key in row for row in figures.values())


def _spread(figures: Rows, column: Column) -> str:
    values = column.factor * np.array([row[column.key] for row in figures.values()])
    return f"{values.mean():.2f} +- {values.std(ddof=1) if len(values) > 1 else 0.0:.2f}"


def _minutes(one: Result) -> str:
    processor = one.measured.get("cpu_seconds")
    words = "-" if processor is None else f"{processor / 60:.1f}"
    return f"{one.measured['training_seconds'] / 60:.1f} ({words})"


def _peak(one: Result) -> float:
    return float(one.measured["peak_mb"])
