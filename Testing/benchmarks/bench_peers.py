"""The engine beside the machine's convolutions, MONAI and nnU-Net v2: a training step, its data, and a prediction.

All in one run, on the left atria of la2018: a short training of the default preset gives steps as they are in the
middle of one, with sub-models that agree on something and a memory bank that is filled. nnU-Net runs in an environment
of its own (``pip install nnunetv2``), whose interpreter ``--nnunet-python`` names; without it, its rows are missing.
``--quick`` only shows that everything runs: coarse, a few iterations, and the page is left alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohorts import left_atria
from common import left_atria_folder, run, write_section
from convolutions import DTYPES, SHAPES, peak
from peers_report import Step, data_section, prediction_section, step_section, training_section
from prediction_parts import our_parts
from step_parts import measure_parts

from caml_core.config import NumericMode, Plan
from caml_core.data.cache import CaseCache, PreparedCase
from caml_core.data.case import Cohort
from caml_core.data.sampler import TwoStreamSampler
from caml_core.device import use_threads
from caml_core.events import silent
from caml_core.training.engine import Engine
from caml_core.training.request import Request
from caml_core.training.run import plan_training, survey

LABELED, UNLABELED = 8, 8
#: A training of so many iterations learns enough for OCC to have something to compare.
ITERATIONS, MEASURED = 100, 10
PEER_ITERATIONS = 20
BATCHES = 20
QUICK: dict[str, Any] = {"iterations": 12, "spacing": (2.5, 2.5, 2.5), "patch": (48, 32, 32)}
BOTH = "both sub-models"
PEER = Path(__file__).with_name("peer_nnunet.py")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    iterations: int = ITERATIONS
    measured: int = MEASURED
    batches: int = BATCHES
    peer_iterations: int = PEER_ITERATIONS
    shapes: tuple[tuple[int, tuple[int, int, int]], ...] = SHAPES


@dataclass(frozen=True)
class Streams:
    """The plan and its prepared cases."""

    plan: Plan
    cohort: Cohort
    labeled: list[PreparedCase]
    unlabeled: list[PreparedCase]


def main() -> None:
    """Measure all, write the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nnunet-python", type=Path, metavar="PATH", help="interpreter of nnU-Net's environment")
    parser.add_argument("--quick", action="store_true", help="see whether it runs; nothing is written")
    options = parser.parse_args()
    source = left_atria_folder()
    if source is None:
        return
    sizes = Sizes(QUICK["iterations"], 2, 2, 2, SHAPES[:1]) if options.quick else Sizes()
    request = Request(**QUICK) if options.quick else Request(iterations=sizes.iterations)
    with tempfile.TemporaryDirectory() as name:
        os.environ["CAML_CACHE_DIR"] = name  # no measurement that an earlier, busier day has left
        sections = measure(Path(name), source, request, sizes, options.nnunet_python)
    for title, text in sections.items():
        if options.quick:
            print(text)
        else:
            write_section(title, text)


def measure(folder: Path, source: Path, request: Request, sizes: Sizes, nnunet_python: Path | None) -> dict[str, str]:
    """Return the texts of the sections by their names."""
    stage("convolutions")
    peaks = {
        (dtype, backward): peak(dtype, backward=backward, shapes=sizes.shapes)
        for dtype in DTYPES
        for backward in (False, True)
    }
    stage("planning")
    streams = prepared(folder, source, request)
    scan = held_out(streams.cohort)
    stage("training")
    steps = train(streams, sizes)
    stage("batches and predictions")
    data = data_seconds(streams, sizes)
    prediction = our_parts(streams.plan, scan)
    stage("nnU-Net")
    peer = None if nnunet_python is None else nnunet(nnunet_python, folder, streams, scan, sizes)
    where = setting(streams.plan)
    return {
        "peers-step": step_section(steps, peaks, where),
        "peers-data": data_section(data, steps[1].parts, where),
        "peers-training": training_section(steps, peaks, peer, where),
        "peers-prediction": prediction_section(prediction, peer, where),
    }


def stage(name: str) -> None:
    """Say what is being done: all of it takes minutes."""
    print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)


def prepared(folder: Path, source: Path, request: Request) -> Streams:
    """Plan as ``caml train`` does, for the first cases; one held-out case is there to be predicted."""
    listed = left_atria(folder / "cohort.json", source, LABELED, LABELED + UNLABELED, held_out=1)
    cohort, found = survey(listed, request, silent)
    plan, _ = plan_training(cohort, found, request, silent)
    use_threads(plan.numeric.threads)
    cache = CaseCache(folder / "cases")
    cases = [
        cache.prepare(case, plan.geometry, plan.channels, plan.segments, cohort.segments)
        for case in cohort.with_role("labeled", "unlabeled")
    ]
    labeled, unlabeled = ([case for case in cases if case.role == role] for role in ("labeled", "unlabeled"))
    return Streams(plan, cohort, labeled, unlabeled)


