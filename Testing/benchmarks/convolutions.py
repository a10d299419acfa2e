"""What convolutions cost: the machine's peak, and their operations and seconds within a piece of work.

PyTorch alone, so that it runs in a peer's environment, too. An operation is a multiplication or an addition.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

#: The convolutions that the peak is sought with: 3x3x3, as many channels in as out.
CHANNELS, KERNEL = 64, 3
#: Samples and size of their images; not all of them fit a processor's caches equally well.
SHAPES = ((1, (32, 32, 32)), (2, (32, 32, 32)), (1, (48, 48, 48)), (1, (96, 64, 40)))
REPEATS = 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def peak(dtype: str, *, backward: bool, shapes: tuple[tuple[int, tuple[int, int, int]], ...] = SHAPES) -> float:
    """Return the GFLOP/s of the fastest of ``shapes``, channels last, with both gradients where ``backward``."""
    return max(_rate(dtype, samples, size, backward) for samples, size in shapes)


def operations(work: Callable[[], object]) -> float:
    """Return the GFLOP of the convolutions, forward and backward, that ``work`` calls."""
    with FlopCounterMode(display=False) as counter:
        work()
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operator, count in counts.items() if "convolution" in str(operator)) / 1e9


def profiled(work: Callable[[], object]) -> tuple[profile, float]:
    """Call ``work`` under PyTorch's profiler; return the finished profile and the seconds of the call."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        begin = time.perf_counter()
        work()
        seconds = time.perf_counter() - begin
    return profiler, seconds


def seconds_of(profiler: profile, *names: str) -> float:
    """Return the seconds of all events called one of ``names``, with all that they call."""
    return sum(event.cpu_time_total for event in profiler.events() if event.name in names) / 1e6


def convolution_seconds(profiler: profile) -> float:
    """Return the seconds of all convolutions of a profile, forward and backward, with what they copy."""
    return seconds_of(profiler, "aten::convolution", "aten::convolution_backward")


def _rate(dtype: str, samples: int, size: tuple[int, int, int], backward: bool) -> float:
    layout = torch.channels_last_3d
    image = torch.randn(samples, CHANNELS, *size).to(dtype=DTYPES[dtype], memory_format=layout)
    layer = nn.Conv3d(CHANNELS, CHANNELS, KERNEL, padding=1, bias=False).to(DTYPES[dtype])
    layer = layer.to(memory_format=layout)  # type: ignore[call-overload]
    gradient = torch.ones_like(image)
    image.requires_grad_(backward)
    seconds = []
    for _ in range(REPEATS + 1):
        image.grad = layer.weight.grad = None
        begin = time.perf_counter()
        with torch.set_grad_enabled(backward):
            result = layer(image)
        if backward:
            result.backward(gradient)
        seconds.append(time.perf_counter() - begin)
    passes = 3 if backward else 1  # the gradients of image and weights cost as much as the convolution, each
    count = 2 * passes * samples * math.prod(size) * CHANNELS**2 * KERNEL**3
    return count / min(seconds[1:]) / 1e9
