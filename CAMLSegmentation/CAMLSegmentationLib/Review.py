"""Looking at what is uncertain: the slices where the sub-models disagree most, and their disagreement in colour."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from . import SegmentationResult, VolumeExchange

#: Percent of disagreement from which a voxel counts and is coloured.
LEAST = 20
#: As many slices are worth a visit; stops closer than this (mm) show the same place.
_MOST_STOPS = 20
_LEAST_DISTANCE = 4.0
_COLOR_NAME = "CAML disagreement"


@dataclass(frozen=True)
class Stop:
    """One slice to look at: ``slice`` counts from the scan's first, ``position`` is in world RAS (mm).

    ``score``: the disagreement on it in mm2.
    """

    slice: int
    position: tuple[float, float, float]
    score: float


def findStops(mapNode: Any, volumeNode: Any = None) -> list[Stop]:
    """Return the slices of a disagreement map (percent) that deserve a look, the worst first.

    Slices are those of the volume's third axis, along which scans are acquired. volumeNode: the scan, of which a map
    may hold a region alone; None: the map holds all slices. Only slices that are worse than their
    neighbours count, so that the next stop shows another place.
    """
    import numpy

    voxels = VolumeExchange.voxelsOf(mapNode)
    spacing = mapNode.GetSpacing()
    scores = numpy.array([plane[plane >= LEAST].sum(dtype=float) for plane in voxels]) / 100 * spacing[0] * spacing[1]
    distance = max(1, round(_LEAST_DISTANCE / spacing[2]))
    first = _firstSlice(mapNode, volumeNode) if volumeNode is not None else 0
    stops: list[Stop] = []
    for index in numpy.argsort(-scores, kind="stable"):
        if scores[index] <= 0 or len(stops) == _MOST_STOPS:
            break
        if all(abs(first + int(index) - stop.slice) >= distance for stop in stops):
            place = _center(mapNode, voxels[index], int(index))
            stops.append(Stop(first + int(index), place, float(scores[index])))
    return stops


def _firstSlice(mapNode: Any, volumeNode: Any) -> int:
    """The slice of the scan on which the first one of a map of its region lies."""
    fromWorld = vtk.vtkMatrix4x4()
    fromWorld.DeepCopy(VolumeExchange.worldMatrix(volumeNode))
    fromWorld.Invert()
    corner = VolumeExchange.worldMatrix(mapNode).MultiplyPoint((0.0, 0.0, 0.0, 1.0))
    return round(fromWorld.MultiplyPoint(corner)[2])


def jumpTo(stop: Stop) -> None:
    """Move all slice views to a stop, its place in their middle."""
    slicer.modules.markups.logic().JumpSlicesToLocation(*stop.position, True)


def prepareMap(mapNode: Any, legend: bool = True) -> None:
    """Give a disagreement map its colours (nothing below LEAST) and its legend."""
    mapNode.CreateDefaultDisplayNodes()
    display = mapNode.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colorNode().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, 100)
    display.SetThreshold(LEAST, 100)
    display.ApplyThresholdOn()
    display.InterpolateOff()
    if legend:
        legendNode = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(mapNode)
        legendNode.SetTitleText(_("Disagreement (%)"))
        legendNode.SetLabelFormat("%.0f")
        legendNode.SetNumberOfLabels(5)
        legendNode.SetVisibility(False)


def removeMap(mapNode: Any) -> None:
    """Remove a map with its colours and its legend."""
    SegmentationResult.remove(mapNode)


class Overlay:
    """Shows one map over its volume in the slice views, and gives back what was there before."""

    def __init__(self) -> None:
        self._mapId = ""
        self._before: dict[str, tuple[str | None, float]] = {}

    def show(self, mapNode: Any, over: Collection[str | None] | None = None, opacity: float = 0.6) -> None:
        """Show a map with its legend, in place of one that is shown.

        over: ids of the volumes that it belongs to; views that show others do without. None: all views.
        """
        if self._mapId != mapNode.GetID():
            self.hide()
        self._mapId = mapNode.GetID()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if over is not None and composite.GetBackgroundVolumeID() not in over:
                self._uncover(composite)
            elif composite.GetID() not in self._before:
                self._cover(composite, opacity)
        self._setLegend(bool(self._before))

    def hide(self) -> None:
        """Hide the map; views that have shown something else since are left alone."""
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            self._uncover(composite)
        self._setLegend(False)
        self._mapId, self._before = "", {}

    def _cover(self, composite: Any, opacity: float) -> None:
        before, shown = composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()
        # A scene that was saved with a map on view brings it along; given back, it could not be switched off.
        self._before[composite.GetID()] = (None, 0.0) if _isMap(before) else (before, shown)
        composite.SetForegroundVolumeID(self._mapId)
        composite.SetForegroundOpacity(opacity)

    def _uncover(self, composite: Any) -> None:
        before = self._before.pop(composite.GetID(), None)
        if before is not None and composite.GetForegroundVolumeID() in (self._mapId, None):
            composite.SetForegroundVolumeID(before[0])
            composite.SetForegroundOpacity(before[1])

    def _setLegend(self, shown: bool) -> None:
        mapNode = slicer.mrmlScene.GetNodeByID(self._mapId) if self._mapId else None
        legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(mapNode) if mapNode is not None else None
        if legend is not None:
            legend.SetVisibility(shown)


def isOnView(mapNode: Any) -> bool:
    """Whether a slice view has a map in its foreground, whoever put it there."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return any(composite.GetForegroundVolumeID() == mapNode.GetID() for composite in composites)


def _isMap(volumeId: str | None) -> bool:
    node = slicer.mrmlScene.GetNodeByID(volumeId) if volumeId else None
    return node is not None and node.GetAttribute(SegmentationResult.MAP) == "disagreement"


def _center(mapNode: Any, plane: Any, index: int) -> tuple[float, float, float]:
    """World position of the voxel that is worst on a slice, within the largest patch of disagreement around it."""
    import numpy

    weights = numpy.where(plane >= LEAST, plane, 0).astype(float)
    # The middle of several patches may lie where nothing is: take the voxel whose surroundings are worst.
    around = sum(numpy.roll(numpy.roll(weights, dy, 0), dx, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    row, column = numpy.unravel_index(int(around.argmax()), plane.shape)
    x, y, z = VolumeExchange.shownPlaces(mapNode, [(float(column), float(row), float(index))])[0]
    return x, y, z


def _colorNode() -> Any:
    """The yellow-to-red table of all disagreement maps; made once a scene."""
    node = slicer.util.getFirstNodeByClassByName("vtkMRMLColorTableNode", _COLOR_NAME)
    if node is not None:
        return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToUser()
    node.SetName(_COLOR_NAME)
    node.SetAttribute("Category", "CAML")
    node.SetNumberOfColors(101)
    for percent in range(101):
        share = percent / 100
        node.SetColor(percent, f"{percent} %", 1.0, 1.0 - 0.85 * share, 0.3 * (1.0 - share), 1.0)
    return slicer.mrmlScene.AddNode(node)
