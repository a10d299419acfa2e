"""Which cases are held out, and what has to be said of figures on those that the start model knows already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..data.case import Case, Cohort
from ..data.case_memo import scan_digest
from ..data.cohort import hold_out
from ..data.memos import Memos
from ..model_file import LoadedModel, ModelCard, learned_scans
from .request import Request

#: All that is needed of a start model here: its card tells what it has learnt from.
Start = LoadedModel | ModelCard


def split(cohort: Cohort, request: Request, start: Start | None, memos: Memos) -> Cohort:
    """Return the cohort with its held-out cases: those that it names, else as many as ``request`` wants, by chance.

    Cases whose labels the start model has learnt from are chosen only where the others do not suffice. ``memos``: as
    for ``seen_cases``.
    """

    def learned(labeled: Sequence[Case]) -> tuple[str, ...]:
        return () if start is None else seen_cases(start, labeled, memos)

    return hold_out(cohort, request.seed, number=request.hold_out, learned=learned)


def seen_cases(start: Start, cases: Iterable[Case], memos: Memos) -> tuple[str, ...]:
    """Return the ids of ``cases`` whose labels went into the start model, as far as its card tells.

    A scan is known by its voxels, under any name, and another one of its name is not it; where the card has the name
    alone, or the scan cannot be read, the name counts. ``memos``: where digests of voxels are kept, so that a scan
    that was looked at before is not read again.
    """
    learned = learned_scans(start.info)
    names, digests = {name for name, _ in learned}, {digest for _, digest in learned if digest}

    def is_seen(case: Case) -> bool:
        digest = scan_digest(case, memos) if digests else ""
        return digest in digests or (case.id in names if not digest else (case.id, "") in learned)

    return tuple(case.id for case in cases if is_seen(case))


def seen_note(start: Start | None, cohort: Cohort, memos: Memos) -> str:
    """Say so where held-out cases are among those that the start model learned from; else empty."""
    seen = () if start is None else seen_cases(start, cohort.with_role("validation"), memos)
    if not seen:
        return ""
    return (
        f"The start model was trained on the labels of {', '.join(seen)}, held out here: figures on what it has seen "
        "are too good."
    )
