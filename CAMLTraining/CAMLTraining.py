"""The Slicer module CAML Training: a shell around ``CAMLTrainingLib``."""

from __future__ import annotations

from typing import Any

import slicer
from CAMLSegmentationLib.PanelWidget import PanelWidget
from CAMLTrainingLib.Logic import CAMLTrainingLogic
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
)

__all__ = ["CAMLTraining", "CAMLTrainingLogic", "CAMLTrainingTest", "CAMLTrainingWidget"]

TUTORIAL = "https://github.com/SlicerCAML/SlicerCAML/blob/main/docs/tutorial-training.md"


class CAMLTraining(ScriptedLoadableModule):
    """The module's description."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("CAML Training")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["CAMLSegmentation"]
        parent.contributors = ["The CAML for 3D Slicer contributors"]
        parent.helpText = _(
            "Trains CAML models on your own scans, on this computer: label a few cases in the Segment Editor, press "
            "Train, and the scans without labels take part as well. See how good the model is on cases that it has not "
            "seen, let it segment the rest, and correct those where it is least sure. For research; not a medical "
            "device."
        )
        parent.helpText += f' <a href="{TUTORIAL}">{_("Tutorial")}</a>.'
        parent.acknowledgementText = _(
            "The method is that of Gao S, Zhang Z, Ma J, Li Z, Zhang S: Correlation-Aware Mutual Learning for "
            "Semi-supervised Medical Image Segmentation, MICCAI 2023."
        )


class CAMLTrainingWidget(PanelWidget):
    """The module's panel; ``CAMLTrainingLib.Widget`` fills it."""

    packages = ("CAMLTrainingLib", *PanelWidget.packages)

    def makePanel(self) -> None:
        """Make logic and panel."""
        from CAMLTrainingLib.Widget import TrainingPanel

        self.logic = CAMLTrainingLogic()
        self.panel = TrainingPanel(self.ui, self.logic, self.isHere())

    def cleanup(self) -> None:
        """A training goes on in its own process, or is paused, as the user chose."""
        if self.panel is not None:
            self.logic.onQuit()  # Slicer unloads its modules before others hear that it is about to quit
        PanelWidget.cleanup(self)

    def exit(self) -> None:
        """Called each time the user opens another module."""
        self.panel.exit()
        PanelWidget.exit(self)

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """A volume or a segmentation came or went."""
        if self._parameterNode is not None and not slicer.mrmlScene.IsBatchProcessing():
            self.panel.sceneChanged()


class CAMLTrainingTest(ScriptedLoadableModuleTest):
    """The self test that Slicer's developer mode and ctest run."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Check that the panel opens and says what is missing."""
        self.setUp()
        self.test_the_panel_says_what_is_missing()

    def test_the_panel_says_what_is_missing(self) -> None:
        """Without a labelled case, Train is off and its tooltip says why."""
        widget = slicer.modules.camltraining.widgetRepresentation().self()
        widget.enter()
        panel = widget.panel
        self.assertFalse(panel.ui.trainButton.enabled)
        self.assertTrue(panel.train.problem())
