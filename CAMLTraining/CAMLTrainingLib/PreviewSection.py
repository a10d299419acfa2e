"""The panel's choice "Preview": on which case the training shows what its model says now, and showing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import slicer
from CAMLSegmentationLib import SegmentationResult
from CAMLSegmentationLib.Combo import choose, chosen, fill
from slicer.i18n import tr as _

from caml_core.errors import CamlError

from . import CaseExchange, Predictions
from .CaseExchange import PREDICTION, WRITTEN
from .Logic import CAMLTrainingLogic

PREVIEW = _("preview")


class PreviewSection:
    """Lets the user choose the case, loads it, and shows each preview.

    say: takes sentences that the user should read now; log: those to be looked up.
    """

    def __init__(
        self, ui: Any, logic: CAMLTrainingLogic, say: Callable[[str], None], log: Callable[[str], None]
    ) -> None:
        self._ui, self._logic, self._say, self._log = ui, logic, say, log
        self._parameterNode: Any = None
        self._updating = False
        self._offered: list[str] | None = None
        #: The case whose preview came and could not be shown.
        self._unseen = ""
        #: Whether the user is in this module; set by the panel.
        self.isEntered: Callable[[], bool] = lambda: True
        #: The first preview came while another module was open, whose views must not change.
        self._unshown = False
        ui.previewComboBox.connect("currentIndexChanged(int)", self._onChoice)

    @property
    def case(self) -> str:
        """The case to show; empty for none, or for one that takes no part in a training any more."""
        wanted = str(self._parameterNode.previewCase) if self._parameterNode is not None else ""
        return wanted if wanted in self._cases() else ""

    @property
    def hint(self) -> str:
        """What keeps the last preview from being seen, as a sentence; empty where nothing does."""
        if not self._unseen or self._unseen != self.case or self._logic.cohort.volumeNode(self._unseen) is not None:
            return ""
        return _("Case {case} is not loaded: open it once with Edit to see its preview.").format(case=self._unseen)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Follow a parameter node; None detaches."""
        self._parameterNode, self._unseen = parameterNode, ""
        if parameterNode is None:
            self._unshown = False

    def enter(self) -> None:
        """The user is here again: show the preview, where the first one came meanwhile."""
        previews = _previews() if self._unshown else []
        self._unshown = False
        if previews and (volumeNode := SegmentationResult.sourceOf(previews[-1])) is not None:
            SegmentationResult.show(previews[-1], volumeNode)

    def refresh(self) -> None:
        """Offer the cases of now."""
        cases = self._cases()
        self._updating = True
        if cases != self._offered:
            self._offered = cases
            fill(self._ui.previewComboBox, [(_("No preview"), ""), *((case, case) for case in cases)])
        choose(self._ui.previewComboBox, self.case)
        self._updating = False

    def show(self, case: str) -> None:
        """Show what the model says now, where it is the chosen case and its volume is in the scene."""
        logic = self._logic
        path = logic.round.folder / "preview.seg.nrrd" if logic.round is not None else None
        if path is None or not os.path.isfile(path) or not case or case != self.case:
            return
        volumeNode = logic.cohort.volumeNode(case)
        if volumeNode is None:
            if self._unseen != case:  # once: the progress repeats it
                self._unseen = case
                self._say(self.hint)
            return
        self._unseen = ""
        try:
            written = CaseExchange.writtenAt(path)
            node = logic.cohort.loadLabel(case, path, volumeNode)
        except (CamlError, OSError) as error:  # the file may be replaced while it is read
            self._log(str(error))
            return
        older = _previews()
        node.SetAttribute(PREDICTION, PREVIEW)
        node.SetAttribute(WRITTEN, written)
        SegmentationResult.remember(node)
        node.SetName(_("{case} - training preview").format(case=case))
        for before in older:
            node.GetDisplayNode().SetVisibility(before.GetDisplayNode().GetVisibility())
            self._takeAway(before)
        if not older:
            self._showFirst(node, volumeNode)

    def _takeAway(self, preview: Any) -> None:
        """Make room for a newer preview. One in which a hand has drawn stays, as that hand's work."""
        if preview.GetAttribute(SegmentationResult.STATE) is None or not SegmentationResult.isEdited(preview):
            SegmentationResult.remove(preview)
            return
        volumeNode = SegmentationResult.sourceOf(preview)
        case = self._logic.cohort.caseOf(volumeNode) if volumeNode is not None else ""
        Predictions.keepEdits(self._logic.cohort, case, preview)

    def _showFirst(self, node: Any, volumeNode: Any) -> None:
        """Views follow the first preview alone, and never while the user draws, here or in another module."""
        if not self.isEntered():
            self._unshown = True
        elif self._ui.pagesStackedWidget.currentIndex == 0:
            SegmentationResult.show(node, volumeNode)

    def _cases(self) -> list[str]:
        project = self._logic.project
        return [c.id for c in (*project.with_role("validation"), *project.with_role("unlabeled", "labeled"))]

    def _onChoice(self, index: int) -> None:
        if self._updating or self._parameterNode is None:
            return
        case = chosen(self._ui.previewComboBox)
        self._parameterNode.previewCase = case
        try:
            if self._logic.training:
                self._logic.setPreviewCase(case)
            if case:
                self._logic.cohort.load(case)  # without its scan there is nothing to show the preview on
        except CamlError as error:
            self._say(str(error))


def _previews() -> list[Any]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(PREDICTION) == PREVIEW]
