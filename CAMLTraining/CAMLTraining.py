"""The Slicer module CAML Training: a shell around ``CAMLTrainingLib``."""

from __future__ import annotations

import sys
from typing import Any

import slicer
import vtk
from CAMLTrainingLib.Logic import CAMLTrainingLogic
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

__all__ = ["CAMLTraining", "CAMLTrainingLogic", "CAMLTrainingTest", "CAMLTrainingWidget"]

#: What is read anew when a developer presses Reload.
_PACKAGES = ("CAMLTrainingLib", "CAMLSegmentationLib", "caml_core")


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
        parent.acknowledgementText = _(
            "The method is that of Gao S, Zhang Z, Ma J, Li Z, Zhang S: Correlation-Aware Mutual Learning for "
            "Semi-supervised Medical Image Segmentation, MICCAI 2023."
        )


class CAMLTrainingWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel; ``CAMLTrainingLib.Widget`` fills it."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.panel: Any = None
        self._parameterNode: Any = None
        self._guiTag: Any = None

    def setup(self) -> None:
        """Build the panel. Nothing heavy is imported: it opens before PyTorch is installed."""
        ScriptedLoadableModuleWidget.setup(self)
        from CAMLTrainingLib.Widget import TrainingPanel

        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/CAMLTraining.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = CAMLTrainingLogic()
        self.panel = TrainingPanel(self.ui, self.logic)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.StartSaveEvent, self.onSceneStartSave)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneChanged)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when Slicer quits and before a reload; a training goes on in its own process."""
        try:
            if self.panel is not None:
                # Slicer unloads its modules before others hear that it is about to quit.
                self.logic.onQuit()
                self.panel.close()
        finally:
            self.setParameterNode(None)
            self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens the module."""
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens another module."""
        self.panel.exit()
        self._disconnect()

    def onReload(self) -> None:
        """Read the packages anew, too."""
        if self.panel is not None:
            self.panel.close()
        for name in list(sys.modules):
            if name.split(".")[0] in _PACKAGES:
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """The parameter node goes with the scene."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """Begin anew where the user is looking."""
        self.logic.forgetParameterNode()
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any, event: Any) -> None:
        """A loaded scene brings its own project."""
        self.setParameterNode(None)
        self.logic.forgetParameterNode()
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartSave(self, caller: Any, event: Any) -> None:
        """The scene notes where the project lies, seen from the scene's own folder."""
        self.logic.remember()

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """A volume or a segmentation came or went."""
        if self._parameterNode is not None and not slicer.mrmlScene.IsBatchProcessing():
            self.panel.sceneChanged()

    def initializeParameterNode(self) -> None:
        """Take up the scene's parameter node, made where there is none."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: Any) -> None:
        """Bind the panel to a parameter node; None detaches."""
        self._disconnect()
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            # The node, not its wrapper: the mixin keeps what it has observed.
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)
        if self.panel is not None:
            self.panel.setParameterNode(parameterNode)

    def onParameterNodeModified(self, caller: Any, event: Any) -> None:
        """A choice changed, in the panel or by a script."""
        self.panel.update()

    def _disconnect(self) -> None:
        if self._parameterNode is None or self._guiTag is None:
            return
        self._parameterNode.disconnectGui(self._guiTag)
        self._guiTag = None
        node = self._parameterNode.parameterNode
        self.removeObserver(node, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified)


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
        panel = slicer.modules.camltraining.widgetRepresentation().self().panel
        panel.enter()
        self.assertFalse(panel.ui.trainButton.enabled)
        self.assertTrue(panel.train.problem())
