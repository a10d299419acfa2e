"""What a user asks of a training's plan, as plain values. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import DTypeName, Triple
from ..errors import UsageError


@dataclass(frozen=True)
class Request:
    """What the user asked for. None: the planner's choice.

    ``until_better``: train until the validated Dice no longer rises; budget and iterations are then the most that
    may be taken. ``preview``: a case is segmented at each validation, which takes its time, too. ``hold_out``:
    labelled cases to spare for validation where the cohort has no such cases (0: all are learnt from). ``renamed``: old
    and new names of segments that are called otherwise in the start model than in the cohort.
    """

    preset: str = "default"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    labeled_only: bool = False
    budget_seconds: float | None = None
    iterations: int | None = None
    spacing: tuple[float, float, float] | None = None
    patch: Triple | None = None
    base_filters: int | None = None
    dtype: DTypeName | None = None
    batch: int | None = None
    until_better: bool = False
    preview: bool = False
    hold_out: int | None = None
    renamed: tuple[tuple[str, str], ...] = ()


def check_of_round(labeled_only: bool) -> None:
    """Raise UsageError where a round is asked for labels alone: its main training is CAML, and is called so."""
    if labeled_only:
        raise UsageError(
            "A round trains with CAML, and --labeled-only would leave that out; for labels alone beside it say "
            "--baseline, and for nothing else: caml train --labeled-only."
        )
