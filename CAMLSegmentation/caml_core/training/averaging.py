"""Averaged weights (EMA): the teacher of the pseudo-labels, and what is validated and saved in the end."""

from __future__ import annotations

import copy

import torch

from ..model import CamlNetwork

#: Begin of the names of what belongs to sub-model a.
SUB_MODEL_A = ("encoder2.", "decoder2.", "projection_head2.", "prediction_head2.")


class AveragedNetwork:
    """An exponential moving average of parameters and of BatchNorm's running statistics.

    settled: ``network`` is a trained one, from which the average is to move at its slow pace from the first step on.
    """

    def __init__(self, network: CamlNetwork, decay: float, *, settled: bool = False) -> None:
        self.decay = decay
        self.settled = settled
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: CamlNetwork, iteration: int, a_since: int = 0) -> None:
        """Move towards ``network``; early on faster, so that the random start is soon forgotten.

        a_since: iteration in which sub-model a began to learn.
        """
        rate_v, rate_a = self._rate(iteration), self._rate(max(iteration - a_since, 0))
        state = network.state_dict()
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(state[name], rate_a if name.startswith(SUB_MODEL_A) else rate_v)
            else:
                mean.copy_(state[name])

    def _rate(self, iteration: int) -> float:
        return 1.0 - (self.decay if self.settled else min(self.decay, (1 + iteration) / (10 + iteration)))
