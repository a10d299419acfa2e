"""The tables and sentences of bench_quality.py, all of them from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from calibration import (
    Fit,
    Flags,
    Share,
    Source,
    cross_fitted,
    cross_fitted_flags,
    flags_below,
    folds,
    isotonic,
    linear,
    mean,
    reliability,
)
from case_scores import Pairs, auroc_below, shown, spearman
from common import machine, table
from intervals import mean_interval
from quality_sets import QualitySet

#: A lower Dice needs correction.
CORRECTION = 0.85
#: The panel's LOW_AGREEMENT: a lower Dice(v, a) is flagged.
IN_USE = 0.9
SENSITIVITY = 0.9
#: Name -> what the tables call it. All are higher for a better case.
SIGNALS = {
    "agreement": "Dice(v, a)",
    "map": "1 - mean of the disagreement over predicted voxels",
    "probability": "mean probability of predicted voxels",
}
OWN_MEAN, CURVE = "mean Dice of the model itself", "isotonic"
#: Title -> fit, and whose pairs it knows.
PREDICTORS: dict[str, tuple[Fit, Source]] = {
    "mean Dice of all models": (mean, "all"),
    OWN_MEAN: (mean, "own"),
    "linear": (linear, "all"),
    CURVE: (isotonic, "all"),
    "isotonic, the model's own pairs": (isotonic, "own"),
    "isotonic, other models' pairs": (isotonic, "others"),
}
EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 1.0)
KINDS = ("strong", "weaker")


@dataclass(frozen=True)
class Model:
    """One model and its held-out cases. ``kind``: of KINDS; ``alone``: iterations in which each sub-model learned
    alone.

    ``cases``: case -> "dice", "found", and the SIGNALS.
    """

    kind: str
    labels: int
    iterations: int
    alone: int | None
    seed: int
    grid: str
    cases: Mapping[str, Mapping[str, Any]]

    @property
    def title(self) -> str:
        """What the tables call it."""
        return f"{self.kind}: {self.labels} labels, {self.iterations} iterations, seed {self.seed}"


@dataclass(frozen=True)
class Pool:
    """All models on the same cases, as matrices [models, cases]."""

    models: tuple[Model, ...]
    dice: np.ndarray
    signals: Mapping[str, np.ndarray]
    fold: np.ndarray

    @classmethod
    def of(cls, models: Sequence[Model], count: int) -> Pool:
        """Raises ValueError where the models were not measured on the same cases."""
        names = list(models[0].cases)
        if any(set(model.cases) != set(names) for model in models):
            msg = "the models were measured on different cases"
            raise ValueError(msg)

        def matrix(key: str) -> np.ndarray:
            return np.array([[model.cases[name][key] for name in names] for model in models], dtype=float)

        return cls(tuple(models), matrix("dice"), {key: matrix(key) for key in SIGNALS}, folds(len(names), count))

    @property
    def failed(self) -> np.ndarray:
        """Which pairs need correction."""
        return self.dice < CORRECTION

    @property
    def groups(self) -> dict[str, list[int]]:
        """Title -> places of the models: all, and each kind that there is beside another."""
        everyone = list(range(len(self.models)))
        kinds = {kind: [i for i in everyone if self.models[i].kind == kind] for kind in KINDS}
        present = {kind: places for kind, places in kinds.items() if places}
        return {"all": everyone, **(present if len(present) > 1 else {})}

    def errors(self, signal: str, fit: Fit, source: Source = "all") -> np.ndarray:
        """Absolute errors of the predicted Dice [models, cases], in points."""
        return 100 * np.abs(cross_fitted(fit, self.signals[signal], self.dice, self.fold, source) - self.dice)

    def pairs(self, signal: str, places: Sequence[int]) -> list[Pairs]:
        """As scores of suspicion, for correlations and AUROC."""
        return [Pairs(1.0 - self.signals[signal][place], self.dice[place]) for place in places]


def report(models: Sequence[Model], count: int, command: str, chosen: QualitySet) -> str:
    """The section's text; ``count``: folds; ``chosen``: the anatomy."""
    pool = Pool.of(models, count)
    parts = (
        f"### Quality control, {chosen.title}: a case's Dice, predicted from the sub-models' disagreement",
        f"    {command}",
        _conditions(pool, chosen),
        _model_table(pool),
        _model_words(pool),
        _error_table(pool),
        _error_words(pool),
        _signal_table(pool),
        _signal_words(),
        _reliability_table(pool),
        _reliability_words(),
        _threshold_table(pool),
        _threshold_words(),
        _reading(pool),
        machine(),
    )
    return "\n\n".join(parts)


