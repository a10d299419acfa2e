"""From what a cohort is like to the network's grid: spacing, downsampling, patch. No device is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..config import Geometry, Segment, Spacing, Triple
from ..data.case import Case
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
#: Labelled cases that are looked at for it.
CEILING_CASES = 4
THIN_SHARE = 0.015


@dataclass(frozen=True)
class LabelTraits:
    """What the labelled cases' segments are like.

    ceilings: coarsening -> lowest segment's mean Dice after the way to the network's grid and back.
    """

    ceilings: dict[float, float]
    foreground_share: float

    @property
    def thin(self) -> bool:
        """Whether the foreground is so small that patches should be centred on it more often."""
        return self.foreground_share < THIN_SHARE


def study_labels(
    cases: Sequence[Case], segments: Sequence[Segment], declared: Sequence[Segment], spacing: Spacing
) -> LabelTraits:
    """Read a few labelled cases; ``spacing`` is the cohort's median."""
    ceilings: dict[float, list[list[float]]] = {factor: [] for factor in COARSENING[1:]}
    shares = []
    for case in cases[:CEILING_CASES]:
        grid = read_volume(case.images[0], case.id).grid
        found = read_case_labels(case, grid, declared)
        label = conform(found.array, found.segments, segments, case.id)
        shares.append(float(np.count_nonzero(label)) / label.size)
        for factor in ceilings:
            network_grid = NetworkGrid.of(found.grid, Geometry(coarsened(spacing, factor), (16, 16, 16)))
            ceilings[factor].append([_round_trip_dice(label == s.label, network_grid) for s in segments])
    means = {factor: float(np.mean(rows, axis=0).min()) for factor, rows in ceilings.items()}
    return LabelTraits({1.0: 1.0, **means}, float(np.mean(shares)))


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
        if traits.ceilings[candidate] < LEAST_CEILING:
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


def _round_trip_dice(mask: np.ndarray, grid: NetworkGrid) -> float:
    if not mask.any():
        return 1.0
    soft = torch.from_numpy(grid.image_to_network(mask.astype(np.float32)))[None]
    back = grid.upsample_rows(soft, 0, 0, grid.oriented_size[0])[0].numpy() > 0.5
    there = grid.orient(mask)
    return float(2 * np.count_nonzero(back & there) / (np.count_nonzero(back) + np.count_nonzero(there)))
