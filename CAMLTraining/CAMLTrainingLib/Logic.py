"""All that the module does, without its panel: for scripts, and for the panel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import slicer
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from caml_core.data.cohort import save_cohort
from caml_core.errors import CamlError, DataError, TrainingError, UsageError
from caml_core.locking import is_locked
from caml_core.project.history import Round, read_round, read_rounds
from caml_core.project.project import Project
from caml_core.project.suggestion import Ranked

from . import LeftOut, ModelChoice, Parameters, RoundFiles, SceneProject
from .Cohort import Cohort, defaultFolder
from .Listener import Listener
from .Predictions import PredictionRun, unsegmented
from .PredictionSummary import PredictionSummary
from .Preflight import PreflightRun, TrainingSettings, Verdict
from .Ranking import rankedCases
from .RoundProcess import RoundProcess, pauseAll


class CAMLTrainingLogic(ScriptedLoadableModuleLogic):
    """A project at a time: its cohort, its training, what its newest model says of the unlabelled cases.

    Methods raise CamlError (caml_core.errors) with one sentence for the user. ``listener`` hears what happens in the
    background; ``wait`` lets a script wait for it.
    """

    def __init__(self, listener: Listener | None = None, workerFactory: WorkerFactory = WorkerProcess) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.listener = listener or Listener()
        self._workerFactory = workerFactory
        self.cohort = Cohort(Project(defaultFolder()))
        self.round: RoundProcess | None = None
        #: All that were started here: they are at work though another project, or none, may be open now.
        self._launched: list[RoundProcess] = []
        self.predictions: PredictionRun | None = None
        self.verdict: Verdict | None = None
        self._preflight = PreflightRun(
            self._onVerdict, lambda text: self.listener.onPreflightProgress(text), workerFactory
        )
        #: For panels: scans that are written before a check or a training, which else write them all at once.
        self.scans = self._preflight.scans
        self.roundMessage = ""
        self._parameterNode: Any = None
        #: Whether the scene is known to belong to the open project: only then may it be told of it.
        self._sceneKnown = False
        #: What the scene said of its project when that was taken up, until ``lookAgain``.
        self._named: SceneProject.Named | None = None
        self._rounds: tuple[Round, ...] | None = None
        slicer.app.connect("aboutToQuit()", self.onQuit)

    # The parameter node

    def getParameterNode(self) -> Any:
        """Return the scene's parameters, wrapped."""
        if self._parameterNode is None:
            node = ScriptedLoadableModuleLogic.getParameterNode(self)
            self._parameterNode = Parameters.CAMLTrainingParameterNode(node)
        return self._parameterNode

    def forgetParameterNode(self) -> None:
        """The scene was closed or another one loaded; it is not this project's until ``recall`` says so."""
        self._parameterNode, self._sceneKnown, self._named = None, False, None

    def remember(self) -> None:
        """Write project and cases of the scene into its parameter node, where the scene is this project's."""
        if self._sceneKnown:
            SceneProject.note(self.getParameterNode(), self.cohort)

    def recognize(self, told: SceneProject.Named | None = None) -> None:
        """The scene is this project's still, though another one was loaded into it: tell it how the project stands.

        told: what that one said of a project that is not found so far (``lookAgain``).
        """
        self._sceneKnown, self._named = True, told
        self.remember()

    def recall(self) -> None:
        """Take up the project that the scene names: from its folder, else from what the scene itself remembers.

        Raises DataError where neither can be read.
        """
        self._forgetRuns()
        self._sceneKnown, self._named = False, None
        told = SceneProject.named(self.getParameterNode())
        before, self.cohort = self.project, Cohort(Project(defaultFolder()))
        folder = SceneProject.find(told)
        if folder is not None:
            self._open(folder, before)
        elif told.folder:
            self.cohort = SceneProject.remembered(told)
        self._sceneKnown, self._named = True, told

    def lookAgain(self) -> Path | None:
        """Return where the scene's project lies, if that is elsewhere than it seemed while the scene was being read."""
        told, self._named = self._named, None
        if told is None or told.root == SceneProject.root():
            return None
        self.remember()
        folder = SceneProject.find(told)
        return folder if folder != self.project.folder else None

    # The project

    @property
    def project(self) -> Project:
        """The open project."""
        return self.cohort.project

    @property
    def lock(self) -> Path:
        """The file that a training of the project holds."""
        return self.project.folder / "training.lock"

    def openProject(self, folder: Path | str) -> None:
        """Open the project of a folder, or begin one there; raise DataError where it cannot be read.

        A training that is at work, or was paused, is taken up. Scans of the scene that belong to the project that was
        open before are left out of one that is there already (``addFromScene``).
        """
        self._open(Path(folder), self.project)

    def _open(self, folder: Path, before: Project) -> None:
        project = Project.at(folder)
        self._forgetRuns()
        self.listener.onProject()
        if project.folder == self.project.folder:
            project = Project.at(project.folder)  # what was ended has written down what it has done
        if project.is_kept:
            Parameters.storeLastProject(project.folder)
        self.cohort, self._rounds, self._sceneKnown, self._named = Cohort(project), None, True, None
        LeftOut.leaveOut(self.cohort, before)
        self.takeInScene()
        self.remember()
        self.takeUpRound()

    def save(self) -> None:
        """Write the project; raise ResourceError where that cannot be done."""
        self.project.save()
        Parameters.storeLastProject(self.project.folder)
        self.remember()

    def takeInScene(self) -> bool:
        """List what came to the scene; return whether the cohort changed."""
        return self.cohort.takeInScene()

    def addFromScene(self) -> tuple[str, ...]:
        """List the scans of the scene that were left out for another project's; return the ids of the new cases."""
        known = set(self.project.cases)
        LeftOut.letIn(self.project)
        self.takeInScene()
        return tuple(case for case in self.project.cases if case not in known)

    def setRole(self, cases: Iterable[str], role: str, asPredicted: bool = False) -> dict[str, str]:
        """Give cases a role ("labeled", "unlabeled", "validation", "excluded").

        Labelled and validation cases have their segmentation checked and taken as label; asPredicted: to validate by,
        also a prediction in which nothing was changed. Returns the sentences of those that cannot have the role, by
        case; the others have it.
        """
        faults = self.cohort.setRole(cases, role, asPredicted)
        self.save()
        return faults

    def addFolder(self, folder: Path | str) -> tuple[str, ...]:
        """Add the scans of a folder (or of a CSV or JSON list) without loading them; return the ids of the cases."""
        new, notes = self.project.add_folder(Path(folder))
        self.cohort.notes += notes
        return new

    def addLabels(self, folder: Path | str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """Give cases the label files of a folder by name.

        Returns (cases that got one, files that fit none, cases that keep the label that they have).
        """
        return self.project.add_labels(Path(folder))

    # Before training

    def startPreflight(self, settings: TrainingSettings) -> None:
        """Begin to look whether this cohort can be trained here; the listener gets the verdict."""
        if self._preflight.running:
            raise UsageError(_("The check is running."))
        self.verdict = None
        cohort = self._trainingCohort(settings.startModel)
        settings = settings.withNames(self.project.old_names())
        self._preflight.look(cohort, settings, self.project.folder, self.project.next_round())

    def preflight(self, settings: TrainingSettings | None = None) -> Verdict:
        """Look whether this cohort can be trained here, and wait for the verdict."""
        self.startPreflight(settings or TrainingSettings())
        while self.verdict is None:
            self._preflight.wait()
            slicer.app.processEvents()
        return self.verdict

    def cancelPreflight(self) -> None:
        """Stop looking, or writing scans before that."""
        self._preflight.cancel()

    @property
    def checking(self) -> bool:
        """Whether the check is running, or scans are being written for it or for a training."""
        return self._preflight.running

    # Training

    @property
    def training(self) -> bool:
        """Whether a training of this project is at work, started here or elsewhere."""
        return self.round is not None and self.round.active

    @property
    def resumable(self) -> bool:
        """Whether a round waits to go on."""
        return self.round is not None and not self.round.active and RoundFiles.isOpen(self.round.folder)

    def startTraining(self, settings: TrainingSettings | None = None) -> Path:
        """Start a round in the background and return its folder; raise CamlError where it cannot start."""
        settings = settings or TrainingSettings()
        if self.training or is_locked(self.lock):
            raise TrainingError(_("A training of this project is running already; wait for it, or stop it first."))
        cohort = self._trainingCohort(settings.startModel)
        self._forgetRound()
        folder = self.project.next_round()
        self.round = RoundProcess(folder, self.lock, self, self.listener.listsModels)
        self._rounds = None
        self._launched.append(self.round)
        self.round.start([str(cohort), *settings.withNames(self.project.old_names()).training()], settings.previewCase)
        self.save()
        return folder

    def train(self, settings: TrainingSettings | None = None) -> Round:
        """Train and wait; return the round with its result. Raises TrainingError with the sentence of what failed."""
        folder = self.startTraining(settings)
        self.waitForTraining()
        if self.round is not None and self.round.state != "finished":
            raise TrainingError(self.roundMessage or _("The training did not finish."))
        return read_round(folder)

    def pause(self) -> None:
        """Ask the training to end with everything saved; raise ResourceError where it cannot be asked."""
        if self.round is not None:
            self.round.pause()

    @property
    def pausing(self) -> bool:
        """Whether the training was asked to end and is still saving."""
        return self.round is not None and self.round.pausing

    def resume(self) -> None:
        """Go on with a paused or interrupted round."""
        self._relaunch(finish=False)

    def finish(self) -> None:
        """End a paused round: no further training, but scores and model."""
        self._relaunch(finish=True)

    def discard(self) -> None:
        """Give a round up that has learnt nothing yet; it is not taken up again. Raises ResourceError."""
        if self.round is not None:
            RoundFiles.giveUp(self.round.folder)

    @property
    def learnt(self) -> bool:
        """Whether the round has trained at all, so that there is something to finish."""
        return self.round is not None and RoundFiles.learnt(self.round.folder)

    def waitForTraining(self) -> None:
        """Wait in a script until the training is not at work any more; Slicer's window stays alive."""
        while self.training:
            time.sleep(0.05)
            if self.round is not None:
                self.round.look()
            slicer.app.processEvents()

    def setPreviewCase(self, case: str) -> None:
        """Choose the case that the training shows its progress on."""
        if self.round is not None:
            RoundFiles.setPreviewCase(self.round.folder, case)

    def rounds(self) -> tuple[Round, ...]:
        """Return the project's rounds; their files are read again after each change of a training's state."""
        if self._rounds is None:
            self._rounds = read_rounds(self.project.rounds_folder())
        return self._rounds

    # After training

    def latestModel(self) -> Path | None:
        """Return the model of the newest round that has one."""
        models = [r.model for r in self.rounds() if os.path.isfile(r.model)]
        return models[-1] if models else None

    def addToModels(self, found: Round) -> Path:
        """Put a round's model into the user's models, where CAML Segmentation lists it; return the file."""
        if not os.path.isfile(found.model):
            raise DataError(_("Round {number} has no model yet.").format(number=found.number))
        return ModelChoice.libraryCopy(found, self.project.folder)

    def startPredictions(
        self, model: Path | str | None = None, cases: Sequence[str] | None = None, inTurns: bool = False
    ) -> None:
        """Segment unlabelled cases in the background; raise CamlError.

        cases: None for those that the model has not segmented yet, or all where it has. inTurns: scans are written one
        a turn of the event loop, for panels.
        """
        if self.predictions is not None and not self.predictions.ended:
            raise UsageError(_("Unlabelled cases are being segmented already."))
        path = Path(model) if model is not None else self.latestModel()
        if path is None:
            raise DataError(_("There is no model yet; train first."))
        from caml_core.model_file import read_card

        card = read_card(path)
        chosen = cases if cases is not None else unsegmented(self.project, card)
        device = ModelChoice.device()
        self.predictions = PredictionRun(self.cohort, card, chosen, self, device, self._workerFactory)
        try:
            self.predictions.start(inTurns)
        except CamlError:
            self.predictions = None
            raise

    def segmentUnlabeled(self, model: Path | str | None = None) -> PredictionSummary:
        """As ``startPredictions``, and wait; raise CamlError also for a fault on the way, or where all cases failed."""
        self.startPredictions(model)
        run = self.predictions
        while run is not None and not run.ended:
            run.wait()
            slicer.app.processEvents()
        return (run.summary if run is not None else PredictionSummary()).checked()

    def cancelPredictions(self) -> None:
        """Stop segmenting; what is done stays."""
        if self.predictions is not None and not self.predictions.ended:
            self.predictions.cancel()

    def suggest(self, ranking: str = "disagreement", seed: int = 0) -> tuple[Ranked, ...]:
        """Return the unlabelled cases that have a prediction, the one to label next first.

        ranking: "disagreement" of the two sub-models, or "random" among the cases in which the model found something.
        """
        return rankedCases(self.project, ranking, seed, self.latestModel())

    # The end

    def onQuit(self) -> None:
        """Slicer quits: trainings go on or are paused, as the user chose; everything else ends."""
        if Parameters.storedOnQuit() == "pause":
            followed = [self.round] if self.round is not None and self.training else []
            pauseAll([*followed, *(own for own in self._launched if own.alive())])
        self.close()

    def close(self) -> None:
        """Let go of everything; a training goes on."""
        self._forgetRuns()
        slicer.app.disconnect("aboutToQuit()", self.onQuit)

    # What the parts report

    def onRoundEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Handed on."""
        self.listener.onRoundEvent(kind, fields)

    def onRoundLook(self) -> None:
        """Handed on."""
        self.listener.onRoundLook()

    def onRoundState(self, state: str, message: str) -> None:
        """Handed on."""
        self.roundMessage, self._rounds = message, None
        self.listener.onRoundState(state, message)

    def onPredictionProgress(self, share: float, text: str) -> None:
        """Handed on."""
        self.listener.onPredictionProgress(share, text)

    def onPredicted(self, case: str) -> None:
        """Handed on."""
        self.listener.onPredicted(case)

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """Handed on."""
        self.remember()
        self.listener.onPredictionEnd(summary)

    def _onVerdict(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.listener.onPreflight(verdict)

    # Inside

    def _trainingCohort(self, startModel: Path | None = None) -> Path:
        """Write scans and list, and return the list that the engine reads; raise CamlError with what is wrong."""
        self.takeInScene()
        path = self.project.folder / "training-cohort.json"
        save_cohort(self.cohort.prepare(startModel), path)
        self.remember()
        return path

    def _relaunch(self, finish: bool) -> None:
        if self.round is None:
            raise TrainingError(_("There is no round to go on with; press Train."))
        if self.training or is_locked(self.lock):
            raise TrainingError(_("A training of this project is running already; wait for it, or stop it first."))
        self._launched.append(self.round)
        self.round.resume(finish, ModelChoice.device())

    def takeUpRound(self) -> None:
        """Follow the round that is at work or waits to be resumed, else the newest one."""
        if self.round is not None and self.round.active:
            return
        self._rounds = None  # another Slicer or a script may have begun one
        atWork = is_locked(self.lock)
        chosen = RoundFiles.toFollow([found.folder for found in self.rounds()], atWork)
        if chosen is not None and (self.round is None or self.round.folder != chosen or atWork):
            self._forgetRound()
            self.round = RoundProcess(chosen, self.lock, self, self.listener.listsModels)
            self.round.follow()

    def _forgetRound(self) -> None:
        if self.round is not None:
            self.round.close()
        self.round, self.roundMessage = None, ""

    def _forgetRuns(self) -> None:
        """Before another project: whatever reports to this one must not report to the next."""
        self._forgetRound()
        if self._preflight.running:
            self._preflight.end()
        if self.predictions is not None and not self.predictions.ended:
            self.predictions.end()
        self.predictions, self.verdict, self._rounds = None, None, None


__all__ = ["CAMLTrainingLogic", "CamlError", "Listener", "TrainingSettings"]