def _conditions(pool: Pool, chosen: QualitySet) -> str:
    grids = dict.fromkeys(model.grid for model in pool.models if model.grid)
    grid = f" Networks: {'; '.join(grids)}." if grids else ""
    return (
        f"{len(pool.models)} models that have learned from {chosen.trained_on} at most predict the {len(pool.fold)} "
        f"{chosen.held_out} at full resolution, quality balanced; Dice is that of the mean of both sub-models"
        f"{chosen.averaged}. The weaker ones exist so that there are bad cases to find: their seed draws their "
        "labelled cases, too, the others to train on are unlabelled. A Dice below "
        f"{100 * CORRECTION:.0f} % counts as needing correction.{grid}"
    )


def _model_table(pool: Pool) -> str:
    rows = []
    for place, model in enumerate(pool.models):
        dice, agreement = pool.dice[place], pool.signals["agreement"][place]
        row = (model.title, "-" if model.alone is None else model.alone, _spread(dice), f"{100 * dice.min():.1f}")
        follows = spearman(pool.pairs("agreement", [place]))
        rows.append((*row, int(pool.failed[place].sum()), _spread(agreement), _figure(follows)))
    header = (
        *("model", "of them alone", "Dice %", "lowest", "need correction"),
        *("Dice(v, a) %", "Spearman of Dice(v, a) and Dice"),
    )
    return table(header, rows)


def _model_words(pool: Pool) -> str:
    nothing = sum(not figures["found"] for model in pool.models for figures in model.cases.values())
    empty = f" In {nothing} pairs nothing was found: all signals count as 0 there." if nothing else ""
    return (
        '"Alone": in so many of the iterations v and a learned from the labels, each from a start and patches of its '
        f"own.{empty}"
    )


def _error_table(pool: Pool) -> str:
    # A single model has no others.
    known = {title: one for title, one in PREDICTORS.items() if len(pool.models) > 1 or one[1] != "others"}
    errors = [pool.errors("agreement", fit, source) for fit, source in known.values()]
    rows = [(model.title, *(_mean(e[[place]]) for e in errors)) for place, model in enumerate(pool.models)]
    rows += [(f"{title} models", *(_mean(e[places]) for e in errors)) for title, places in pool.groups.items()]
    return table(("mean absolute error of the predicted Dice, points", *known), rows)


def _error_words(pool: Pool) -> str:
    count = len(np.unique(pool.fold))
    return (
        f"Cross-fitted: the cases are in {count} folds, each with the pairs of all models, and the Dice of a fold is "
        "predicted from pairs of the other folds alone. The first two columns do not look at the case: they say how "
        "good all models, or this one, are on other cases. The others predict from Dice(v, a), by a line or by a "
        "rising curve, from the pairs of all models, of the model alone, or of the other models alone, as for a model "
        "whose accuracy nobody has measured. In brackets here and below: 95 % intervals by bootstrap draws of the "
        "cases, each with the pairs of all models; they do not know what other models or another fit would have given."
    )


def _signal_table(pool: Pool) -> str:
    rows = []
    for name, title in SIGNALS.items():
        errors = [pool.errors(name, fit) for fit in (linear, isotonic)]
        for group, places in pool.groups.items():
            failed = pool.failed[places]
            pairs = pool.pairs(name, places)
            areas = (shown(pairs, statistic) for statistic in (auroc_below(CORRECTION), _auroc_within))
            count = f"{int(failed.sum())} of {failed.size}"
            rows.append((title, group, count, *(_mean(e[places]) for e in errors), *areas))
    header = (
        *("signal", "models", "need correction", "error of the line, points", "error of the rising curve, points"),
        *("AUROC, needs correction", "the same within a model"),
    )
    return table(header, rows)


def _signal_words() -> str:
    return (
        "Fits know the pairs of all models; the AUROC needs none. Pairs of all models taken together mix two things: "
        "which model is weak, and which case is hard; the last column, the mean over models that have cases of both "
        "kinds, knows the second alone. All signals come from one prediction, as `caml predict --uncertainty "
        "--probability` makes it."
    )


