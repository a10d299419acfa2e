"""The panel's part "Result and review": figures, editing, 3D, and a walk through what is uncertain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import Colors, ResultTable, Review, SegmentationResult, VolumeExchange

_HEADERS = (_("Segment"), _("mL"), _("mm2"), _("Parts"), _("Agreement"), _("Remark"))


class ResultSection:
    """Shows one result of the scene."""

    def __init__(self, ui: Any, onChange: Any, isEntered: Callable[[], bool] = lambda: True) -> None:
        self._ui, self._onChange, self._isEntered = ui, onChange, isEntered
        self._parameterNode: Any = None
        self._shownKey: Any = None
        self._stops: list[Review.Stop] = []
        self._stop = -1
        self._arriving = False
        self._overlay = Review.Overlay()
        ui.resultSelector.addAttribute("vtkMRMLSegmentationNode", SegmentationResult.MODEL)
        ui.measuresTableWidget.columnCount = len(_HEADERS)
        ui.measuresTableWidget.setHorizontalHeaderLabels(list(_HEADERS))
        ui.measuresTableWidget.verticalHeader().hide()
        ui.measuresTableWidget.horizontalHeader().setStretchLastSection(True)
        ui.editButton.connect("clicked(bool)", self._onEdit)
        ui.show3DButton.connect("clicked(bool)", self._onShow3D)
        ui.nextStopButton.connect("clicked(bool)", lambda checked: self._go(1))
        ui.previousStopButton.connect("clicked(bool)", lambda checked: self._go(-1))
        ui.overlayCheckBox.connect("toggled(bool)", self._onOverlay)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show the result that a parameter node names; None detaches. The same one again costs nothing."""
        if parameterNode is not self._parameterNode:
            self._shownKey = None  # another scene has other nodes of these ids
        self._parameterNode = parameterNode
        if parameterNode is None:
            self._ui.overlayCheckBox.checked = False
        self._refreshUnasked()

    def show(self, node: Any) -> None:
        """Choose a result that a run brought, and unfold; views that show another volume do not jump."""
        if self._parameterNode is not None and node is not None:
            self._arriving = True  # its panel hears of the choice at once, too
            try:
                self._parameterNode.result = node
            finally:
                self._arriving = False
            self._ui.resultCollapsibleButton.collapsed = False
            self._refreshUnasked()

    def enter(self) -> None:
        """The user is here again: read what is on view by now, and show the overlay of a result that came meanwhile."""
        node = self._node()
        self._readDisplay(node)
        self._readOverlay(_mapOf(node))
        self._showOverlay()

    def refresh(self) -> None:
        """Bring the widgets in line with the chosen result; looks at its voxels only where something has changed."""
        node = self._node()
        key = _keyOf(node)
        if key == self._shownKey:
            return
        chosen = self._shownKey is not None and self._shownKey[0] != key[0] and not self._arriving
        self._shownKey = key
        mapNode, table = _mapOf(node), SegmentationResult.belonging(node, SegmentationResult.TABLE)
        rows = ResultTable.rowsOf(table) if table is not None else []
        self._fillTable(rows)
        self._showState(node, bool(rows))
        self._ui.editButton.enabled = self._ui.show3DButton.enabled = node is not None
        self._readDisplay(node)
        source = SegmentationResult.sourceOf(node) if node is not None else None
        self._stops, self._stop = (Review.findStops(mapNode, source) if mapNode is not None else []), -1
        self._ui.overlayCheckBox.enabled = mapNode is not None
        self._ui.overlayCheckBox.toolTip = (
            _("Colour where the model's two networks disagree.")
            if mapNode is not None
            else _("There is no disagreement map: tick Disagreement map in Settings and segment again.")
        )
        if mapNode is None:
            self._ui.overlayCheckBox.checked = False
        self._readOverlay(mapNode)
        self._showOverlay(bring=chosen)
        self._showStop()

    def _refreshUnasked(self) -> None:
        """Refresh where the result is not the user's choice of this moment: views keep what they show."""
        self._arriving = True
        try:
            self.refresh()
        finally:
            self._arriving = False

    def _node(self) -> Any:
        node = self._parameterNode.result if self._parameterNode is not None else None
        return node if node is not None and node.GetAttribute(SegmentationResult.MODEL) else None

    def _fillTable(self, rows: list[tuple[str, ...]]) -> None:
        widget = self._ui.measuresTableWidget
        widget.setRowCount(len(rows))
        flagged = []
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                if texts[-1]:
                    item.setForeground(qt.QBrush(qt.QColor(Colors.wordColor("bad"))))
                widget.setItem(row, column, item)
            if texts[-1]:
                flagged.append(f"{texts[0]}: {texts[-1]}")
        widget.resizeColumnsToContents()
        self._ui.resultNoteLabel.text = _("Look at {segments}.").format(segments="; ".join(flagged)) if flagged else ""
        self._ui.resultNoteLabel.setVisible(bool(flagged))

    def _showState(self, node: Any, hasFigures: bool) -> None:
        """Say of figures that are no longer those of the segmentation what they are, and why a copy has none."""
        text = ""
        if node is not None and SegmentationResult.isCopy(node):
            text = _(
                "A copy of a result: figures and disagreement stay with the original, and runs leave the copy as it is."
            )
        elif hasFigures and SegmentationResult.isEdited(node):
            text = _(
                "Edited since the model made it: the figures are those of the model's result, not of your edits. For "
                "those use the module Segment Statistics."
            )
        self._ui.editedLabel.text = text
        self._ui.editedLabel.setVisible(bool(text))

    def _onEdit(self, checked: bool = False) -> None:
        openInSegmentEditor(self._node())

    def _onShow3D(self, checked: bool) -> None:
        node = self._node()
        if node is not None:
            SegmentationResult.setShown3D(node, checked)
            if checked and slicer.app.layoutManager() is not None:
                slicer.util.resetThreeDViews()

    def _readDisplay(self, node: Any) -> None:
        display = node.GetDisplayNode() if node is not None else None
        self._ui.show3DButton.checked = display is not None and bool(
            display.GetVisibility3D() and node.GetSegmentation().ContainsRepresentation("Closed surface")
        )

    def _readOverlay(self, mapNode: Any) -> None:
        """Take up a map that a scene was saved with, so that it can be switched off; nobody asked for other views."""
        if mapNode is not None and Review.isOnView(mapNode):
            blocked = self._ui.overlayCheckBox.blockSignals(True)
            self._ui.overlayCheckBox.checked = True
            self._ui.overlayCheckBox.blockSignals(blocked)

    def _onOverlay(self, checked: bool) -> None:
        self._showOverlay(bring=True)

    def _showOverlay(self, bring: bool = False) -> None:
        """Show the map of the chosen result over its own volume where that is wanted, and never another one's.

        In another module the views are that one's: nothing new is shown in them. bring: the user asked for it, and
        views that show another volume change to that of the result.
        """
        node = self._node()
        mapNode = _mapOf(node)
        if mapNode is None or not self._ui.overlayCheckBox.checked:
            self._overlay.hide()
        elif self._isEntered():
            if bring:
                self._bring(node)
            self._overlay.show(mapNode, self._volumesOf(node) or (None,))

    def _bring(self, node: Any) -> None:
        """Bring a result and its volume into the views that show another volume."""
        source, alike = SegmentationResult.sourceOf(node), self._volumesOf(node)
        if source is not None and self._isEntered() and not SegmentationResult.isShownAlone(alike):
            SegmentationResult.show(node, source, alike)

    def _volumesOf(self, node: Any) -> list[str]:
        """The ids of the volumes that a result belongs on: its source, and further channels of the same case."""
        source = SegmentationResult.sourceOf(node)
        chosen = self._parameterNode
        volumes = [source] if source is not None else []
        if source is not None and chosen.inputKind == "one" and chosen.inputVolume is source:
            volumes += [channel for channel in chosen.channelVolumes if channel is not None]
        return [volume.GetID() for volume in volumes]

    def _go(self, step: int) -> None:
        if not self._stops:
            return
        self._stop = step - 1 if self._stop < 0 and step > 0 else self._stop + step
        self._stop = min(max(self._stop, 0), len(self._stops) - 1)
        self._bring(self._node())
        self._showOverlay()
        Review.jumpTo(self._stops[self._stop])
        self._showStop()

    def _showStop(self) -> None:
        count, ui = len(self._stops), self._ui
        ui.nextStopButton.enabled = self._stop < count - 1
        ui.previousStopButton.enabled = self._stop > 0
        if not count:
            mapNode = ui.overlayCheckBox.enabled
            text = _("The sub-models agree everywhere.") if mapNode else ""
        elif self._stop < 0:
            text = _("{count} uncertain slices to look at.").format(count=count)
        else:
            stop = self._stops[self._stop]
            text = _("Slice {slice}: number {rank} of {count}, {area} mm2 of disagreement.").format(
                slice=stop.slice, rank=self._stop + 1, count=count, area=f"{stop.score:.0f}"
            )
        ui.stopLabel.text = text


