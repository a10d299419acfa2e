"""Live validation: what is kept row by row scores as whole maps do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from synthetic import prepared, tiny_plan
from torch import Tensor

from caml_core.inference.sliding_window import Windows, fitted_windows, sweep
from caml_core.metrics import dice
from caml_core.model import build_network
from caml_core.training.validation import OVERLAP, validate


def _whole(image: np.ndarray, windows: Windows, forward: Callable[[Tensor], Tensor]) -> Tensor:
    """Probabilities of all classes, [3, x, y, z]."""
    rows = sweep(torch.from_numpy(image.astype(np.float32)), windows, lambda w: forward(w)[0].softmax(0), 3)
    return torch.cat([block for _, block in rows], dim=1).movedim(1, 1 + windows.axis)


@pytest.mark.parametrize("size", [(40, 18, 20), (20, 18, 41), (9, 30, 16)])
def test_scores_are_those_of_whole_maps(size: tuple[int, int, int]) -> None:
    torch.manual_seed(1)
    plan, rng = tiny_plan(), np.random.default_rng(0)
    network = build_network(plan.network).eval()
    image = rng.normal(size=(1, *size)).astype(np.float16)
    case = dataclasses.replace(prepared(0, "validation"), image=image, label=rng.integers(0, 3, size).astype(np.uint8))
    scores = validate(network, plan, [case], stop=lambda: False, device=torch.device("cpu"))
    windows = fitted_windows(size, plan.geometry.patch, plan.network.divisor, OVERLAP)
    found = {}
    with torch.inference_mode():
        for name, forward in (("v", network.forward_v), ("a", network.forward_a)):
            found[name] = _whole(image, windows, forward)
    maps = (found["v"] + found["a"], found["v"], found["a"])
    expected = [
        np.mean([dice(m.argmax(0).numpy() == s.label, case.label == s.label) for s in plan.segments]) for m in maps
    ]
    assert scores is not None and expected[1] != expected[2]
    assert (scores.dice, scores.dice_v, scores.dice_a) == pytest.approx(expected, abs=1e-4)
    assert scores.cases == 1 and list(scores.segments) == ["dim", "bright"]
