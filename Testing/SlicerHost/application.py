"""``slicer.app`` and ``slicer.modules`` over the real MRML scene and the real module logics of slicer-core."""

from __future__ import annotations

import os
import tempfile
import types
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from . import facts, proxy, qt_module

SLICE_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class Application:
    """The members of ``slicer.app`` that the modules use; each is in the facts (checked when it is made)."""

    def __init__(self, qt_application: QtWidgets.QApplication, folder: Path) -> None:
        known = facts.members("qSlicerApplication")
        missing = [n for n in vars(type(self)) if not n.startswith("_") and not known.has(n)]
        assert not missing, f"slicer.app has no {missing}"
        self._application, self._folder = qt_application, folder
        self._slots: dict[str, list[Any]] = {}
        self._layout_manager: Any = None
        self._settings: Any = None
        self.temporaryPath = str(folder / "temporary")
        Path(self.temporaryPath).mkdir(exist_ok=True)
        self.defaultScenePath = str(folder / "documents")
        self._logic = slicer.vtkSlicerApplicationLogic()

    def mrmlScene(self) -> Any:  # noqa: N802
        """The scene."""
        return slicer.mrmlScene

    def applicationLogic(self) -> Any:  # noqa: N802
        """The application's logic."""
        return self._logic

    def layoutManager(self) -> Any:  # noqa: N802
        """The views; None without a main window."""
        return self._layout_manager

    def userSettings(self) -> Any:  # noqa: N802
        """The settings of the user, in a file of this run."""
        if self._settings is None:
            self._settings = proxy.from_native(QtCore.QSettings())
        return self._settings

    def settings(self) -> Any:
        """The same."""
        return self.userSettings()

    def palette(self) -> Any:
        """The colours of the style."""
        return proxy.from_native(self._application.palette())

    def processEvents(self) -> None:  # noqa: N802
        """Deliver what waits."""
        qt_module.process_events()

    def testingEnabled(self) -> bool:  # noqa: N802
        """Whether dialogs answer themselves; here tests answer them."""
        return False

    def topLevelWidgets(self) -> tuple[Any, ...]:  # noqa: N802
        """There is no main window."""
        return ()

    def coreIOManager(self) -> Any:  # noqa: N802
        """What reads and writes files."""
        from .files import CoreIOManager

        return CoreIOManager()

    def ioManager(self) -> Any:  # noqa: N802
        """The same."""
        return self.coreIOManager()

    def connect(self, signal: str, function: Any) -> bool:
        """Connect one of the application's signals."""
        if facts.normalised(signal) not in facts.members("qSlicerApplication").signals:
            return False
        self._slots.setdefault(facts.normalised(signal), []).append(function)
        return True

    def disconnect(self, signal: str, function: Any) -> bool:
        """Undo connect."""
        slots = self._slots.get(facts.normalised(signal), [])
        found = function in slots
        if found:
            slots.remove(function)
        return found

    def _emit(self, signal: str) -> None:
        for function in list(self._slots.get(signal, [])):
            proxy._call(function, [])


class SliceWidget:
    """A slice view without a window."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def sliceLogic(self) -> Any:  # noqa: N802
        """Its logic."""
        return self._logic

    def mrmlSliceNode(self) -> Any:  # noqa: N802
        """Its slice node."""
        return self._logic.GetSliceNode()


class LayoutManager:
    """Slice views and nothing else."""

    def __init__(self, logics: dict[str, Any]) -> None:
        self._logics = logics
        self.threeDViewCount = 0

    def sliceViewNames(self) -> tuple[str, ...]:  # noqa: N802
        """The views."""
        return tuple(self._logics)

    def mrmlSliceLogics(self) -> Any:  # noqa: N802
        """The logics of the views."""
        known = vtk.vtkCollection()
        for logic in self._logics.values():
            known.AddItem(logic)
        return known

    def sliceWidget(self, name: str) -> SliceWidget:  # noqa: N802
        """A view."""
        return SliceWidget(self._logics[name])


class Module:
    """One entry of ``slicer.modules``."""

    def __init__(self, logic: Any = None, widget: Any = None, path: str = "") -> None:
        self._logic, self._widget, self.path = logic, widget, path

    def logic(self) -> Any:
        """The module's logic."""
        return self._logic

    def widgetRepresentation(self) -> Any:  # noqa: N802
        """The module's widget: ``.self()`` is its Python half."""
        return types.SimpleNamespace(self=lambda: self._widget)


