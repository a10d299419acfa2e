"""What a training leaves behind: its model with a card, and the figures of its held-out cases."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
import SimpleITK
import torch

from .. import __version__
from ..case_names import digest_of
from ..config import Plan
from ..data.case import Case, Cohort, Role
from ..data.files import replacing
from ..device import cpu_title
from ..errors import Cancelled, ModelFileError, TrainingError
from ..inference.evaluation import empty_remarks
from ..model import CamlNetwork
from ..model_file import LoadedModel, ModelInfo, learned_scans, save_model, stopping_scans
from ..serialization import to_json, write_json
from .held_out import start_notes
from .run_folder import RunFolder
from .scores import Scoring, held_out_scores, unread_remark
from .session import Session, case_memos
from .trainer import Outcome
from .validation import VALIDATION_CASES

CITATION = (
    "Gao S, Zhang Z, Ma J, Li Z, Zhang S. Correlation-Aware Mutual Learning for Semi-supervised Medical Image "
    "Segmentation. MICCAI 2023."
)
#: Of figures after a training that ended on a plateau, and after one that ended otherwise while its rate fell for it.
STOP_NOTE = "The held-out cases also decided when to stop, so that their figures may be a little too good."
FALL_NOTE = (
    "The held-out cases also decided when the learning rate began to fall, so that their figures may be a little too "
    "good."
)


@dataclass(frozen=True)
class Learnt:
    """What a training has learnt: the network to score and save, and what its card says of where it comes from.

    ``digests``: case -> SHA-256 of its files, of all that took part; empty where that is not known. ``scans``: (id,
    digest of the scan's voxels) of those with a label, as far as that is known. ``began``: when this session did.
    ``start``: the model that the training started from.
    """

    plan: Plan
    network: CamlNetwork
    digests: Mapping[str, str]
    scans: Collection[tuple[str, str]]
    began: str
    start: LoadedModel | None


def roles_of(plan: Plan) -> tuple[Role, ...]:
    """Return the roles of the cases that a training reads."""
    return ("labeled", "validation") if plan.labeled_only else ("labeled", "unlabeled", "validation")


def is_ended(outcome: Outcome, cohort: Cohort, finish: bool) -> bool:
    """Whether a training has come to its end, by itself or by ``finish``; else it was stopped, and may go on."""
    if outcome.reason != "stopped":
        return True
    return finish and (bool(outcome.held_out) or not cohort.with_role("validation"))


def plateau_note(reason: str, plateau: bool) -> str:
    """Return what has to be said of the figures of a training that ended so; empty where its Dice did not level off."""
    return "" if not plateau else STOP_NOTE if reason == "plateau" else FALL_NOTE


def leave(
    learnt: Learnt, outcome: Outcome, cohort: Cohort, folder: RunFolder, session: Session, *, finish: bool = False
) -> Outcome:
    """Save the model, score the held-out cases unless the training was stopped, and save it with their figures.

    finish: a training that was stopped is to end here. Its held-out cases are scored as far as their files can be read
    and what is wrong with the others is said: neither may cost what was learnt. Where it is asked to stop while the
    held-out cases are scored, the outcome is "stopped" without figures.
    """

    def save(ended: Outcome) -> None:
        info = _model_info(learnt, cohort, session.name, ended)
        save_model(folder.model, spec=learnt.plan.model_spec, state=learnt.network.state_dict(), info=info)

    try:
        save(outcome)  # a held-out case that cannot be scored must not cost the model
        if finish or outcome.reason != "stopped":
            outcome = _scored(learnt, outcome, cohort, folder, session, finish)
            if outcome.held_out:  # stopped in between, the card keeps how the training ended
                save(outcome)
    except ModelFileError as error:
        if outcome.reason != "failed":
            raise
        raise TrainingError(outcome.message) from error  # not even the last weights are of use
    return outcome


def _scored(
    learnt: Learnt, outcome: Outcome, cohort: Cohort, folder: RunFolder, session: Session, finish: bool
) -> Outcome:
    cases = cohort.with_role("validation")
    if not cases:
        return outcome
    session.listener("stage", {"name": "scoring", "detail": f"{len(cases)} held-out cases at full resolution"})
    try:
        scoring = Scoring(session.listener, session.stop, session.keep, passes_over=finish)
        scores = held_out_scores(learnt.network, learnt.plan, cases, cohort.segments, scoring)
    except Cancelled:
        return replace(outcome, reason="stopped")
    # Kept beside the figures: whoever tells them later may not have the scans any more.
    measured = replace(cohort, cases=tuple(case for case in cases if case.id not in scores["unread"]))
    start, memos = learnt.start, case_memos(session.cache_folder)
    scores["cautions"] = list(start_notes(start, measured, memos, outcome.plateau))
    scores["remarks"] += scores["cautions"]
    scores["card_remarks"] = _card_remarks(scores, start_notes(start, measured, memos, outcome.plateau, named=False))
    with replacing(folder.scores) as temporary:
        write_json(temporary, scores)
    if scores["unread"]:
        session.note(unread_remark(scores))
    return replace(outcome, held_out=scores)


def _card_remarks(scores: Mapping[str, Any], cautions: Iterable[str]) -> list[str]:
    """Return what a card, which names no cases, has to say of figures."""
    first = next(iter(scores["summary"]), "")
    empty = empty_remarks({case: row[first] for case, row in scores["cases"].items()})
    return [*empty, *filter(None, [unread_remark(scores, named=False)]), *cautions]


def _model_info(learnt: Learnt, cohort: Cohort, name: str, outcome: Outcome) -> ModelInfo:
    plan, start, scores = learnt.plan, learnt.start, outcome.held_out
    names = ", ".join(s.name for s in plan.segments)
    took_part = [c for role in roles_of(plan) for c in cohort.with_role(role) if c.id in learnt.digests]
    count = {role: sum(c.role == role for c in took_part) for role in roles_of(plan)}
    labeled = [case for case in took_part if case.role == "labeled"]
    decided = [case for case in took_part if case.role == "validation"][:VALIDATION_CASES]
    deciding = decided if outcome.plateau else []
    return ModelInfo(
        name=name or f"{names} ({count['labeled']} labelled cases)",
        anatomy=names,
        modality=", ".join(c.modality for c in plan.channels),
        description=_description(outcome, plan),
        citation=CITATION,
        labeled_cases=count["labeled"],
        unlabeled_cases=count.get("unlabeled", 0),
        metrics={"held_out": _figures(scores)} if scores.get("count") else {},
        provenance={
            "seed": plan.seed,
            "preset": plan.preset,
            "labeled_only": plan.labeled_only,
            "iterations": outcome.iteration,
            "planned_iterations": plan.iterations,
            "seconds": round(outcome.seconds, 1),
            "started": learnt.began,
            "finished": now(),
            "versions": {
                "caml": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": numpy.__version__,
                "SimpleITK": SimpleITK.Version_VersionString(),
            },
            "system": f"{sys.platform}, {cpu_title()}, {plan.device}",
            "training_volumes": {"size_mm": plan.volume_size, "spacing": plan.volume_spacing},
            "start_model": None if start is None else start.info.name,
            **_carried("learned", labeled, learned_scans(start.info) if start else (), learnt.scans),
            **_carried("stopped_by", deciding, stopping_scans(start.info) if start else (), learnt.scans),
            "cases": {digest_of(c.id): {"role": c.role, "sha256": learnt.digests[c.id]} for c in took_part},
        },
        plan=to_json(replace(plan, notes=())),  # notes may name cases
    )


def _figures(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {"count": scores["count"], "summary": scores["summary"], "remarks": scores["card_remarks"]}


def _carried(
    name: str, cases: Sequence[Case], before: Iterable[tuple[str, str]], scans: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Entries of the provenance for cases of this training and of those before it: digests of names, and of scans."""
    ids = {digest_of(case.id) for case in cases}
    named = ((digest_of(identity), digest) for identity, digest in scans)
    found = {(identity, digest) for identity, digest in named if identity in ids and digest}
    pairs = found.union(((identity, "") for identity in ids - {known for known, _ in found}), before)
    if not pairs:
        return {}
    return {name: sorted({identity for identity, _ in pairs}), f"{name}_scans": sorted(list(pair) for pair in pairs)}


def _description(outcome: Outcome, plan: Plan) -> str:
    method = "labelled cases alone (sub-model v)" if plan.labeled_only else "CAML, semi-supervised"
    early = {"stopped": ", stopped early", "failed": ", ended early by non-finite losses"}.get(outcome.reason, "")
    done = f"{outcome.iteration} of {plan.iterations} iterations{early}"
    if outcome.plateau:  # what was planned is the most then
        since = ", after it no longer improved" if early else ", until it no longer improved"
        done = f"{outcome.iteration} iterations{early}{since}"
    text = " ".join(filter(None, (f"Trained with {method}: {done}.", plateau_note(outcome.reason, outcome.plateau))))
    scores: Mapping[str, Any] = outcome.held_out
    return text if scores.get("count", 1) else f"{text} {unread_remark(scores, named=False)}"


def now() -> str:
    """Return the time as cards have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
