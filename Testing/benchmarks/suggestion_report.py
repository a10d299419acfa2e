"""The tables and sentences of bench_suggestion.py, all of them from its figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bench_accuracy import command_line
from case_scores import (
    Pairs,
    auroc_below,
    auroc_worst,
    interval,
    interval_of_difference,
    pearson,
    shown,
    spearman,
    spearman_within,
)
from common import machine, table

#: A Dice below this is a failure.
FAILURE = 0.85
#: Besides, the so many worst cases of each model count as its failures: a measure that no model's level enters.
WORST = 5
#: Name -> what the table calls it. All are higher for a more suspicious case.
SCORES = {
    "disagreement": "1 - Dice(v, a), the suggestion's",
    "foreground": "mean of the map over predicted voxels",
    "per_volume": "sum of the map / predicted volume",
    "per_surface": "sum of the map / predicted surface",
    "volume": "volume unlike the model's median",
}
KINDS = {"base": "base", "weak": "weak", "all": "both"}
#: Runs of a round, and what the table calls them.
ARMS = {"none": "none added", "random": "2 random", "suggested": "2 suggested"}
Models = list[dict[str, Pairs]]
Seeds = dict[int, dict[str, Any]]


def report(seeds: Seeds, options: argparse.Namespace) -> str:
    """The section's text."""
    held_out = list(next(iter(seeds.values()))["weak"])
    models = {kind: [_by_score(seed[kind], held_out) for seed in seeds.values()] for kind in ("base", "weak")}
    models["all"] = models["base"] + models["weak"]
    parts = (
        "### Which case next: the sub-models' disagreement as a suggestion",
        _conditions(seeds, options, held_out),
        _model_table(seeds, models),
        _score_table(models),
        _score_words(len(models["all"]), len(held_out)),
        _round_table(seeds, held_out),
        _round_words(options),
        _reading(models, seeds, held_out),
        machine(),
    )
    return "\n\n".join(parts)


def _by_score(figures: dict[str, Any], cases: Sequence[str]) -> dict[str, Pairs]:
    """Name of a score -> the model's pairs; the volume's oddity needs all cases of a model at once."""
    dice = np.array([figures[case]["dice"] for case in cases])
    volumes = np.array([max(figures[case]["ml"], 1e-3) for case in cases])
    values = {
        name: np.array([figures[case][name] for case in cases])
        for name in ("disagreement", "foreground", "per_volume", "per_surface")
    }
    values["volume"] = np.abs(np.log(volumes / np.median(volumes)))
    return {name: Pairs(score, dice) for name, score in values.items()}


def _conditions(seeds: Seeds, options: argparse.Namespace, held_out: Sequence[str]) -> str:
    spacing, patch = (text.replace(",", " x ") for text in (options.spacing, options.patch))
    return (
        f"For each of the seeds {', '.join(map(str, seeds))}, 4 labelled cases and a pool of {options.pool} whose "
        "labels stay hidden are drawn from cases 1-60 of the left atria. A base model is trained on them from scratch "
        f"for {options.iterations} iterations, and a weak one for {options.iterations // 4}, so that there are "
        f"failures to find. Default preset but for spacing {spacing} mm, patch {patch}, {options.base_filters} "
        f"filters, {options.dtype} and {options.threads} thread(s), to fit into an hour or so beside other work. All "
        f"figures: the {len(held_out)} held-out cases 61-80 at full resolution, mean of both sub-models, quality "
        "balanced. Case 61 stands in the cohorts as their validation case, or one of six labelled cases would be "
        "spared for it; nothing is chosen by it."
        f"\n\n    {command_line('bench_suggestion.py', options)}"
    )


def _model_table(seeds: Seeds, models: dict[str, Models]) -> str:
    rows = []
    for kind in ("base", "weak"):
        for (number, seed), model in zip(seeds.items(), models[kind]):
            pairs, pool = model["disagreement"], None
            if kind == "base":
                pool = spearman([_by_score(seed["base"], _pool(seed, list(seed["weak"])))["disagreement"]])
            low, failures = f"{100 * pairs.dice.min():.1f}", int((pairs.dice < FAILURE).sum())
            within = _figure(spearman([pairs]))
            rows.append((f"{kind}, seed {number}", _spread(pairs.dice), low, failures, within, _figure(pool)))
    header = (
        *("model", "Dice %", "lowest", f"cases below {100 * FAILURE:.0f} %"),
        *("Spearman of 1 - Dice(v, a) and error", "the same on its pool"),
    )
    return table(header, rows)


def _score_table(models: dict[str, Models]) -> str:
    rows = []
    for name, title in SCORES.items():
        for kind, called in KINDS.items():
            pairs = [model[name] for model in models[kind]]
            failures = sum(int((p.dice < FAILURE).sum()) for p in pairs)
            count = f"{failures} of {sum(len(p.dice) for p in pairs)}"
            figures = [shown(pairs, statistic) for statistic in _statistics(pairs)]
            rows.append((title, called, *figures[:3], count, *figures[3:]))
    header = (
        *("score", "models", "Pearson", "Spearman", "Spearman within a model", "failures"),
        *(f"AUROC, Dice below {100 * FAILURE:.0f} %", f"AUROC, a model's {WORST} worst"),
    )
    return table(header, rows)


def _statistics(pairs: Sequence[Pairs]) -> tuple[Callable[[Sequence[Pairs]], float | None], ...]:
    limits = [float(np.sort(p.dice)[WORST - 1]) for p in pairs]
    return pearson, spearman, spearman_within, auroc_below(FAILURE), auroc_worst(limits)


