"""The pieces that a run is made of: a volume of the scene, one frame of a sequence, or files of a folder.

Each knows how to hand its images to the worker and how to take the result in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.errors import CamlError, DataError, ResourceError
from caml_core.model_file import ModelCard

from . import ResultTable, Review, SegmentationResult, SharedGrid, VolumeExchange
from .Frames import ShownFrame, shownFrame
from .Job import FolderResults, JobFiles, Settings
from .ResultTable import Measures
from .SequenceResult import SequenceResult


class Delivery:
    """What came of one piece: nodes of the scene (None where the result stays a file), and a note to the user.

    It does not keep the nodes: a patient whose scene was closed must not stay in memory for the run's summary. Those
    that are gone are None.
    """

    def __init__(
        self, segmentation: Any = None, volume: Any = None, table: Any = None, path: Path | None = None, note: str = ""
    ) -> None:
        self._segmentation, self._volume, self._table = (_weakly(node) for node in (segmentation, volume, table))
        self.path, self.note = path, note

    @property
    def segmentation(self) -> Any:
        """The segmentation node."""
        return self._segmentation.Get()

    @property
    def volume(self) -> Any:
        """The volume node that was segmented."""
        return self._volume.Get()

    @property
    def table(self) -> Any:
        """The table node of measures."""
        return self._table.Get()


class Work(Protocol):
    """One piece of a run. ``id`` names its files, ``title`` is shown to the user."""

    id: str
    title: str
    inScene: bool

    def export(self, files: JobFiles) -> tuple[Path, ...]:
        """Return one image file a channel, written where they lie in the scene; raise CamlError."""

    def deliver(self, files: JobFiles, card: ModelCard, settings: Settings, measures: Measures) -> Delivery:
        """Take in what the worker wrote; raise CamlError."""

    def writing(self) -> None:
        """The worker begins to write what it found."""

    def keep(self, card: ModelCard, finished: bool) -> None:
        """The run ends, or goes on without the piece. finished: the worker said that it wrote it."""


class _InScene:
    """What stays in files is nothing to a piece whose result goes into the scene."""

    inScene = True

    def writing(self) -> None:
        """Nothing is to be remembered."""

    def keep(self, card: ModelCard, finished: bool) -> None:
        """The files go with the run's folder."""


