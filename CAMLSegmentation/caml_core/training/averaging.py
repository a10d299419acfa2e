"""Averaged weights (EMA): the teacher of the pseudo-labels, and what is validated and saved in the end."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from ..config import SubModel
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
    def update(self, network: CamlNetwork, steps: int, learners: Sequence[SubModel] = ("v", "a")) -> None:
        """Move towards ``network``; early on faster, so that the random start is soon forgotten.

        steps: that each sub-model had made before this one. learners: those that have just learnt; the others' averages
        stay where they are.
        """
        rate, state = self._rate(steps), network.state_dict()
        for name, mean in self.network.state_dict().items():
            if ("a" if name.startswith(SUB_MODEL_A) else "v") not in learners:
                continue
            if mean.is_floating_point():
                mean.lerp_(state[name], rate)
            else:
                mean.copy_(state[name])

    def _rate(self, steps: int) -> float:
        return 1.0 - (self.decay if self.settled else min(self.decay, (1 + steps) / (10 + steps)))
