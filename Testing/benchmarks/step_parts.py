"""Where the time of a training step goes: convolutions, data, memory bank, OCC, optimiser, and all else.

The parts are named for PyTorch's profiler, from outside: the engine does not know that it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import common  # noqa: F401 (makes caml_core known)
import torch
from convolutions import convolution_seconds, operations, profiled, seconds_of
from torch.profiler import profile, record_function

from caml_core.data.sampler import Batch
from caml_core.training import step
from caml_core.training.engine import Engine

BANK, OCC, OPTIMIZER = "part: bank", "part: occ", "part: optimizer"
#: Name of what PyTorch records of each node of the graph in the backward pass, before the node's own.
BACKWARD = "autograd::engine::evaluate_function:"


@dataclass(frozen=True)
class StepParts:
    """Means over iterations. ``seconds``: of a step, without the profiler, and ``data`` of its batch.

    The other parts are seconds within ``profiled`` seconds of a step whose sub-models compute in turn. ``gflop``: of
    its convolutions. ``samples``: patches of a step that are trained on.
    """

    seconds: float
    data: float
    profiled: float
    convolutions: float
    bank: float
    occ: float
    optimizer: float
    gflop: float
    samples: int

    @property
    def iteration(self) -> float:
        """Seconds of a batch and its step."""
        return self.data + self.seconds

    @property
    def rate(self) -> float:
        """GFLOP/s of the convolutions."""
        return self.gflop / self.convolutions

    def share(self, *names: str) -> float:
        """Share of an iteration that the parts of these names take."""
        return sum(getattr(self, name) for name in names) / (self.data + self.profiled)


def measure_parts(engine: Engine, make_batch: Callable[[int], Batch], iterations: Sequence[int]) -> StepParts:
    """Do ``iterations`` three times: timed, in the profiler, and counting operations. The training goes on in all.

    Timed as it is; its parts are told apart, and operations counted, with one sub-model after the other on all threads.
    """
    begin = time.perf_counter()
    batches = [make_batch(iteration) for iteration in iterations]
    made = time.perf_counter()
    _steps(engine, batches, iterations)
    done = time.perf_counter()
    with _one_after_the_other(engine):
        with _named(engine) as nodes:
            profiler, seconds = profiled(lambda: _steps(engine, batches, iterations))
        gflop = operations(lambda: _steps(engine, batches, iterations))
    bank = seconds_of(profiler, BANK)
    count = len(iterations)
    return StepParts(
        seconds=(done - made) / count,
        data=(made - begin) / count,
        profiled=seconds / count,
        convolutions=convolution_seconds(profiler) / count,
        bank=bank / count,
        occ=(seconds_of(profiler, OCC) - bank + _backward_seconds(profiler, nodes)) / count,
        optimizer=seconds_of(profiler, OPTIMIZER) / count,
        gflop=gflop / count,
        samples=len(batches[0].labeled),
    )


def _steps(engine: Engine, batches: Sequence[Batch], iterations: Sequence[int]) -> None:
    for batch, iteration in zip(batches, iterations):
        if engine.step(batch, iteration) is None:
            msg = f"the losses of iteration {iteration} are not finite: there is nothing to measure"
            raise ArithmeticError(msg)


@contextmanager
def _one_after_the_other(engine: Engine) -> Iterator[None]:
    """Sub-models in turn: what a thread of its own does, neither profiler nor counter would see as a part."""
    before, engine.network.threads = engine.network.threads, 0
    try:
        yield
    finally:
        engine.network.threads = before


@contextmanager
def _named(engine: Engine) -> Iterator[list[range]]:
    """Name the parts of a step for the profiler; yields the numbers of the graph's nodes that OCC makes."""
    nodes: list[range] = []

    def occ(*arguments: Any, **named: Any) -> Any:
        first = torch._C._autograd._get_sequence_nr()
        with record_function(OCC):
            result = term(*arguments, **named)
        nodes.append(range(first, torch._C._autograd._get_sequence_nr()))
        return result

    term = step._omni_correlation_term
    parts: list[tuple[Any, str, str]] = [
        (step, "_remember", BANK),
        (engine.bank, "draw", BANK),
        (engine.optimizer, "step", OPTIMIZER),
        (torch.nn.utils, "get_total_norm", OPTIMIZER),
    ]
    if engine.average is not None:
        parts.append((engine.average, "update", OPTIMIZER))
    with ExitStack() as stack:
        for owner, attribute, name in parts:
            stack.enter_context(patch.object(owner, attribute, _recorded(getattr(owner, attribute), name)))
        stack.enter_context(patch.object(step, "_omni_correlation_term", occ))
        yield nodes


def _recorded(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(name):
            return function(*arguments, **named)

    return call


def _backward_seconds(profiler: profile, nodes: Sequence[range]) -> float:
    """Seconds of the backward pass through ``nodes``."""
    return (
        sum(
            event.cpu_time_total
            for event in profiler.events()
            if event.name.startswith(BACKWARD) and any(event.sequence_nr in numbers for numbers in nodes)
        )
        / 1e6
    )