class VolumeWork(_InScene):
    """A volume of the scene; a model of several channels has one volume a channel. ``roiNode`` limits the region.

    ``overwriteEdits``: update a result even where a hand has edited it. Otherwise such a result is left alone and a
    new one is added.
    """

    def __init__(self, id: str, volumeNodes: Sequence[Any], roiNode: Any = None, overwriteEdits: bool = False) -> None:  # noqa: A002
        self.id, self.volumeNodes, self.roiNode = id, tuple(volumeNodes), roiNode
        self.title = volumeNodes[0].GetName()
        self.overwriteEdits = overwriteEdits
        self._frame: VolumeExchange.Frame | None = None
        #: What was written: the frame of a sequence that the volume showed, and when its voxels had been changed.
        self._shown: ShownFrame | None = None
        self._voxelTime = 0

    def export(self, files: JobFiles) -> tuple[Path, ...]:
        """Write every channel to ``files.inputs``."""
        self._check(self.volumeNodes)
        self._shown, self._voxelTime = self._state()
        self._frame = VolumeExchange.frameOf(self.volumeNodes[0], self.roiNode)
        paths = []
        for index, node in enumerate(self.volumeNodes):
            paths.append(files.inputs / f"{self.id}_{index:04d}.nrrd")
            _writing(node, paths[-1], self._frame)
        if self.roiNode is not None:
            _writing(self.volumeNodes[0], files.region(self.id), self._frame, self.roiNode)
        return tuple(paths)

    def deliver(self, files: JobFiles, card: ModelCard, settings: Settings, measures: Measures) -> Delivery:
        """Create or update the segmentation node, its table and its maps."""
        self._check(self.volumeNodes[:1])  # the others may be what they like by now
        volumeNode, model = self.volumeNodes[0], card.info.name
        labels = VolumeExchange.readLabels(files.labels(self.id), volumeNode, self._frame)
        node, note = self._target(card, settings)
        made = node is None
        if made:
            node = SegmentationResult.createResult(volumeNode, SegmentationResult.resultName(self._title(), model))
            node.SetAttribute(SegmentationResult.FRAME, self._shown.value if self._shown is not None else None)
        SegmentationResult.attach(node, volumeNode)
        SegmentationResult.fillResult(node, labels, card.spec.segments, model, card.sha256)
        table = self._table(node, card, measures)
        self._maps(node, files)
        return Delivery(node, volumeNode, table, note=" ".join(filter(None, [note, self._changed(node)])))

    def _check(self, nodes: Sequence[Any]) -> None:
        """Nodes may be removed from the scene before the worker is at work, and while it is."""
        for node in nodes:
            if slicer.mrmlScene.GetNodeByID(node.GetID() or "") is not node:
                name = self.title if node is self.volumeNodes[0] else node.GetName()
                raise DataError(_("{volume} was removed from the scene; its result is dropped.").format(volume=name))
            if fault := VolumeExchange.checkVolume(node):
                raise DataError(fault)
        if len(nodes) > 1 and (fault := SharedGrid.fault(nodes)):
            raise DataError(fault)

    def _state(self) -> tuple[ShownFrame | None, int]:
        volumeNode = self.volumeNodes[0]
        return shownFrame(volumeNode), volumeNode.GetImageData().GetMTime()

    def _title(self) -> str:
        """What was segmented, for the name of the result."""
        if self._shown is None:
            return self.title
        return _("{sequence}, frame {number}").format(sequence=self.title, number=self._shown.number)

    def _changed(self, node: Any) -> str:
        """What to know where the volume holds other voxels by now than those that were segmented."""
        shown, voxelTime = self._state()
        names = {"volume": self.title, "result": node.GetName()}
        if self._shown is not None:
            text = _("{result} is of frame {number}; {volume} shows another one by now.")
            return text.format(number=self._shown.number, **names) if shown not in (self._shown, None) else ""
        if voxelTime != self._voxelTime:
            return _("{volume} was changed meanwhile; {result} is of what it was before.").format(**names)
        return ""

    def _target(self, card: ModelCard, settings: Settings) -> tuple[Any, str]:
        """The result to be updated, None for a new one, and what the user should know of that."""
        if settings.existing != "update":
            return None, ""
        volumeNode, name = self.volumeNodes[0], card.info.name
        frame = self._shown.value if self._shown is not None else ""
        node = SegmentationResult.findResult(volumeNode, name, card.spec.segments, card.sha256, frame)
        if node is not None and (self.overwriteEdits or not SegmentationResult.isEdited(node)):
            return node, ""
        if node is not None:
            note = _("{result} was edited by hand and is left as it is; the new result is beside it.")
            return None, note.format(result=node.GetName())
        other = SegmentationResult.findResult(volumeNode, name, frame=frame)
        if other is None:
            return None, ""
        note = _("{result} has other segments than the model and is left as it is; the new result is beside it.")
        return None, note.format(result=other.GetName())

    def _table(self, node: Any, card: ModelCard, measures: Measures) -> Any:
        table = node.GetNodeReference(SegmentationResult.TABLE)
        if table is None:
            table = ResultTable.createTable(_("{result} measures").format(result=node.GetName()))
            SegmentationResult.placeBeside(table, self.volumeNodes[0])
        SegmentationResult.claim(node, table)
        ResultTable.fillTable(table, card.spec.segments, measures)
        return table

    def _maps(self, node: Any, files: JobFiles) -> None:
        for role, kind, title in (
            (SegmentationResult.DISAGREEMENT, "disagreement", _("{result} disagreement")),
            (SegmentationResult.PROBABILITY, "probability", _("{result} probability")),
        ):
            mapNode, path = node.GetNodeReference(role), files.extra(self.id, kind)
            if not path.is_file():
                if mapNode is not None:
                    Review.removeMap(mapNode)
                continue
            if mapNode is not None:  # in place: what shows it goes on showing it
                VolumeExchange.readMap(path, self.volumeNodes[0], self._frame, mapNode)
                continue
            name = slicer.mrmlScene.GenerateUniqueName(title.format(result=node.GetName()))
            mapNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            mapNode.SetAttribute(SegmentationResult.MAP, kind)
            VolumeExchange.readMap(path, self.volumeNodes[0], self._frame, mapNode)
            Review.prepareMap(mapNode, legend=kind == "disagreement")
            node.SetNodeReferenceID(role, mapNode.GetID())
            SegmentationResult.placeBeside(mapNode, self.volumeNodes[0])