def _auroc_within(models: Sequence[Pairs]) -> float | None:
    values = [auroc_below(CORRECTION)([model]) for model in models]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _reliability_table(pool: Pool) -> str:
    predicted = cross_fitted(isotonic, pool.signals["agreement"], pool.dice, pool.fold)
    rows = []
    for group, places in pool.groups.items():
        for held in reliability(predicted[places], pool.dice[places], EDGES):
            limits = f"{100 * held.low:.0f} to {100 * held.high:.0f}"
            rows.append((group, limits, f"{100 * held.predicted:.1f}", f"{100 * held.true:.1f}", held.count))
    return table(("models", "predicted Dice %", "mean predicted", "mean true", "pairs"), rows)


def _reliability_words() -> str:
    return "Predicted by the rising curve of all models' pairs, from Dice(v, a)."


def _rules(pool: Pool) -> dict[str, Flags]:
    signal = pool.signals["agreement"]
    return {
        f"{IN_USE:.2f} (the panel's)": flags_below(IN_USE, signal, pool.failed),
        f"fitted for {100 * SENSITIVITY:.0f} %": cross_fitted_flags(SENSITIVITY, signal, pool.failed, pool.fold),
    }


def _threshold_table(pool: Pool) -> str:
    rows = []
    for title, flags in _rules(pool).items():
        limits = sorted(flags.thresholds)
        used = f"{limits[0]:.3f}" if limits[0] == limits[-1] else f"{limits[0]:.3f} to {limits[-1]:.3f}"
        for group, places in pool.groups.items():
            part = flags.of(places)
            number = f"{int(part.flagged.sum())} of {part.flagged.size}"
            rows.append((title, used, group, _share(part.sensitivity), _share(part.specificity), number))
    header = (
        *("Dice(v, a) below", "values", "models", "sensitivity (of those that need correction, flagged)"),
        *("specificity (of the others, not flagged)", "flagged"),
    )
    return table(header, rows)


def _threshold_words() -> str:
    return (
        f"Fitted is the lowest threshold that flags {100 * SENSITIVITY:.0f} % of the pairs that need correction in the "
        "other folds, those of all models; what it reaches is counted on cases that it has not seen."
    )


def _reading(pool: Pool) -> str:
    sentences = [_reading_errors(pool, group, places) for group, places in pool.groups.items()]
    return " ".join(("**Reading.**", *sentences, _reading_signals(pool), _reading_threshold(pool)))


def _reading_errors(pool: Pool, group: str, places: Sequence[int]) -> str:
    """The curve against knowing how good the model is on other cases, which a model's card tells for nothing."""
    ours, own = (pool.errors("agreement", *PREDICTORS[name])[places] for name in (CURVE, OWN_MEAN))
    low, high = mean_interval((own - ours).mean(axis=0))
    verdict = "better than" if low > 0 else "worse than" if high < 0 else "not shown to differ from"
    return (
        f"{group.capitalize()} models: Dice(v, a) predicts a case's Dice to {ours.mean():.2f} points in the mean, "
        f"{verdict} the model's own mean on other cases ({own.mean():.2f}, difference {(own - ours).mean():+.2f} "
        f"[{low:+.2f}, {high:+.2f}])."
    )


def _reading_signals(pool: Pool) -> str:
    everyone = pool.groups["all"]
    areas = {name: auroc_below(CORRECTION)(pool.pairs(name, everyone)) for name in SIGNALS}
    if any(area is None for area in areas.values()):
        return "An AUROC needs cases of both kinds."
    listed = ", ".join(f"{areas[name]:.2f} ({title})" for name, title in SIGNALS.items())
    return f"AUROC for cases that need correction, all models: {listed}."


def _reading_threshold(pool: Pool) -> str:
    words = []
    for title, flags in _rules(pool).items():
        shares = " and ".join(_percent(share) for share in (flags.sensitivity, flags.specificity))
        words.append(f"{shares} with the threshold {title}")
    return f"Sensitivity and specificity, all models: {'; '.join(words)}."


def _mean(errors: np.ndarray) -> str:
    low, high = mean_interval(errors.mean(axis=0))
    return f"{errors.mean():.2f} [{low:.2f}, {high:.2f}]"


def _share(share: Share) -> str:
    if share.value is None:
        return "-"
    limits = share.interval()
    bounds = "" if limits is None else " [{:.0f}, {:.0f}]".format(*(100 * limit for limit in limits))
    return f"{_percent(share)}{bounds}, {int(share.hit.sum())} of {int(share.whole.sum())}"


def _percent(share: Share) -> str:
    return "-" if share.value is None else f"{100 * share.value:.0f} %"


def _spread(values: np.ndarray) -> str:
    return f"{100 * values.mean():.2f} +- {100 * values.std(ddof=1):.2f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
