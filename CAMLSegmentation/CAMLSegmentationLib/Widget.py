"""The panel: its parts put together, the buttons Apply and Cancel, progress, and the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.model_library import ModelLibrary

from . import Parameters, SegmentationResult
from .InputSection import InputSection
from .InstallSection import InstallSection
from .Logic import CAMLSegmentationLogic, editedResults, modelMisfit
from .ModelSection import ModelSection
from .PlainText import asWritten
from .Process import WorkerFactory, WorkerProcess
from .ResultSection import ResultSection
from .Run import Progress, Summary
from .SceneVolumes import sceneVolumes
from .SettingsSection import SettingsSection
from .Work import Delivery, FileWork, Work


class SegmentationPanel:
    """Joins the parts; knows nothing of how they do their work.

    isEntered: whether the user is in this module; while another one is open the views are that one's.
    """

    def __init__(
        self,
        ui: Any,
        logic: CAMLSegmentationLogic,
        library: ModelLibrary | None = None,
        workerFactory: WorkerFactory = WorkerProcess,
        isEntered: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ui, self.logic, self._isEntered = ui, logic, isEntered
        self._parameterNode: Any = None
        self._ready = False
        #: The volumes that a model was suggested for.
        self._suggestedFor: list[tuple[str, int]] = []
        #: The ids of a result and its volume that came while another module was open.
        self._unshown: tuple[str, ...] = ()
        self.install = InstallSection(ui, self.update)
        self.models = ModelSection(ui, self._onModel, library, workerFactory)
        self.inputs = InputSection(ui, self.update, isEntered)
        self.settings = SettingsSection(ui, self.update, workerFactory)
        self.result = ResultSection(ui, self.update, isEntered)
        ui.applyButton.connect("clicked(bool)", self._onApply)
        ui.cancelButton.connect("clicked(bool)", self._onCancel)
        ui.copyLogButton.connect("clicked(bool)", self._onCopyLog)
        self._ready = True

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show what a parameter node says; None detaches, as while a scene closes."""
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._chooseDefaults(parameterNode)
        else:
            self._unshown = ()  # another scene has other nodes of these ids
        for section in (self.models, self.inputs, self.settings, self.result):
            section.setParameterNode(parameterNode)
        if parameterNode is not None:
            self.inputs.setCard(self.models.card)
        self.update()

    def enter(self) -> None:
        """The user came to the module: look again at what may have changed outside of it."""
        self.install.refresh()
        self.models.refresh()
        self.update()
        self._showMissed()
        self.result.enter()

    def close(self) -> None:
        """Let go of everything; runs end."""
        self.logic.close()
        self.models.close()
        self.settings.close()

    def update(self) -> None:
        """Bring the whole panel in line with parameter node, scene and run."""
        if not self._ready:
            return
        self.inputs.refresh()
        self._suggestModel()
        self.settings.refresh()
        self.result.refresh()
        problem, ui = self.problem(), self.ui
        ui.applyButton.enabled = not problem
        ui.applyButton.toolTip = asWritten(problem) or _("Segment with the chosen model.")
        ui.cancelButton.enabled = self.logic.running
        ui.progressBar.setVisible(self.logic.running)

    def problem(self) -> str:
        """Return why Apply cannot be pressed, as one sentence; empty where it can."""
        if self._parameterNode is None:
            return _("The scene is being closed.")
        if self.logic.running:
            return _("A segmentation is running.")
        return self.install.problem() or self.models.problem() or self.inputs.problem()

    # Following a run

    def onRunProgress(self, progress: Progress) -> None:
        """Show how far it is."""
        left = progress.secondsLeft
        text = progress.stage + (_(", {time} left").format(time=duration(left)) if left is not None else "")
        self.ui.progressBar.value = round(1000 * progress.share)
        self.ui.statusLabel.text = text

    def onRunLog(self, text: str) -> None:
        """Keep a line."""
        self.ui.logTextEdit.appendPlainText(text)

    def onRunDelivery(self, title: str, delivery: Delivery) -> None:
        """Show the newest result."""
        if delivery.segmentation is not None:
            self.result.show(delivery.segmentation)

    def onRunEnd(self, summary: Summary) -> None:
        """Say how it went."""
        self.ui.statusLabel.text = summaryText(summary)
        self.update()

    def _show(self, node: Any, volumeNode: Any) -> None:
        """Show the first result of a run, now or when the user comes back."""
        if self._isEntered():
            SegmentationResult.show(node, volumeNode)
        else:
            self._unshown = (node.GetID(), volumeNode.GetID())

    def _showMissed(self) -> None:
        nodes = [slicer.mrmlScene.GetNodeByID(identity) for identity in self._unshown]
        self._unshown = ()
        if nodes and None not in nodes:
            SegmentationResult.show(*nodes)

    # Buttons

    def _onModel(self) -> None:
        if self._ready:
            self.inputs.setCard(self.models.card)
            self.update()

    def _onApply(self, checked: bool = False) -> None:
        try:
            before, self.ui.statusLabel.text = self.ui.statusLabel.text, _("Looking at the input")
            self.ui.applyButton.enabled = False  # the second half of a double click arrives now
            slicer.app.processEvents()  # a folder on a network drive takes its time
            works = None if self.problem() else self._works()
            if works is None:
                self.ui.statusLabel.text = before
                return
            self.ui.logTextEdit.clear()
            for note in self.inputs.notes:
                self.onRunLog(note)
            self.models.remember()
            settings = Parameters.settingsOf(self._parameterNode)
            self.logic.start(self.models.card.path, works, settings, self, self.inputs.outputs(), self._show)
        except CamlError as error:
            self.ui.statusLabel.text = str(error)
            self.onRunLog(str(error))
        finally:
            self.update()

    def _suggestModel(self) -> None:
        """Save a newcomer the wrong model: the first volumes choose one that suits them."""
        volumes = self.inputs.fitVolumes()[:1] if self._parameterNode is not None else []
        key = [(volume.GetID(), volume.GetImageData().GetMTime()) for volume in volumes if volume.GetImageData()]
        if key and key != self._suggestedFor:
            self._suggestedFor = key
            self.models.suggest(lambda card: modelMisfit(volumes, card))

    def _works(self) -> list[Work] | None:
        """Return what is to be done with results edited by hand as the user wants it; None to stop and think."""
        works = self.inputs.works(False)
        update = Parameters.settingsOf(self._parameterNode).existing == "update"
        nodes = editedResults(self.inputs.volumes(), self.models.card) if update else []
        files = [work.kept.name for work in works if isinstance(work, FileWork) and work.kept is not None]
        if not nodes and not files:
            return works
        question = _("You edited {names} since the model made it.")
        if files:
            question = _("Changed since a run wrote them, or not written by a run: {names}.")
        overwrite = self._mayOverwrite(question.format(names=_someOf([node.GetName() for node in nodes] + files)))
        if overwrite is None:
            return None
        return self.inputs.works(True) if overwrite else works

    def _mayOverwrite(self, question: str) -> bool | None:
        """Ask whether results edited by hand may be replaced; None where the user wants to stop and think."""
        box = qt.QMessageBox()
        box.setIcon(qt.QMessageBox.Question)
        box.setWindowTitle(_("CAML Segmentation"))
        box.setText(asWritten(question))
        box.setInformativeText(_("Keep your edits and put the new result beside, or replace your edits?"))
        keep = box.addButton(_("Keep my edits"), qt.QMessageBox.AcceptRole)
        replace = box.addButton(_("Replace"), qt.QMessageBox.DestructiveRole)
        box.addButton(qt.QMessageBox.Cancel)
        box.setDefaultButton(keep)
        box.exec_()
        clicked = box.clickedButton()
        if clicked == replace:
            return True
        return False if clicked == keep else None

    def _onCancel(self, checked: bool = False) -> None:
        self.logic.cancel()

    def _onCopyLog(self, checked: bool = False) -> None:
        qt.QApplication.clipboard().setText(self.ui.logTextEdit.plainText)

    def _chooseDefaults(self, parameterNode: Any) -> None:
        """Save a click where there is no choice to be made."""
        volumes = sceneVolumes()
        if parameterNode.inputVolume is None and volumes:
            parameterNode.inputVolume = volumes[0]


