"""A whole training, from a cohort to a model file: what ``caml train`` and the training panel's process call."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import SimpleITK
import torch

from .. import __version__
from ..cache_location import user_cache_folder
from ..config import Plan
from ..data.cache import CaseCache, PreparedCase
from ..data.case import Case, Cohort
from ..data.cohort import check_trainable, hold_out, load_cohort
from ..data.files import replacing
from ..data.fingerprint import Fingerprint, fingerprint
from ..data.memos import memos_of
from ..device import cpu_title
from ..errors import Cancelled, ModelFileError, TrainingError
from ..events import Listener
from ..model_file import LoadedModel, ModelInfo, learned_cases, load_model, save_model
from ..serialization import to_json, write_json
from .at_hand import at_hand
from .planner import Request, make_plan
from .run_folder import RunFolder
from .scores import Scoring, held_out_scores
from .trainer import Observer, Outcome, Streams, Trainer, check_streams
from .warm_start import start_state

CITATION = (
    "Gao S, Zhang Z, Ma J, Li Z, Zhang S. Correlation-Aware Mutual Learning for Semi-supervised Medical Image "
    "Segmentation. MICCAI 2023."
)
#: Of figures after a training that ended on a plateau.
STOP_NOTE = "The held-out cases also decided when to stop, so that their figures may be a little too good."


@dataclass(frozen=True)
class Session:
    """What surrounds a training: who listens, who may end it, where prepared cases are kept.

    ``observer`` is told of each live validation; ``keep`` is a folder for the held-out cases' segmentations.
    """

    listener: Listener
    stop: Callable[[], bool]
    cache_folder: Path | None = None
    name: str = ""
    observer: Observer | None = None
    keep: Path | None = None

    def checking(self, kind: str, fields: dict[str, Any]) -> None:
        """Hand an event on, and end there where asked to: of work that only its events interrupt."""
        self.listener(kind, fields)
        self.check_stop()

    def check_stop(self) -> None:
        """Raise Cancelled where asked to stop: before the training, when nothing is to be resumed yet."""
        if self.stop():
            raise Cancelled("Stopped before the training began; start it again with the same command.")


def survey(
    cohort_path: Path, request: Request, listener: Listener, cache_folder: Path | None = None
) -> tuple[Cohort, Fingerprint]:
    """Read the cohort, fix the validation split, and look at every case that has changed since the last time."""
    left_out: list[str] = []
    cohort = hold_out(load_cohort(cohort_path, left_out), request.seed, number=request.hold_out)
    notes = (*left_out, *check_trainable(cohort))
    listener("stage", {"name": "reading", "detail": f"{len(cohort.cases)} cases"})
    found = fingerprint(cohort, listener, memos_of(_cases_folder(cache_folder)))
    for note in (*notes, *found.notes):
        listener("warning", {"message": note})
    return cohort, found


def _cases_folder(chosen: Path | None) -> Path:
    """Where prepared cases are kept, and what was seen of them."""
    return chosen or user_cache_folder() / "cases"


def plan_training(
    cohort: Cohort,
    found: Fingerprint,
    request: Request,
    listener: Listener,
    start_path: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Plan, LoadedModel | None]:
    """Decide everything, with a short measurement on the device; ``check`` may raise in between."""
    start = None if start_path is None else load_model(start_path)
    listener("stage", {"name": "measuring", "detail": request.device})
    return make_plan(cohort, found, request, start, check), start


def start_training(
    cohort_path: Path, folder: RunFolder, request: Request, session: Session, start_path: Path | None = None
) -> Outcome:
    """Plan and train in ``folder``, which must not hold a training yet."""
    with folder:
        folder.check_new()
        cohort, found = survey(cohort_path, request, session.checking, session.cache_folder)
        plan, start = plan_training(cohort, found, request, session.checking, start_path, session.check_stop)
        if start is not None:
            _keep_start(start, folder)  # before the plan: where it does not fit, there is no training to be resumed
        folder.create(plan, cohort)
        return run_training(plan, cohort, folder, session, start, resumed=False)


def resume_training(folder: RunFolder, session: Session, device: str = "auto") -> Outcome:
    """Go on where ``folder`` stands; nothing is measured or chosen again, but ``device`` where that is named.

    Raises TrainingError where nothing was trained yet and the start model is missing.
    """
    plan, cohort = folder.read_plan(), folder.read_cohort()
    with folder:
        plan = at_hand(plan, session.listener, device)
        start = load_model(folder.start) if folder.start.is_file() else None
        resumed = folder.checkpoint.is_file()
        if start is None and plan.from_model and not resumed:
            raise TrainingError(
                f"{folder.path} lacks the model to start from ({folder.start.name}); begin the training again in "
                "another folder."
            )
        return run_training(plan, cohort, folder, session, start, resumed=resumed)


def run_training(
    plan: Plan,
    cohort: Cohort,
    folder: RunFolder,
    session: Session,
    start: LoadedModel | None,
    *,
    resumed: bool,
    finish: bool = False,
) -> Outcome:
    """Train in ``folder``, whose lock is held and which holds the plan, from its checkpoint where ``resumed``.

    finish: no further step, but scores and model of the weights that there are. The model is saved however the
    training ended, before the held-out cases are scored and with their figures afterwards. Where it was asked to stop,
    be it while the held-out cases were scored, the outcome is "stopped".
    """
    began = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    streams = _prepare(plan, cohort, session)
    check_streams(streams)
    state = None if start is None else start_state(start, plan.network, plan.segments, plan.seed)
    session.listener("stage", {"name": "training", "detail": f"{plan.iterations} iterations"})
    trainer = Trainer(
        plan,
        streams,
        folder,
        listener=session.listener,
        stop=session.stop,
        start=state,
        observer=session.observer,
    )
    if resumed:
        trainer.resume()
    if finish and trainer.so_far.iteration == 0:
        raise TrainingError(f"Nothing has been trained in {folder.path} yet; resume it without finishing it.")
    outcome = trainer.so_far if finish else trainer.run()

    def save(ended: Outcome) -> None:
        info = _model_info(trainer, streams, session, ended, began, start)
        network = trainer.engine.final_network
        save_model(folder.model, spec=trainer.plan.model_spec, state=network.state_dict(), info=info)

    try:
        save(outcome)  # a held-out case that cannot be scored must not cost the model
        if finish or outcome.reason != "stopped":
            outcome = _scored(outcome, trainer, cohort, folder, session)
            save(outcome)
    except ModelFileError as error:
        if outcome.reason != "failed":
            raise
        raise TrainingError(outcome.message) from error  # not even the last weights are of use
    return outcome


def _prepare(plan: Plan, cohort: Cohort, session: Session) -> Streams:
    """Resample and normalise every case once; what is on disk already is used again."""
    roles = ("labeled", "validation") if plan.labeled_only else ("labeled", "unlabeled", "validation")
    cases = cohort.with_role(*roles)
    cache = CaseCache(_cases_folder(session.cache_folder))
    session.listener("stage", {"name": "preparing", "detail": f"{len(cases)} cases"})
    prepared: list[PreparedCase] = []
    for done, case in enumerate(cases, 1):
        if session.stop():
            raise Cancelled("Stopped while the cases were prepared; what is prepared is kept.")
        prepared.append(cache.prepare(case, plan.geometry, plan.channels, plan.segments, cohort.segments))
        session.listener("progress", {"done": done, "total": len(cases), "unit": "cases"})

    def of(role: str) -> list[PreparedCase]:
        return [p for p in prepared if p.role == role]

    return Streams(of("labeled"), of("unlabeled"), of("validation"))


def _scored(outcome: Outcome, trainer: Trainer, cohort: Cohort, folder: RunFolder, session: Session) -> Outcome:
    cases: Sequence[Case] = cohort.with_role("validation")
    if not cases:
        return outcome
    session.listener("stage", {"name": "scoring", "detail": f"{len(cases)} held-out cases at full resolution"})
    try:
        scoring = Scoring(session.listener, session.stop, session.keep)
        scores = held_out_scores(trainer.engine.final_network, trainer.plan, cases, cohort.segments, scoring)
    except Cancelled:
        return replace(outcome, reason="stopped")
    with replacing(folder.scores) as temporary:
        write_json(temporary, scores)
    return replace(outcome, held_out=scores)


def _model_info(
    trainer: Trainer,
    streams: Streams,
    session: Session,
    outcome: Outcome,
    began: str,
    start: LoadedModel | None,
) -> ModelInfo:
    plan, scores = trainer.plan, outcome.held_out
    names = ", ".join(s.name for s in plan.segments)
    return ModelInfo(
        name=session.name or f"{names} ({len(streams.labeled)} labelled cases)",
        anatomy=names,
        modality=", ".join(c.modality for c in plan.channels),
        description=_description(outcome, plan),
        citation=CITATION,
        labeled_cases=len(streams.labeled),
        unlabeled_cases=len(streams.unlabeled),
        metrics={"held_out": {k: scores[k] for k in ("count", "summary", "remarks")}} if scores else {},
        provenance={
            "seed": plan.seed,
            "preset": plan.preset,
            "labeled_only": plan.labeled_only,
            "iterations": outcome.iteration,
            "planned_iterations": plan.iterations,
            "seconds": round(outcome.seconds, 1),
            "started": began,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
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
            "learned": sorted({p.id for p in streams.labeled}.union(learned_cases(start.info) if start else ())),
            "cases": {
                p.id: {"role": p.role, "sha256": p.digest}
                for p in (*streams.labeled, *streams.unlabeled, *streams.validation)
            },
        },
        plan=to_json(plan),
    )


def _description(outcome: Outcome, plan: Plan) -> str:
    method = "labelled cases alone (sub-model v)" if plan.labeled_only else "CAML, semi-supervised"
    if outcome.reason == "plateau":
        return f"Trained with {method}: {outcome.iteration} iterations, until it no longer improved. {STOP_NOTE}"
    ended = {"finished": "", "stopped": ", stopped early", "failed": ", ended early by non-finite losses"}
    return f"Trained with {method}: {outcome.iteration} of {plan.iterations} iterations{ended[outcome.reason]}."


def _keep_start(start: LoadedModel, folder: RunFolder) -> None:
    """A resumed run must not depend on a model that was moved meanwhile."""
    save_model(folder.start, spec=start.spec, state=start.state, info=start.info, half=False)
