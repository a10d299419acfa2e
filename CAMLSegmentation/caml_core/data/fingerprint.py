"""What a cohort is like: sizes, spacings, grey values, classes, and what stands out. The planner decides from this."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..config import ChannelIntensity, Geometry, Segment, Spacing, Triple
from ..errors import DataError
from ..events import Listener, silent
from .case import Case, Cohort
from .counting import count_values
from .geometry import NetworkGrid
from .grid import Grid
from .intensity import foreground, looks_like_ct, sample_voxels
from .io import Volume, read_case
from .labels import LabelMap, read_case_labels
from .preparation import uses_label
from .segments import match_segments, name_key, plain_name

#: Voxels of a case that intensity statistics are taken from.
_SAMPLE = 2**20
#: How far around a labelled structure a CT window must tell tissues apart, in mm.
_NEIGHBOURHOOD = 5.0
#: Hounsfield units outside this are air, metal or padding.
_HU_RANGE = (-1024, 3071)
#: A segment is one compact piece when this share of it hangs together, and when it fills this share of its bounding
#: box: organs fill 15 to 40 %, vessel trees 0.5 to 7 %, and what lies beyond a gap of a tree must not be taken away.
_ONE_COMPONENT_SHARE, _COMPACT_SHARE = 0.97, 0.1
#: Fewer labelled cases that have a segment do not tell: the next patient may have two lesions.
_LEAST_ONE_COMPONENT = 3


@dataclass(frozen=True)
class ChannelStatistics:
    """Grey values of one channel of one case: of all voxels, and of those above the background."""

    minimum: float
    maximum: float
    mean: float
    std: float
    percentile_00_5: float
    median: float
    percentile_99_5: float
    foreground_mean: float
    foreground_std: float
    modality: str


@dataclass(frozen=True)
class CaseFingerprint:
    """One case. ``size`` and ``spacing`` go along the patient axes L, P, S; ``orientation`` is the file's own.

    ``voxels`` counts each class's labelled voxels by name and ``extent_mm`` is the box around them all; both are
    empty or None for cases without a label that may be used.
    """

    id: str
    role: str
    size: Triple
    spacing: Spacing
    orientation: str
    channels: tuple[ChannelStatistics, ...]
    voxels: dict[str, int]
    extent_mm: Spacing | None


@dataclass(frozen=True)
class ChannelFingerprint:
    """One channel over all cases. The window (HU; of use for CT only) holds the labelled structures and what
    surrounds them.
    """

    modality: str
    window_lower: float
    window_upper: float
    window_mean: float
    window_std: float


@dataclass(frozen=True)
class Fingerprint:
    """A cohort. ``spacing`` and ``size`` are medians over all cases that are not excluded, along L, P, S.

    ``one_component``: every segment is drawn in three or more labelled cases, and is one compact piece, but for a few
    voxels, in all that have it. ``notes`` are sentences that the user should read.
    """

    cases: tuple[CaseFingerprint, ...]
    channels: tuple[ChannelFingerprint, ...]
    segments: tuple[Segment, ...]
    spacing: Spacing
    size: Triple
    one_component: bool
    notes: tuple[str, ...]


def fingerprint(cohort: Cohort, listener: Listener = silent) -> Fingerprint:
    """Read every case that is not excluded once, one at a time, and describe the cohort.

    Labels of unlabelled cases are never looked at, and only labelled cases (not validation) shape the CT window and
    the classes. Raises DataError that names every case that cannot be used.
    """
    cases = [case for case in cohort.cases if case.role != "excluded"]
    if not cases:
        raise DataError(f"The cohort {cohort.source} has no case that is not excluded.")
    survey = _Survey(cohort, len(cases[0].images))
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
    if preset == "paper":
        return tuple(
            ChannelIntensity(kind="zscore", lower=0.0, upper=100.0, region="image", modality=c.modality)
            for c in found.channels
        )
    return tuple(
        ChannelIntensity("window", c.window_lower, c.window_upper, c.window_mean, c.window_std, "image", c.modality)
        if c.modality == "CT"
        else ChannelIntensity(modality=c.modality)
        for c in found.channels
    )


def labels_drawn(case: CaseFingerprint, segments: Sequence[Segment]) -> frozenset[int]:
    """Return the labels of those of the cohort's ``segments`` that a case has voxels of."""
    labels = {plain_name(s.label): s.label for s in segments} | {name_key(s.name): s.label for s in segments}
    return frozenset(labels[name_key(name)] for name, n in case.voxels.items() if n and name_key(name) in labels)


