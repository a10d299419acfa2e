"""A whole training, from a cohort to a model file: what ``caml train`` and the training panel's process call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import Plan
from ..data.cache import CaseCache, PreparedCase
from ..data.case import Cohort, some_names
from ..data.case_memo import scan_digest
from ..data.cohort import check_files, check_trainable, load_cohort
from ..data.fingerprint import Fingerprint, fingerprint
from ..errors import Cancelled, DataError, TrainingError
from ..events import Listener
from ..model_file import LoadedModel, load_model, read_card, save_model
from .at_hand import at_hand
from .checkpoint import known_scans, load_checkpoint
from .ending import Learnt, leave, now, roles_of
from .engine import saved_network
from .held_out import split, start_notes
from .planner import Request, make_plan
from .run_folder import RunFolder
from .session import Session, case_memos, cases_folder
from .trainer import Outcome, Streams, Trainer, check_streams
from .validation import Scores
from .warm_start import load_start, start_state

_NEEDED = (
    "The training cannot go on without its labelled and held-out cases: put the files back or connect their drive, "
    "then resume it."
)
_ALL_GONE = "The training learns from them: put the files back or connect their drive, then resume it."


def survey(
    cohort_path: Path,
    request: Request,
    listener: Listener,
    cache_folder: Path | None = None,
    start_path: Path | None = None,
) -> tuple[Cohort, Fingerprint]:
    """Read the cohort, fix the validation split, and look at every case that has changed since the last time.

    start_path: the model that the training starts from; ModelFileError where that cannot be read.
    """
    left_out: list[str] = []
    start, memos = None if start_path is None else read_card(start_path), case_memos(cache_folder)
    listed = load_cohort(cohort_path, left_out)
    listener("stage", {"name": "reading", "detail": f"{len(listed.cases)} cases"})
    cohort = split(listed, request, start, memos)
    notes = check_trainable(cohort)
    found = fingerprint(cohort, listener, memos)
    notes = (*left_out, *notes, *start_notes(start, cohort, memos))
    for note in (*notes, *found.notes):
        listener("warning", {"message": note})
    return cohort, found


def plan_training(
    cohort: Cohort,
    found: Fingerprint,
    request: Request,
    listener: Listener,
    start_path: Path | None = None,
    check: Callable[[], None] = lambda: None,
) -> tuple[Plan, LoadedModel | None]:
    """Decide everything, with a short measurement on the device; ``check`` may raise in between."""
    start = None if start_path is None else load_start(start_path, request.renamed)
    listener("stage", {"name": "measuring", "detail": request.device})
    return make_plan(cohort, found, request, start, check), start


def start_training(
    cohort_path: Path, folder: RunFolder, request: Request, session: Session, start_path: Path | None = None
) -> Outcome:
    """Plan and train in ``folder``, which must not hold a training yet."""
    with folder:
        folder.check_new()
        cohort, found = survey(cohort_path, request, session.checking, session.cache_folder, start_path)
        plan, start = plan_training(cohort, found, request, session.checking, start_path, session.check_stop)
        if start is not None:
            _keep_start(start, folder)  # before the plan: where it does not fit, there is no training to be resumed
        folder.create(plan, cohort)
        return run_training(plan, cohort, folder, session, start, resumed=False)


def resume_training(folder: RunFolder, session: Session, device: str = "auto", *, finish: bool = False) -> Outcome:
    """Go on where ``folder`` stands; nothing is measured or chosen again, but ``device`` where that is named.

    finish: train no further, but end with what there is (``finish_training``).
    Raises TrainingError where nothing was trained yet and the start model is missing, or it is to be finished.
    """
    plan, cohort = folder.read_plan(), folder.read_cohort()
    with folder:
        plan = at_hand(plan, session.listener, device)
        start = load_model(folder.start) if folder.start.is_file() else None
        if finish:
            return finish_training(plan, cohort, folder, session, start)
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
    begun: bool = False,
) -> Outcome:
    """Train in ``folder``, whose lock is held and which holds the plan, from its checkpoint where ``resumed``.

    begun: of the round that it belongs to something is learnt already. Where that is so, here or there, it goes on
    without unlabelled cases whose files cannot be read any more, with a warning and a note. The model is saved however
    the training ended, before the held-out cases are scored and with their figures afterwards. Where it was asked to
    stop, be it while the held-out cases were scored, the outcome is "stopped".

    Raises DataError for files that it cannot do without.
    """
    began = now()
    state = load_checkpoint(folder.checkpoint) if resumed else None
    begun = begun or (state is not None and int(state["iteration"]) > 0)
    if not begun:
        check_files(cohort)  # nothing is lost yet: the list can be put right
    streams = _prepare(plan, cohort, session, begun)
    check_streams(streams)
    weights = None if start is None else start_state(start, plan.network, plan.segments, plan.seed)
    session.listener("stage", {"name": "training", "detail": f"{plan.iterations} iterations"})
    trainer = Trainer(
        plan,
        streams,
        folder,
        listener=session.listener,
        stop=session.stop,
        start=weights,
        observer=session.observer,
    )
    if state is not None:
        _resume(trainer, state, session.way_out if begun else "")
        del state  # it would take its memory as long as the training lasts
    outcome = trainer.run()
    learnt = Learnt(trainer.plan, trainer.engine.final_network, trainer.digests, trainer.scans, began, start)
    return leave(learnt, outcome, cohort, folder, session)


def finish_training(
    plan: Plan, cohort: Cohort, folder: RunFolder, session: Session, start: LoadedModel | None
) -> Outcome:
    """End the training of ``folder``, whose lock is held, with what its checkpoint has learnt: model and figures.

    No scan is asked for but those of held-out cases, which are scored as far as they can be read. The outcome is
    "stopped", or what it was where all iterations were done; "stopped" without figures where there are held-out cases
    and it was asked to stop while they were scored.
    Raises TrainingError where nothing was trained yet.
    """
    state = load_checkpoint(folder.checkpoint) if folder.checkpoint.is_file() else None
    if state is None or int(state["iteration"]) == 0:
        raise TrainingError(f"Nothing has been trained in {folder.path} yet; resume it without finishing it.")
    # Checkpoints of older versions do not know their cases, or not their voxels: these go by their names then.
    digests = state.get("cases") or dict.fromkeys((case.id for case in cohort.cases), "")
    learnt = Learnt(plan, saved_network(plan, state["engine"]), digests, known_scans(state), now(), start)
    return leave(learnt, _standing(plan, state), cohort, folder, session, finish=True)


def _standing(plan: Plan, state: Mapping[str, Any]) -> Outcome:
    """How a training stands by its checkpoint: a stop while held-out cases were scored leaves one at its end."""
    plateau, span = bool((state.get("plateau") or {}).get("reached")), state["engine"].get("annealing")
    iteration, ended = int(state["iteration"]), "plateau" if plateau else "finished"
    reason = ended if iteration >= (plan.iterations if span is None else int(span[1])) else "stopped"
    return Outcome(reason, iteration, float(state["seconds"]), Scores.from_dict(state["scores"]), plateau=plateau)


def _resume(trainer: Trainer, state: dict[str, Any], way_out: str) -> None:
    """Let the trainer go on from ``state``; where that cannot be, ``way_out`` is said as well."""
    try:
        trainer.resume(state)
    except TrainingError as error:
        raise TrainingError(_sentences(str(error), way_out)) from error


def _prepare(plan: Plan, cohort: Cohort, session: Session, begun: bool) -> Streams:
    """Resample and normalise every case once; what is on disk already is used again.

    begun: unlabelled cases whose files cannot be read are left out, as long as one is left.
    """
    # What cannot be done without comes first: where it is gone, that is said before hundreds of scans are prepared.
    cases = sorted(cohort.with_role(*roles_of(plan)), key=lambda case: case.role == "unlabeled")
    cache = CaseCache(cases_folder(session.cache_folder))
    session.listener("stage", {"name": "preparing", "detail": f"{len(cases)} cases"})
    prepared: list[PreparedCase] = []
    scans: set[tuple[str, str]] = set()
    unread: dict[str, DataError] = {}
    for done, case in enumerate(cases, 1):
        if session.stop():
            raise Cancelled("Stopped while the cases were prepared; what is prepared is kept.")
        try:
            prepared.append(cache.prepare(case, plan.geometry, plan.channels, plan.segments, cohort.segments))
            if case.role != "unlabeled":
                scans.add((case.id, scan_digest(case, cache.memos)))
        except DataError as error:
            if not begun:
                raise
            if case.role != "unlabeled":
                raise DataError(_sentences(str(error), _NEEDED, session.way_out), case.id) from error
            unread[case.id] = error
        session.listener("progress", {"done": done, "total": len(cases), "unit": "cases"})

    def of(role: str) -> list[PreparedCase]:
        return [p for p in prepared if p.role == role]

    if unread:
        _tell_unread(unread, len(of("unlabeled")), session)
    return Streams(of("labeled"), of("unlabeled"), of("validation"), frozenset(scans))


def _tell_unread(unread: dict[str, DataError], left: int, session: Session) -> None:
    """Say which unlabelled cases a training goes on without; raise DataError where none is ``left``."""
    count, names = f"{len(unread)} unlabelled case(s)", some_names(unread)
    first = next(iter(unread.values()))
    if not left:
        message = f"None of the {count} can be read any more. {first} {_ALL_GONE}"
        raise DataError(_sentences(message, session.way_out)) from first
    message = (
        f"The training goes on without {count} whose files cannot be read ({names}). Once they are back, pause and "
        f"resume it to learn from them again. {first}"
    )
    session.listener("warning", {"message": message})
    session.note(f"The files of {count} could not be read any more ({names}): the training went on without them.")


def _sentences(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _keep_start(start: LoadedModel, folder: RunFolder) -> None:
    """A resumed run must not depend on a model that was moved meanwhile."""
    save_model(folder.start, spec=start.spec, state=start.state, info=start.info, half=False)