def held_out(cohort: Cohort) -> Path:
    """The scan that all predict."""
    (case,) = cohort.with_role("validation")
    return case.images[0]


def train(streams: Streams, sizes: Sizes) -> list[Step]:
    """Steps of a training: of its solo phase, of its end, and of its end in the arithmetic that was not chosen."""
    plan = streams.plan
    engine = Engine(plan, len(streams.labeled))
    sampler = TwoStreamSampler(plan, streams.labeled, streams.unlabeled)
    found: list[Step] = []
    last_solo = range(max(plan.solo_iterations - sizes.measured, 0), plan.solo_iterations)
    last = range(plan.iterations - sizes.measured, plan.iterations)
    for iteration in range(last.start):
        if iteration == last_solo.start:
            found.append(step_of("each alone", engine, sampler, last_solo))
        if iteration not in last_solo:
            engine.step(sampler.batch(iteration), iteration)
    found.append(step_of(BOTH, engine, sampler, last))
    other = Engine(dataclasses.replace(plan, numeric=_other(plan.numeric)), len(streams.labeled))
    other.load_state_dict(engine.state_dict())
    other.step(sampler.batch(last.start), last.start)  # prepares its kernels
    found.append(step_of(BOTH, other, sampler, last[: sizes.measured // 2]))
    return found


def step_of(phase: str, engine: Engine, sampler: TwoStreamSampler, iterations: range) -> Step:
    """Measure ``iterations`` of a training; in both of its phases both sub-models learn."""
    parameters = sum(p.numel() for p in engine.network.parameters())
    return Step(phase, engine.plan.numeric.dtype, parameters, measure_parts(engine, sampler.batch, iterations))


def _other(numeric: NumericMode) -> NumericMode:
    return dataclasses.replace(numeric, dtype="bf16" if numeric.dtype == "fp32" else "fp32", channels_last=True)


def data_seconds(streams: Streams, sizes: Sizes) -> dict[str, float]:
    """Seconds of a batch, ours first, then MONAI's."""
    from peer_monai import batch_maker

    known = (streams.plan, streams.labeled, streams.unlabeled)
    makers: dict[str, Callable[[int], object]] = {
        "CAML": TwoStreamSampler(*known).batch,
        "MONAI, cut a quarter larger than the patch": batch_maker(*known, wider=True),
        "MONAI, cut to the patch, empty corners": batch_maker(*known, wider=False),
    }
    seconds = {}
    first = streams.plan.solo_iterations  # from there on a batch has patches of both streams, as MONAI's has
    for name, make in makers.items():
        make(first)
        begin = time.perf_counter()
        for iteration in range(first + 1, first + sizes.batches + 1):
            make(iteration)
        seconds[name] = (time.perf_counter() - begin) / sizes.batches
    return seconds


def nnunet(python: Path, folder: Path, streams: Streams, scan: Path, sizes: Sizes) -> dict[str, Any]:
    """What ``peer_nnunet.py`` finds in its own environment."""
    cases = streams.cohort.with_role("labeled")
    settings = {
        "images": [str(case.images[0].resolve()) for case in cases],
        "labels": [str(case.label.resolve()) for case in cases if case.label is not None],
        "spacing": streams.plan.geometry.spacing,
        "patch": streams.plan.geometry.patch,
        "iterations": sizes.peer_iterations,
        "scan": str(scan.resolve()),
    }
    path = folder / "nnunet.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    try:
        output = run([str(python), str(PEER), str(path)]).output
    except subprocess.CalledProcessError as error:
        print(error.output, file=sys.stderr)  # the reason stands there
        raise
    return json.loads(output.strip().splitlines()[-1])


def setting(plan: Plan) -> str:
    """What all sections were measured with, as a sentence."""
    geometry = plan.geometry
    spacing, patch = (" x ".join(f"{value:g}" for value in values) for values in (geometry.spacing, geometry.patch))
    return (
        f"Left atrium, {LABELED} labelled and {UNLABELED} unlabelled cases, `{plan.preset}` preset: {spacing} mm, "
        f"patch {patch}, {plan.network.base_filters} base filters."
    )


if __name__ == "__main__":
    main()
