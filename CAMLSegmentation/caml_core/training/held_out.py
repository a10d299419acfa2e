"""Which cases are held out, and what has to be said of figures on those that the start model knows already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.case import Case, Cohort
from ..data.cohort import hold_out
from ..model_file import LoadedModel, ModelCard, learned_cases
from .request import Request

#: All that is needed of a start model here: its card tells what it has learnt from.
Start = LoadedModel | ModelCard


def split(cohort: Cohort, request: Request, start: Start | None) -> Cohort:
    """Return the cohort with its held-out cases: those that it names, else as many as ``request`` wants, by chance.

    Cases whose labels the start model has learnt from are chosen only where the others do not suffice.
    """

    def learned(labeled: Sequence[Case]) -> tuple[str, ...]:
        return () if start is None else seen_cases(start, labeled)

    return hold_out(cohort, request.seed, number=request.hold_out, learned=learned)


def seen_cases(start: Start, cases: Iterable[Case]) -> tuple[str, ...]:
    """Return the ids of ``cases`` whose labels went into the start model, as far as its card tells."""
    learned = set(learned_cases(start.info))
    return tuple(case.id for case in cases if case.id in learned)


def seen_note(start: Start | None, cohort: Cohort) -> str:
    """Say so where held-out cases are among those that the start model learned from; else empty."""
    seen = () if start is None else seen_cases(start, cohort.with_role("validation"))
    if not seen:
        return ""
    return (
        f"The start model was trained on the labels of {', '.join(seen)}, held out here: figures on what it has seen "
        "are too good."
    )
