"""Segmentation nodes made by a model: created, found again, updated - and never where a hand has edited them."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Collection, Sequence
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.config import Segment

from . import VolumeExchange
from .Frames import shownFrame

PREFIX = "CAMLSegmentation."
MODEL, MODEL_HASH, STATE = PREFIX + "Model", PREFIX + "ModelHash", PREFIX + "State"
#: What the model's values mean, as JSON: (label value, segment name) of each.
SEGMENTS = PREFIX + "Segments"
#: The index value of the frame that was segmented, of a volume that shows frames of a sequence.
FRAME = PREFIX + "Frame"
#: Attribute of the volume nodes that are maps of a result and no scans.
MAP = PREFIX + "Map"
#: Role of the node references from a result to what belongs to it, and of that from its table back to it.
TABLE, DISAGREEMENT, PROBABILITY = PREFIX + "table", PREFIX + "disagreement", PREFIX + "probability"
RESULT = PREFIX + "result"
#: The id that a result had as it was made: a copy in the scene takes this over, too.
_OWN_ID = PREFIX + "Id"
_LABELMAP = "Binary labelmap"
#: The ids of a model's segments - and of those that a user adds in the Segment Editor.
_OF_A_MODEL = re.compile(r"Segment_\d+")
#: Id of a segmentation -> the state in which it was seen last, and its fingerprint then.
_fingerprints: dict[str, tuple[tuple[Any, ...], str]] = {}


def createResult(volumeNode: Any, name: str) -> Any:
    """Return a new segmentation node on the volume's grid, under its transform, in its study."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name))
    node.CreateDefaultDisplayNodes()
    attach(node, volumeNode)
    placeBeside(node, volumeNode)
    return node


def attach(node: Any, volumeNode: Any) -> None:
    """Tie a segmentation to the grid and the transform of the volume it was made from."""
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())


def placeBeside(node: Any, volumeNode: Any) -> None:
    """Put a node into the subject-hierarchy study (or folder) in which the volume is."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    invalid = slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID()
    beside, item = hierarchy.GetItemByDataNode(volumeNode), hierarchy.GetItemByDataNode(node)
    if beside == invalid:
        return
    if item == invalid:  # without a window nobody makes items for new nodes
        hierarchy.CreateItem(hierarchy.GetItemParent(beside), node)
    else:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(beside))


def remove(node: Any) -> None:
    """Remove a node with what displays it, which the scene would keep, and save, otherwise."""
    displays = [node.GetNthDisplayNode(i) for i in range(node.GetNumberOfDisplayNodes())]
    for gone in [display for display in displays if display is not None] + [node]:
        slicer.mrmlScene.RemoveNode(gone)


def fillResult(node: Any, labels: Any, segments: Sequence[Segment], modelName: str, modelHash: str) -> None:
    """Put the segments of ``labels`` (vtkOrientedImageData, one value a segment) into ``node``.

    Segments of the same model are replaced, with the names, colours and display that the user gave them; segments that
    the user added stay. What was filled in is remembered, so that later edits are noticed. ``node`` is new, or was made
    with the same segments (``findResult``): names that stay would be wrong for other ones.
    """
    segmentation = node.GetSegmentation()
    modified = node.StartModify()
    try:
        if segmentation.GetSourceRepresentationName() != _LABELMAP and segmentation.GetNumberOfSegments():
            # Changing the source drops all other representations, and with them what the user drew.
            segmentation.CreateRepresentation(_LABELMAP)
        segmentation.SetSourceRepresentationName(_LABELMAP)
        hadSurface = segmentation.ContainsRepresentation("Closed surface")
        for segment in segments:
            setSegment(segmentation, segment, labels)
        sign(node, segments, modelName, modelHash)
    finally:
        node.EndModify(modified)
    if hadSurface:
        segmentation.RemoveRepresentation("Closed surface")
        node.CreateClosedSurfaceRepresentation()


def sign(node: Any, segments: Sequence[Segment], modelName: str, modelHash: str) -> None:
    """Note which model made a result, what its values mean, and the present state as the model's own work."""
    node.SetAttribute(MODEL, modelName)
    node.SetAttribute(MODEL_HASH, modelHash)
    node.SetAttribute(SEGMENTS, _listed(segments))
    remember(node)


def claim(node: Any, table: Any = None) -> None:
    """Note that a node is the result itself, and a table of measures its own; copies of it are the user's."""
    node.SetAttribute(_OWN_ID, node.GetID())
    if table is not None:
        node.SetNodeReferenceID(TABLE, table.GetID())
        table.SetNodeReferenceID(RESULT, node.GetID())


