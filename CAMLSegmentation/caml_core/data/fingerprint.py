"""What a cohort is like: sizes, spacings, grey values, classes, and what stands out. The planner decides from this."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..config import ChannelIntensity, Segment, Spacing, Triple, name_key
from ..errors import DataError
from ..events import Listener, silent
from .case import Case, Cohort
from .case_fingerprint import BINS, HU_RANGE, CaseFingerprint
from .case_memo import recalled
from .memos import Memos
from .segments import match_segments, plain_name, plain_value

__all__ = [
    "CaseFingerprint",
    "ChannelFingerprint",
    "Fingerprint",
    "choose_channels",
    "fingerprint",
    "labels_drawn",
    "one_component",
]

#: Fewer labelled cases that have a segment do not tell: the next patient may have two lesions.
_LEAST_ONE_COMPONENT = 3
#: Roles whose labels are read.
_JUDGED = ("labeled", "validation")


@dataclass(frozen=True)
class ChannelFingerprint:
    """One channel over all cases. The window (HU; of use for CT only) holds the labelled structures and what
    surrounds them. ``title``: what the cohort calls it; empty where it does not.
    """

    modality: str
    window_lower: float
    window_upper: float
    window_mean: float
    window_std: float
    title: str = ""


@dataclass(frozen=True)
class Fingerprint:
    """A cohort. ``spacing`` and ``size`` are medians over all cases that are not excluded, along L, P, S.

    ``one_component``: every segment is drawn in three or more labelled cases, and is one compact piece, but for a few
    voxels, in all that have it. ``notes`` are sentences that the user should read. ``seconds``: what it took to look at
    the cases, whenever that was.
    """

    cases: tuple[CaseFingerprint, ...]
    channels: tuple[ChannelFingerprint, ...]
    segments: tuple[Segment, ...]
    spacing: Spacing
    size: Triple
    one_component: bool
    notes: tuple[str, ...]
    seconds: float = field(default=0.0, compare=False)


def fingerprint(cohort: Cohort, listener: Listener = silent, memos: Memos | None = None) -> Fingerprint:
    """Read every case that is not excluded once, one at a time, and describe the cohort.

    memos: where what was seen of a case is kept, so that it is not read again as long as its files do not change.

    Labels of unlabelled cases are never looked at, and only labelled cases (not validation) shape the CT window and
    the classes. Raises DataError that names every case that cannot be used.
    """
    cases = [case for case in cohort.cases if case.role != "excluded"]
    if not cases:
        raise DataError(f"The cohort {cohort.source} has no case that is not excluded.")
    survey = _Survey(cohort, len(cases[0].images), memos)
    errors: list[DataError] = []
    start = time.monotonic()
    for done, case in enumerate(cases, 1):
        try:
            survey.add(case)
        except DataError as error:
            errors.append(error)
        left = (time.monotonic() - start) / done * (len(cases) - done)
        listener("progress", {"done": done, "total": len(cases), "unit": "cases", "seconds_left": round(left, 1)})
    if errors:
        raise _together(errors)
    return survey.result()


def choose_channels(found: Fingerprint, preset: str = "default") -> tuple[ChannelIntensity, ...]:
    """Return how each channel is brought to the network's range.

    ``paper``: z-score over the whole image without clipping. ``default``: the cohort's window for CT, else a z-score
    over the foreground between its percentiles 0.5 and 99.5.
    """
    return tuple(dataclasses.replace(_intensity(c, preset), modality=c.modality, title=c.title) for c in found.channels)


def _intensity(channel: ChannelFingerprint, preset: str) -> ChannelIntensity:
    if preset == "paper":
        return ChannelIntensity(kind="zscore", lower=0.0, upper=100.0, region="image")
    if channel.modality != "CT":
        return ChannelIntensity()
    window = (channel.window_lower, channel.window_upper, channel.window_mean, channel.window_std)
    return ChannelIntensity("window", *window, region="image")


def labels_drawn(case: CaseFingerprint, segments: Sequence[Segment]) -> frozenset[int]:
    """Return the labels of those of the cohort's ``segments`` that a case has voxels of."""
    labels = {plain_name(s.label): s.label for s in segments} | {name_key(s.name): s.label for s in segments}
    return frozenset(labels[name_key(name)] for name, n in case.voxels.items() if n and name_key(name) in labels)


