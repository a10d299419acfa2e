"""One round from its cohort to its result; every step that is done is on disk, and is not done again."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Plan
from ..data.case import Cohort
from ..data.cohort import check_files, check_folds, check_trainable, load_cohort
from ..data.files import as_argument, remove_quietly, replacing
from ..errors import CamlError, Cancelled, TrainingError, UsageError
from ..events import Listener, silent
from ..inference.evaluation import empty_remarks
from ..model_file import LoadedModel, load_model, save_model
from ..training.at_hand import at_hand, device_at_hand
from ..training.ending import is_ended, plateau_note
from ..training.from_model import from_scratch
from ..training.held_out import seen_cases, split, start_notes
from ..training.request import check_of_round
from ..training.run import finish_training, plan_training, run_training, survey
from ..training.run_folder import RunFolder
from ..training.scores import Scoring, main_sub_model, start_model_scores, unread_remark
from ..training.session import Session, case_memos
from ..training.trainer import Observer, Outcome
from ..training.warm_start import load_start
from . import result
from .parts import fold_cohorts, fold_plan, labeled_only_plan
from .preview import Preview
from .pulse import for_part
from .report import write_round_report
from .request import RoundRequest
from .round_folder import BASELINE, FOLD, MAIN, RoundFolder, read_object, save_json


@dataclass(frozen=True)
class Surroundings:
    """Who listens to a round, who may end it, and where prepared cases are kept (None: the user's own place).

    device: where to go on; ``auto``: where the round was begun or asked for, as long as that device is there.
    """

    listener: Listener
    stop: Callable[[], bool]
    cache_folder: Path | None = None
    device: str = "auto"


def start_round(
    folder: RoundFolder, cohort_path: Path, request: RoundRequest, start: Path | None = None, preview: str = ""
) -> None:
    """Write the folder of a new round, after all checks that need no image; nothing is trained yet.

    Raises UsageError, DataError or ModelFileError where the round cannot be.
    """
    planning = request.planning
    check_of_round(planning.labeled_only)
    left_out: list[str] = []
    loaded = None if start is None else load_model(start)
    memos = case_memos(folder.cache(request))
    cohort = split(load_cohort(cohort_path, left_out), planning, loaded, memos)
    check_trainable(cohort)
    if request.planning.until_better and not cohort.with_role("validation"):
        raise UsageError(
            "Training until it stops improving needs at least one validation case; hold one out, or choose a budget."
        )
    check_folds(cohort, request.folds)
    if preview and preview not in {case.id for case in cohort.cases}:
        raise UsageError(f"The cohort has no case {preview!r} to preview; name one that it lists, or none.")
    folder.create(cohort, request, start)
    folder.add_notes(left_out)
    if preview:
        with replacing(folder.preview_case) as temporary:
            temporary.write_text(preview + "\n", encoding="utf-8")


class Round:
    """The work on a round's folder, whose lock is held. Call ``run``, as often as it takes."""

    def __init__(self, folder: RoundFolder, surroundings: Surroundings) -> None:
        self.folder = folder
        self.request = folder.read_request()
        self._around = surroundings
        self._listener = for_part(surroundings.listener, "")
        self._stop = surroundings.stop
        self._start: LoadedModel | None = None
        self._memos = case_memos(surroundings.cache_folder)

    def run(self, *, finish: bool = False) -> dict[str, Any]:
        """Do what is left to do and return the result.

        finish: train no further; score and finish with the weights that there are, and leave the other parts out.
        Raises Cancelled when asked to stop, with everything saved; TrainingError where the losses failed.
        """
        found = self.folder.read_result()
        if found is None:
            found = self._work(finish)
            save_json(self.folder.result, found)
        if found["report"] is None:
            found = {**found, "report": self._report(found)}
            save_json(self.folder.result, found)
        if found["ended"] == "failed":
            raise TrainingError(self._outcome(MAIN)["message"])
        return found

    def _work(self, finish: bool) -> dict[str, Any]:
        renamed = self.request.planning.renamed
        self._start = load_start(self.folder.start, renamed) if self.folder.start.is_file() else None
        plan, cohort = self._prepare(finish)
        self._score_start(plan, cohort)
        preview = Preview(self.folder, cohort, for_part(self._around.listener, MAIN), self._stop)
        main = self._part(MAIN, lambda: (plan, cohort), self._start, preview, finish)
        self._publish()
        plan = self._at_hand(self.folder.part(MAIN))  # out of memory it may have changed
        if main["ended"] in ("finished", "plateau") and not finish:
            self._add_baseline(plan, cohort, main["iterations"])
            self._add_folds(plan, cohort, main["iterations"])
        names, notes = [s.name for s in plan.segments], self.folder.read_notes()
        scores, plateau = self._scores(MAIN), main.get("plateau", main["ended"] == "plateau")  # older ones lack it
        known = scores.get("cautions")
        if known is None:  # scores of older versions lack them
            known = start_notes(self._start, cohort, self._memos, plateau)
        caution = " ".join(filter(None, (*known, plateau_note(main["ended"], plateau))))
        unread, crossed = unread_remark(scores), " ".join(self._fold_notes(cohort))
        return result.make_result(cohort, names, main["ended"], self._rows(), notes, caution, unread, crossed)

    def _prepare(self, finish: bool) -> tuple[Plan, Cohort]:
        """Return plan and cohort: those of the main training where it has begun, else made now.

        Before that all files must be there; later each training asks for those that it needs.
        """
        cohort, main = self.folder.read_cohort(), self.folder.part(MAIN)
        if not finish and not main.checkpoint.is_file() and not main.outcome.is_file():
            check_files(cohort)
        if main.plan.is_file():
            return self._at_hand(main, self._listener), cohort
        if finish:
            raise TrainingError("Nothing has been trained yet; resume the round without finishing it.")
        device = device_at_hand(self.request.planning.device, self._listener, self._around.device)
        request = dataclasses.replace(self.request.planning, device=device)
        start = self.folder.start if self._start is not None else None
        _, found = survey(self.folder.cohort, request, self._checking, self._around.cache_folder, start)
        plan, _ = plan_training(cohort, found, request, self._checking, start, self._check_stop)
        notes = [*check_trainable(cohort), *plan.notes]
        self.folder.add_notes([*notes, *start_notes(self._start, cohort, self._memos)])
        with main:
            main.create(plan, cohort)
        return plan, cohort

    def _at_hand(self, part: RunFolder, listener: Listener = silent) -> Plan:
        return at_hand(part.read_plan(), listener, self._around.device)

    def _checking(self, kind: str, fields: dict[str, Any]) -> None:
        """Hand an event on, and end there where asked to: of work that only its events interrupt."""
        self._listener(kind, fields)
        self._check_stop()

    @property
    def _command(self) -> str:
        """What goes on with the round at the command line."""
        return f"caml round --resume {as_argument(self.folder.path)}"

    def _check_stop(self) -> None:
        if self._stop():
            raise Cancelled(f"Stopped; go on with: {self._command}")

    def _score_start(self, plan: Plan, cohort: Cohort) -> None:
        cases = cohort.with_role("validation")
        if self._start is None or not cases or self.folder.start_scores.is_file():
            return
        self._listener("stage", {"name": "scoring", "detail": f"the start model on {len(cases)} held-out cases"})
        scoring = Scoring(self._listener, self._stop, self.folder.segmentations / result.START)
        scores = start_model_scores(self._start, plan, cases, cohort.segments, scoring)
        save_json(self.folder.start_scores, scores)
        if scores["count"]:
            self._tell_scores(result.row(result.START, scores))
        if scores["absent"]:
            names = ", ".join(scores["absent"])
            left = "its figures are those of the other segments" if scores["count"] else "it has no figures"
            self.folder.add_notes([f"The start model does not know {names}: {left}."])

    def _add_baseline(self, plan: Plan, cohort: Cohort, iterations: int) -> None:
        if not self.request.baseline:
            return
        labeled = len(cohort.with_role("labeled"))
        self._part(BASELINE, lambda: (labeled_only_plan(plan, iterations, labeled), cohort), self._start)

    def _add_folds(self, plan: Plan, cohort: Cohort, iterations: int) -> None:
        if not self.request.folds:
            return
        start = self._fold_start(cohort)
        if start is not self._start:
            plan = from_scratch(plan)
            self.folder.add_notes(
                [
                    "The cross-validation starts from scratch, with as many steps as fine-tuning takes: the start "
                    "model has learned from labels of these cases. Its figures may be those of a weaker model."
                ]
            )
        cohorts = fold_cohorts(cohort, self.request.folds, plan.seed)
        memos = case_memos(self._around.cache_folder)

        def begin(own: Cohort) -> tuple[Plan, Cohort]:
            return fold_plan(plan, iterations, len(cohorts), own, memos), own

        for number, own in enumerate(cohorts, 1):
            self._part(f"{FOLD}{number}", functools.partial(begin, own), start)
        if plan.losses.pseudo_largest_component:
            self._note_all_parts([self.folder.part(f"{FOLD}{n}").read_plan() for n in range(1, len(cohorts) + 1)])
        row = self._crossed()
        if row is not None:
            self._tell_scores(row)
            self._publish(row, self._fold_notes(cohort, named=False))

    def _fold_start(self, cohort: Cohort) -> LoadedModel | None:
        """What the cross-validation starts from: not from a model that knows the cases that it is to be judged by."""
        start = self._start
        if start is not None and seen_cases(start, cohort.with_role("labeled"), self._memos):
            return None
        return start

    def _fold_notes(self, cohort: Cohort, named: bool = True) -> tuple[str, ...]:
        """What has to be said of the figures of the cross-validation, in which each labelled case is held out once."""
        if not self.request.folds:
            return ()
        judged = dataclasses.replace(
            cohort, cases=tuple(dataclasses.replace(c, role="validation") for c in cohort.with_role("labeled"))
        )
        return start_notes(self._fold_start(cohort), judged, self._memos, named=named)

    def _note_all_parts(self, plans: Sequence[Plan]) -> None:
        """Say so where trainings of the cross-validation did not keep the largest part alone, as the model does."""
        number = sum(not plan.losses.pseudo_largest_component for plan in plans)
        if number:
            self.folder.add_notes(
                [
                    f"{number} of {len(plans)} trainings of the cross-validation keep all parts of each segment, as "
                    "the labels that they learn from do not tell that it is in one piece; the model keeps the largest. "
                    "The figures of the cross-validation may be those of a weaker model."
                ]
            )

    def _part(
        self,
        name: str,
        begin: Callable[[], tuple[Plan, Cohort]],
        start: LoadedModel | None,
        observer: Observer | None = None,
        finish: bool = False,
    ) -> dict[str, Any]:
        """Carry out one of the round's trainings, or what is left of it, and return how it ended.

        finish: end one that was begun with what it has learnt.
        """
        self._check_stop()
        part = self.folder.part(name)
        done = read_object(part.outcome)
        if done is not None:
            return done
        listener = for_part(self._around.listener, name)
        keep = self.folder.segmentations / (result.CROSS_VALIDATION if name.startswith(FOLD) else name)
        session = Session(
            listener,
            self._stop,
            self._around.cache_folder,
            self.request.name,
            observer,
            keep,
            note=lambda sentence: self.folder.add_notes([sentence]),
            way_out=f"Or end the round with what it has learnt so far: press Stop, or enter {self._command} --finish.",
        )
        with part:
            if not part.plan.is_file():
                part.create(*begin())
            plan, own = self._at_hand(part), part.read_cohort()
            resumed, begun = part.checkpoint.is_file(), name != MAIN
            try:
                if finish:
                    outcome = finish_training(plan, own, part, session, start)
                else:
                    outcome = run_training(plan, own, part, session, start, resumed=resumed, begun=begun)
            except BaseException:  # a session that ends early may have gone on with less, too
                with suppress(CamlError, OSError):  # of a plan or a disk that is gone; what ended it is what counts
                    self._note_shrunk(name, plan, part.read_plan())
                raise
            self._note_shrunk(name, plan, part.read_plan())
            if not is_ended(outcome, own, finish):
                raise Cancelled(
                    f"Stopped at iteration {outcome.iteration} with everything saved; go on with: {self._command}"
                )
            self._note_failed(name, outcome)
            done = {
                "ended": outcome.reason,
                "iterations": outcome.iteration,
                "seconds": outcome.seconds,
                "message": outcome.message,
                "plateau": outcome.plateau,
            }
            save_json(part.outcome, done)
            remove_quietly(part.checkpoint)  # nobody goes on from here
        if outcome.held_out.get("count"):
            self._tell_scores(result.row(name, outcome.held_out))
        return done

    def _note_failed(self, name: str, outcome: Outcome) -> None:
        """Say of a part beside the main one that it ended early: its row looks like the others'."""
        if name != MAIN and outcome.reason == "failed":
            self.folder.add_notes(
                [f"The training {name} ended early, by losses that were no numbers; do not compare it."]
            )

    def _note_shrunk(self, name: str, before: Plan, after: Plan) -> None:
        """Say of any part that it did not have what was planned, where memory ran out."""
        if (after.batch_labeled, after.geometry.patch) != (before.batch_labeled, before.geometry.patch):
            self.folder.add_notes(
                [f"The training {name} went on with smaller batches or patches, as memory had run out."]
            )

    def _tell_scores(self, row: dict[str, Any]) -> None:
        self._listener("scores", {"row": row["name"], "count": row["count"], "summary": row["summary"]})

    def _outcome(self, name: str) -> dict[str, Any]:
        return read_object(self.folder.part(name).outcome) or {}

    def _scores(self, name: str) -> dict[str, Any]:
        """The figures of a part's held-out cases; without any where there are none."""
        return read_object(self.folder.part(name).scores) or {"count": 0, "summary": {}, "cases": {}}

    def _publish(self, crossed: dict[str, Any] | None = None, notes: Sequence[str] = ()) -> None:
        """Put the model where it is looked for, with the figures of the cross-validation where there was one.

        notes: what has to be said of these, on a card, which names no case.
        """
        model = self.folder.part(MAIN).model
        if crossed is None:
            with replacing(self.folder.model) as temporary:
                shutil.copyfile(model, temporary)
            return
        loaded = load_model(model)
        remarks = [*empty_remarks(crossed["cases"]), *notes]
        summary = {main_sub_model(loaded.spec): crossed["summary"]}
        figures = {"count": crossed["count"], "summary": summary, "remarks": remarks}
        info = dataclasses.replace(loaded.info, metrics={**loaded.info.metrics, "cross_validation": figures})
        save_model(self.folder.model, spec=loaded.spec, state=loaded.state, info=info)

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        start = read_object(self.folder.start_scores)
        if start is not None:
            rows.append(result.row(result.START, start))
        for name in (result.LABELED_ONLY, result.CAML):
            outcome = self._outcome(name)
            if outcome:
                rows.append(result.row(name, self._scores(name), outcome["iterations"], outcome["seconds"]))
        crossed = self._crossed()
        return rows if crossed is None else [*rows, crossed]

    def _report(self, found: dict[str, Any]) -> str | None:
        """Write the report; a round is good without one."""
        title = self.request.name or ", ".join(found["segments"])
        try:
            path = write_round_report(self.folder, found, title, self._listener, self._stop)
        except Cancelled:
            raise
        except (CamlError, OSError) as error:
            self._listener("warning", {"message": f"There is no report: {error}"})
            return None
        return path.relative_to(self.folder.path).as_posix()

    def _crossed(self) -> dict[str, Any] | None:
        """The row of the cross-validation; None before all its trainings are done."""
        cohort = self.folder.read_cohort()
        number = min(self.request.folds, len(cohort.with_role("labeled")))
        outcomes = [self._outcome(f"{FOLD}{fold}") for fold in range(1, number + 1)]
        if not outcomes or not all(outcomes):
            return None
        cases: dict[str, Any] = {}
        for fold in range(1, number + 1):
            cases |= result.row("", self._scores(f"{FOLD}{fold}"))["cases"]
        iterations, seconds = (sum(outcome[key] for outcome in outcomes) for key in ("iterations", "seconds"))
        return result.row_of_cases(result.CROSS_VALIDATION, cases, iterations, seconds)
