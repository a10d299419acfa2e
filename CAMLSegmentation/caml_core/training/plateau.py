"""Training until it stops improving: when the validated Dice has levelled off, and how the rate then comes to rest."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

#: A validation counts as better where its Dice is higher than the best one by this much.
LEAST_GAIN = 0.002
#: So many validations in a row without a better one end the search, but not before so many were made.
PATIENCE = 5
LEAST_VALIDATIONS = 8
#: The learning rate goes to zero over this share of the iterations that were done before.
ANNEALING_SHARE = 0.3


@dataclass
class Plateau:
    """What the validations so far say. ``reached``: the Dice has levelled off."""

    best: float = -math.inf
    validations: int = 0
    stale: int = 0
    reached: bool = False

    def add(self, dice: float) -> bool:
        """Take a validation's Dice and return whether the Dice has levelled off."""
        self.validations += 1
        if dice >= self.best + LEAST_GAIN:
            self.best, self.stale = dice, 0
        else:
            self.stale += 1
        self.reached = self.stale >= PATIENCE and self.validations >= LEAST_VALIDATIONS
        return self.reached

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)


def annealing(iteration: int, most: int) -> tuple[int, int]:
    """Return the first iteration of the falling learning rate and the end of the training, at most ``most``."""
    return iteration, min(iteration + max(math.ceil(ANNEALING_SHARE * iteration), 1), most)


def must_anneal(iteration: int, most: int) -> bool:
    """Whether the rate has to fall now in order to be at rest when ``most`` iterations are done."""
    return iteration >= most / (1.0 + ANNEALING_SHARE)
