"""Which unlabelled case to look at next. Standard library only.

Nothing here knows where a model is wrong, only where its two sub-models, trained to be diverse, say different things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NOTHING = "The model found nothing here: either the scan does not hold what is sought, or it was missed."
_UNKNOWN = "There is no prediction by two sub-models yet, so nothing is known of this case."


@dataclass(frozen=True)
class Ranked:
    """A case at its place in an order. ``score``: disagreement, 0 to 1, None where there is none to measure.

    ``reason``: one or two plain sentences that say why the case stands where it does.
    """

    case: str
    score: float | None
    reason: str


def disagreement(agreement: Mapping[str, float], volumes_ml: Mapping[str, float] | None = None) -> float | None:
    """Return one minus the mean agreement (Dice of the two sub-models) over the segments that either of them found.

    None without such a segment. A segment that neither found is left out: its agreement of 1 says nothing.
    ``volumes_ml``: the prediction's volume of each segment; without it an agreement of exactly 1 counts as not found.
    """
    found = _found(agreement, volumes_ml)
    return 1.0 - sum(agreement[name] for name in found) / len(found) if found else None


def rank_by_disagreement(
    agreement: Mapping[str, Mapping[str, float]], volumes_ml: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Ranked, ...]:
    """Return the cases, those most worth a look first; ties by name.

    First come cases in which neither sub-model found anything: two that miss the same organ agree perfectly, and if
    the organ is there no case has more to teach; if it is not, a glance is enough. Then those with the most
    disagreement, and at the end those without a prediction by two sub-models. Both mappings: case -> segment -> value.
    """
    ranked = [_judged(case, values, (volumes_ml or {}).get(case)) for case, values in agreement.items()]
    return tuple(one for _, one in sorted(ranked, key=lambda pair: (pair[0], -(pair[1].score or 0.0), pair[1].case)))


def rank_at_random(found: Mapping[str, bool], seed: int) -> tuple[Ranked, ...]:
    """Return the cases where the model found something in an order drawn by ``seed``, and then the others likewise.

    The order depends on seed and names alone: one case more or less leaves the others as they were.
    """
    drawn = sorted(found, key=lambda case: (not found[case], hashlib.sha256(f"{seed}\n{case}".encode()).digest(), case))
    return tuple(
        Ranked(case, None, "Drawn at random among the cases in which the model found something.")
        if found[case]
        else Ranked(case, None, _NOTHING)
        for case in drawn
    )


def _judged(case: str, agreement: Mapping[str, float], volumes_ml: Mapping[str, float] | None) -> tuple[int, Ranked]:
    """The case with the rank of its group."""
    if not agreement:
        return 2, Ranked(case, None, _UNKNOWN)
    found = _found(agreement, volumes_ml)
    if not found:
        return 0, Ranked(case, None, _NOTHING)
    worst = min(found, key=lambda name: agreement[name])
    reason = f"The sub-models agree to {100 * agreement[worst]:.0f} % (Dice) on {worst}{_least(found)}."
    if missing := [name for name in agreement if name not in found]:
        reason += f" Not found: {', '.join(missing)}."
    return 1, Ranked(case, disagreement(agreement, volumes_ml), reason)


def _least(found: Iterable[str]) -> str:
    return ", and more on the other segments" if len(tuple(found)) > 1 else ""


def _found(agreement: Mapping[str, float], volumes_ml: Mapping[str, float] | None) -> tuple[str, ...]:
    """Segments that a sub-model found, in order. One that the mean of both leaves out counts where they differ."""
    volumes = volumes_ml or {}
    return tuple(name for name, dice in agreement.items() if dice < 1.0 or volumes.get(name, 0.0) > 0.0)