def one_component(labeled: Iterable[tuple[CaseFingerprint, bool]], segments: Sequence[Segment]) -> bool:
    """Return whether each segment is drawn in three or more cases, and one compact piece in all that have it.

    labeled: cases, each with whether all that is drawn in it is compact.
    """
    known = list(labeled)
    drawn = Counter(label for case, _ in known for label in labels_drawn(case, segments))
    return all(compact for _, compact in known) and all(drawn[s.label] >= _LEAST_ONE_COMPONENT for s in segments)


class _Survey:
    """What is gathered while the cases pass by; nothing in it grows with their size."""

    def __init__(self, cohort: Cohort, channels: int, memos: Memos | None = None) -> None:
        self._cohort = cohort
        self._channels = channels
        self._memos = memos
        self._cases: list[CaseFingerprint] = []
        self._segments: dict[str, dict[str, tuple[Segment, ...]]] = {"labeled": {}, "validation": {}}
        self._notes: list[str] = []
        self._labeled: list[tuple[CaseFingerprint, bool]] = []  # with whether it is compact
        self._seconds = 0.0
        self._near = np.zeros((channels, BINS), dtype=np.int64)  # around the labelled structures
        self._all = np.zeros((channels, BINS), dtype=np.int64)

    def add(self, case: Case) -> None:
        seen = recalled(case, self._channels, self._cohort.segments, self._memos)
        self._cases.append(seen.case)
        self._seconds += seen.seconds
        self._notes += seen.notes
        self._all += seen.everywhere
        self._near += seen.around
        if case.role == "labeled":
            self._labeled.append((seen.case, seen.compact))
        if seen.segments is not None:
            self._segments[case.role][case.id] = seen.segments

    def result(self) -> Fingerprint:
        segments = match_segments(self._segments["labeled"], self._cohort.segments) if self._segments["labeled"] else ()
        self._check_validation(segments)
        channels = tuple(self._channel(index) for index in range(self._channels))
        spacing = np.median([case.spacing for case in self._cases], axis=0)
        size = np.median([case.size for case in self._cases], axis=0)
        notes = (*self._notes, *_outliers(self._cases, segments), *_not_held_out(self._cases, segments))
        compact = one_component(self._labeled, segments)
        shape = (_floats(spacing), _integers(size))
        return Fingerprint(tuple(self._cases), channels, segments, *shape, compact, notes, self._seconds)

    def _channel(self, index: int) -> ChannelFingerprint:
        modality = _most(case.channels[index].modality for case in self._cases)
        counts = self._near[index] if self._near[index].any() else self._all[index]
        values = np.arange(HU_RANGE[0], HU_RANGE[1] + 1)
        cumulative = np.cumsum(counts) / counts.sum()
        lower = float(values[np.searchsorted(cumulative, 0.005)])
        upper = max(float(values[np.searchsorted(cumulative, 0.995)]), lower + 100.0)
        clipped = np.clip(values, lower, upper)
        mean = float(np.average(clipped, weights=counts))
        std = float(np.sqrt(np.average((clipped - mean) ** 2, weights=counts)))
        title = self._cohort.channels[index] if self._cohort.channels else ""
        return ChannelFingerprint(modality, lower, upper, round(mean, 3), round(std, 3) or 1.0, title)

    def _check_validation(self, segments: tuple[Segment, ...]) -> None:
        """A held-out case may lack classes but not have others: it takes no part in choosing them."""
        known = {s.name.strip().casefold() for s in segments}
        for case, found in self._segments["validation"].items():
            unnamed_ok = {plain_name(s.label) for s in segments if plain_value(s.name) is None}
            wrong = [s for s in found if s.name.strip().casefold() not in known and s.name not in unnamed_ok]
            if wrong and segments:
                names = ", ".join(repr(s.name) for s in segments)
                raise DataError(
                    f"Case {case} is held out for validation and has the class {wrong[0].name!r}, which no labelled "
                    f"case has (they have {names}); if that is right, give it the role labeled and others the role "
                    "validation in the cohort's list, or hold none out (--hold-out 0); if not, rename or remove it.",
                    case,
                )


