"""What came of a round, as the JSON values of ``result.json``: rows side by side, and how far they may be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.case import Cohort
from ..inference.evaluation import empty_remarks
from ..training.scores import COLUMNS, summary_of

FORMAT = 1
START, LABELED_ONLY, CAML, CROSS_VALIDATION = "start", "labeled-only", "caml", "cross-validation"
#: From so many held-out cases on their mean is no longer called indicative.
ENOUGH_CASES = 10

#: What is kept of each case; the volumes tell what is empty.
_KEPT = (*COLUMNS, "prediction_ml", "reference_ml")
#: Case -> segment -> metric -> value.
CaseTable = Mapping[str, Mapping[str, Mapping[str, float]]]


def row(name: str, scores: Mapping[str, Any], iterations: int = 0, seconds: float = 0.0) -> dict[str, Any]:
    """Return a row of the result from what ``training/scores.py`` gives, whose main sub-model is the first there."""
    sub_model = next(iter(scores["summary"]), None)
    cases = {case: by_model[sub_model] for case, by_model in scores["cases"].items() if sub_model}
    return row_of_cases(name, cases, iterations, seconds)


def row_of_cases(name: str, cases: CaseTable, iterations: int, seconds: float) -> dict[str, Any]:
    """Return a row with the mean and spread over ``cases``."""
    segments = list(dict.fromkeys(segment for by_segment in cases.values() for segment in by_segment))
    return {
        "name": name,
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "count": len(cases),
        "summary": {s: summary_of([dict(by_segment[s]) for by_segment in cases.values()]) for s in segments},
        "cases": {
            case: {s: {c: metrics[c] for c in _KEPT} for s, metrics in by_segment.items()}
            for case, by_segment in cases.items()
        },
    }


def make_result(
    cohort: Cohort,
    segments: Sequence[str],
    ended: str,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    caution: str = "",
    unread: str = "",
    crossed_caution: str = "",
) -> dict[str, Any]:
    """Return the whole result; ``report`` is filled in once there is one. ``rows`` without cases are kept.

    ``caution``: a sentence that whoever sees the figures must see, too; empty where there is none. ``unread``: one on
    held-out cases that could not be read, in place of words where none could. ``crossed_caution``: what ``caution`` is,
    of the cross-validation; a note where the words are on held-out cases.
    """
    by_name = {r["name"]: r for r in rows}
    held_out = by_name.get(CAML, {}).get("count", 0)
    crossed = by_name.get(CROSS_VALIDATION, {}).get("count", 0)
    kind = "held-out" if held_out else "cross-validation" if crossed else "none"
    judged = by_name.get(CAML if held_out else CROSS_VALIDATION, {})
    trust = "" if kind == "none" and unread else words(kind, held_out or crossed)
    said = [
        trust,
        unread,
        *empty_remarks(judged.get("cases", {})),
        {"held-out": caution, "cross-validation": crossed_caution}.get(kind),
    ]
    return {
        "format": FORMAT,
        "kind": kind,
        "words": " ".join(filter(None, said)),
        "segments": list(segments),
        "labeled": len(cohort.with_role("labeled")),
        "unlabeled": len(cohort.with_role("unlabeled")),
        "validation": len(cohort.with_role("validation")),
        "ended": ended,
        "rows": list(rows),
        "difference": difference(by_name.get(LABELED_ONLY), by_name.get(CAML)),
        "notes": [*notes, *([crossed_caution] if crossed_caution and crossed and held_out else [])],
        "model": "model.caml",
        "report": None,
    }


def words(kind: str, count: int) -> str:
    """Say how far the figures may be trusted."""
    if kind == "none":
        return "No case was held out: the model's accuracy is not known."
    cases = "1 case" if count == 1 else f"{count} cases"
    trust = f"{cases}: treat as indicative." if count < ENOUGH_CASES else f"{cases}."
    if kind == "held-out":
        return trust
    return f"Cross-validation over the labelled cases, {trust}"


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return by how many points of Dice ``after`` is ahead on the mean of the cases, and in how many it is better."""
    if before is None or after is None:
        return None
    gains = [
        mean_dice(after["cases"][case]) - mean_dice(before["cases"][case])
        for case in after["cases"]
        if case in before["cases"]
    ]
    if not gains:
        return None
    return {"dice": 100 * statistics.fmean(gains), "better": sum(g > 0 for g in gains), "cases": len(gains)}


def mean_dice(by_segment: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean Dice over the segments of one case."""
    return statistics.fmean(metrics["dice"] for metrics in by_segment.values())
