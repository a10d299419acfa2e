"""The panel's part "Volume": what is segmented, and whether it fits the model."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.model_file import ModelCard

from . import Region, VolumeExchange
from .Channels import FurtherChannels, rowTexts
from .Combo import choose, chosen, fill
from .Job import caseId
from .Logic import folderWorks, modelWarnings, sequenceWorks, volumeWorks
from .Parameters import settingsOf
from .SceneVolumes import isScan, sceneVolumes
from .Work import VolumeWork, Work

#: Rows of the form that belong to each kind of input.
_ROWS = {
    "one": ("volume", "region"),
    "several": ("volumes",),
    "all": (),
    "folder": ("folder", "outputFolder", "loadResults"),
    "sequence": ("sequence",),
}
_FIELDS = {
    "volume": ("volumeLabel", "volumeSelector"),
    "volumes": ("volumesLabel", "volumesSelector"),
    "sequence": ("sequenceLabel", "sequenceSelector"),
    "folder": ("folderLabel", "folderPathLineEdit"),
    "outputFolder": ("outputFolderLabel", "outputFolderPathLineEdit"),
    "loadResults": ("loadResultsLabel", "loadResultsCheckBox"),
    "region": ("regionLabel", "regionSelector"),
}

#: Warnings that are shown at a time.
_WARNINGS = 4
#: Voxels whose range is looked for at a time; that takes a second or so, and is remembered by VTK.
_LOOKED_AT = 2**28


class InputSection:
    """Reads and writes the choice of what is segmented; calls ``onChange`` when it changed.

    mayShow: whether the views may change to a volume that is loaded with its result.
    """

    def __init__(self, ui: Any, onChange: Any, mayShow: Callable[[], bool] = lambda: True) -> None:
        self._ui, self._onChange, self._mayShow = ui, onChange, mayShow
        self._parameterNode: Any = None
        #: What the last look at a folder found that is no case.
        self.notes: list[str] = []
        self._card: ModelCard | None = None
        self._channelLabels: list[Any] = []
        self._channelSelectors: list[Any] = []
        self._further = FurtherChannels()
        self._updating = False
        self._fitKey: Any = None
        #: The ids of volumes whose voxels were looked at, and when they were changed.
        self._known: set[tuple[str, int]] = set()
        #: The region that is watched, with the tags of the observers.
        self._watched: tuple[Any, tuple[int, ...]] = (None, ())
        #: The id of a region that was made here and still waits for a volume to be put around.
        self._made = ""
        self._regionFault = ""
        self._derivedOutput = ""
        fill(
            ui.inputKindComboBox,
            (
                (_("One volume"), "one"),
                (_("Several volumes"), "several"),
                (_("All volumes of the scene"), "all"),
                (_("Folder of files"), "folder"),
                (_("Volume sequence, frame by frame"), "sequence"),
            ),
        )
        ui.inputKindComboBox.connect("currentIndexChanged(int)", self._onKind)
        ui.volumesSelector.connect("checkedNodesChanged()", self._onVolumes)
        for edit, slot in (
            (ui.folderPathLineEdit, self._onFolder),
            (ui.outputFolderPathLineEdit, self._onOutputFolder),
        ):
            _followPath(edit, slot)
        ui.regionSelector.connect("nodeAddedByUser(vtkMRMLNode*)", self._onRegionMade)

    # State

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show what a parameter node says; None detaches."""
        if parameterNode is not self._parameterNode:
            self._further.forget()
        self._parameterNode = parameterNode
        self._fitKey, self._made, self._known = None, "", set()  # another scene has other nodes of this id
        self._watchRegion()
        if parameterNode is not None:
            self.refresh()

    def setCard(self, card: ModelCard | None) -> None:
        """Offer as many channels as the model has."""
        self._card = card
        count = len(card.spec.channels) if card is not None else 1
        if count - 1 != len(self._channelSelectors):
            self._rebuildChannels(count - 1)
        for index, selector in enumerate(self._channelSelectors):
            self._channelLabels[index].text, selector.toolTip = rowTexts(card.spec.channels, index + 1)
        self.refresh()

    def refresh(self) -> None:
        """Bring the widgets in line with the parameter node and the scene."""
        node = self._parameterNode
        if node is None or self._updating:
            return
        self._updating = True
        try:
            choose(self._ui.inputKindComboBox, node.inputKind)
            self._showRows(node.inputKind)
            self._showChecked(node.inputVolumes)
            for path, edit in (
                (node.inputFolder, self._ui.folderPathLineEdit),
                (node.outputFolder, self._ui.outputFolderPathLineEdit),
            ):
                if edit.currentPath != path:
                    edit.currentPath = path
            self._further.follow(node)
            for index, selector in enumerate(self._channelSelectors):
                known = list(node.channelVolumes)
                if index < len(known) and known[index] is not selector.currentNode():
                    selector.setCurrentNode(known[index])
        finally:
            self._updating = False
        self._fitRegion()
        self._watchRegion()
        self._regionFault = self._regionProblem()
        self._showFit()

    # What is to be done

    def volumes(self) -> list[Any]:
        """Return the chosen volumes of the scene, the first channel of each."""
        node = self._parameterNode
        if node is None:
            return []
        if node.inputKind == "one":
            return [volume for volume in [node.inputVolume] if _isThere(volume)]
        if node.inputKind == "several":
            return [volume for volume in node.inputVolumes if _isThere(volume) and isScan(volume)]
        return sceneVolumes() if node.inputKind == "all" else []

    def outputs(self) -> Path | None:
        """Return the folder for results of a folder, None for the scene."""
        node = self._parameterNode
        return Path(node.outputFolder) if node is not None and node.inputKind == "folder" else None

    def problem(self) -> str:
        """Return what is missing, as the tooltip of Apply; empty where nothing is."""
        node = self._parameterNode
        if node is None:
            return _("Choose a volume.")
        if node.inputKind == "folder":
            return self._folderProblem(node)
        if node.inputKind == "sequence":
            if not node.inputSequence:
                return _("Choose a volume sequence.")
            return self._needsOneChannel()
        volumes = self.volumes()
        if not volumes:
            return _("Load a volume first.") if not sceneVolumes() else _("Choose a volume.")
        if not isScan(volumes[0]):
            return _("{volume} is a map of a result and no scan; choose another volume.").format(
                volume=volumes[0].GetName()
            )
        return self._channelProblem() or self._regionProblem() if node.inputKind == "one" else self._needsOneChannel()

    def works(self, overwriteEdits: bool) -> list[Work]:
        """Return the pieces of the run; raise CamlError where the input cannot be used.

        ``notes`` then has sentences on what a folder holds and is no case.
        """
        node, self.notes = self._parameterNode, []
        if node.inputKind == "folder":
            scans, outputs, existing = Path(node.inputFolder), Path(node.outputFolder), settingsOf(node).existing
            load, card = node.loadResults, self._card
            return folderWorks(scans, outputs, load, existing, overwriteEdits, self.notes, self._mayShow, card)
        if node.inputKind == "sequence":
            return sequenceWorks(node.inputSequence)
        if node.inputKind != "one":
            return volumeWorks(self.volumes(), overwriteEdits)
        channels = self._channels()
        identity = caseId(node.inputVolume.GetName(), ())
        return [VolumeWork(identity, [node.inputVolume, *channels], node.region, overwriteEdits)]

    def _channels(self) -> list[Any]:
        """The volumes of the second and further channels, None where none is chosen."""
        return [selector.currentNode() for selector in self._channelSelectors]

    # Widgets

    def _onKind(self, index: int) -> None:
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.inputKind = chosen(self._ui.inputKindComboBox)
            self._onChange()

    def _onVolumes(self) -> None:
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.inputVolumes = [n for n in self._ui.volumesSelector.checkedNodes() if isScan(n)]
            self._onChange()

    def _onFolder(self, path: str) -> None:
        if self._updating or self._parameterNode is None:
            return
        self._parameterNode.inputFolder = path
        folder = Path(path)
        # The path arrives letter by letter; a folder that the user chose for the results is left alone.
        if (
            path
            and folder.name
            and os.path.isdir(folder)
            and self._parameterNode.outputFolder in ("", self._derivedOutput)
        ):
            self._derivedOutput = str(folder.with_name(folder.name + "-segmentations"))
            self._parameterNode.outputFolder = self._derivedOutput
        self._onChange()

    def _onOutputFolder(self, path: str) -> None:
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.outputFolder = path
            self._onChange()

    def _onChannel(self, index: int) -> None:
        if not self._updating and self._parameterNode is not None:
            first = self._parameterNode.inputVolume
            self._further.confirm(index, self._channelSelectors[index].currentNode(), first)
            self._parameterNode.channelVolumes = [selector.currentNode() for selector in self._channelSelectors]
            self._onChange()

    def _showRows(self, kind: str) -> None:
        shown = _ROWS.get(kind, ())
        for name, widgets in _FIELDS.items():
            for widget in widgets:
                getattr(self._ui, widget).setVisible(name in shown)
        self._ui.channelsWidget.setVisible(kind == "one" and bool(self._channelSelectors))
        self._ui.volumeLabel.text = rowTexts(self._card.spec.channels if self._card is not None else (), 0)[0]

    def _showChecked(self, nodes: Any) -> None:
        checked = [node for node in nodes if node is not None]
        for node in sceneVolumes():
            state = qt.Qt.Checked if node in checked else qt.Qt.Unchecked
            if int(self._ui.volumesSelector.checkState(node)) != int(state):
                self._ui.volumesSelector.setCheckState(node, state)

    def _rebuildChannels(self, count: int) -> None:
        layout = self._ui.channelsWidget.layout()  # an empty layout is false, and no variable of the panel
        while layout.rowCount():
            layout.removeRow(0)
        self._channelLabels, self._channelSelectors = [], []
        for index in range(count):
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
            selector.showChildNodeTypes = False
            selector.noneEnabled = True
            selector.addEnabled = selector.removeEnabled = False
            selector.setMRMLScene(slicer.mrmlScene)
            for signal in ("currentNodeChanged(vtkMRMLNode*)", "nodeActivated(vtkMRMLNode*)"):
                selector.connect(signal, lambda node, index=index: self._onChannel(index))
            label = qt.QLabel()
            layout.addRow(label, selector)
            self._channelLabels.append(label)
            self._channelSelectors.append(selector)

    # Does it fit?

    def _showFit(self) -> None:
        """Warn before, not after. Voxels are looked at once for each choice of volumes and model."""
        volumes = self.fitVolumes()
        key = [(v.GetID(), v.GetImageData().GetMTime(), v.GetMTime()) for v in volumes if v.GetImageData()]
        channels = [(node.GetID(), node.GetName()) if node is not None else "" for node in self._channels()]
        caution = self._channelCaution()
        key = (
            key,
            channels,
            caution,
            self._regionKey(volumes),
            (self._card.path, self._card.sha256) if self._card is not None else None,
        )
        if key == self._fitKey:
            return
        self._fitKey = key
        lines = [_warningHtml("", caution)] if caution else []
        text = "<br>".join([*lines, *self._fitLines(volumes)]) if self._card is not None else ""
        self._ui.fitLabel.text = text
        self._ui.fitLabel.setVisible(bool(text))

    def _fitLines(self, volumes: list[Any]) -> list[str]:
        """A few warnings, of as many volumes as have any, and how many there are besides."""
        looked = self._lookedAt(volumes)
        found: list[tuple[int, str]] = []
        for volume in looked:
            name = volume.GetName() if len(volumes) > 1 else ""
            found += [(i, _warningHtml(name, line)) for i, line in enumerate(self._warningsOf(volume))]
        found.sort(key=lambda warning: warning[0])  # the first one of each
        lines = [line for number, line in found[:_WARNINGS]]
        if len(found) > _WARNINGS:
            lines.append(_("And {count} more.").format(count=len(found) - _WARNINGS))
        if len(looked) < len(volumes):
            text = _("{count} of {all} volumes were not looked at; the run says which of them do not fit.")
            lines.append(text.format(count=len(volumes) - len(looked), all=len(volumes)))
        return lines

    def _lookedAt(self, volumes: list[Any]) -> list[Any]:
        """The volumes whose voxels are known, or are soon: the panel must not stand still for a large scene."""
        looked, left = [], _LOOKED_AT
        for volume in volumes:
            image = volume.GetImageData()
            key = (volume.GetID(), image.GetMTime())
            if key not in self._known:
                left -= image.GetNumberOfPoints()
                if left < 0 and looked:
                    continue
                self._known.add(key)
            looked.append(volume)
        return looked

    def fitVolumes(self) -> list[Any]:
        """Return the volumes that are compared with what models expect: those chosen, or the first of a sequence."""
        node = self._parameterNode
        if node is not None and node.inputKind == "sequence" and node.inputSequence:
            first = node.inputSequence.GetNthDataNode(0)
            return [first] if first is not None and first.IsA("vtkMRMLScalarVolumeNode") else []
        return [volume for volume in self.volumes() if not VolumeExchange.checkVolume(volume)]

    def _warningsOf(self, volume: Any) -> tuple[str, ...]:
        channels = [volume, *(node for node in self._channels() if node is not None)]
        if len(channels) != len(self._card.spec.channels):
            return ()  # Apply says what is missing
        try:
            return modelWarnings(channels, self._card, self._frameOf(volume))
        except CamlError as error:
            return (str(error),)

    def _region(self) -> Any:
        node = self._parameterNode
        return node.region if node is not None and node.inputKind == "one" else None

    def _regionProblem(self) -> str:
        """Why the chosen volume cannot be limited to the region; empty where it can, or is not."""
        region = self._region()
        try:
            for volume in self.fitVolumes() if region is not None else ():
                VolumeExchange.frameOf(volume, region)
        except CamlError as error:
            return str(error)
        return ""

    def _onRegionMade(self, region: Any) -> None:
        """A new region has no box, and nothing in the views that could be dragged."""
        self._made = region.GetID()
        self._onChange()

    def _fitRegion(self) -> None:
        """Put a region that was made here around the volume, as soon as one is chosen."""
        region, volumes = self._region(), self.fitVolumes()
        if region is None or region.GetID() != self._made or not volumes:
            return
        self._made = ""
        try:
            if not Region.isPlaced(region):
                Region.fit(region, volumes[0])
        except CamlError:  # it stays without a box, and Apply says so
            pass

    def _frameOf(self, volume: Any) -> VolumeExchange.Frame | None:
        """What the region leaves of a volume, None for all of it; raise DataError where they do not meet."""
        region = self._region()
        if region is None or not Region.isPlaced(region):  # one that is still to be placed is what Apply waits for
            return None
        return VolumeExchange.frameOf(volume, region)

    def _regionKey(self, volumes: list[Any]) -> Any:
        try:
            return [self._frameOf(volume) for volume in volumes] if self._region() is not None else None
        except CamlError as error:
            return str(error)

    def _watchRegion(self) -> None:
        """Follow the region while it is drawn and dragged: warning and Apply ask for it, until it is there."""
        (before, tags), region = self._watched, self._region()
        if before is region:
            return
        for tag in tags:
            before.RemoveObserver(tag)
        events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLMarkupsNode.PointModifiedEvent)
        watched = events if region is not None else ()
        self._watched = region, tuple(region.AddObserver(event, self._onRegion) for event in watched)

    def _onRegion(self, caller: Any, event: Any) -> None:
        if self._regionProblem() != self._regionFault:
            self._onChange()
        else:  # dragging tells of each pixel, and the rest of the panel does not depend on it
            self._showFit()

    def _channelProblem(self) -> str:
        chosenNodes = [self._parameterNode.inputVolume, *self._channels()]
        if any(node is None for node in chosenNodes):
            return _("Choose a volume for each of the model's {count} channels.").format(count=len(chosenNodes))
        if len({node.GetID() for node in chosenNodes}) < len(chosenNodes):
            return _("Choose a different volume for each channel.")
        return ""

    def _channelCaution(self) -> str:
        node = self._parameterNode
        return self._further.caution(node, len(self._channelSelectors)) if node and node.inputKind == "one" else ""

    def _needsOneChannel(self) -> str:
        if self._channelSelectors:
            return _("The model needs several images of each case; segment one case at a time, or a folder.")
        return ""

    def _folderProblem(self, node: Any) -> str:
        if not node.inputFolder:
            return _("Choose a folder of scans.")
        if not node.outputFolder:
            return _("Choose a folder for the results.")
        return "" if os.path.isdir(node.inputFolder) else _("The folder of scans does not exist; choose another.")


def _followPath(edit: Any, slot: Callable[[str], None]) -> None:
    """Call ``slot`` with whatever a path line shows; one that was cleared says only that its text is no path."""
    edit.connect("currentPathChanged(QString)", slot)
    edit.connect("validInputChanged(bool)", lambda valid: None if valid else slot(edit.currentPath))


def _warningHtml(name: str, sentence: str) -> str:
    """A label shows text as HTML only where it finds a tag."""
    title = _("Warning, {name}:").format(name=name) if name else _("Warning:")
    return f"<b>{html.escape(title)}</b> {html.escape(sentence)}"


def _isThere(node: Any) -> bool:
    """A node that is just being removed is still known to the parameter node."""
    return node is not None and node.GetScene() is not None
