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

from ..config import Plan, Triple
from ..data.cache import PreparedCase
from ..inference.sliding_window import Windows, fitted_windows, stitch, sums_bytes, sweep
from ..metrics import dice
from ..model import CamlNetwork
from .engine import autocast

OVERLAP = 0.25
#: Live validation looks at so many cases at most.
VALIDATION_CASES = 20
#: The most that the sums of blended windows may take, in bytes: about what a step takes beside the network. It does not
#: follow the free memory, by which a training that goes on would have other figures than one that was not stopped.
MOST_SUMS = 2**30


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
    windows, blended = _windows((x, y, z), plan)
    classes = plan.network.classes

    def probabilities(run: Callable[[Tensor], Tensor], window: Tensor) -> Tensor:
        with autocast(plan.numeric, device):
            logits = run(window)
        return torch.softmax(logits[0].float(), 0)

    def both(window: Tensor) -> tuple[Tensor, Tensor]:
        v = probabilities(network.forward_v, window)
        return v, v if plan.labeled_only else probabilities(network.forward_a, window)

    # Labels alone are kept of each row: maps of all classes would take gigabytes of a large scan with many segments.
    labels = torch.empty((3, x, y, z), dtype=torch.uint8)
    with torch.inference_mode():
        if blended:
            by_row = labels.movedim(1 + windows.axis, 1)
            for first, rows in sweep(image, windows, lambda w: torch.cat(both(w)), 2 * classes, device=str(device)):
                by_row[:, first : first + rows.shape[1]] = _labels(rows[:classes], rows[classes:])
        else:
            for box, found in stitch(image, windows, lambda w: _labels(*both(w)), device=str(device)):
                labels[(slice(None), *box)] = found
    reference = np.asarray(case.label)
    return [[dice(label == s.label, reference == s.label) for s in plan.segments] for label in labels.numpy()]


def _windows(size: Triple, plan: Plan) -> tuple[Windows, bool]:
    """Return the windows of a case, and whether they are blended where they overlap, as predictions are.

    Of many segments in a large scan the sums would take gigabytes. Then each window stands for its middle, and is as
    large as a patch, for which a step takes more.
    """
    patch, divisor = plan.geometry.patch, plan.network.divisor
    windows = fitted_windows(size, patch, divisor, OVERLAP)
    if sums_bytes(windows, 2 * plan.network.classes) <= MOST_SUMS:
        return windows, True
    return fitted_windows(size, patch, divisor, OVERLAP, stretch=1.0), False


def _labels(v: Tensor, a: Tensor) -> Tensor:
    """Labels of the mean of both, of v and of a, uint8 [3, ...] on the CPU, from maps [classes, ...]."""
    return torch.stack([maps.argmax(0).to(torch.uint8) for maps in (v + a, v, a)]).cpu()