def _score_words(models: int, cases: int) -> str:
    return (
        "Correlations are those of score and error (1 - Dice); for the first score they are those of the agreement and "
        f"Dice. In brackets 95 % intervals by 2000 bootstrap draws of the {cases} cases, each with the pairs of all "
        f"models. Pairs of {models} models taken together mix two things: which model is weak, and which case is hard; "
        '"within a model" and "worst" are means over models and know the second alone. The map is the total variation '
        "distance of the sub-models at each voxel, as `caml predict --uncertainty` writes it."
    )


def _round_table(seeds: Seeds, held_out: Sequence[str]) -> str:
    header = (
        *("seed", "base: Dice %", *(f"{title}: Dice %, 95HD mm" for title in ARMS.values())),
        *("suggested - random, Dice points", "base's Dice % on the two suggested, the two random, the pool"),
    )
    rows = [(number, *_round_cells([seed], held_out)) for number, seed in seeds.items()]
    return table(header, [*rows, ("mean", *_round_cells(list(seeds.values()), held_out))])


def _round_cells(seeds: Sequence[dict[str, Any]], held_out: Sequence[str]) -> list[str]:
    """One row: means over the cases of all ``seeds``."""

    def mean(run: str, key: str, factor: float) -> float:
        return factor * float(np.mean([_mean(seed[run], key, held_out) for seed in seeds]))

    results = [f"{mean(arm, 'dice', 100):.2f}, {mean(arm, 'hd95_mm', 1):.2f}" for arm in ARMS]
    gains = np.concatenate([_gains(seed, held_out) for seed in seeds])
    gain = f"{gains.mean():+.2f}, better in {int((gains > 0).sum())} of {len(gains)}"
    pool = []
    for chosen in ("suggested", "random", "pool"):
        dice = [_mean(s["base"], "dice", s["added"].get(chosen) or _pool(s, held_out)) for s in seeds]
        pool.append(f"{100 * np.mean(dice):.1f}")
    return [f"{mean('base', 'dice', 100):.2f}", *results, gain, ", ".join(pool)]


def _round_words(options: argparse.Namespace) -> str:
    return (
        f"One round: the base model goes on for {options.more} iterations (`--model`), with the true labels of two "
        "cases of its pool added. Suggested are the two with the most disagreement, random two of those in which the "
        "model found something; the third run goes on as long with the labels that it had."
    )


def _reading(models: dict[str, Models], seeds: Seeds, held_out: Sequence[str]) -> str:
    return " ".join(("**Reading.**", _reading_score(models), _reading_others(models), _reading_round(seeds, held_out)))


def _reading_score(models: dict[str, Models]) -> str:
    """Base and weak models apart: a mean over both would hide that they differ."""
    words = []
    for kind in ("base", "weak"):
        pairs = [model["disagreement"] for model in models[kind]]
        below, worst = _statistics(pairs)[3:]
        limits = interval(pairs, worst)
        verdict = "better than chance" if limits is not None and limits[0] > 0.5 else "not shown to beat chance"
        value = below(pairs)
        failures = "" if value is None else f", and of {value:.2f} for a Dice below {100 * FAILURE:.0f} %"
        words.append(
            f"in the {kind} models its Spearman correlation with the error is {_figure(spearman_within(pairs))} and "
            f"its AUROC {_figure(worst(pairs))} for a model's {WORST} worst cases ({verdict}){failures}"
        )
    return f"The disagreement score, base and weak models apart: {'; '.join(words)}."


def _reading_others(models: dict[str, Models]) -> str:
    """Scores by the AUROC that knows nothing of a model's level, and our place among them."""
    ours = [model["disagreement"] for model in models["all"]]
    worst = _statistics(ours)[4]  # the limits are those of the Dice, alike for all scores
    values = {name: worst([model[name] for model in models["all"]]) or 0.0 for name in SCORES}
    best = max(values, key=lambda name: values[name])
    if best == "disagreement":
        return "Of the scores compared, which all cost the same prediction, none finds a model's worst cases better."
    limits = interval_of_difference(ours, [model[best] for model in models["all"]], worst)
    within = "" if limits is None else f", difference {limits[0]:+.2f} to {limits[1]:+.2f}"
    return (
        f'Of the scores that cost the same prediction "{SCORES[best]}" finds the worst cases of all models best '
        f"(AUROC {values[best]:.2f} against {values['disagreement']:.2f}{within})."
    )


def _reading_round(seeds: Seeds, held_out: Sequence[str]) -> str:
    gains = [_gains(seed, held_out).mean() for seed in seeds.values()]
    each = ", ".join(f"{gain:+.2f}" for gain in gains)

    def against_none(arm: str) -> float:
        pairs = [(seed[arm], seed["none"]) for seed in seeds.values()]
        return float(np.mean([100 * (_mean(a, "dice", held_out) - _mean(b, "dice", held_out)) for a, b in pairs]))

    return (
        f"Two suggested cases gave {np.mean(gains):+.2f} points of Dice against two random ones in the mean of "
        f"{len(gains)} seeds (each: {each}), and {against_none('suggested'):+.2f} against going on without any, where "
        f"the random ones gave {against_none('random'):+.2f}; {len(gains)} seeds are indicative and no more."
    )


def _gains(seed: dict[str, Any], cases: Sequence[str]) -> np.ndarray:
    """Dice points that suggested cases gave over random ones, case by case."""
    return np.array([100 * (seed["suggested"][case]["dice"] - seed["random"][case]["dice"]) for case in cases])


def _mean(figures: dict[str, Any], key: str, cases: Sequence[str]) -> float:
    return float(np.mean([figures[case][key] for case in cases]))


def _pool(seed: dict[str, Any], held_out: Sequence[str]) -> list[str]:
    return [case for case in seed["base"] if case not in held_out]


def _spread(dice: np.ndarray) -> str:
    return f"{100 * dice.mean():.2f} +- {100 * dice.std(ddof=1):.2f}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
