"""From what a cohort is like to the network's grid: spacing, downsampling, patch. No device is asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..config import Geometry, Segment, Spacing, Triple
from ..data.case import Case
from ..data.fingerprint import Fingerprint, labels_drawn
from ..data.geometry import NetworkGrid
from ..data.io import read_volume
from ..data.labels import read_case_labels
from ..data.segments import conform

Strides = tuple[Triple, Triple, Triple, Triple]

#: Voxels of a patch that a step can afford.
PATCH_VOXELS = {"cpu": 250_000, "gpu": 1_100_000}
#: A volume of at most this many patches is seen with enough context at once.
PATCHES_PER_VOLUME = 1.5
COARSENING = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
#: Dice that labels must keep on the way to the network's grid and back.
LEAST_CEILING = 0.97
#: Labelled cases that are looked at for it, of each segment.
CEILING_CASES = 4
THIN_SHARE = 0.015
#: In the place of a coarsening: the grid of the model that a training starts from.
_START = 0.0


@dataclass(frozen=True)
class LabelTraits:
    """What the labelled cases' segments are like.

    ceilings: coarsening -> lowest segment's mean Dice after the way to the network's grid and back, over cases that
    have the segment. Coarsenings that certainly keep less than ``LEAST_CEILING``, and all beyond them, are left out.
    start_ceiling: the same for the grid of the model that a training starts from; 1 without one.
    """

    ceilings: dict[float, float]
    foreground_share: float
    start_ceiling: float = 1.0

    @property
    def thin(self) -> bool:
        """Whether the foreground is so small that patches should be centred on it more often."""
        return self.foreground_share < THIN_SHARE


def study_labels(
    cases: Sequence[Case], found: Fingerprint, declared: Sequence[Segment], start: Geometry | None = None
) -> LabelTraits:
    """Read a few labelled cases of each segment; ``declared`` are the cohort's own segments.

    start: the grid of the model that a training starts from; then no other is looked at.
    """
    chosen = _cases_to_read(cases, found)
    if not chosen:
        return LabelTraits(dict.fromkeys(COARSENING, 1.0), 0.0)
    total = Counter(label for labels in chosen.values() for label in labels)
    grids = _grids_to_try(found.spacing, start)
    dice: dict[float, dict[int, list[float]]] = {f: {label: [] for label in total} for f in grids}
    shares = []
    for case in cases:
        if case.id not in chosen:
            continue
        grid = read_volume(case.images[0], case.id).grid
        drawn = read_case_labels(case, grid, declared)
        label = conform(drawn.array, drawn.segments, found.segments, case.id)
        shares.append(float(np.count_nonzero(label)) / label.size)
        for factor in list(dice):
            network_grid = NetworkGrid.of(drawn.grid, grids[factor])
            for value in chosen[case.id]:
                dice[factor][value].append(_round_trip_dice(label == value, network_grid))
            if start is None and _best_ceiling(dice[factor], total) < LEAST_CEILING:
                dice = {
                    f: kept for f, kept in dice.items() if f < factor
                }  # nothing is asked beyond: scans may be large
                break
    ceilings = {factor: min(float(np.mean(v)) for v in kept.values()) for factor, kept in dice.items()}
    start_ceiling = ceilings.pop(_START, 1.0)
    return LabelTraits({1.0: 1.0, **ceilings}, float(np.mean(shares)), start_ceiling)


def coarsened(spacing: Spacing, factor: float) -> Spacing:
    """Widen the finest axes to ``factor`` times the finest spacing; coarser axes stay as they are."""
    finest = min(spacing) * factor
    x, y, z = (round(max(s, finest), 4) for s in spacing)
    return x, y, z


def choose_spacing(size: Triple, spacing: Spacing, traits: LabelTraits, patch_voxels: int) -> tuple[Spacing, float]:
    """Return the finest spacing at which a median volume is seen whole, as far as the labels survive it.

    size, spacing: medians of the cohort. Also returns the factor.
    """
    factor = 1.0
    for candidate in COARSENING:
        if traits.ceilings.get(candidate, 0.0) < LEAST_CEILING:
            break
        factor = candidate
        voxels = math.prod(n * s / t for n, s, t in zip(size, spacing, coarsened(spacing, candidate)))
        if voxels <= PATCHES_PER_VOLUME * patch_voxels:
            break
    return coarsened(spacing, factor), factor


def choose_strides(size: Triple, spacing: Spacing) -> Strides:
    """Downsample an axis while it is about as fine as the finest one and enough voxels are left of it."""
    current, left, stages = list(spacing), list(size), []
    for _ in range(4):
        finest = min(s for s, n in zip(current, left) if n >= 4) if any(n >= 4 for n in left) else min(current)
        stage = tuple(2 if s <= 2 * finest and n >= 8 else 1 for s, n in zip(current, left))
        current = [s * k for s, k in zip(current, stage)]
        left = [math.ceil(n / k) for n, k in zip(left, stage)]
        stages.append(stage)
    first, second, third, fourth = stages
    return first, second, third, fourth  # type: ignore[return-value]


def choose_patch(size: Triple, divisor: Triple, patch_voxels: int) -> Triple:
    """Cover a median volume as far as ``patch_voxels`` allows, the same share of each axis; sides fit ``divisor``."""
    patch = [max(math.ceil(n / d), 1) * d for n, d in zip(size, divisor)]
    while math.prod(patch) > patch_voxels:
        axis = max((a for a in range(3) if patch[a] > divisor[a]), key=lambda a: patch[a] / size[a], default=None)
        if axis is None:
            break
        patch[axis] -= divisor[axis]
    x, y, z = patch
    return x, y, z


def network_size(size: Triple, spacing: Spacing, target: Spacing) -> Triple:
    """A median volume's size on the network's grid."""
    x, y, z = (max(round(n * s / t), 1) for n, s, t in zip(size, spacing, target))
    return x, y, z


def _cases_to_read(cases: Sequence[Case], found: Fingerprint) -> dict[str, list[int]]:
    """Case id -> labels to look at in it: the first few cases of each segment, among those that have it."""
    drawn = {case.id: labels_drawn(case, found.segments) for case in found.cases}
    chosen: dict[str, list[int]] = {}
    for segment in found.segments:
        for case in [c for c in cases if segment.label in drawn[c.id]][:CEILING_CASES]:
            chosen.setdefault(case.id, []).append(segment.label)
    return chosen


def _grids_to_try(spacing: Spacing, start: Geometry | None) -> dict[float, Geometry]:
    """Grids that labels are taken to; a start model's only where an axis of it is coarser than the cohort's median."""
    if start is None:
        return {factor: Geometry(coarsened(spacing, factor), (16, 16, 16)) for factor in COARSENING[1:]}
    coarser = any(theirs > 1.001 * ours for theirs, ours in zip(start.spacing, spacing))
    return {_START: start} if coarser else {}


def _best_ceiling(dice: Mapping[int, Sequence[float]], total: Mapping[int, int]) -> float:
    """The ceiling if all cases that are still to be read kept their labels without loss; label -> Dice, cases."""
    best = min((sum(values) + total[label] - len(values)) / total[label] for label, values in dice.items())
    return best + 1e-9  # sums in another order must not decide


def _round_trip_dice(mask: np.ndarray, grid: NetworkGrid) -> float:
    soft = torch.from_numpy(grid.image_to_network(mask.astype(np.float32)))[None]
    back = grid.upsample_rows(soft, 0, 0, grid.oriented_size[0])[0].numpy() > 0.5
    there = grid.orient(mask)
    return float(2 * np.count_nonzero(back & there) / (np.count_nonzero(back) + np.count_nonzero(there)))
