"""What both modules' widgets share: the panel in its .ui file, bound to the parameter node of the scene."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Follows scene and parameter node; a module's own class names its packages and makes logic and panel."""

    #: What is read anew when a developer presses Reload.
    packages: tuple[str, ...] = ("CAMLSegmentationLib", "caml_core")

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.panel: Any = None
        self._parameterNode: Any = None
        self._guiTag: Any = None

    def makePanel(self) -> None:
        """Make ``logic`` and ``panel``; ``ui`` is there."""
        raise NotImplementedError

    def isHere(self) -> Callable[[], bool]:
        """Return what says whether the user is in this module; the panel asks it, and must not hold this widget."""
        parent = self.parent
        return lambda: bool(parent.isEntered)

    def onSceneChanged(self, caller: Any, event: Any) -> None:
        """A node came or went."""
        raise NotImplementedError

    def setup(self) -> None:
        """Build the panel. Nothing heavy is imported: it opens before PyTorch is installed."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.makePanel()
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
            self.addObserver(scene, event, self.onSceneChanged)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when Slicer quits and before a reload."""
        try:
            if self.panel is not None:
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
        self._disconnect()

    def onReload(self) -> None:
        """Read the packages anew, too."""
        if self.panel is not None:
            self.panel.close()
        for name in list(sys.modules):
            if name.split(".")[0] in self.packages:
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
        """A loaded scene brings its own choices."""
        self.setParameterNode(None)
        self.onSceneEndClose(caller, event)

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