def _mapOf(node: Any) -> Any:
    """The disagreement map of a result; None without one, and where a scene was loaded whose file of it is missing."""
    mapNode = SegmentationResult.belonging(node, SegmentationResult.DISAGREEMENT)
    return None if mapNode is None or VolumeExchange.checkVolume(mapNode) else mapNode


def _keyOf(node: Any) -> tuple[Any, ...]:
    """The id of a result, and what differs once there may be something else to show of it; looks at no voxel."""
    if node is None:
        return (None,)
    belonging = (SegmentationResult.belonging(node, SegmentationResult.TABLE), _mapOf(node))
    times = [(n.GetID(), n.GetMTime()) if n is not None else None for n in belonging]
    # A transform above a volume moves it, and what is uncertain with it, without a word.
    places = [_placeOf(n) if n is not None else None for n in (_mapOf(node), SegmentationResult.sourceOf(node))]
    return (node.GetID(), SegmentationResult.changeTimes(node), *times, *places)


def _placeOf(volumeNode: Any) -> tuple[float, ...]:
    matrix = VolumeExchange.worldMatrix(volumeNode)
    return tuple(matrix.GetElement(row, column) for row in range(3) for column in range(4))


def openInSegmentEditor(node: Any) -> None:
    """Open a result in Slicer's Segment Editor, with the volume it was made from."""
    source = SegmentationResult.sourceOf(node)
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(node)
    if source is not None:
        editor.setSourceVolumeNode(source)
