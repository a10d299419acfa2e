"""Averaged weights (EMA): the teacher of the pseudo-labels, and what is validated and saved in the end."""

from __future__ import annotations

import copy

import torch

from ..model import CamlNetwork


class AveragedNetwork:
    """An exponential moving average of parameters and of BatchNorm's running statistics."""

    def __init__(self, network: CamlNetwork, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: CamlNetwork, iteration: int) -> None:
        """Move towards ``network``; early on faster, so that the random start is soon forgotten."""
        rate = 1.0 - min(self.decay, (1 + iteration) / (10 + iteration))
        for mean, value in zip(self.network.state_dict().values(), network.state_dict().values()):
            if mean.is_floating_point():
                mean.lerp_(value, rate)
            else:
                mean.copy_(value)
