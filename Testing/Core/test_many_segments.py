"""Many segments of a large scan: what is summed up of all classes is bounded, or is refused before it is tried."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from round_tools import ONE_THREAD
from synthetic import SIZE, prepared, scan, tiny_plan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from caml_core.config import Geometry, Plan, Segment
from caml_core.data.grid import Grid
from caml_core.data.io import Volume
from caml_core.errors import ResourceError
from caml_core.inference import predictor as predictor_module
from caml_core.inference.predictor import Predictor
from caml_core.inference.sliding_window import fitted_windows, stitch, sums_bytes
from caml_core.metrics import dice
from caml_core.model import CamlNetwork, build_network
from caml_core.training import validation
from caml_core.training.validation import MOST_SUMS, OVERLAP, validate


def _plan_of(segments: int, patch: int = 16) -> Plan:
    plan = tiny_plan(geometry=Geometry((1.0, 1.0, 1.0), (patch,) * 3))
    network = dataclasses.replace(plan.network, classes=segments + 1)
    named = tuple(Segment(f"s{label}", label) for label in range(1, segments + 1))
    return dataclasses.replace(plan, network=network, segments=named)


@pytest.mark.parametrize("segments", [1, 2, 8, 40, 200])
@pytest.mark.parametrize("size", [(60, 60, 60), (300, 300, 300), (340, 340, 400), (512, 512, 900)])
def test_what_is_kept_beside_the_network_is_bounded_whatever_the_classes(size: Any, segments: int) -> None:
    plan = _plan_of(segments, 96)
    windows, blended = validation._windows(size, plan)
    needed = sums_bytes(windows, 2 * plan.network.classes)
    assert needed <= MOST_SUMS if blended else math.prod(windows.window) <= 96**3
    if segments == 1 and size != (512, 512, 900):
        assert blended, "as predictions are, where that can be"
    if segments == 40 and size != (60, 60, 60):
        assert not blended


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


def test_many_segments_of_a_large_scan_keep_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    size, plan, rng = (64, 48, 48), _plan_of(40), np.random.default_rng(0)
    network = build_network(plan.network).eval()
    image, label = rng.normal(size=(1, *size)).astype(np.float16), rng.integers(0, 41, size).astype(np.uint8)
    case = dataclasses.replace(prepared(0, "validation"), image=image, label=label)
    most = {}
    for limit in (MOST_SUMS, 2**20):
        monkeypatch.setattr(validation, "MOST_SUMS", limit)
        with Largest() as seen:
            scores = validate(network, plan, [case], stop=lambda: False, device=torch.device("cpu"))
        most[limit] = seen.bytes
    assert most[2**20] <= 4 * 41 * 16**3 < most[MOST_SUMS]
    windows = fitted_windows(size, plan.geometry.patch, plan.network.divisor, OVERLAP, 1.0)
    found = {}
    with torch.inference_mode():
        for name, forward in (("v", network.forward_v), ("a", network.forward_a)):
            found[name] = torch.empty(41, *size)
            boxes = stitch(torch.from_numpy(image.astype(np.float32)), windows, lambda w, run=forward: run(w)[0])
            for box, maps in boxes:
                found[name][(slice(None), *box)] = maps.softmax(0)
    maps = (found["v"] + found["a"], found["v"], found["a"])
    expected = [np.mean([dice(m.argmax(0).numpy() == s.label, label == s.label) for s in plan.segments]) for m in maps]
    assert scores is not None
    assert (scores.dice, scores.dice_v, scores.dice_a) == pytest.approx(expected, abs=1e-4)


# Predictions


class Watched(CamlNetwork):
    """Notes the voxels of each window that v is asked for."""

    asked: list[int]

    def forward_v(self, x: Tensor) -> Tensor:
        self.asked.append(x[0, 0].numel())
        return super().forward_v(x)


def test_sums_that_cannot_be_had_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system promises a program more memory than there is, and ends it when it is used."""
    plan = _plan_of(40, 24)
    network = build_network(plan.network).eval()
    network.__class__ = Watched
    told: list[str] = []
    predictor = Predictor(network, plan.model_spec, numeric=ONE_THREAD, listener=lambda kind, fields: told.append(kind))
    asked = predictor._network.asked = []
    usual = predictor.windows(SIZE, ("v", "a"))
    whole, half = (2 * sums_bytes(windows, 2 * 40) // 3 for windows in (usual, predictor._smaller(usual)))
    assert half < whole
    volume = Volume(scan(0)[0], Grid(SIZE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    for free, warnings in ((whole, 0), (half, 1)):
        told.clear(), asked.clear()
        monkeypatch.setattr(predictor_module, "available_ram", lambda free=free: free)
        prediction = predictor.predict([volume])
        assert told.count("warning") == warnings and set(asked) == {math.prod(prediction.windows.window)}
    asked.clear()
    monkeypatch.setattr(predictor_module, "available_ram", lambda: half - 1)
    with pytest.raises(ResourceError, match="not enough memory on cpu for this case.*close other programs"):
        predictor.predict([volume])
    assert not asked
