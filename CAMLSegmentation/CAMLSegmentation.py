"""The Slicer module CAML Segmentation: a shell around ``CAMLSegmentationLib``."""

from __future__ import annotations

from typing import Any

import slicer
from CAMLSegmentationLib.Logic import CAMLSegmentationLogic
from CAMLSegmentationLib.PanelWidget import PanelWidget
from CAMLSegmentationLib.SampleDataSource import registerSampleData
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
)

__all__ = ["CAMLSegmentation", "CAMLSegmentationLogic", "CAMLSegmentationTest", "CAMLSegmentationWidget"]

TUTORIAL = "https://github.com/SlicerCAML/SlicerCAML/blob/main/docs/tutorial.md"


class CAMLSegmentation(ScriptedLoadableModule):
    """The module's description."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("CAML Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The CAML for 3D Slicer contributors"]
        parent.helpText = _(
            "Segments MRI and CT angiography volumes with CAML models, in the background, on this computer. Choose a "
            "volume and a model and press Apply; review where the model's two networks disagree, and edit the result "
            "in the Segment Editor. For research; not a medical device."
        )
        parent.helpText += f' <a href="{TUTORIAL}">{_("Tutorial")}</a>.'
        parent.acknowledgementText = _(
            "The method is that of Gao S, Zhang Z, Ma J, Li Z, Zhang S: Correlation-Aware Mutual Learning for "
            "Semi-supervised Medical Image Segmentation, MICCAI 2023."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class CAMLSegmentationWidget(PanelWidget):
    """The module's panel; ``CAMLSegmentationLib.Widget`` fills it. A run goes on while another module is open."""

    def makePanel(self) -> None:
        """Make logic and panel."""
        from CAMLSegmentationLib.Widget import SegmentationPanel

        self.logic = CAMLSegmentationLogic()
        self.panel = SegmentationPanel(self.ui, self.logic, isEntered=self.isHere())
        self.panel.install.refresh()

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """A volume came or went. While another module is open, enter() will see to it."""
        here = self.parent.isEntered and self._parameterNode is not None
        if here and not slicer.mrmlScene.IsBatchProcessing():
            self.panel.update()


class CAMLSegmentationTest(ScriptedLoadableModuleTest):
    """The self test that Slicer's developer mode and ctest run."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Check that the panel opens and says what is missing."""
        self.setUp()
        self.test_the_panel_says_what_is_missing()

    def test_the_panel_says_what_is_missing(self) -> None:
        """Without a volume, Apply is off and its tooltip says why."""
        widget = slicer.modules.camlsegmentation.widgetRepresentation().self()
        widget.enter()
        panel = widget.panel
        self.assertFalse(panel.ui.applyButton.enabled)
        self.assertTrue(panel.problem())
