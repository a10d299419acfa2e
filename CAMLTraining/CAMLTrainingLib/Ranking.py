"""The unlabelled cases in the order in which they are suggested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project
from caml_core.project.suggestion import Ranked, rank_at_random, rank_by_disagreement

from .Predictions import digestOf

RANKINGS = ("disagreement", "random")


def rankedCases(project: Project, ranking: str, seed: int, newest: Path | None = None) -> tuple[Ranked, ...]:
    """Return the unlabelled cases that have a prediction, by one of RANKINGS, the one to label next first.

    newest: the newest model. Where it has segmented some of the cases alone, as after *Cancel*, these come first: how
    much its sub-models disagree is not to be compared with those of another model.
    """
    if ranking not in RANKINGS:
        msg = f"ranking must be one of {', '.join(RANKINGS)}, got {ranking!r}"
        raise ValueError(msg)
    known = [c for c in project.with_role("unlabeled") if c.prediction is not None]
    if ranking == "random":
        return rank_at_random({c.id: any(v > 0 for v in c.volumes_ml.values()) for c in known}, seed)
    judged = [c for c in known if c.agreement]
    if newest is None or len({c.predicted_by for c in judged}) < 2:
        return _byDisagreement(judged)
    from caml_core.model_file import read_card

    try:
        own = digestOf(read_card(newest))
    except CamlError:
        return _byDisagreement(judged)
    earlier = _byDisagreement([c for c in judged if c.predicted_by != own])
    behind = [replace(one, reason=_("{why} Segmented by another model.").format(why=one.reason)) for one in earlier]
    return (*_byDisagreement([c for c in judged if c.predicted_by == own]), *behind)


def _byDisagreement(cases: Sequence[ProjectCase]) -> tuple[Ranked, ...]:
    return rank_by_disagreement({c.id: c.agreement for c in cases}, {c.id: c.volumes_ml for c in cases})
