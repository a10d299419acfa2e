"""Which cases are held out, and what has to be said of figures on those that the start model knows already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..case_names import digest_of
from ..data.case import Case, Cohort
from ..data.case_memo import scan_digest
from ..data.cohort import hold_out
from ..data.memos import Memos
from ..model_file import LoadedModel, ModelCard, learned_scans, stopping_scans
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
    return _known(cases, learned_scans(start.info), memos)


def start_notes(
    start: Start | None, cohort: Cohort, memos: Memos, stopped: bool = False, named: bool = True
) -> tuple[str, ...]:
    """Return what has to be said of figures on the held-out cases because of the model that the training starts from.

    stopped: they have decided when this training ended, too, which is said elsewhere. named: whether cases are named,
    or counted, as on a model's card.
    """
    notes = (seen_note(start, cohort, memos, named), "" if stopped else _stop_note(start, cohort, memos, named))
    return tuple(filter(None, (*notes, "" if start is None else _label_note(cohort, named))))


def seen_note(start: Start | None, cohort: Cohort, memos: Memos, named: bool = True) -> str:
    """Say so where held-out cases are among those that the start model learned from; else empty."""
    seen = () if start is None else seen_cases(start, cohort.with_role("validation"), memos)
    if not seen:
        return ""
    cases, _ = _told(seen, named)
    return f"The start model was trained on the labels of {cases}: figures on what it has seen are too good."


def _stop_note(start: Start | None, cohort: Cohort, memos: Memos, named: bool) -> str:
    met = () if start is None else _known(cohort.with_role("validation"), stopping_scans(start.info), memos)
    if not met:
        return ""
    cases, comma = _told(met, named)
    return (
        f"The training of the start model, or one before it, ended when {cases}{comma} no longer improved: figures on "
        "them may be a little too good."
    )


def _label_note(cohort: Cohort, named: bool) -> str:
    predicted = [case.id for case in cohort.with_role("validation") if case.label_began]
    if not predicted:
        return ""
    cases, comma = _told(predicted, named)
    return (
        f"The labels of {cases}{comma} began as predictions of a model: figures of that model, and of those that go on "
        "from it, may be too good on them."
    )


def _told(cases: Sequence[str], named: bool) -> tuple[str, str]:
    """Held-out cases within a sentence, and what follows them where it goes on."""
    if named:
        return f"{', '.join(cases)}, held out here", ","
    return (f"{len(cases)} held-out cases" if len(cases) > 1 else "a held-out case"), ""


def _known(cases: Iterable[Case], scans: Collection[tuple[str, str]], memos: Memos) -> tuple[str, ...]:
    """The ids of ``cases`` that are among the ``scans`` of a card, (digest of the name, digest of the voxels)."""
    names, digests = {name for name, _ in scans}, {digest for _, digest in scans if digest}

    def is_known(case: Case) -> bool:
        digest = scan_digest(case, memos) if digests else ""
        name = digest_of(case.id)
        return digest in digests or (name in names if not digest else (name, "") in scans)

    return tuple(case.id for case in cases if is_known(case))