def isCopy(node: Any) -> bool:
    """Whether a node was copied from a result, with its notes and maybe its references: the user's, and no result."""
    table = node.GetNodeReference(TABLE)
    owner = table.GetNodeReference(RESULT) if table is not None else None
    if owner is not None:  # goes along where a scene is added to another one, and nodes get other ids
        return owner is not node
    if (made := node.GetAttribute(_OWN_ID)) is not None:
        return bool(made != node.GetID())
    if table is None:
        return False
    # A scene of an earlier version, in which the original comes before its copies.
    alike = (n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if n.GetNodeReference(TABLE) is table)
    return next(alike, node) is not node


def belonging(node: Any, role: str) -> Any:
    """Return the table or a map of a result, None where there is none; those of a copy are the original's."""
    return None if node is None or isCopy(node) else node.GetNodeReference(role)


def remember(node: Any) -> None:
    """Note the present state of all segments as the model's own work."""
    node.SetAttribute(STATE, fingerprint(node))


def isEdited(node: Any) -> bool:
    """Whether segments changed since the model made them: voxels, or which segments there are."""
    return node.GetAttribute(STATE) != fingerprint(node)


def changeTimes(node: Any) -> tuple[int, ...]:
    """Return what differs once voxels or segments may have changed; looks at no voxel, unlike ``isEdited``."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    images = [segment.GetRepresentation(_LABELMAP) for segment in segments]
    return tuple(image.GetMTime() if image is not None else 0 for image in images)


def findResult(
    volumeNode: Any,
    modelName: str,
    segments: Sequence[Segment] | None = None,
    modelHash: str = "",
    frame: str | None = None,
) -> Any:
    """Return the newest segmentation node that the model made of the volume, None where there is none.

    segments: those of the model, which the node must have been made with; None: whatever it was made with. Two models
    may have one name, and a value of one means something else in the other. Copies count as the user's own work.
    frame: of a volume that shows frames of a sequence, the index value of the one that is meant; None: that on view.
    What a browser of sequences shows in a node is the sequence's, and no result of a volume.
    """
    if frame is None:
        shown = shownFrame(volumeNode)
        frame = shown.value if shown is not None else ""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    found = None
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        ours = node.GetAttribute(MODEL) == modelName and node.GetNodeReferenceID(role) == volumeNode.GetID()
        ours = ours and (node.GetAttribute(FRAME) or "") == frame and shownFrame(node) is None
        if ours and not isCopy(node) and (segments is None or _isMadeWith(node, segments, modelHash)):
            found = node
    return found


def sourceOf(node: Any) -> Any:
    """Return the volume that a result was made from, None where it is gone."""
    return node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def resultName(volumeName: str, modelName: str) -> str:
    """Return the name of a result."""
    return _("{volume} - {model}").format(volume=volumeName, model=modelName)


def show(node: Any, volumeNode: Any, alike: Collection[str] = ()) -> None:
    """Show a result in the slice views, on its volume; ``alike``: ids of volumes that may stay in its place."""
    node.GetDisplayNode().SetVisibility(True)
    # A volume that was not shown before may lie or reach elsewhere; one that is shown must not jump.
    for logic in _viewsOfOthers({volumeNode.GetID(), *alike}):
        logic.GetSliceCompositeNode().SetBackgroundVolumeID(volumeNode.GetID())
        logic.FitSliceToBackground()


def isShownAlone(volumeIds: Collection[str]) -> bool:
    """Whether no slice view has another volume in its background."""
    return not _viewsOfOthers(volumeIds)


def setShown3D(node: Any, shown: bool) -> None:
    """Show or hide the closed surfaces in 3D; made when first shown."""
    if shown:
        node.CreateClosedSurfaceRepresentation()
    display = node.GetDisplayNode()
    display.SetVisibility3D(shown)
    if shown:
        display.SetPreferredDisplayRepresentationName3D("Closed surface")


def fingerprint(node: Any) -> str:
    """Return a digest of which segments a node has and which voxels they take, in places of the node's own space.

    It survives saving and loading, which may cut the empty margins off a label map, and does not depend on names,
    colours or label values.
    """
    segmentation = node.GetSegmentation()
    parts = []
    for index in range(segmentation.GetNumberOfSegments()):
        identity = segmentation.GetNthSegmentID(index)
        parts.append(f"{identity}={_segmentDigest(segmentation.GetSegment(identity))}")
    return ";".join(sorted(parts))


def lastFingerprint(node: Any) -> str:
    """Return the fingerprint, made anew only where voxels or segments have changed since it was asked for last.

    For looking at many cases again and again. Scripts may write into voxels and tell nobody, so what decides whether
    something is kept or replaced asks for ``fingerprint``.
    """
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    values = [segmentation.GetSegment(name).GetLabelValue() for name in names]
    state = (*names, *values, *changeTimes(node))
    known = _fingerprints.get(node.GetID())
    if known is None or known[0] != state:  # times of change are unique in a process, ids of nodes come again
        known = _fingerprints[node.GetID()] = (state, fingerprint(node))
    return known[1]


def isEmpty(node: Any) -> bool:
    """Whether a segmentation holds nothing at all: no voxel, and no surface or contour either."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    source = segmentation.GetSourceRepresentationName()
    if source == _LABELMAP:
        return all(_segmentDigest(segment) == "empty" for segment in segments)
    shapes = [segment.GetRepresentation(source) for segment in segments]  # imported surfaces or contours
    return not any(shape is not None and shape.GetNumberOfPoints() > 0 for shape in shapes)


