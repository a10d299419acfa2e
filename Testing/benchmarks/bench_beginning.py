"""How soon a training begins to learn: what the default preset's activations and learning rates bring.

Hippocampus, two segments: six labelled cases, twelve held out; labels alone (sub-model v), 8 base filters, so that 300
iterations take about a minute. One variant each without the slope of the activations, without the faster norms and
output layers, and without either at the lower rate, which was the recipe before.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, shared_folder, table, write_section

from caml_core.config import Plan
from caml_core.data.cache import CaseCache
from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.data.sampler import TwoStreamSampler
from caml_core.device import use_threads
from caml_core.events import silent
from caml_core.training.engine import Engine
from caml_core.training.request import Request
from caml_core.training.run import plan_training, survey
from caml_core.training.validation import Scores, validate

LABELED, HELD_OUT = 6, 12
MARKS = (60, 120, 200, 300)
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no slope": {"negative_slope": 0.0},
    "one rate for all layers": {"scale_rate": 1.0},
    "no slope, one rate, a third of it (before)": {"negative_slope": 0.0, "scale_rate": 1.0, "learning_rate": 1e-3},
}


def main() -> None:
    """Measure all variants with every seed and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    seeds = parser.parse_args().seeds
    shared = shared_folder()
    if shared is None or not (shared / "hippocampus").is_dir():
        print("No hippocampus folder: set CAML_SHARED. Nothing was measured.")
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for seed in seeds:
            plan, cohort = _planned(Path(name) / f"{seed}.json", shared / "hippocampus", seed)
            for variant, changes in VARIANTS.items():
                rows.append([variant, seed, *_trained(_changed(plan, changes), cohort, Path(name) / "cache")])
    write_section("beginning", _section(rows, plan))


def _planned(path: Path, folder: Path, seed: int) -> tuple[Plan, Cohort]:
    cohort = load_cohort(folder)
    chosen = cohort.cases[: LABELED + HELD_OUT]
    listed = [Case(c.id, c.images, c.label, "labeled" if i < LABELED else "validation") for i, c in enumerate(chosen)]
    save_cohort(Cohort(tuple(listed), path.parent, cohort.segments), path)
    request = Request(
        iterations=MARKS[-1], labeled_only=True, base_filters=8, dtype="fp32", device="cpu", threads=1, seed=seed
    )
    read, found = survey(path, request, silent)
    return plan_training(read, found, request, silent)[0], read


def _changed(plan: Plan, changes: dict[str, Any]) -> Plan:
    def replaced(part: Any) -> Any:
        names = {field.name for field in dataclasses.fields(part)}
        return dataclasses.replace(part, **{k: v for k, v in changes.items() if k in names})

    return dataclasses.replace(plan, network=replaced(plan.network), optimizer=replaced(plan.optimizer))


def _trained(plan: Plan, cohort: Cohort, cache: Path) -> list[str]:
    """Dice of both segments at each mark, and the seconds of all steps."""
    use_threads(plan.numeric.threads)
    store = CaseCache(cache)
    prepared = [store.prepare(c, plan.geometry, plan.channels, plan.segments, cohort.segments) for c in cohort.cases]
    labeled, held_out = ([p for p in prepared if p.role == role] for role in ("labeled", "validation"))
    engine, sampler = Engine(plan, len(labeled)), TwoStreamSampler(plan, labeled, [])
    cells, seconds = [], 0.0
    for iteration in range(plan.iterations):
        begin = time.perf_counter()
        engine.step(sampler.batch(iteration), iteration)
        seconds += time.perf_counter() - begin
        if iteration + 1 in MARKS:
            scores = validate(engine.final_network, plan, held_out, stop=lambda: False, device=engine.device)
            assert isinstance(scores, Scores)
            engine.network.train()
            cells.append(" / ".join(f"{100 * value:.1f}" for value in scores.segments.values()))
    return [*cells, f"{seconds:.0f}"]


def _section(rows: list[list[Any]], plan: Plan) -> str:
    seeds = dict.fromkeys(row[1] for row in rows)
    header = ["variant", "seed", *(f"after {mark}" for mark in MARKS), "seconds"]
    return "\n".join(
        [
            "### How soon a training begins to learn",
            "",
            f"Hippocampus, {LABELED} labelled and {HELD_OUT} held-out cases, labels alone, {plan.network.base_filters} "
            f"base filters, patch {list(plan.geometry.patch)}, {plan.numeric.dtype}, one thread. Dice of the two "
            "segments in % after so many iterations, averaged weights, at the network's resolution.",
            "",
            f"    python Testing/benchmarks/bench_beginning.py --seeds {' '.join(map(str, seeds))}",
            "",
            table(header, rows),
            "",
            machine(),
        ]
    )


if __name__ == "__main__":
    main()
