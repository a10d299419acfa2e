"""The panel: its parts put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.project.project import Project

from . import RoundFiles, SceneProject
from .CohortSection import CohortSection
from .EditPage import EditPage
from .Listener import Listener
from .Logic import CAMLTrainingLogic
from .LoopSection import LoopSection
from .PredictionSummary import PredictionSummary
from .Preflight import Verdict
from .RoundSection import RoundSection
from .TrainSection import TrainSection


class TrainingPanel(Listener):
    """Joins the parts and hands on what the logic reports; knows nothing of how they do their work.

    isEntered: whether the user is in this module; while another one is open the views are that one's.
    """

    listsModels = True

    def __init__(self, ui: Any, logic: CAMLTrainingLogic, isEntered: Callable[[], bool] = lambda: True) -> None:
        self.ui, self.logic = ui, logic
        self._parameterNode: Any = None
        self._ready = False
        self._folder: Any = None
        logic.listener = self
        self.cohort = CohortSection(ui, logic, self.update, self.openCase)
        self.edit = EditPage(ui, logic, self.update, self.cohort.mayMeasure, self.cohort.mayLearn)
        self.train = TrainSection(ui, logic, self.update, lambda: self.cohort.checking)
        self.train.preview.isEntered = isEntered
        self.rounds = RoundSection(ui, logic, self.train.startFrom)
        self.loop = LoopSection(ui, logic, self.update, self.openCase)
        # A scene that is loading adds node after node, and a volume's voxels come after its node.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(50)
        self._timer.connect("timeout()", self._onQuiet)
        self._ready = True

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show what a parameter node says; None detaches, as while a scene closes."""
        if parameterNode is None:
            self.edit.detach()
        # Nothing may be taken in before the scene's project is open: combo boxes tell of their first choice at once.
        self._parameterNode = None
        for section in (self.cohort, self.train, self.loop):
            section.setParameterNode(parameterNode)
        if parameterNode is not None:
            self._recall(parameterNode)
        self._parameterNode = parameterNode
        self.update()

    def enter(self) -> None:
        """The user came to the module: look again at what may have changed outside of it."""
        self.logic.takeUpRound()
        self.train.refreshModels()
        self.update()
        self.train.preview.enter()

    def exit(self) -> None:
        """The user opened another module; a training goes on."""
        if self.edit.case:
            self.edit.leave()
        self.loop.hide()

    def close(self) -> None:
        """Let go of everything; a training goes on."""
        self._ready = False
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onQuiet)
        self.edit.close()
        self.cohort.close()
        self.loop.hide()
        self.logic.close()

    def update(self) -> None:
        """Bring the whole panel in line with project, scene and training."""
        if not self._ready or self._parameterNode is None:
            return
        if self.logic.project.folder != self._folder:
            self._folder = self.logic.project.folder
            self.rounds.refresh()
        changed = self.logic.takeInScene()
        if changed or SceneProject.named(self._parameterNode).id == self.logic.project.id:
            self.logic.remember()  # cases whose nodes went are not named any more; another project's name stays
        if self.edit.case and self.edit.case not in self.logic.project.cases:
            self.edit.leave()  # its volume was removed before it was written
            return
        self.cohort.refresh()
        self.train.refresh()
        self.loop.refresh()

    def sceneChanged(self) -> None:
        """A node came or went: look again once it is quiet."""
        if self._ready and not self._timer.isActive():
            self._timer.start()

    def openCase(self, case: str) -> None:
        """Open a case in the editor."""
        self.loop.hide()
        self.edit.ranked = self.loop.ranked
        self.edit.open(case)

    # What the logic reports

    def onProject(self) -> None:
        """Another project, or this one read anew."""
        self._folder = None  # its rounds may be others, though the folder is the same
        if self._ready:
            self._forget()

    def onRoundEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the training."""
        self.train.onRoundEvent(kind, fields)

    def onRoundLook(self) -> None:
        """All that is new has been told."""
        if self._parameterNode is not None:  # else the scene is another's
            self.train.draw()

    def onRoundState(self, state: str, message: str) -> None:
        """The training's state changed."""
        if self._ready and self._hasResult(state):
            self.rounds.refresh(newest=True)
        self.train.onRoundState(state, message)

    def onPreflight(self, verdict: Verdict) -> None:
        """The check has ended."""
        self.train.onPreflight(verdict)

    def onPreflightProgress(self, text: str) -> None:
        """How far the check is."""
        self.train.onPreflightProgress(text)

    def onPredictionProgress(self, share: float, text: str) -> None:
        """How far the segmentation of unlabelled cases is."""
        self.loop.onPredictionProgress(share, text)

    def onPredicted(self, case: str) -> None:
        """One more is done."""
        self.update()

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """All are done."""
        self.loop.onPredictionEnd(summary)

    def _hasResult(self, state: str) -> bool:
        """Whether the training has left a result; one stopped before its report has figures and a model, too."""
        found = self.logic.round
        stopped = state in ("paused", "interrupted") and found is not None
        return state in ("finished", "failed") or (stopped and RoundFiles.hasResult(found.folder))

    def _recall(self, node: Any) -> None:
        """Take up the project of the scene, unless it is the one that is open."""
        told, project = SceneProject.named(node), self.logic.project
        isOpen = SceneProject.names(told, self.logic.cohort) and not self._isMoved(told)
        if (isOpen and project.cases) or (self.cohort.practising and (isOpen or not told.folder)):
            self.logic.recognize()
            return
        if project.is_kept and SceneProject.find(told) is None and self.logic.cohort.casesInScene():
            # A scene was added to this one: what is open is not given up for what was never saved, or is gone.
            self.logic.recognize(told)
            self.logic.cohort.notes += SceneProject.notOpened(told, project)
            self.sceneChanged()
            return
        self._forget()
        self._opening(self.logic.recall)
        if not told.folder:
            self.logic.cohort.notes += SceneProject.left(self.logic.project, self.logic.lock.name)
        self.sceneChanged()  # a bundle's own folder is known only after its scene was read

    def _forget(self) -> None:
        for section in (self.train, self.loop):
            section.forget()

    def _isMoved(self, told: SceneProject.Named) -> bool:
        """Whether the open project's folder is gone, and the scene that names it has come with it to another place."""
        folder = self.logic.project.folder
        return not Project.exists(folder) and SceneProject.find(told) is not None

    def _onQuiet(self) -> None:
        """What was going on in the scene is done."""
        folder = self.logic.lookAgain() if self._ready and self._parameterNode is not None else None
        if folder is not None:
            self._opening(lambda: self.logic.openProject(folder))
        self.update()

    def _opening(self, do: Callable[[], None]) -> None:
        """Open a project; what was said of another one goes."""
        self.cohort.say("")
        try:
            do()
        except CamlError as error:
            self.cohort.say(_("The project could not be opened: {reason}").format(reason=error))
