"""One training step: the published batch and patch, and the default preset with ever more labelled cases.

Each measurement is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from statistics import median

from common import machine, run, table, write_section

#: What the published code needs for the step of its paper on two Zen 4 cores.
PUBLISHED = "49-67"
PUBLISHED_MB = "16,000"
LABELED_CASES = (4, 16, 64, 400)


def main() -> None:
    """Measure all, write both sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure))))
        return
    write_section("step-paper", paper_section())
    write_section("step-cases", cases_section())


def paper_section() -> str:
    """Seconds and memory of the paper preset in each arithmetic."""
    rows: list[tuple[object, ...]] = [("published code, fp32 (as reported)", PUBLISHED, PUBLISHED_MB)]
    for dtype, recompute in (("bf16", 1), ("fp32", 3)):
        found = child(preset="paper", dtype=dtype, recompute=recompute, labeled=8, steps=2)
        how = f"{dtype}, {recompute} stages computed again" if recompute else f"{dtype}, all features kept"
        rows.append((f"`paper` preset, {how}", f"{found['seconds']:.1f}", f"{found['peak_mb']:.0f}"))
    return (
        "### One step of the `paper` preset: 112x112x80, 2 labelled + 2 unlabelled\n\n"
        + table(("network, losses and optimiser", "s an iteration", "peak memory MB"), rows)
        + f"\n\nChannels last. Mean of two steps after one that is not counted.\n\n{machine()}"
    )


def cases_section() -> str:
    """Seconds of a step with ever more labelled cases, the memory bank full."""
    rows, first = [], 0.0
    for labeled in LABELED_CASES:
        found = child(preset="default", dtype="bf16", recompute=0, labeled=labeled, steps=11)
        first = first or found["seconds"]
        rows.append((labeled, f"{found['seconds']:.3f}", f"{found['seconds'] / first:.2f}", f"{found['bank_mb']:.1f}"))
    return (
        "### One step of the `default` preset with ever more labelled cases\n\n"
        + table(("labelled cases", "s an iteration", "ratio to the first", "memory bank MB"), rows)
        + "\n\nPatch 80x64x48, 16 base filters, every case's entries in the bank; median of 11 steps.\n\n"
        + machine()
    )


def child(**settings: object) -> dict[str, float]:
    """Run ``measure`` in a fresh process."""
    finished = run([sys.executable, str(Path(__file__).resolve()), "--measure", json.dumps(settings)])
    return {**json.loads(finished.output.strip().splitlines()[-1]), "peak_mb": finished.peak_mb}


def measure(settings: dict[str, object]) -> dict[str, float]:
    """Time steps on random patches."""
    import torch

    from caml_core.config import ChannelIntensity, Geometry, NumericMode, Plan, Segment
    from caml_core.presets import PAPER_PATCH, default_preset, paper_preset
    from caml_core.training.engine import Engine
    from caml_core.training.measurement import random_batch

    labeled, steps = int(str(settings["labeled"])), int(str(settings["steps"]))
    paper = settings["preset"] == "paper"
    preset = paper_preset(1, 2, labeled) if paper else default_preset(1, 2)
    plan = Plan(
        preset=str(settings["preset"]),
        geometry=Geometry((0.625,) * 3, PAPER_PATCH) if paper else Geometry((1.25,) * 3, (80, 64, 48)),
        network=preset.network,
        channels=(ChannelIntensity(),),
        segments=(Segment("left atrium", 1),),
        iterations=15_000,
        losses=preset.losses,
        optimizer=preset.optimizer,
        augmentation=preset.augmentation,
        numeric=NumericMode(settings["dtype"], True, torch.get_num_threads(), settings["recompute"]),  # type: ignore[arg-type]
    )
    engine, batch = Engine(plan, labeled), random_batch(plan)
    fill(engine, labeled)
    seconds = []
    for index in range(steps + 1):
        start = time.perf_counter()
        cases = tuple((2 * index + slot) % labeled for slot in range(2))
        losses = engine.step(dataclasses.replace(batch, cases=cases), 14_000 + index)
        seconds.append(time.perf_counter() - start)
        assert losses is not None and math.isfinite(losses["total"])
    return {"seconds": median(seconds[1:]), "bank_mb": engine.bank.nbytes / 1e6}


def fill(engine: object, labeled: int) -> None:
    """Fill the memory bank as after a visit to every case."""
    import torch

    bank = engine.bank  # type: ignore[attr-defined]
    for case in range(labeled):
        for label in range(2):
            rows = torch.randn(bank.capacity, 32)
            bank.store(case, label, rows, rows)


if __name__ == "__main__":
    main()