def make(qt_application: QtWidgets.QApplication) -> Application:
    """Return the application, with scene, logics and views in place."""
    folder = Path(tempfile.mkdtemp(prefix="caml-slicer-host-"))
    # ``qt.QSettings()`` is the application's own file in Slicer, too.
    qt_application.setOrganizationName("SlicerHost")
    qt_application.setApplicationName("SlicerHost")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(folder))
    slicer.mrmlScene = slicer.vtkMRMLScene()
    application = Application(qt_application, folder)
    slicer.app = application
    logic = application.applicationLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetTemporaryPath(application.temporaryPath)
    application._remote = _remote_io(folder)
    slicer.modules = types.SimpleNamespace()
    _logics(logic)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, _on_node_added)
    make_views(application)
    return application


def _remote_io(folder: Path) -> Any:
    """Scenes are read from bundles through a cache folder. The logic takes it along when it goes: keep it."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(slicer.mrmlScene)
    remote.AddDataIOToScene()
    remote.GetCacheManager().SetRemoteCacheDirectory(str(folder))
    remote.GetDataIOManager().SetCacheManager(remote.GetCacheManager())
    return remote


@vtk.calldata_type(vtk.VTK_OBJECT)
def _on_node_added(scene: Any, event: Any, node: Any) -> None:
    """In Slicer, plugins of the subject hierarchy give new data nodes an item; here this does."""
    shown = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLTableNode", "vtkMRMLTransformNode")
    if node is None or node.GetHideFromEditors() or not any(node.IsA(name) for name in shown) or scene.IsClosing():
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


def _logics(application_logic: Any) -> None:
    """Every module of slicer-core that has a logic, under Slicer's name for it."""
    classes = {
        "colors": "vtkSlicerColorLogic",
        "volumes": "vtkSlicerVolumesLogic",
        "segmentations": "vtkSlicerSegmentationsModuleLogic",
        "markups": "vtkSlicerMarkupsLogic",
        "plots": "vtkSlicerPlotsLogic",
        "sequences": "vtkSlicerSequencesLogic",
        "tables": "vtkSlicerTablesLogic",
        "terminologies": "vtkSlicerTerminologiesModuleLogic",
        "transforms": "vtkSlicerTransformLogic",
    }
    titles = {"colors": "Colors", "volumes": "Volumes", "segmentations": "Segmentations", "markups": "Markups"}
    for name, class_name in classes.items():
        logic = getattr(slicer, class_name)()
        if hasattr(logic, "SetMRMLApplicationLogic"):
            logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(titles.get(name, name.capitalize()), logic)
        logic.SetMRMLScene(slicer.mrmlScene)
        setattr(slicer.modules, name, Module(logic))


def make_views(application: Application) -> None:
    """Make the three slice views; their nodes are singletons, which outlive a scene that is closed."""
    logics = {}
    for name, orientation in SLICE_VIEWS.items():
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.SetMRMLApplicationLogic(application.applicationLogic())
        # Slice nodes are singletons: Clear leaves them, and a second one would be merged into the first.
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if node is None:
            node = logic.AddSliceNode(name)
        else:
            logic.SetSliceNode(node)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
        node.SetOrientation(orientation)
        logics[name] = logic
    known = vtk.vtkCollection()
    for logic in logics.values():
        known.AddItem(logic)
    application.applicationLogic().SetSliceLogics(known)
    application._layout_manager = LayoutManager(logics)


def quiet() -> None:
    """Keep VTK's log off the terminal unless something is wrong with the tests themselves."""
    if not os.environ.get("CAML_HOST_LOG"):
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
