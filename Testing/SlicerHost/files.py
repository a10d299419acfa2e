"""Reading and writing files through the real storage nodes, as Slicer's I/O manager does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

_STORAGE = {
    "VolumeFile": ("vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode"),
    "SegmentationFile": ("vtkMRMLSegmentationNode", "vtkMRMLSegmentationStorageNode"),
}


class CoreIOManager:
    """The calls that ``slicer.util``'s load and save functions make."""

    def loadNodes(self, kind: str, properties: dict[str, Any], collection: Any = None, messages: Any = None) -> bool:  # noqa: N802
        """Read a file into new nodes of the scene."""
        path = str(properties["fileName"])
        if kind == "SceneFile":
            return _load_scene(properties, collection, messages)
        node_class, storage_class = _STORAGE[kind]
        name = properties.get("name") or Path(path).name.partition(".")[0]
        node = slicer.mrmlScene.AddNewNodeByClass(node_class, name)
        storage = slicer.mrmlScene.AddNewNodeByClass(storage_class)
        storage.SetFileName(path)
        if kind == "VolumeFile":  # "Centered" and "Ignore Orientation" of the Add Data dialog
            storage.SetCenterImage(bool(properties.get("center", False)))
            storage.SetUseOrientationFromFile(not properties.get("discardOrientation", False))
        if not storage.ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            slicer.mrmlScene.RemoveNode(storage)
            return False
        node.SetAndObserveStorageNodeID(storage.GetID())
        node.CreateDefaultDisplayNodes()
        if kind == "VolumeFile" and properties.get("show", True):
            slicer.util.setSliceViewerLayers(background=node, fit=True)
        if collection is not None:
            collection.AddItem(node)
        return True

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any = None) -> bool:  # noqa: N802
        """Write a node, or the whole scene."""
        path = str(properties["fileName"])
        if kind == "SceneFile":
            return _save_scene(Path(path).absolute())
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode() or node.CreateDefaultStorageNode()
        if storage.GetScene() is None:
            slicer.mrmlScene.AddNode(storage)
            node.SetAndObserveStorageNodeID(storage.GetID())
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def fileWriterFileType(self, node: Any) -> str:  # noqa: N802
        """What a node is written as."""
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"


def _save_scene(path: Path) -> bool:
    """Write the scene as qSlicerSceneWriter does; no event of the scene tells of it."""
    scene = slicer.mrmlScene
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(path.parent))
    if path.suffix != ".mrb":
        return bool(scene.Commit())
    done = bool(scene.WriteToMRB(str(path)))
    if done:  # what is in the bundle alone must not count as saved where it lies
        scene.SetStorableNodesModifiedSinceRead()
    return done


def _load_scene(properties: dict[str, Any], collection: Any, messages: Any) -> bool:
    """Add a file's nodes to the scene ("clear": put them in its place); only bundles tell which nodes are new."""
    scene, path = slicer.mrmlScene, str(Path(properties["fileName"]).absolute())
    clear = bool(properties.get("clear", False))
    if not path.endswith(".mrb"):
        scene.SetURL(path)
        return bool(scene.Connect(messages) if clear else scene.Import(messages))
    before = _nodes(scene)
    done = bool(scene.ReadFromMRB(path, clear, messages))
    for node in _nodes(scene):
        if collection is not None and not any(node is known for known in before):
            collection.AddItem(node)
    return done


def _nodes(scene: Any) -> list[Any]:
    return [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
