"""Stand-ins for the qMRML widgets, bound to the real scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from . import facts, proxy, qt_module

_NODE_ROLE = QtCore.Qt.UserRole + 1


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """A widget that hands its scene on."""

    mrmlSceneChanged = QtCore.Signal(object)  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:  # noqa: N802
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        """Set the scene and tell those that are connected."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


def _value_property(name: str, kind: Any) -> QtCore.Property:
    def read(self: Any) -> Any:
        return self._values[name]

    def write(self: Any, value: Any) -> None:
        self._values[name] = list(value) if kind == "QStringList" else value
        self._refresh()

    return QtCore.Property(kind, read, write)


class qMRMLNodeComboBox(QtWidgets.QWidget):  # noqa: N801
    """Chooses a node of the scene by its class and attributes."""

    currentNodeChanged = QtCore.Signal(object)  # noqa: N815
    currentNodeIDChanged = QtCore.Signal(str)  # noqa: N815
    nodeActivated = QtCore.Signal(object)  # noqa: N815
    nodeAddedByUser = QtCore.Signal(object)  # noqa: N815

    nodeTypes = _value_property("nodeTypes", "QStringList")  # noqa: N815
    noneDisplay = _value_property("noneDisplay", str)  # noqa: N815
    baseName = _value_property("baseName", str)  # noqa: N815
    noneEnabled = _value_property("noneEnabled", bool)  # noqa: N815
    addEnabled = _value_property("addEnabled", bool)  # noqa: N815
    removeEnabled = _value_property("removeEnabled", bool)  # noqa: N815
    renameEnabled = _value_property("renameEnabled", bool)  # noqa: N815
    editEnabled = _value_property("editEnabled", bool)  # noqa: N815
    showHidden = _value_property("showHidden", bool)  # noqa: N815
    showChildNodeTypes = _value_property("showChildNodeTypes", bool)  # noqa: N815
    selectNodeUponCreation = _value_property("selectNodeUponCreation", bool)  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._combo = self._make_combo()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._scene: Any = None
        self._tags: list[int] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._values: dict[str, Any] = {
            "nodeTypes": [],
            "noneEnabled": False,
            "noneDisplay": "None",
            "addEnabled": True,
            "removeEnabled": True,
            "renameEnabled": False,
            "editEnabled": False,
            "showHidden": False,
            "showChildNodeTypes": True,
            "selectNodeUponCreation": True,
            "baseName": "",
        }
        self._current: Any = None
        self._combo.currentIndexChanged.connect(self._on_index)

    def _make_combo(self) -> QtWidgets.QComboBox:
        return QtWidgets.QComboBox()

    # The scene

    def mrmlScene(self) -> Any:  # noqa: N802
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        """Show the nodes of a scene, and follow it."""
        self._unobserve()
        self._scene = scene
        if scene is not None:
            for event in (
                scene.NodeAddedEvent,
                scene.NodeRemovedEvent,
                scene.EndBatchProcessEvent,
                scene.EndCloseEvent,
            ):
                self._tags.append(scene.AddObserver(event, lambda caller, event: self._refresh()))
        self._refresh()

    def _unobserve(self) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def _nodes(self) -> Iterator[Any]:
        if self._scene is None:
            return
        for index in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(index)
            if self._accepts(node):
                yield node

    def _accepts(self, node: Any) -> bool:
        if node.GetHideFromEditors() and not self._values["showHidden"]:
            return False
        for name in self._values["nodeTypes"]:
            if not (node.IsA(name) if self._values["showChildNodeTypes"] else node.GetClassName() == name):
                continue
            wanted = [(a, v) for n, a, v in self._attributes if n == name]
            return all(node.GetAttribute(a) is not None if v is None else node.GetAttribute(a) == v for a, v in wanted)
        return False

    def _refresh(self) -> None:
        if not qt_module.is_alive(self):  # nobody tells a widget of Python that it is destroyed
            self._unobserve()
            return
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        nodes, before = list(self._nodes()), self._current
        self._combo.blockSignals(True)
        self._combo.clear()
        if self._values["noneEnabled"]:
            self._combo.addItem(self._values["noneDisplay"], None)
        for node in nodes:
            self._add(node)
        self._combo.blockSignals(False)
        keep = before if before in nodes else None
        if keep is None and not self._values["noneEnabled"] and nodes:
            keep = nodes[0]
        self._select(keep, tell=keep is not before)

    def _add(self, node: Any) -> None:
        self._combo.addItem(node.GetName(), node.GetID())

    def _select(self, node: Any, tell: bool = True) -> None:
        self._combo.blockSignals(True)
        self._combo.setCurrentIndex(self._combo.findData(node.GetID()) if node is not None else self._none_index())
        self._combo.blockSignals(False)
        if node is not self._current or tell:
            self._current = node
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def _none_index(self) -> int:
        return 0 if self._values["noneEnabled"] else -1

    def _on_index(self, index: int) -> None:
        identity = self._combo.itemData(index)
        self._select(self._scene.GetNodeByID(identity) if identity and self._scene else None)

    # What modules call

    def currentNode(self) -> Any:  # noqa: N802
        """The chosen node or None."""
        return self._current

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        """Choose a node (or its id); one that is not listed chooses nothing."""
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene is not None else None
        listed = node if node is not None and node in list(self._nodes()) else None
        if listed is not self._current:
            self._select(listed)

    def addNode(self, class_name: str = "") -> Any:  # noqa: N802
        """What the entry "Create new ..." does: a node is made and chosen, and that is all."""
        node = self._scene.CreateNodeByClass(class_name or self._values["nodeTypes"][0])
        node.UnRegister(None)  # Slicer takes the reference, Python has one of its own
        base = self._values["baseName"] or node.GetName() or node.GetDefaultNodeNamePrefix()
        node.SetName(self._scene.GetUniqueNameByString(base))
        node = self._scene.AddNode(node)
        if self._values["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def nodeCount(self) -> int:  # noqa: N802
        """How many nodes can be chosen."""
        return len(list(self._nodes()))

    def addAttribute(self, node_type: str, attribute: str, value: Any = None) -> None:  # noqa: N802
        """Show only nodes of a type that have an attribute (of a value)."""
        self._attributes.append((node_type, attribute, value))
        self._refresh()

    def removeAttribute(self, node_type: str, attribute: str) -> None:  # noqa: N802
        """Undo addAttribute."""
        self._attributes = [a for a in self._attributes if a[:2] != (node_type, attribute)]
        self._refresh()

    def setCurrentNodeID(self, identity: str) -> None:  # noqa: N802
        """Choose a node by its id."""
        self.setCurrentNode(identity)

    def _get_id(self) -> str:
        return self._current.GetID() if self._current is not None else ""


class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):  # noqa: N801
    """Chooses several nodes."""

    checkedNodesChanged = QtCore.Signal()  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        self._checked: set[str] = set()
        super().__init__(parent)

    def _refresh(self) -> None:
        super()._refresh()
        if qt_module.is_alive(self):
            kept = {n.GetID() for n in self._nodes()} & self._checked
            if kept != self._checked:
                self._checked = kept
                self.checkedNodesChanged.emit()

    def _add(self, node: Any) -> None:
        mark = QtGui.QStandardItem(node.GetName())
        mark.setData(node.GetID(), QtCore.Qt.UserRole)
        mark.setCheckState(QtCore.Qt.Checked if node.GetID() in self._checked else QtCore.Qt.Unchecked)
        self._combo.model().appendRow(mark)

    def checkState(self, node: Any) -> Any:  # noqa: N802
        """Whether a node is ticked."""
        return QtCore.Qt.Checked if node.GetID() in self._checked else QtCore.Qt.Unchecked

    def setCheckState(self, node: Any, state: Any) -> None:  # noqa: N802
        """Tick a node or not."""
        before = set(self._checked)
        ticked = state in (QtCore.Qt.Checked, 2)
        (self._checked.add if ticked else self._checked.discard)(node.GetID())
        if before != self._checked:
            self._refresh()
            self.checkedNodesChanged.emit()

    def checkedNodes(self) -> list[Any]:  # noqa: N802
        """The ticked nodes."""
        return [n for n in self._nodes() if n.GetID() in self._checked]

    def uncheckedNodes(self) -> list[Any]:  # noqa: N802
        """The others."""
        return [n for n in self._nodes() if n.GetID() not in self._checked]

    def allChecked(self) -> bool:  # noqa: N802
        """Whether all are ticked."""
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:  # noqa: N802
        """Whether none is ticked."""
        return not self._checked