def _outliers(cases: Sequence[CaseFingerprint], segments: Sequence[Segment]) -> list[str]:
    """Return sentences on cases that differ from most of the others."""
    if len(cases) < 3:
        return []
    notes = _minority(cases, lambda c: c.orientation, "has its axes stored as {found}, most are {usual}: put right")
    notes += _minority(
        cases,
        lambda c: " and ".join(channel.modality for channel in c.channels),
        "has grey values like {found}, most are {usual}: check it",
    )
    usual = np.median([case.spacing for case in cases], axis=0)
    for case in cases:
        ratio = np.asarray(case.spacing) / usual
        if ratio.max() > 2 or ratio.min() < 0.5:
            notes.append(f"Case {case.id} has a spacing of {_mm(case.spacing)}, the median is {_mm(usual)}.")
    return notes + _rare_segments(cases, segments) + _doubles(cases)


def _minority(cases: Sequence[CaseFingerprint], key: Callable[[CaseFingerprint], str], sentence: str) -> list[str]:
    """Name the few cases that differ, where there is a clear majority: a quarter at most, or one of three or more."""
    usual = _most(map(key, cases))
    odd = [case for case in cases if key(case) != usual]
    few = len(odd) <= 0.25 * len(cases) or (len(odd) == 1 and len(cases) >= 3)
    if not few:
        return []
    return [f"Case {case.id} {sentence.format(found=key(case), usual=usual)}." for case in odd]


def _rare_segments(cases: Sequence[CaseFingerprint], segments: Sequence[Segment]) -> list[str]:
    labeled = [case for case in cases if case.role == "labeled"]
    drawn = {case.id: labels_drawn(case, segments) for case in labeled}
    notes = []
    for segment in segments:
        having = [case for case, labels in drawn.items() if segment.label in labels]
        if len(having) == 1 and len(labeled) >= 4:
            notes.append(f"The class {segment.name!r} occurs in case {having[0]} only; check that it is no mistake.")
        elif not having and labeled:
            notes.append(f"The class {segment.name!r} occurs in no labelled case.")
        elif len(having) < len(labeled):
            others = [case.id for case in labeled if case.id not in having]
            notes.append(
                f"The class {segment.name!r} is drawn in {len(having)} of {len(labeled)} labelled cases, and the "
                f"training takes it for absent from the others ({_listed(others)}): draw it there, too, if it is there."
            )
    return notes


def _not_held_out(cases: Sequence[CaseFingerprint], segments: Sequence[Segment]) -> list[str]:
    """Labels that were accepted before a class was added lack it: what is found of it there counts as wrong."""
    drawn = {role: {c.id: labels_drawn(c, segments) for c in cases if c.role == role} for role in _JUDGED}
    taught = frozenset[int]().union(*drawn["labeled"].values())
    held_out, notes = drawn["validation"], []
    for segment in segments:
        lacking = [case for case, labels in held_out.items() if segment.label not in labels]
        if lacking and segment.label in taught:
            notes.append(
                f"The class {segment.name!r} is not drawn in {len(lacking)} of {len(held_out)} held-out cases "
                f"({_listed(lacking)}), and figures take it for absent there, so that all that a model finds of it "
                "counts as wrong: draw it there, too, if it is there."
            )
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _doubles(cases: Sequence[CaseFingerprint]) -> list[str]:
    """Two ids for one scan would put a training case into the validation."""
    seen: dict[Hashable, str] = {}
    notes = []
    for case in cases:
        first = seen.setdefault((case.size, case.channels), case.id)
        if first != case.id:
            notes.append(f"Cases {first} and {case.id} seem to be the same scan; exclude one of them.")
    return notes


def _together(errors: Sequence[DataError]) -> DataError:
    first, others = errors[0], [e.case_id or "?" for e in errors[1:]]
    if not others:
        return first
    listed = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
    return DataError(f"{str(first).rstrip('.')}; {len(others)} more cases cannot be used: {listed}.", first.case_id)


def _most(values: Iterable[str]) -> str:
    return Counter(values).most_common(1)[0][0]


def _mm(spacing: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{s:.3g}" for s in spacing) + " mm"


def _floats(values: np.ndarray) -> Spacing:
    x, y, z = (round(float(v), 6) for v in values)
    return x, y, z


def _integers(values: np.ndarray) -> Triple:
    x, y, z = (int(round(float(v))) for v in values)
    return x, y, z
