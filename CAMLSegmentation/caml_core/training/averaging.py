"""Averaged weights (EMA): the teacher of the pseudo-labels, and what is validated and saved in the end."""

from __future__ import annotations

import copy

import torch

from ..model import CamlNetwork


class AveragedNetwork:
    """An exponential moving average of parameters and of BatchNorm's running statistics.

    settled: ``network`` is a trained one, from which the average is to move at its slow pace from the first step on.
    """

    def __init__(self, network: CamlNetwork, decay: float, *, settled: bool = False) -> None:
        self.decay = decay
        self.settled = settled
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: CamlNetwork, iteration: int) -> None:
        """Move towards ``network``; early on faster, so that the random start is soon forgotten."""
        rate, state = self._rate(iteration), network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(state[name], rate)
            else:
                mean.copy_(state[name])

    def _rate(self, iteration: int) -> float:
        return 1.0 - (self.decay if self.settled else min(self.decay, (1 + iteration) / (10 + iteration)))
