"""A short measurement on the device at hand: which arithmetic is fastest, how long a step takes, what it needs."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

import torch

from ..config import DTypeName, NumericMode, Plan
from ..data.sampler import Batch, labeled_patches
from ..device import forget_peak_memory, peak_memory
from .engine import Engine, autocast

#: Modes are compared on a patch of at most so many voxels.
SMALL_PATCH_VOXELS = 160_000
MORE_ROUNDS = 3
#: Times that a step is measured besides the first, which prepares its kernels.
REPEATS = 2
#: Seconds after which nothing is repeated: on a busy machine a figure that is rough must do.
PATIENCE = 15.0
#: Steps of each of two plans that are compared; even, so that both kinds of late steps count alike.
TURNS = 8
#: A mode slower than the best by this factor in the first round is not tried again.
HOPELESS = 1.5
#: On a processor a mode is given up, in either layout, whose first step takes so many times the quickest first one:
#: arithmetic that it has no instructions for is twenty times slower.
GIVE_UP = 4.0
#: A mode of lower precision must be faster by this factor to be chosen.
WORTHWHILE = 1.1


@dataclass(frozen=True)
class Measurement:
    """Seconds of an early and of a late step, of both sub-models over one patch, and peak memory in MB.

    The early ones, in which each sub-model learns alone, are the cheaper ones.
    """

    early_seconds: float
    late_seconds: float
    seconds_per_window: float
    peak_memory_mb: float

    def seconds_per_iteration(self, early_share: float) -> float:
        """Mean over a training in which ``early_share`` of the steps are early ones."""
        return early_share * self.early_seconds + (1.0 - early_share) * self.late_seconds


def candidate_modes(device: str, threads: int, dtype: DTypeName | None = None) -> Iterator[NumericMode]:
    """Modes that can be tried on ``device``; ``dtype`` keeps to one."""
    wanted: tuple[DTypeName, ...] = ("fp32", "bf16")
    if device.startswith("cuda"):
        wanted = ("fp32", "bf16" if torch.cuda.is_bf16_supported() else "fp16")
    if device.startswith("mps"):
        wanted = ("fp32",)
    for name in wanted if dtype is None else (dtype,):
        for channels_last in (False,) if device.startswith("mps") else (False, True):
            yield NumericMode(name, channels_last, threads)


def bf16_gradients_are_right(plan: Plan) -> bool:
    """Whether bfloat16 can train ``plan`` on its device.

    PyTorch 2.13 leaves the weight gradients of 3x3x3 convolutions uninitialised on the CPU, in bfloat16 alone, where
    the first axis has two voxels: infinite, or finite and wrong.
    """
    if plan.device != "cpu":
        return True
    halvings = [stage[0] for stage in plan.network.strides]
    return all(plan.geometry.patch[0] // math.prod(halvings[:n]) != 2 for n in range(len(halvings) + 1))


def fastest_mode(
    plan: Plan, labeled_cases: int, dtype: DTypeName | None = None, check: Callable[[], None] = lambda: None
) -> NumericMode:
    """Time a few training steps in each mode and return the fastest; fp32 where the difference hardly matters.

    The modes take turns, and each counts by its best step: other work on the machine must not decide. ``check`` is
    called in between; what it raises ends the measurement.
    """
    small, seconds = with_small_patch(plan, SMALL_PATCH_VOXELS), {}
    batch, last = random_batch(small), small.iterations - 1
    engines: dict[NumericMode, Engine] = {}
    given_up, quickest = set(), math.inf
    for mode in candidate_modes(plan.device, torch.get_num_threads(), dtype):
        if mode.dtype in given_up or (mode.dtype == "bf16" and not bf16_gradients_are_right(plan)):
            continue
        check()
        try:
            engine = Engine(dataclasses.replace(small, numeric=mode), labeled_cases)
            first = _timed_step(engine, batch, last)  # the first step of a mode prepares its kernels and is not counted
            quickest = min(quickest, first)
            if plan.device == "cpu" and first > GIVE_UP * quickest:
                given_up.add(mode.dtype)
                continue
            seconds[mode], engines[mode] = _timed_step(engine, batch, last), engine
        except (RuntimeError, NotImplementedError):  # a mode that this build or device does not know
            continue
    if not seconds:
        return NumericMode("fp32", False, torch.get_num_threads())
    begin = time.perf_counter()
    for _ in range(MORE_ROUNDS):
        check()
        if time.perf_counter() - begin > PATIENCE:
            break
        best = min(seconds.values())
        engines = {mode: engine for mode, engine in engines.items() if seconds[mode] < HOPELESS * best}
        for mode, engine in engines.items():
            seconds[mode] = min(seconds[mode], _timed_step(engine, batch, last))
    return min(seconds, key=lambda mode: seconds[mode] * (1.0 if mode.dtype == "fp32" else WORTHWHILE))


def measure(plan: Plan, labeled_cases: int) -> Measurement:
    """Time steps of ``plan`` as it is, on random patches."""
    gc.collect()
    forget_peak_memory()
    engine = Engine(plan, labeled_cases)
    batch = random_batch(plan)

    def step(batch: Batch, iteration: int) -> float:
        return _least(lambda: engine.step(batch, iteration), engine)

    late = fmean(step(batch, iteration) for iteration in last_of_each_kind(engine))
    early = step(random_batch(plan, 0), 0) if early_share(plan) else late
    image = batch.labeled[:1].to(plan.device)
    network = engine.final_network.eval()

    def forward() -> None:
        with torch.inference_mode(), autocast(plan.numeric, engine.device):
            if plan.labeled_only:
                network.forward_v(image)
            else:
                network.probabilities(image)

    window = _least(forward, engine)
    return Measurement(early, late, window, peak_mb(plan))


def seconds_in_turn(plan: Plan, other: Plan, labeled_cases: int) -> tuple[float, float, float]:
    """Mean seconds of an early and of a late step of ``plan``, and of a late step of ``other``.

    They take turns: what else the machine does slows all alike.
    """
    ours, theirs = (Engine(p, labeled_cases) for p in (plan, other))
    kinds = [
        (ours, random_batch(plan, 0), [0]),
        (ours, random_batch(plan), last_of_each_kind(ours)),
        (theirs, random_batch(other), last_of_each_kind(theirs)),
    ]
    for engine, batch, iterations in kinds:
        for iteration in iterations:
            _timed_step(engine, batch, iteration)  # prepares its kernels
    seconds: list[list[float]] = [[] for _ in kinds]
    for turn in range(TURNS):
        for (engine, batch, iterations), found in zip(kinds, seconds):
            found.append(_timed_step(engine, batch, iterations[turn % len(iterations)]))
    early, late, other_late = (fmean(found) for found in seconds)
    return early, late, other_late


def last_of_each_kind(engine: Engine) -> list[int]:
    """The last iteration that pastes cases into each other and the last that does not: they differ in cost."""
    last = engine.plan.iterations - 1
    found = {engine.pastes(last): last}
    for iteration in range(last, max(last - 64, engine.plan.solo_iterations), -1):
        found.setdefault(engine.pastes(iteration), iteration)
    return sorted(found.values())


def early_share(plan: Plan) -> float:
    """Share of the steps of ``plan`` that are cheaper than the others, because the labels alone teach."""
    return plan.solo_iterations / plan.iterations


def with_small_patch(plan: Plan, voxels: int) -> Plan:
    """Return the plan with a patch of at most ``voxels``, but two strides a side where it has them."""
    patch, divisor = list(plan.geometry.patch), plan.network.divisor
    while math.prod(patch) > voxels:
        axis = max((a for a in range(3) if patch[a] > 2 * divisor[a]), key=lambda a: patch[a], default=None)
        if axis is None:
            break
        patch[axis] -= divisor[axis]
    x, y, z = patch
    return dataclasses.replace(plan, geometry=dataclasses.replace(plan.geometry, patch=(x, y, z)))


def _timed_step(engine: Engine, batch: Batch, iteration: int) -> float:
    start = time.perf_counter()
    engine.step(batch, iteration)
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return time.perf_counter() - start


def _least(action: Callable[[], object], engine: Engine) -> float:
    """The shortest of a few calls after one that is not counted; of fewer where they take long."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        action()
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        seconds.append(time.perf_counter() - start)
        if len(seconds) > 1 and sum(seconds) > PATIENCE:
            break
    return min(seconds[1:])


def random_batch(plan: Plan, iteration: int | None = None) -> Batch:
    """Patches of noise as ``iteration`` of ``plan`` has them (None: the last one), for measurements."""
    generator = torch.Generator().manual_seed(plan.seed)
    shape = plan.geometry.patch
    count, _ = labeled_patches(plan, plan.iterations - 1 if iteration is None else iteration)
    labeled = torch.randn((count, plan.network.in_channels, *shape), generator=generator)
    labels = torch.randint(0, plan.network.classes, (count, *shape), generator=generator).to(torch.uint8)
    unlabeled = torch.randn((plan.batch_unlabeled, plan.network.in_channels, *shape), generator=generator)
    cases = tuple(range(count))
    return Batch(labeled, labels, cases, None if plan.labeled_only else unlabeled)


def peak_mb(plan: Plan) -> float:
    """Return the most memory that was taken on the plan's device since it was last forgotten, in MB."""
    if plan.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(plan.device) / 2**20
    return peak_memory() / 2**20