def segmentId(segment: Segment) -> str:
    """Return the id of a model's segment in the segmentation; the engine's .seg.nrrd files have the same."""
    return f"Segment_{segment.label}"


def setSegment(segmentation: Any, segment: Segment, labels: Any) -> None:
    """Add a segment to a segmentation, or replace its voxels; ``labels`` holds them under the segment's value."""
    identity = segmentId(segment)
    existing = segmentation.GetSegment(identity)
    if existing is None:
        existing = slicer.vtkSegment()
        existing.SetName(segment.name)
        existing.SetColor(*segment.color)
        existing.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), segment.terminology)
        existing.SetLabelValue(segment.label)
        existing.AddRepresentation(_LABELMAP, labels)
        segmentation.AddSegment(existing, identity)
        return
    existing.SetLabelValue(segment.label)
    existing.RemoveRepresentation(_LABELMAP)
    existing.AddRepresentation(_LABELMAP, labels)


def _viewsOfOthers(volumeIds: Collection[str]) -> list[Any]:
    """The logics of the slice views whose background is none of the volumes; without a window there are no views."""
    manager = slicer.app.layoutManager()
    logics = manager.mrmlSliceLogics() if manager is not None else None
    views = [logics.GetItemAsObject(i) for i in range(logics.GetNumberOfItems())] if logics is not None else []
    return [view for view in views if view.GetSliceCompositeNode().GetBackgroundVolumeID() not in volumeIds]


def _listed(segments: Sequence[Segment]) -> str:
    return json.dumps(sorted([segment.label, segment.name] for segment in segments))


def _isMadeWith(node: Any, segments: Sequence[Segment], modelHash: str) -> bool:
    """Whether a result's values mean the same as a model's, whatever the user calls the segments by now."""
    noted = node.GetAttribute(SEGMENTS)
    if noted is not None:
        return bool(noted == _listed(segments))
    # A scene of an earlier version: the very same model, or else the names that the segments have today.
    if modelHash and node.GetAttribute(MODEL_HASH) == modelHash:
        return True
    segmentation = node.GetSegmentation()
    found = [segmentation.GetNthSegmentID(index) for index in range(segmentation.GetNumberOfSegments())]
    names = {name: segmentation.GetSegment(name).GetName() for name in found if _OF_A_MODEL.fullmatch(name)}
    return names == {segmentId(segment): segment.name for segment in segments}


def _segmentDigest(segment: Any) -> str:
    import numpy

    image = segment.GetRepresentation(_LABELMAP)
    if image is None or image.GetPointData().GetScalars() is None:
        return "empty"
    extent, filled = image.GetExtent(), [0] * 6
    if not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, filled):
        return "empty"
    start = [filled[2 * axis] - extent[2 * axis] for axis in range(3)]
    stop = [filled[2 * axis + 1] - extent[2 * axis] + 1 for axis in range(3)]
    voxels = VolumeExchange.labelsOf(image)[start[2] : stop[2], start[1] : stop[1], start[0] : stop[0]]
    mask = voxels == segment.GetLabelValue()
    ranges = []
    for axis in range(3):
        taken = numpy.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if taken.size == 0:
            return "empty"
        ranges.append((int(taken[0]), int(taken[-1]) + 1))
    box = mask[tuple(slice(first, last) for first, last in ranges)]
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    corner = matrix.MultiplyPoint((*(filled[2 * axis] + ranges[2 - axis][0] for axis in range(3)), 1.0))
    digest = hashlib.blake2b(numpy.packbits(box).tobytes(), digest_size=12)
    # A hundredth of a millimetre: files keep fewer digits than memory. Adding 0.0 makes -0.0 and 0.0 one.
    digest.update(struct.pack("<3q", *(round(100 * c) for c in corner[:3])))
    digest.update(struct.pack("<3q", *box.shape))
    return digest.hexdigest()
