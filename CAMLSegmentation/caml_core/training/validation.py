"""Live validation: Dice of both sub-models on prepared cases, at the network's own resolution.

The figures of the model's card are measured once more in the end, on the scans' own grids (training/scores.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Plan
from ..data.cache import PreparedCase
from ..inference.sliding_window import fitted_windows, sweep
from ..metrics import dice
from ..model import CamlNetwork
from .engine import autocast

OVERLAP = 0.25
#: Live validation looks at so many cases at most.
VALIDATION_CASES = 20


@dataclass(frozen=True)
class Scores:
    """Mean Dice over cases and segments as the model predicts, of v and of a; ``segments``: the first, by name.

    A model predicts with both sub-models' mean, and with v where a is no second opinion.
    """

    dice: float
    dice_v: float
    dice_a: float | None
    segments: dict[str, float]
    cases: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Scores | None:
        """The inverse of ``to_dict``; None stays None."""
        return None if values is None else cls(**values)


def validate(
    network: CamlNetwork, plan: Plan, cases: Sequence[PreparedCase], *, stop: Callable[[], bool], device: torch.device
) -> Scores | None:
    """Return the scores of at most the first twenty cases; None where ``stop`` said so. Leaves evaluation mode on."""
    network.eval()
    rows = []
    for case in cases[:VALIDATION_CASES]:
        if stop():
            return None
        rows.append(_case_dice(network, plan, case, device))
    table = np.array(rows).mean(axis=0)  # [mean, v, a] x segments
    main = table[0 if plan.model_spec.second_opinion else 1]
    return Scores(
        dice=float(main.mean()),
        dice_v=float(table[1].mean()),
        dice_a=None if plan.labeled_only else float(table[2].mean()),
        segments={s.name: float(value) for s, value in zip(plan.segments, main)},
        cases=len(rows),
    )


def _case_dice(network: CamlNetwork, plan: Plan, case: PreparedCase, device: torch.device) -> list[list[float]]:
    image = torch.from_numpy(np.asarray(case.image, dtype=np.float32))
    x, y, z = image.shape[1:]
    windows = fitted_windows((x, y, z), plan.geometry.patch, plan.network.divisor, OVERLAP)
    classes = plan.network.classes

    def forward(window: Tensor) -> Tensor:
        with autocast(plan.numeric, device):
            v = network.forward_v(window)
            a = v if plan.labeled_only else network.forward_a(window)
        return torch.cat([torch.softmax(v[0].float(), 0), torch.softmax(a[0].float(), 0)])

    # Labels alone are kept of each row: maps of all classes would take gigabytes of a large scan with many segments.
    labels = torch.empty((3, x, y, z), dtype=torch.uint8)
    by_row = labels.movedim(1 + windows.axis, 1)
    with torch.inference_mode():
        for first, rows in sweep(image, windows, forward, 2 * classes, device=str(device)):
            v, a = rows[:classes], rows[classes:]
            for label, maps in zip(by_row, (v + a, v, a)):
                label[first : first + rows.shape[1]] = maps.argmax(0).cpu()
    reference = np.asarray(case.label)
    return [[dice(label == s.label, reference == s.label) for s in plan.segments] for label in labels.numpy()]
