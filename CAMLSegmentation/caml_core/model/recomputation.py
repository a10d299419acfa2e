"""Trade time for memory: features of the shallow stages are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(
    function: Callable[..., Tensor], modules: Iterable[nn.Module], *inputs: Tensor, draws: bool = False
) -> Tensor:
    """Return ``function(*inputs)`` and keep only ``inputs`` for the backward pass.

    modules: those that ``function`` runs; BatchNorm among them must not count the same batch twice.
    draws: ``function`` draws random numbers, which must be the same the second time. Otherwise the generator is left
    alone.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    norms = [m for module in modules for m in module.modules() if isinstance(m, nn.BatchNorm3d)]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _frozen_statistics(norms)

    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=draws, context_fn=contexts)


@contextmanager
def _frozen_statistics(norms: list[nn.BatchNorm3d]) -> Iterator[None]:
    before = [
        (norm.momentum, norm.num_batches_tracked.clone()) for norm in norms if norm.num_batches_tracked is not None
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