class FrameWork(_InScene):
    """One frame of a volume sequence; its results are collected in a segmentation sequence."""

    def __init__(self, id: str, index: int, result: SequenceResult) -> None:  # noqa: A002
        self.id, self.index, self._result = id, index, result
        self.title = _("{sequence}, frame {number}").format(sequence=result.title, number=index + 1)
        self._frame: VolumeExchange.Frame | None = None

    def export(self, files: JobFiles) -> tuple[Path, ...]:
        """Write the frame's volume to ``files.inputs``."""
        volumeNode = self._result.volume(self.index)
        if fault := VolumeExchange.checkVolume(volumeNode):
            raise DataError(fault)
        self._frame = VolumeExchange.frameOf(volumeNode)
        path = files.inputs / f"{self.id}.nrrd"
        _writing(volumeNode, path, self._frame)
        return (path,)

    def deliver(self, files: JobFiles, card: ModelCard, settings: Settings, measures: Measures) -> Delivery:
        """Put the frame's segmentation into the sequence."""
        labels = VolumeExchange.readLabels(files.labels(self.id), self._result.volume(self.index), self._frame)
        left = measures.removedMl.values()
        note = _("{title}: {volume} mL in other parts left out.") if sum(left) >= ResultTable.LEAST_REMOVED_ML else ""
        note = note.format(title=self.title, volume=f"{sum(left):.2f}")
        return Delivery(self._result.add(self.index, labels, card), note=note)


class FileWork:
    """A case of a folder: read and written by the worker; loaded into the scene on request alone.

    kept: an earlier result of the case that was changed since it was written, and which ``id`` therefore spares.
    mayShow: whether the views may change to a volume when it is loaded.
    """

    inScene = False

    def __init__(
        self,
        id: str,  # noqa: A002
        images: Sequence[Path],
        results: FolderResults,
        load: bool = False,
        *,
        title: str = "",
        kept: Path | None = None,
        mayShow: Callable[[], bool] = lambda: True,
    ) -> None:
        self._mayShow = mayShow
        self.id, self.title, self.kept = id, title or id, kept
        self._images, self._results, self._load = tuple(images), results, load
        self._isWriting, self._before = False, (0, 0)

    def export(self, files: JobFiles) -> tuple[Path, ...]:
        """Nothing is to be written."""
        return self._images

    def deliver(self, files: JobFiles, card: ModelCard, settings: Settings, measures: Measures) -> Delivery:
        """Note what was written, and load the volume and its segmentation where that is wanted."""
        path = self._results.path(self.id)
        if not path.is_file():
            raise DataError(_("The result {path} is not there; segment the case again.").format(path=path))
        self._results.note(path, card.sha256)
        note = _("{kept} was changed since it was written and is left as it is; the new result is {result}.")
        note = note.format(kept=self.kept.name, result=path.name) if self.kept is not None else ""
        if not self._load:
            return Delivery(path=path, note=note)
        volumeNode = None
        try:
            volumeNode = self._loadVolume()
        except (CamlError, RuntimeError) as error:  # the result is good, and its file is there
            note = f"{note} {error}".strip()
        node = slicer.util.loadSegmentation(str(path))
        if volumeNode is not None:
            SegmentationResult.attach(node, volumeNode)
        SegmentationResult.sign(node, card.spec.segments, card.info.name, card.sha256)
        SegmentationResult.claim(node)
        return Delivery(node, path=path, note=note)

    def _loadVolume(self) -> Any:
        """Load the scan; raises CamlError or RuntimeError."""
        image = self._images[0]
        if not image.is_dir():
            return slicer.util.loadVolume(str(image), {"show": self._mayShow()})
        from caml_core.data.io import read_volume

        volume = read_volume(image, self.title)  # a DICOM series, read as the engine has read it
        volumeNode = VolumeExchange.addVolume(volume.array, volume.grid, self.title)
        if self._mayShow():
            slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
        return volumeNode

    def writing(self) -> None:
        """Remember the file that is there, to know later whether the worker replaced it."""
        self._isWriting, self._before = True, self._state()

    def keep(self, card: ModelCard, finished: bool) -> None:
        """Note a file that the worker still wrote: nobody's hand made it, and it is not to be asked about."""
        if finished or (self._isWriting and self._state() != self._before):
            self._results.note(self._results.path(self.id), card.sha256)

    def _state(self) -> tuple[int, int]:
        try:
            found = self._results.path(self.id).stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns


def _weakly(node: Any) -> Any:
    """A reference that follows the node itself: Python's own would end with the last variable that names it."""
    reference = vtk.vtkWeakReference()
    if node is not None:
        reference.Set(node)
    return reference


def _writing(volumeNode: Any, path: Path, frame: VolumeExchange.Frame, roiNode: Any = None) -> None:
    """Write a volume, or where it lies in a region; what the system says of a failing disk becomes one sentence."""
    try:
        if roiNode is None:
            VolumeExchange.writeVolume(volumeNode, path, frame)
        else:
            VolumeExchange.writeRegion(volumeNode, roiNode, path, frame)
    except CamlError:
        raise
    except OSError as error:
        raise ResourceError(
            _("{volume} could not be written to {folder} ({reason}); check the disk.").format(
                volume=volumeNode.GetName(), folder=path.parent, reason=error.strerror or error
            )
        ) from error
