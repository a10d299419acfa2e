"""Our predictor on one scan, part by part, and MONAI's windows with the same network."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import common  # noqa: F401 (makes caml_core known)
import torch
from bench_prediction import monai_labels, segmented

from caml_core.config import NumericMode, Plan
from caml_core.data.geometry import NetworkGrid
from caml_core.data.io import read_volume
from caml_core.inference.numeric import cast, choose_numeric
from caml_core.inference.predictor import Predictor, Quality
from caml_core.model import CamlNetwork, build_network

REPEATS = 3
QUALITIES: tuple[Quality, ...] = ("fast", "balanced", "best")
#: One way to predict: seconds of ``read``, ``prepare`` (onto the network's grid), ``labels`` (from there to labels on
#: the scan's grid), of it ``back`` (resampling; None: not told apart), ``bare`` (the forward passes of the same windows
#: and nothing else; None: not measured), and the number of ``windows`` and ``views`` of each.
Parts = dict[str, Any]


def our_parts(plan: Plan, scan: Path) -> dict[str, Parts]:
    """Measure every quality and MONAI; weights are random, time does not depend on them."""
    torch.manual_seed(0)
    network = build_network(plan.network).eval()
    numeric = choose_numeric(network, plan.network, "cpu")
    begin = time.perf_counter()
    volume = read_volume(scan)
    read = time.perf_counter() - begin
    found = {}
    for quality in QUALITIES:
        predictor = Predictor(network, plan.model_spec, numeric=numeric, quality=quality)
        grid = NetworkGrid.of(volume.grid, plan.geometry)
        prepare, _ = best(functools.partial(predictor._prepared, [volume], grid))
        image = predictor._prepared([volume], grid)
        found[f"CAML, {quality}"] = {
            "read": read,
            "prepare": prepare,
            "dtype": numeric.dtype,
            **_ours(predictor, image, grid),
        }
    found["MONAI, the network of `balanced`"] = {
        "read": read,
        **found["CAML, balanced"],
        **_monai(network, plan, numeric, image, grid),
    }
    return found


def best(work: Callable[[], object], repeats: int = REPEATS) -> tuple[float, int]:
    """Seconds of the fastest of ``repeats`` calls, after one that is not counted, and which it was."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    fastest = min(range(1, repeats + 1), key=seconds.__getitem__)
    return seconds[fastest], fastest


def _ours(predictor: Predictor, image: torch.Tensor, grid: NetworkGrid) -> Parts:
    windows = predictor.windows(grid.size, predictor.use)
    resampling: list[float] = []

    def segment() -> None:
        resampling.append(0.0)
        segmented(predictor, image, grid, predictor.use)

    with _timed(NetworkGrid, "upsample_rows", resampling):
        labels, fastest = best(segment)
    bare, _ = best(lambda: _forward(predictor, windows.window, windows.count))
    return {
        "labels": labels,
        "back": resampling[fastest],
        "bare": bare,
        "windows": windows.count,
        "views": len(predictor._mirrors),
        "size": windows.window,
    }


def _forward(predictor: Predictor, size: tuple[int, int, int], count: int) -> None:
    """The forward passes of ``count`` windows of ``size``, and nothing else."""
    network = predictor._network
    window = cast(torch.zeros(1, predictor.spec.network.in_channels, *size), predictor.numeric, "cpu")
    with torch.inference_mode():
        for _, name, _ in itertools.product(range(count), predictor.use, predictor._mirrors):
            (network.forward_v if name == "v" else network.forward_a)(window)


def _monai(network: CamlNetwork, plan: Plan, numeric: NumericMode, image: torch.Tensor, grid: NetworkGrid) -> Parts:
    predictor = Predictor(network, plan.model_spec, numeric=numeric, quality="balanced")
    counts: list[int] = []
    labels, _ = best(lambda: counts.append(monai_labels(predictor, image, grid, plan.geometry.patch)))
    bare, _ = best(lambda: _forward(predictor, plan.geometry.patch, counts[0]))
    return {
        "labels": labels,
        "back": None,
        "bare": bare,
        "windows": counts[0],
        "views": 1,
        "size": plan.geometry.patch,
    }


def _timed(owner: type, name: str, totals: list[float]) -> AbstractContextManager[object]:
    """Add the seconds of a method's calls to the last of ``totals``."""
    method = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = method(*arguments, **named)
        totals[-1] += time.perf_counter() - begin
        return result

    return patch.object(owner, name, call)
