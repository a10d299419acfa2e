"""The panel's page "Edit": Slicer's Segment Editor on one case after the other."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import slicer
from CAMLSegmentationLib.Combo import choose, chosen, fill
from slicer.i18n import tr as _

from caml_core.errors import CamlError

from . import Editing, Predictions
from .Logic import CAMLTrainingLogic

_TAG = "CAMLTrainingSegmentEditor"
_TRAINING, _EDIT = 0, 1


class EditPage:
    """Opens cases in the editor; calls ``onLeave`` when the user goes back.

    ``mayMeasure(cases)`` asks whether predictions in which nothing was changed may measure the model,
    ``mayLearn(case)`` whether a held-out case is to be learnt from.
    """

    def __init__(
        self,
        ui: Any,
        logic: CAMLTrainingLogic,
        onLeave: Callable[[], None],
        mayMeasure: Callable[[Sequence[str]], bool],
        mayLearn: Callable[[str], bool],
    ) -> None:
        self._ui, self._logic, self._onLeave = ui, logic, onLeave
        self._mayMeasure, self._mayLearn = mayMeasure, mayLearn
        self._editor: Any = None
        self._updating = False
        #: The channel that the slices show, and what the one is called that the user has chosen.
        self._channel, self._wanted = 0, ""
        self.case = ""
        #: Cases in the order in which they are suggested, best first; set by whoever ranks them.
        self.ranked: list[str] = []
        ui.backButton.connect("clicked(bool)", lambda checked=False: self.leave())
        ui.nextButton.connect("clicked(bool)", lambda checked=False: self.next())
        ui.acceptNextButton.connect("clicked(bool)", lambda checked=False: self._accept("labeled"))
        ui.acceptValidationButton.connect("clicked(bool)", lambda checked=False: self._accept("validation"))
        ui.channelComboBox.connect("currentIndexChanged(int)", self._onChannel)
        self._offerChannels([])

    @property
    def editor(self) -> Any:
        """Slicer's editor, made when it is first needed."""
        if self._editor is None:
            self._editor = slicer.qMRMLSegmentEditorWidget()
            self._editor.setMaximumNumberOfUndoStates(10)
            self._editor.setSegmentationNodeSelectorVisible(False)
            self._editor.setSourceVolumeNodeSelectorVisible(False)
            self._ui.editorContainer.layout().addWidget(self._editor)
        if self._editor.mrmlScene() is None:
            self._editor.setMRMLScene(slicer.mrmlScene)
        node = slicer.mrmlScene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_TAG)
            node.SaveWithSceneOff()  # an active effect that comes back with a scene finds nothing to work on
            node = slicer.mrmlScene.AddNode(node)
        self._editor.setMRMLSegmentEditorNode(node)
        return self._editor

    def open(self, case: str) -> bool:
        """Open a case; where it cannot be opened the reason is shown and False returned."""
        self._noteEdits()
        try:
            volumeNode, node = Editing.openCase(self._logic.cohort, case)
        except CamlError as error:
            if self.case:
                self._ui.editMessageLabel.text = f"<b>{html.escape(str(error))}</b>"
            else:
                self._logic.cohort.notes.append(str(error))
                self._onLeave()
            return False
        editor = self.editor
        editor.setActiveEffect(None)
        editor.setSegmentationNode(node)
        editor.setSourceVolumeNode(volumeNode)
        editor.installKeyboardShortcuts()
        self.case = case
        self._ui.editCaseLabel.text = f"<b>{html.escape(case)}</b>"
        self._ui.editMessageLabel.text = self._progress() + self._outdated()
        titles, shown = Editing.channels(self._logic.cohort, case)
        self._offerChannels(titles, shown)
        if self._wanted in titles:  # who draws on one contrast does so on case after case
            choose(self._ui.channelComboBox, str(titles.index(self._wanted)))
        self._ui.pagesStackedWidget.currentIndex = _EDIT
        return True

    def next(self) -> None:
        """Go to the next case without a decision about this one; back to training where there is none."""
        skipped = ""
        for case in Editing.nextCases(self._logic.cohort, self.case, self.ranked):
            if self.open(case):
                if skipped:
                    self._ui.editMessageLabel.text = skipped
                return
            skipped = self._ui.editMessageLabel.text
        self.leave()

    def leave(self) -> None:
        """Back to the page of training."""
        self._noteEdits()
        self.detach()
        self._onLeave()

    def detach(self) -> None:
        """Let go of the scene's nodes, as the user leaves the module or the scene closes."""
        self.case = ""
        self._offerChannels([])
        if self._editor is not None:
            self._editor.setActiveEffect(None)
            self._editor.uninstallKeyboardShortcuts()
            self._editor.removeViewObservations()
            # In this order: without a segmentation the editor ignores what it is told of volumes, and keeps the last.
            self._editor.setSourceVolumeNode(None)
            self._editor.setSegmentationNode(None)
        self._ui.pagesStackedWidget.currentIndex = _TRAINING

    def close(self) -> None:
        """Before Slicer quits."""
        self.detach()
        if self._editor is not None:
            self._editor.setMRMLScene(None)

    def _offerChannels(self, titles: Sequence[str], shown: int = 0) -> None:
        """Offer what the slices can show of a case; nothing where it has one image alone."""
        self._updating, self._channel = True, shown
        fill(self._ui.channelComboBox, [(title, str(index)) for index, title in enumerate(titles)])
        choose(self._ui.channelComboBox, str(shown))
        for part in (self._ui.channelLabel, self._ui.channelComboBox):
            part.setVisible(bool(titles))
        self._updating = False

    def _onChannel(self, index: int) -> None:
        """Show another channel; where it is gone say so, and stay with the one that is shown."""
        if self._updating or not self.case:
            return
        wanted = int(chosen(self._ui.channelComboBox))
        try:
            Editing.showChannel(self._logic.cohort, self.case, wanted)
            self._channel, self._wanted = wanted, self._ui.channelComboBox.currentText
        except CamlError as error:
            self._ui.editMessageLabel.text = f"<b>{html.escape(str(error))}</b>"
            self._updating = True
            choose(self._ui.channelComboBox, str(self._channel))
            self._updating = False

    def _accept(self, role: str) -> None:
        """Take the segmentation as a label, or say what is wrong with it and stay."""
        known = self._logic.project.cases.get(self.case)
        if role == "labeled" and known is not None and known.role == "validation" and not self._mayLearn(self.case):
            role = "validation"  # what was corrected is its label, and it stays aside
        try:
            asPredicted = role == "validation" and self._mayMeasure([self.case])
            faults = self._logic.setRole([self.case], role, asPredicted)
        except CamlError as error:
            faults = {self.case: str(error)}
        if faults:
            self._ui.editMessageLabel.text = f"<b>{html.escape(faults[self.case])}</b>"
            return
        self.next()

    def _noteEdits(self) -> None:
        if self.case and self.case in self._logic.project.cases:
            self._logic.cohort.noteEdits(self.case)

    def _outdated(self) -> str:
        """Why a case that is to be labelled does not begin with its prediction, where that is of another scan."""
        known = self._logic.project.cases[self.case]
        words = "" if known.has_own_label else Predictions.outdatedWords(known)
        return f" <b>{html.escape(words)}</b>" if words else ""

    def _progress(self) -> str:
        project = self._logic.project
        return _("{labeled} labelled, {waiting} without a label.").format(
            labeled=len(project.with_role("labeled")), waiting=len(project.with_role("unlabeled"))
        )
