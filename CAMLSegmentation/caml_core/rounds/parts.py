"""The trainings that a round sets beside its main one: on the labels alone, and those of a cross-validation."""

from __future__ import annotations

import dataclasses
import random

from ..config import Plan
from ..data.case import Cohort, Role
from ..data.case_memo import recalled
from ..data.fingerprint import one_component
from ..data.memos import Memos
from ..training.measurement import seconds_in_turn
from ..training.planner import with_curves, with_phases
from ..training.preflight import LEAST_FOLD_ITERATIONS


def labeled_only_plan(plan: Plan, iterations: int, labeled_cases: int) -> Plan:
    """Return the plan of a training on the labels alone that takes as long as ``iterations`` of ``plan``.

    Steps of both are timed in turn, so that neither suffers from what else the machine did at its time.
    """
    alone = _closed(plan, iterations, labeled_only=True)
    early, late, theirs = seconds_in_turn(_closed(plan, iterations), alone, labeled_cases)
    solo = min(plan.solo_iterations, iterations)
    number = max(round((solo * early + (iterations - solo) * late) / theirs), 1)
    return dataclasses.replace(
        alone,
        iterations=number,
        losses=dataclasses.replace(alone.losses, solo_share=solo / iterations),  # curves in the same share of the steps
        validate_every=max(round(plan.validate_every * number / iterations), 1),
        seconds_per_iteration=round(theirs, 4),
    )


def fold_plan(plan: Plan, iterations: int, folds: int, cohort: Cohort, memos: Memos) -> Plan:
    """Return the plan of one of ``folds`` trainings, which together take about as long as the main one.

    cohort: that of the fold. What the labels decide is decided by those that it learns from, without those that it is
    judged by. memos: where it is kept what was seen of the cases; one that has changed is read. Raises DataError where
    it cannot be.
    """
    number = max(iterations // folds, LEAST_FOLD_ITERATIONS)
    # What is held out is scored in the end; on the way there is nothing to decide by it.
    labeled, unlabeled = (len(cohort.with_role(role)) for role in ("labeled", "unlabeled"))
    losses, augmentation = with_phases(plan.losses, number, labeled, unlabeled), plan.augmentation
    if plan.preset == "default":
        losses = dataclasses.replace(losses, pseudo_largest_component=_in_one_piece(plan, cohort, memos))
        augmentation = with_curves(augmentation, labeled, plan.channels)
    return dataclasses.replace(_closed(plan, number), validate_every=number, losses=losses, augmentation=augmentation)


def _in_one_piece(plan: Plan, cohort: Cohort, memos: Memos) -> bool:
    labeled = cohort.with_role("labeled")
    seen = (recalled(case, len(plan.channels), cohort.segments, memos) for case in labeled)
    return one_component(((one.case, one.compact) for one in seen), plan.segments)


def fold_cohorts(cohort: Cohort, folds: int, seed: int) -> tuple[Cohort, ...]:
    """Return a cohort for each fold: every labelled case is held out in exactly one.

    There are as many folds as labelled cases at most. The round's own validation cases are left out of all. The
    choice depends on the seed and the ids alone.
    """
    labeled = sorted(case.id for case in cohort.with_role("labeled"))
    random.Random(seed).shuffle(labeled)
    number = min(folds, len(labeled))
    return tuple(_holding_out(cohort, set(labeled[fold::number])) for fold in range(number))


def _closed(plan: Plan, iterations: int, *, labeled_only: bool = False) -> Plan:
    """The plan with a fixed end, whatever the end of the original is."""
    optimizer = plan.optimizer
    if optimizer.schedule == "plateau":
        optimizer = dataclasses.replace(optimizer, schedule="cosine")
    return dataclasses.replace(
        plan,
        iterations=iterations,
        horizon=0,
        optimizer=optimizer,
        labeled_only=labeled_only or plan.labeled_only,
        budget_seconds=0.0,
    )


def _holding_out(cohort: Cohort, held_out: set[str]) -> Cohort:
    def role(identity: str, old: Role) -> Role:
        if old == "validation":
            return "excluded"
        return "validation" if identity in held_out else old

    cases = tuple(dataclasses.replace(case, role=role(case.id, case.role)) for case in cohort.cases)
    return dataclasses.replace(cohort, cases=cases)