class qMRMLSegmentEditorWidget(qMRMLWidget):  # noqa: N801
    """Remembers what it was told to edit, in its parameter node as Slicer's does; drawing is left to the tests."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._segmentation: Any = None
        self._source: Any = None

    def setMRMLSegmentEditorNode(self, node: Any) -> None:  # noqa: N802
        """Set the node that keeps the editor's state."""
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:  # noqa: N802
        """The node that keeps the editor's state."""
        return self._node

    def setSegmentationNode(self, node: Any) -> None:  # noqa: N802
        """Set the segmentation to edit."""
        self._segmentation = node
        if self._node is not None:
            self._node.SetAndObserveSegmentationNode(node)

    def segmentationNode(self) -> Any:  # noqa: N802
        """The segmentation to edit."""
        return self._segmentation

    def setSourceVolumeNode(self, node: Any) -> None:  # noqa: N802
        """Set the volume to edit on; ignored without a segmentation, as Slicer's does."""
        if self._segmentation is None:
            return
        self._source = node
        if self._node is not None:
            self._node.SetAndObserveSourceVolumeNode(node)

    def sourceVolumeNode(self) -> Any:  # noqa: N802
        """The volume to edit on."""
        return self._source

    def setActiveEffect(self, effect: Any) -> None:  # noqa: N802
        """There are no effects: None alone can be set."""
        assert effect is None

    def setMaximumNumberOfUndoStates(self, count: int) -> None:  # noqa: N802
        """Nothing is drawn, and so nothing undone."""

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None:  # noqa: N802
        """There is no selector."""

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None:  # noqa: N802
        """There is no selector."""

    def installKeyboardShortcuts(self, parent: Any = None) -> None:  # noqa: N802
        """There are no shortcuts."""

    def uninstallKeyboardShortcuts(self) -> None:  # noqa: N802
        """There are no shortcuts."""

    def removeViewObservations(self) -> None:  # noqa: N802
        """No view is observed."""


STAND_INS = (qMRMLWidget, qMRMLNodeComboBox, qMRMLCheckableNodeComboBox, qMRMLSegmentEditorWidget)


def install() -> None:
    """Add the classes to ``slicer`` and to the loader of .ui files."""
    for stand_in in STAND_INS:
        name = stand_in.__name__
        assert facts.is_named(name, "slicer"), name
        setattr(slicer, name, proxy.proxy_class(name, stand_in))
        qt_module.UiLoader.custom[name] = stand_in
