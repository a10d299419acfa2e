"""Ramps of the unsupervised terms and of the learning rate."""

from __future__ import annotations

import math
from typing import Literal


def gaussian_ramp(position: float, length: float) -> float:
    """exp(-5 (1 - t/T)^2), at 1 from ``length`` on; 1 everywhere for a length of 0 (Laine and Aila, 2017)."""
    if length <= 0:
        return 1.0
    progress = min(max(position / length, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - progress) ** 2)


def learning_rate_factor(
    iteration: int,
    iterations: int,
    schedule: Literal["cosine", "polynomial", "constant", "plateau"],
    warmup: int = 0,
    annealing: tuple[int, int] | None = None,
) -> float:
    """Share of the full learning rate at ``iteration`` (from 0); cosine and polynomial (0.9) end at zero.

    ``annealing``: where a "plateau" schedule begins to fall (as a cosine) and where it arrives at zero.
    """
    if iteration < warmup:
        return (iteration + 1) / (warmup + 1)
    if schedule == "plateau" and annealing is not None and iteration >= annealing[0]:
        begin, end = annealing
        return 0.5 * (1.0 + math.cos(math.pi * min((iteration - begin) / max(end - begin, 1), 1.0)))
    if schedule in ("constant", "plateau"):
        return 1.0
    progress = min((iteration - warmup) / max(iterations - warmup, 1), 1.0)
    if schedule == "polynomial":
        return (1.0 - progress) ** 0.9
    return 0.5 * (1.0 + math.cos(math.pi * progress))