class _Survey:
    """What is gathered while the cases pass by; nothing in it grows with their size."""

    def __init__(self, cohort: Cohort, channels: int) -> None:
        self._cohort = cohort
        self._channels = channels
        self._cases: list[CaseFingerprint] = []
        self._segments: dict[str, dict[str, tuple[Segment, ...]]] = {"labeled": {}, "validation": {}}
        self._notes: list[str] = []
        self._compact = True
        bins = _HU_RANGE[1] - _HU_RANGE[0] + 1
        self._near = np.zeros((channels, bins), dtype=np.int64)  # around the labelled structures
        self._all = np.zeros((channels, bins), dtype=np.int64)

    def add(self, case: Case) -> None:
        volumes = read_case(case, self._channels)
        grid = volumes[0].grid
        label_map = read_case_labels(case, grid, self._cohort.segments) if uses_label(case) else None
        voxels: dict[str, int] = {}
        extent = None
        if label_map is not None:
            counts = count_values(label_map.array)
            voxels = {s.name: int(counts[s.label]) for s in label_map.segments}
            self._segments[case.role][case.id] = label_map.segments
            self._notes += label_map.notes
            box = ndimage.find_objects((label_map.array > 0).view(np.uint8))[0]
            extent = _along_patient([(s.stop - s.start) * w for s, w in zip(box, grid.spacing)], grid)
            if case.role == "labeled":
                self._add_neighbourhood(volumes, label_map, box)
                self._compact = self._compact and _is_compact(label_map)
        statistics = tuple(self._add_channel(index, volume) for index, volume in enumerate(volumes))
        size = _along_patient(grid.size, grid)
        spacing = _along_patient(grid.spacing, grid)
        self._cases.append(
            CaseFingerprint(case.id, case.role, size, spacing, _orientation(grid), statistics, voxels, extent)
        )

    def result(self) -> Fingerprint:
        segments = match_segments(self._segments["labeled"], self._cohort.segments) if self._segments["labeled"] else ()
        self._check_validation(segments)
        channels = tuple(self._channel(index) for index in range(self._channels))
        spacing = np.median([case.spacing for case in self._cases], axis=0)
        size = np.median([case.size for case in self._cases], axis=0)
        notes = (*self._notes, *_outliers(self._cases, segments))
        drawn = Counter(label for c in self._cases if c.role == "labeled" for label in labels_drawn(c, segments))
        compact = self._compact and all(drawn[s.label] >= _LEAST_ONE_COMPONENT for s in segments)
        return Fingerprint(tuple(self._cases), channels, segments, _floats(spacing), _integers(size), compact, notes)

    def _add_channel(self, index: int, volume: Volume) -> ChannelStatistics:
        values = sample_voxels(volume.array, _SAMPLE)
        self._all[index] += _histogram(values)
        low, median, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
        above = foreground(values)
        return ChannelStatistics(
            minimum=float(volume.array.min()),
            maximum=float(volume.array.max()),
            mean=float(values.mean(dtype=np.float64)),
            std=float(values.std(dtype=np.float64)),
            percentile_00_5=low,
            median=median,
            percentile_99_5=high,
            foreground_mean=float(above.mean(dtype=np.float64)),
            foreground_std=float(above.std(dtype=np.float64)),
            modality="CT" if looks_like_ct(values) else "MR",
        )

    def _add_neighbourhood(self, volumes: Sequence[Volume], label_map: LabelMap, box: tuple[slice, ...]) -> None:
        reach = [max(1, round(_NEIGHBOURHOOD / step)) for step in label_map.grid.spacing]
        region = tuple(slice(max(s.start - r, 0), s.stop + r) for s, r in zip(box, reach))
        near = ndimage.maximum_filter(label_map.array[region] > 0, size=[2 * r + 1 for r in reach])
        for index, volume in enumerate(volumes):
            counts = _histogram(volume.array[region][near])
            # Every case weighs the same, however large its structures are.
            self._near[index] += np.rint(counts * (_SAMPLE / counts.sum())).astype(np.int64)

    def _channel(self, index: int) -> ChannelFingerprint:
        modality = _most(case.channels[index].modality for case in self._cases)
        counts = self._near[index] if self._near[index].any() else self._all[index]
        values = np.arange(_HU_RANGE[0], _HU_RANGE[1] + 1)
        cumulative = np.cumsum(counts) / counts.sum()
        lower = float(values[np.searchsorted(cumulative, 0.005)])
        upper = max(float(values[np.searchsorted(cumulative, 0.995)]), lower + 100.0)
        clipped = np.clip(values, lower, upper)
        mean = float(np.average(clipped, weights=counts))
        std = float(np.sqrt(np.average((clipped - mean) ** 2, weights=counts)))
        return ChannelFingerprint(modality, lower, upper, round(mean, 3), round(std, 3) or 1.0)

    def _check_validation(self, segments: tuple[Segment, ...]) -> None:
        """A held-out case may lack classes but not have others: it takes no part in choosing them."""
        known = {s.name.strip().casefold() for s in segments}
        for case, found in self._segments["validation"].items():
            unnamed_ok = {f"segment_{s.label}" for s in segments}
            wrong = [s for s in found if s.name.strip().casefold() not in known and s.name not in unnamed_ok]
            if wrong and segments:
                names = ", ".join(repr(s.name) for s in segments)
                raise DataError(
                    f"Case {case} is held out for validation and has the class {wrong[0].name!r}, which no labelled "
                    f"case has (they have {names}); if that is right, give it the role labeled and others the role "
                    "validation in the cohort's list, or hold none out (--hold-out 0); if not, rename or remove it.",
                    case,
                )


def _is_compact(label_map: LabelMap) -> bool:
    """Whether each segment that a case has is one compact piece."""
    for value, box in enumerate(ndimage.find_objects(label_map.array), 1):
        if box is None:
            continue
        inside = label_map.array[box] == value
        voxels = np.count_nonzero(inside)
        if voxels < _COMPACT_SHARE * inside.size:
            return False
        components, count = ndimage.label(inside)
        if int(count_values(components, count + 1)[1:].max()) < _ONE_COMPONENT_SHARE * voxels:
            return False
    return True


def _histogram(values: np.ndarray) -> np.ndarray:
    low, high = _HU_RANGE
    return np.bincount(np.clip(np.rint(values), low, high).astype(np.int64).ravel() - low, minlength=high - low + 1)


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
            named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            notes.append(
                f"The class {segment.name!r} is drawn in {len(having)} of {len(labeled)} labelled cases, and the "
                f"training takes it for absent from the others ({named}): draw it there, too, if it is there."
            )
    return notes


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


def _along_patient(values: Sequence[float], grid: Grid) -> tuple:
    way = NetworkGrid.of(grid, Geometry((1.0, 1.0, 1.0), (1, 1, 1)))
    return tuple(values[axis] for axis in way.permutation)


def _orientation(grid: Grid) -> str:
    return sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.direction)


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
