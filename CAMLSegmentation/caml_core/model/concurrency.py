"""Two computations at the same time, each on half of the threads: small convolutions do not fill many by themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], tuple[Tensor, ...]]


def at_once(first: Work, second: Work, threads: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what both give, which must be as many tensors; on the CPU.

    ``second`` runs in a thread of its own, and so do the backward passes of both. Only one of them may draw from
    PyTorch's own generator, or numbers would depend on which came first. threads: for both together; below two, one
    follows the other.
    """
    if threads < 2:
        return first(), second()
    if not torch.is_grad_enabled():
        return _run(first, second, threads)
    # Without an input that needs a gradient, the results would not need one either.
    results = _AtOnce.apply(torch.zeros((), requires_grad=True), first, second, threads)
    half = len(results) // 2
    return results[:half], results[half:]


class _AtOnce(torch.autograd.Function):
    """Keeps the graphs of both computations to itself; gradients of parameters are added where they are."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, first: Work, second: Work, threads: int) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            ctx.graphs = _run(first, second, threads)
        ctx.threads = threads
        ctx.set_materialize_grads(False)
        return tuple(t.detach() for results in ctx.graphs for t in results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
        (first, second), half = ctx.graphs, len(gradients) // 2
        ctx.graphs = None  # features are needed no longer than the passes take
        _run(
            functools.partial(_backward, first, gradients[:half]),
            functools.partial(_backward, second, gradients[half:]),
            ctx.threads,
        )
        return None, None, None, None


def _backward(results: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    pairs = [(r, g) for r, g in zip(results, gradients) if g is not None and r.requires_grad]
    if pairs:
        torch.autograd.backward([r for r, _ in pairs], [g for _, g in pairs])
    return ()


def _run(first: Work, second: Work, threads: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    other = threads // 2
    before = torch.get_num_threads()
    future = _worker().submit(_as_here(second, other))
    torch.set_num_threads(threads - other)
    try:
        one = first()
    finally:
        wait([future])  # also where the first failed: nothing goes on behind the caller's back
        torch.set_num_threads(before)
    return one, future.result()


def _as_here(work: Work, threads: int) -> Work:
    """``work`` with this thread's ways of computing, which a new thread does not know."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    dtype, lower = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def there() -> tuple[Tensor, ...]:
        torch.set_num_threads(threads)
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            with torch.autocast("cpu", dtype, enabled=lower):
                return work()

    return there


@functools.cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="sub-model a")
