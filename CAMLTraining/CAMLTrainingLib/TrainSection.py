"""The panel's part "Training": start model, budget, the check, the buttons, progress, curves."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from CAMLSegmentationLib.Combo import choose, chosen, fill
from CAMLSegmentationLib.Parameters import storedDevice
from CAMLSegmentationLib.PlainText import asWritten
from CAMLSegmentationLib.Widget import duration
from slicer.i18n import tr as _

from caml_core.errors import CamlError, UsageError
from caml_core.model_file import read_card

from . import Curves, Parameters, TrainingTexts
from .Logic import CAMLTrainingLogic
from .ModelChoice import modelChoices, setStart, settleStart, standing, startOf
from .Preflight import TrainingSettings, Verdict, verdictHtml
from .PreviewSection import PreviewSection

#: Seconds between two updates of curves and preview.
DRAW_PERIOD = 2.0
#: Parts of a cross-validation, and held-out cases from which on there is none.
FOLDS, ENOUGH_HELD_OUT = 3, 3


class TrainSection:
    """Starts and follows trainings; calls ``onChange`` when the state changed.

    rolesChange: whether labels are being checked, so that the cohort is not yet what the user has asked for.
    """

    def __init__(
        self, ui: Any, logic: CAMLTrainingLogic, onChange: Callable[[], None], rolesChange: Callable[[], bool]
    ) -> None:
        self._ui, self._logic, self._onChange, self._rolesChange = ui, logic, onChange, rolesChange
        self._parameterNode: Any = None
        self._lastModel, self._gone = ("", ""), ""
        self._updating = self._trainNext = self._stopNext = False
        self._checkedKey: Any = None
        self._shownNext, self._drawn, self._stage = "", 0.0, ""
        self._followed: Path | None = None
        self.curves = Curves.Curves()
        self.preview = PreviewSection(ui, logic, self._say, self.log)
        fill(ui.budgetComboBox, TrainingTexts.BUDGETS)
        fill(ui.onQuitComboBox, TrainingTexts.ON_QUIT)
        choose(ui.onQuitComboBox, Parameters.storedOnQuit())
        for combo, slot in (
            (ui.startModelComboBox, self._onStartModel),
            (ui.budgetComboBox, self._onBudget),
            (ui.onQuitComboBox, self._onQuitChoice),
        ):
            combo.connect("currentIndexChanged(int)", slot)
        for name, action in (
            ("check", self._check),
            ("train", self._train),
            ("pause", self._logic.pause),
            ("resume", self._logic.resume),
            ("stop", self._stop),
        ):
            getattr(ui, f"{name}Button").connect("clicked(bool)", self._button(action))
        ui.lossCurveButton.connect("clicked(bool)", lambda checked=False: Curves.show("loss"))
        ui.validationCurveButton.connect("clicked(bool)", lambda checked=False: Curves.show("dice"))
        ui.logCheckBox.connect("toggled(bool)", lambda checked: ui.logTextEdit.setVisible(checked))

    def setParameterNode(self, parameterNode: Any) -> None:
        """Follow a parameter node; None detaches."""
        self._parameterNode, self._gone = parameterNode, ""
        self.preview.setParameterNode(parameterNode)
        if parameterNode is not None:
            self.refreshModels()
            self._followParameters()

    def refreshModels(self) -> None:
        """Offer the models that there are now."""
        self._updating = True
        names = [(name, name) for name, _path in modelChoices()]
        fill(self._ui.startModelComboBox, [(_("From scratch"), ""), *names])
        if self._parameterNode is not None:
            self._gone = settleStart(self._parameterNode) or self._gone
            choose(self._ui.startModelComboBox, self._parameterNode.startModel)
        self._updating = False
        self._sayGone()

    def _sayGone(self) -> None:
        """Where the start model is gone: here, and with what the check says, until a start is chosen."""
        if self._gone:
            self._ui.statusLabel.text = f"<b>{html.escape(self._gone)}</b>"

    def startFrom(self, name: str, again: bool = False) -> None:
        """The next round begins with what the last one has learnt, unless the user has chosen otherwise since.

        again: its model was in the list before, as when a project is opened anew.
        """
        node, about = self._parameterNode, standing(self._logic.project, self._logic.rounds())
        self._lastModel = (about, name)
        kept = node is None or node.startChosenFor == about
        if not kept and not (again and node.startModel and not node.startChosenFor):
            setStart(node, name)
            node.startChosenFor, self._gone = about, ""
        self.refreshModels()

    def settings(self) -> TrainingSettings:
        """Return what the panel says; raise DataError where the start model is gone."""
        node = self._parameterNode
        return TrainingSettings(
            startModel=startOf(node),
            budget=node.budget,
            baseline=node.baseline,
            folds=self._folds(),
            device=storedDevice(),
            name=node.modelName.strip(),
            previewCase=self.preview.case,
        )

    def problem(self) -> str:
        """Return why Train cannot be pressed, as one sentence; empty where it can."""
        project = self._logic.project
        if self._parameterNode is None:
            return _("The scene is being closed.")
        if self._logic.training:
            return _("A training is running.")
        if self._logic.checking:
            return _("The check is running.")
        if self._rolesChange():
            return _("Labels are being checked; the cases have their new roles after that.")
        if not project.with_role("labeled"):
            return TrainingTexts.noLabel(bool(project.with_role("validation")))
        heldOut = project.with_role("validation") or self._logic.cohort.willSplit
        if self._parameterNode.budget == "better" and not heldOut:
            return _("Until it stops improving needs a validation case; hold one out, or choose a time.")
        if self._folds() and len(project.with_role("labeled")) < 2:
            return _("A cross-validation needs at least two labelled cases; label another one, or do without.")
        return ""

    def _folds(self) -> int:
        """A few held-out cases say little; with enough of them a cross-validation is not worth its time."""
        few = len(self._logic.project.with_role("validation")) < ENOUGH_HELD_OUT
        return FOLDS if self._parameterNode.crossValidate and few else 0

    def refresh(self) -> None:
        """Bring buttons and combo boxes in line."""
        ui, logic = self._ui, self._logic
        problem = self.problem()
        ui.trainButton.enabled = not problem
        ui.trainButton.toolTip = problem or _("Check, then train on this computer, in the background.")
        ui.checkButton.enabled = not problem
        ui.checkButton.toolTip = problem or TrainingTexts.check(logic.cohort.willSplit)
        ui.pauseButton.enabled = logic.training and not logic.pausing
        ui.resumeButton.enabled = logic.resumable and not logic.checking
        ui.stopButton.enabled = logic.training or logic.resumable or logic.checking
        ui.progressBar.setVisible(logic.training or logic.checking)
        for name in ("lossCurve", "validationCurve"):
            role = "loss" if name == "lossCurve" else "dice"
            getattr(ui, f"{name}Button").enabled = Curves.chartNode(role) is not None
        if self._parameterNode is not None:
            self._followParameters()
            self.preview.refresh()

    def _followParameters(self) -> None:
        """A script may have chosen."""
        self._updating = True
        choose(self._ui.budgetComboBox, self._parameterNode.budget)
        choose(self._ui.startModelComboBox, self._parameterNode.startModel)
        self._updating = False

    # What the logic reports

    def onRoundEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the training."""
        if (folder := self._logic.round.folder if self._logic.round is not None else None) != self._followed:
            self._followed = folder
            self.curves.clear()  # of another round, which may have had other parts
        self.curves.onEvent(kind, fields)
        if kind == "step" and self._logic.round is not None and self._logic.round.catchingUp:
            return  # thousands of before: the last of them says how far it is
        if kind in ("step", "validation"):
            self._onStep(kind, fields)
        elif kind in ("stage", "progress"):
            self._onStage(kind, fields)
        elif kind == "preview":
            self._shownNext = str(fields.get("case") or "")
        elif kind in ("log", "warning", "error"):
            self.log(str(fields.get("message") or ""))

    def draw(self) -> None:
        """Bring curves and preview in line, a few times a minute at most: a scene is slow to change."""
        if time.monotonic() - self._drawn < DRAW_PERIOD:
            return
        self._drawn = time.monotonic()
        had = Curves.chartNode("loss") is not None
        self.curves.update()
        if self._shownNext:
            case, self._shownNext = self._shownNext, ""
            self.preview.show(case)
        if not had:
            self.refresh()

    def onRoundState(self, state: str, message: str) -> None:
        """Say how the training stands."""
        self._drawn = 0.0
        if self._parameterNode is not None:
            self.draw()
        if message:
            self._ui.statusLabel.text = asWritten(message)
            self.log(message)
        if self._stopNext and state in ("paused", "interrupted"):
            self._stopNext = False
            self._button(self._finish)()
        elif state == "finished":
            self._stopNext = False
            self._ui.statusLabel.text = self._endOfTraining()
        elif state not in ("running", "silent"):
            self._stopNext = False
        self._onChange()

    def _endOfTraining(self) -> str:
        """The user may have chosen another start, or have removed the model from the list."""
        name = self._parameterNode.startModel if self._parameterNode is not None else ""
        if name and self._lastModel == (standing(self._logic.project, self._logic.rounds()), name):
            return _("The training is done; the next round starts from its model.")
        return _("The training is done.")

    def onPreflightProgress(self, text: str) -> None:
        """Show how far the check is."""
        self._ui.statusLabel.text = text

    def onPreflight(self, verdict: Verdict) -> None:
        """Show the verdict; go on with training where that was asked for and nothing speaks against it."""
        wanted, self._trainNext = self._trainNext, False
        if self._gone:
            verdict = verdict.cautioned(self._gone)
        self._ui.statusLabel.text = ""
        self._ui.verdictTextBrowser.html = verdictHtml(verdict)
        self._ui.verdictTextBrowser.setVisible(True)
        if not verdict.mayTrain:
            self._checkedKey = None
        elif wanted and (verdict.cautions or verdict.kind != "fits"):
            self._ui.statusLabel.text = _("Read the remarks above; press Train again to begin.")
        elif wanted:
            self._button(self._begin)()
        self._onChange()

    def log(self, text: str) -> None:
        """Keep a line."""
        if text:
            self._ui.logTextEdit.appendPlainText(text)

    def forget(self) -> None:
        """Another project, or another scene: what was shown belongs to the one before."""
        self.curves.clear()
        self._checkedKey, self._trainNext, self._stopNext = None, False, False
        self._ui.verdictTextBrowser.setVisible(False)
        self._ui.statusLabel.text = ""
        self._sayGone()  # the choice is the scene's
        self._ui.logTextEdit.clear()

    # Buttons

    def _button(self, action: Callable[[], Any]) -> Callable[..., None]:
        def act(checked: bool = False) -> None:
            try:
                action()
            except CamlError as error:
                self._trainNext = False
                self._say(str(error))
            self._onChange()

        return act

    def _say(self, sentence: str) -> None:
        """What the user should read now, and may look up later."""
        self._ui.statusLabel.text = asWritten(sentence)
        self.log(sentence)

    def _check(self) -> None:
        self._trainNext = False
        self._startCheck()

    def _train(self) -> None:
        """Train at once where this very training was checked, else check first."""
        if self._logic.resumable and not slicer.util.confirmYesNoDisplay(
            _(
                "Round {number} is not finished, and Resume goes on with it. Train a new round, and leave that one "
                "as it is?"
            ).format(number=int(self._logic.round.folder.name))
        ):
            return
        if self._checkedKey is not None and self._checkedKey == self._key():
            self._begin()
            return
        self._trainNext = True
        self._startCheck()

    def _startCheck(self) -> None:
        self._ui.statusLabel.text = _("Looking at cohort and computer")
        self._onceWritten(self._look)

    def _look(self) -> None:
        self._ui.statusLabel.text = _("Looking at cohort and computer")
        self._logic.startPreflight(self.settings())
        self._checkedKey = self._key()

    def _onceWritten(self, do: Callable[[], None]) -> None:
        """Do something once all scans have files; cases, choices, even the scene may have changed until then.

        Raises CamlError that says why it cannot be done now.
        """

        def check() -> None:
            if problem := self.problem():
                raise UsageError(problem)
            self.settings()

        def end() -> None:
            check()
            do()

        def cases() -> list[str]:
            if self._parameterNode is not None:  # else the scene is another's
                self._logic.takeInScene()
            return [case.id for case in self._logic.project.with_role("labeled", "unlabeled", "validation")]

        check()
        cohort = self._logic.cohort
        cohort.project.check_writable()
        self._ui.progressBar.maximum = 0  # busy: how long it takes is what the check finds out
        self._logic.scans.start(cohort, cases, self.onPreflightProgress, self._onUnwritten, self._button(end))

    def _onUnwritten(self, case: str, error: CamlError) -> None:
        """What is wrong with one scan keeps all from being learnt from."""
        self._logic.scans.stop()
        self._trainNext = False
        self._say(str(error))
        self._onChange()

    def _key(self) -> tuple[Any, ...]:
        """What a check is about. Sizes and states of cases are not: they are found out, and change, meanwhile."""
        project = self._logic.project
        cases = tuple((case.id, case.role, case.images, case.label) for case in project.cases.values())
        return project.id, project.segments, cases, self.settings()

    def _begin(self) -> None:
        """Begin what the verdict is about, as long as that is what there is."""
        self._onceWritten(self._beginChecked)

    def _beginChecked(self) -> None:
        if self._checkedKey != self._key():
            self.log(_("Cases or choices were changed since the check; they are checked again."))
            self._trainNext = True
            self._startCheck()
            return
        settings = self.settings()
        self.curves.clear()
        self._ui.logTextEdit.clear()
        self._ui.verdictTextBrowser.setVisible(False)  # room for what comes now
        self._ui.progressBar.maximum = 1000
        self._ui.progressBar.value = 0
        self._logic.startTraining(settings)
        self._checkedKey, self._gone = None, ""

    def _stop(self) -> None:
        """For good: end in good order, then score what there is; by force where it does not answer."""
        logic = self._logic
        if logic.checking:
            logic.cancelPreflight()
            return
        force = logic.training and (self._stopNext or logic.round.state == "silent")
        paused = not logic.training and logic.resumable and logic.learnt
        texts = TrainingTexts
        question = texts.FORCE if force else texts.STOP_PAUSED if paused else texts.STOP
        if (logic.training or paused) and not slicer.util.confirmYesNoDisplay(question):
            return
        if not logic.training:  # it may have ended while the question was open
            if logic.resumable:
                self._finish()
            return
        if force:
            logic.round.kill()
        else:
            logic.pause()
        self._stopNext = True  # not before: where it could not be asked, a later Pause must stay a pause

    def _finish(self) -> None:
        if self._logic.learnt:
            self._logic.finish()
            return
        self._logic.discard()
        self._ui.statusLabel.text = _("Stopped before anything was learnt; press Train to begin anew.")

    # Progress

    def _onStep(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "validation":
            self.log(TrainingTexts.validation(fields))
            return
        iteration, total = int(fields.get("iteration") or 0), int(fields.get("total") or 1)
        self._ui.progressBar.maximum = 1000
        self._ui.progressBar.value = round(1000 * iteration / total)
        if self._logic.pausing:  # that it was heard is what counts now
            return
        left, hint = fields.get("seconds_left"), self.preview.hint
        text = TrainingTexts.step(fields, duration(float(left)) if left is not None else "")
        self._ui.statusLabel.text = asWritten(f"{text}. {hint}") if hint else text

    def _onStage(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "stage":
            text = self._stage = TrainingTexts.stage(str(fields.get("name") or ""))
        else:
            text = TrainingTexts.progress(self._stage, fields)
        if not self._logic.pausing:
            self._ui.statusLabel.text = text

    # Choices

    def _onStartModel(self, index: int) -> None:
        if self._updating or self._parameterNode is None:
            return
        setStart(self._parameterNode, chosen(self._ui.startModelComboBox))
        self._gone = ""
        self._parameterNode.startChosenFor = standing(self._logic.project, self._logic.rounds())
        self._takeSegments()
        self._onChange()

    def _takeSegments(self) -> None:
        """A cohort without segments takes those of the start model."""
        project = self._logic.project
        try:
            path = startOf(self._parameterNode)
            if path is not None and not project.segments:
                segments = read_card(path).spec.segments
                self._logic.cohort.setSegments([s.name for s in segments], segments)
        except CamlError as error:
            self._ui.statusLabel.text = asWritten(str(error))

    def _onBudget(self, index: int) -> None:
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.budget = chosen(self._ui.budgetComboBox)
            self._onChange()

    def _onQuitChoice(self, index: int) -> None:
        Parameters.storeOnQuit(chosen(self._ui.onQuitComboBox))
