"""What a run folder tells of its training, in a few words for a table. Standard library only."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from .table import Table, points, read_table

#: The headings of a row: the training's name, then what :func:`run_facts` returns.
RUN_FACTS = ("Training", "Labelled", "Unlabelled", "Iterations", "Minutes", "Validation Dice")


def run_facts(run: Path) -> tuple[str, ...]:
    """Return the cells after the name in a row of RUN_FACTS; "" for what the folder does not tell."""
    table = read_table(run / "metrics.csv")
    labeled_only = sub_models(run) == 1
    roles = _roles(_json(run / "cohort.json").get("cases"))
    unlabeled = "not used" if labeled_only else str(roles["unlabeled"])
    return (
        str(roles["labeled"]) if roles else "",
        unlabeled if roles or labeled_only else "",
        f"{last:.0f}" if (last := _last(table, "iteration")) is not None else "",
        f"{last / 60:.1f}" if (last := _last(table, "seconds")) is not None else "",
        f"{last:.3f}" if (last := _last(table, "validation_dice")) is not None else "",
    )


def sub_models(run: Path) -> int:
    """Return how many sub-models a training has: one where it learns from labels only."""
    plan = _json(run / "plan.json").get("plan")
    return 1 if isinstance(plan, dict) and plan.get("labeled_only") is True else 2


def _last(table: Table, column: str) -> float | None:
    _, values = points(table, "iteration", column)
    return values[-1] if values else None


def _roles(cases: Any) -> Counter[str]:
    return Counter(str(case.get("role")) for case in cases or () if isinstance(case, dict))


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none: a report is no place to complain about it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
