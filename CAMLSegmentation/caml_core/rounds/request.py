"""What a user asks of a round, as plain values that travel as JSON. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..training.request import Request


@dataclass(frozen=True)
class RoundRequest:
    """``planning``: of the main training. ``baseline``: train on the labels alone for as long, too.

    ``folds``: trainings of a cross-validation over the labelled cases, 0: none. ``name``: of the model. ``cache``:
    where prepared cases are kept, as it was given; empty: the user's own place.
    """

    planning: Request
    baseline: bool = False
    folds: int = 0
    name: str = ""
    cache: str = ""

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"A cross-validation needs at least 2 folds, got {self.folds}.")
