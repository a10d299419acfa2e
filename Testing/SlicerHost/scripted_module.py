"""``slicer.ScriptedLoadableModule``: the base classes of scripted modules, as far as modules rely on them."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import qt
import slicer


class ScriptedLoadableModule:
    """A module's description; ``parent`` takes title, categories and texts."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title, parent.categories, parent.dependencies, parent.contributors = "", [], [], []
        parent.helpText = parent.acknowledgementText = ""
        icon = Path(parent.path).parent / "Resources" / "Icons" / f"{self.moduleName}.png"
        if icon.is_file():
            parent.icon = qt.QIcon(str(icon))

    def resourcePath(self, name: str) -> str:  # noqa: N802
        """A file of the module's Resources."""
        return str(Path(self.parent.path).parent / "Resources" / name)

    def getDefaultModuleDocumentationLink(self, docPage: Any = None) -> str:  # noqa: N802, N803
        """A link for the help text."""
        return ""


class ScriptedLoadableModuleWidget:
    """A module's panel; ``parent`` is a qMRMLWidget with a layout, and knows whether the user is here."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name: str) -> str:  # noqa: N802
        """A file of the module's Resources."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None:
        """Build the panel."""

    def cleanup(self) -> None:
        """Let go of everything."""

    def enter(self) -> None:
        """The user comes."""

    def exit(self) -> None:
        """The user goes."""

    def onReload(self) -> None:  # noqa: N802
        """Load the module anew."""
        import SlicerHost

        SlicerHost.reload_module(self.moduleName)


class ScriptedLoadableModuleLogic:
    """What a module can do without its panel."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:  # noqa: N802
        """The module's script node of the scene, made where there is none."""
        for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
            if node.GetModuleName() == self.moduleName:
                return node
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self test."""

    def runTest(self) -> None:  # noqa: N802
        """Overridden by modules."""
