"""The segmentations of a volume sequence, frame by frame, as a sequence that plays beside it."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from caml_core.errors import DataError
from caml_core.model_file import ModelCard

from . import SegmentationResult


class SequenceResult:
    """Collects one segmentation a frame of ``sequenceNode`` and shows them with its browser."""

    def __init__(self, sequenceNode: Any) -> None:
        self._sequence = sequenceNode
        self.title = sequenceNode.GetName()
        self.node: Any = None

    def volume(self, index: int) -> Any:
        """Return the volume node of a frame; raise DataError where it is gone or none."""
        if slicer.mrmlScene.GetNodeByID(self._sequence.GetID() or "") is not self._sequence:
            raise DataError(_("{sequence} was removed from the scene.").format(sequence=self.title))
        node = self._sequence.GetNthDataNode(index) if index < self._sequence.GetNumberOfDataNodes() else None
        if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
            raise DataError(
                _("{sequence} has no volume at frame {number}.").format(sequence=self.title, number=index + 1)
            )
        return node

    def add(self, index: int, labels: Any, card: ModelCard) -> Any:
        """Put a frame's label map into the sequence; return the segmentation node that shows the current frame."""
        volumeNode = self.volume(index)
        name = SegmentationResult.resultName(self.title, card.info.name)
        segmentationNode = slicer.vtkMRMLSegmentationNode()
        segmentationNode.SetName(name)
        SegmentationResult.fillResult(segmentationNode, labels, card.spec.segments, card.info.name, card.sha256)
        if self.node is None:
            self.node = self._create(name)
        value = self._sequence.GetNthIndexValue(index)
        self.node.SetDataNodeAtValue(segmentationNode, value)
        return self._show(volumeNode)

    def _create(self, name: str) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", slicer.mrmlScene.GenerateUniqueName(name))
        node.SetIndexName(self._sequence.GetIndexName())
        node.SetIndexUnit(self._sequence.GetIndexUnit())
        node.SetIndexType(self._sequence.GetIndexType())
        return node

    def _show(self, volumeNode: Any) -> Any:
        browser = self._browser()
        if not browser.IsSynchronizedSequenceNode(self.node, True):
            browser.AddSynchronizedSequenceNode(self.node)
            # A frame that is not done yet shows nothing, and what a user edits on a frame belongs to the frame. In this
            # order: a browser that saves changes would give the frame on view a copy of another one's segmentation.
            browser.SetMissingItemMode(self.node, slicer.vtkMRMLSequenceBrowserNode.MissingItemSetToDefault)
            browser.SetSaveChanges(self.node, True)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        proxy = browser.GetProxyNode(self.node)
        shown = browser.GetProxyNode(self._sequence)
        if proxy is not None:
            if proxy.GetDisplayNode() is None:
                proxy.CreateDefaultDisplayNodes()
            if shown is not None:
                SegmentationResult.attach(proxy, shown)
                SegmentationResult.placeBeside(proxy, shown)
        return proxy

    def _browser(self) -> Any:
        for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
            if browser.IsSynchronizedSequenceNode(self._sequence, True):
                return browser
        browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", self.title)
        browser.AddSynchronizedSequenceNode(self._sequence)
        return browser