def _someOf(names: Sequence[str]) -> str:
    """A few names: a folder may have hundreds."""
    shown = ", ".join(names[:5])
    more = len(names) - 5
    return _("{names} and {count} more").format(names=shown, count=more) if more > 0 else shown


def summaryText(summary: Summary) -> str:
    """Return how a run ended, for the line below the buttons."""
    if summary.cancelled:
        done = len(summary.deliveries)
        return _("Cancelled; {count} finished before.").format(count=done) if done else _("Cancelled.")
    text = _outcome(summary)
    if not summary.misfits:
        return text
    doubt = _("Not like what the model was made for, as the log explains: {names}.")
    return f"{text} {doubt.format(names=_someOf(list(summary.misfits)))}"


def _outcome(summary: Summary) -> str:
    """What was done, and what failed."""
    done, failed = len(summary.deliveries), len(summary.failures)
    time = duration(summary.seconds)
    if not failed:
        text = _("Done in {time}.").format(time=time)
        return (
            " ".join([text, *summary.notes[:2]])
            if done == 1
            else _("{count} done in {time}.").format(count=done, time=time)
        )
    sentence = next(iter(summary.failures.values()))
    if done + failed == 1:
        return sentence
    return _("{done} done, {failed} failed: {sentence}").format(done=done, failed=failed, sentence=sentence) + (
        _(" The log has the others.") if failed > 1 else ""
    )


def duration(seconds: float) -> str:
    """Return a time for people: 8 s, 2 min 5 s, 1 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    if whole < 3600:
        return _("{minutes} min {seconds} s").format(minutes=whole // 60, seconds=whole % 60)
    return _("{hours} h {minutes} min").format(hours=whole // 3600, minutes=whole % 3600 // 60)
