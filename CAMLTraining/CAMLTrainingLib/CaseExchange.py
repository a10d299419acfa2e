"""Cases between the scene and the project's files. Voxels and geometry go through ``VolumeExchange``.

Scans are referenced where they lie; what the scene alone has is written once. Labels are written on their scan's grid,
in the same coordinates as the scan's file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from CAMLSegmentationLib import SegmentationResult, VolumeExchange
from slicer.i18n import tr as _

from caml_core.config import Segment, name_key
from caml_core.data.files import disk_error, remove_quietly, replace_when_free
from caml_core.errors import CamlError, DataError

if TYPE_CHECKING:
    from caml_core.data.grid import Grid

PREFIX = "CAMLTraining."
#: Attribute of volume and segmentation nodes, followed by the project: the case they belong to (``Cohort.attribute``).
CASE = PREFIX + "Case"
#: Attribute of segmentations that a model made: its name. They are never taken as labels.
PREDICTION = PREFIX + "Prediction"
#: Attribute of a segmentation: its state when it was last taken as label.
ACCEPTED = PREFIX + "Accepted"
#: Attribute of a segmentation: the project and the label file that it was taken as.
TAKEN = PREFIX + "Taken"
#: Attribute of volumes, followed by the project: the case that has their file as a further channel, or twice.
EXTRA = PREFIX + "Extra"
#: Attribute of volumes, followed by the project that leaves them out: the project that was open before.
LEFT_OUT = PREFIX + "LeftOut"
#: Attribute of a segmentation: its state when it was handed to a hand, which has not touched it as long as it is so.
OPENED = PREFIX + "Opened"
#: Attribute of a prediction, and of a copy for a hand to correct: when the prediction's file was written.
WRITTEN = PREFIX + "Written"
_SUFFIXES = (".nrrd", ".nii", ".nii.gz", ".mha", ".mhd")
_LABELMAP = "Binary labelmap"
#: Share of a segment that may lie outside the volume before it is no rounding any more.
_MOST_OUTSIDE = 0.05
#: Share of a voxel by which a volume may lie off its file for the file to be its own; headers keep fewer digits.
_SAME_PLACE = 0.01
#: How a file's slices run in a volume, by the state of both (``orderIn``). Times of change are unique in a process.
_compared: dict[tuple[Any, ...], int] = {}
#: Grids that no header tells, as those of DICOM series, by the state of their files.
_grids: dict[tuple[Any, ...], Grid] = {}


@dataclass(frozen=True)
class Drawn:
    """What a segmentation holds on a volume's grid: ``voxels`` uint8 [k, j, i], values 1, 2, ... of ``segments``."""

    voxels: Any
    segments: tuple[Segment, ...]
    empty: tuple[str, ...]
    notes: tuple[str, ...] = ()


def fileOf(volumeNode: Any) -> Path | None:
    """Return the file that holds what the scene shows; None for volumes that were made or changed in the scene.

    Saving a scene as .mrb marks all its volumes as modified, those that are not included; and one that was loaded
    centred, or without its directions, counts as unmodified. In doubt volume and file are compared, once.
    """
    storage = volumeNode.GetStorageNode()
    if storage is None or volumeNode.GetParentTransformNode() is not None or storage.GetNumberOfFileNames() > 1:
        return None
    name = storage.GetFullNameFromFileName() or ""
    path = Path(name)
    if not name.lower().endswith(_SUFFIXES) or not os.path.isfile(path):  # Path's raises where a network drive is gone
        return None
    doubtful = volumeNode.GetModifiedSinceRead() or _isPlacedOtherwise(storage)
    return path if not doubtful or holds(path, volumeNode) else None


def _isPlacedOtherwise(storage: Any) -> bool:
    """Whether a volume was read with the options "Centered" or "Ignore Orientation"; not all readers have both."""
    centred = hasattr(storage, "GetCenterImage") and storage.GetCenterImage()
    return bool(centred or (hasattr(storage, "GetUseOrientationFromFile") and not storage.GetUseOrientationFromFile()))


def holds(path: Path, volumeNode: Any, anywhere: bool = False) -> bool:
    """Whether a file has the voxels of a volume, in the same places of the world; ``anywhere``: or in others."""
    return orderIn(path, volumeNode, anywhere) != 0


def orderIn(path: Path, volumeNode: Any, anywhere: bool = False) -> int:
    """Return how a file's slices run in a volume that has its voxels, as ``holds`` says: 1 or -1; 0 where it has not.

    Slicer reverses the slices of left-handed files as it loads them; the engine reads them as they are.
    """
    file = _stateOf(path)
    if file is None or VolumeExchange.checkVolume(volumeNode):  # no grey values
        return 0
    state = (*file, *_stateIn(volumeNode, anywhere))
    if state not in _compared:
        _compared[state] = _compare(path, volumeNode, anywhere)
    return _compared[state]


def gridDifference(first: Grid, second: Grid, tolerance: float = 0.2) -> str:
    """Say how two grids differ, as the engine does, in whichever order a file or the scene has their slices."""
    from caml_core.data.io import grid_difference

    return grid_difference(first.right_handed(), second.right_handed(), tolerance)


def fileGrid(path: Path) -> Grid | None:
    """Return the grid of a scan's file as the engine reads it, None where it cannot be read."""
    from caml_core.data.files import has_dicom_mark
    from caml_core.data.io import read_volume
    from caml_core.project.headers import read_grid

    state = _stateOf(path)
    if state is None:
        return None
    if state in _grids:
        return _grids[state]
    try:
        header = None if not os.path.isfile(path) or has_dicom_mark(path) else read_grid(path)
        if header is not None:
            return header
        grid = read_volume(path).grid
    except (CamlError, OSError):
        return None
    _grids[state] = grid
    return grid


def noteRead(path: Path, volumeNode: Any, grid: Grid) -> None:
    """A volume was made of what the engine read of a file: nobody needs to read it again to know what it holds."""
    if (file := _stateOf(path)) is not None:
        _compared[(*file, *_stateIn(volumeNode, anywhere=False))] = 1
        _grids[file] = grid


def _stateOf(path: Path) -> tuple[Any, ...] | None:
    """What differs once a file has changed; None where it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size


def _stateIn(volumeNode: Any, anywhere: bool) -> tuple[Any, ...]:
    """What differs once a volume has changed in the scene; ``anywhere``: its voxels alone."""
    matrix = VolumeExchange.worldMatrix(volumeNode)
    place = tuple(matrix.GetElement(row, column) for row in range(3) for column in range(4))
    return volumeNode.GetImageData().GetMTime(), () if anywhere else place


def _compare(path: Path, volumeNode: Any, anywhere: bool) -> int:
    """What ``orderIn`` returns, by reading the file."""
    from caml_core.data.io import read_volume
    from caml_core.project.headers import read_grid

    grid, header = VolumeExchange.gridOf(volumeNode), read_grid(path)
    if header is not None and _differs(header, grid, anywhere):
        return 0  # without reading its voxels
    try:
        volume = read_volume(path)
    except (CamlError, OSError):
        return 0
    if _differs(volume.grid, grid, anywhere):
        return 0
    voxels = VolumeExchange.voxelsOf(volumeNode).transpose(2, 1, 0)
    likely = 1 if volume.grid.is_left_handed == grid.is_left_handed else -1
    orders = (likely, -likely) if anywhere else (likely,)  # a volume may be mirrored by its transform
    return next((order for order in orders if _isEqual(volume.array[:, :, ::order], voxels)), 0)


def _differs(first: Grid, second: Grid, anywhere: bool) -> bool:
    return first.size != second.size if anywhere else bool(gridDifference(first, second, _SAME_PLACE))


def _isEqual(read: Any, voxels: Any) -> bool:
    """Whether voxels are those that the engine has read, which keeps no more than float32 of them."""
    import numpy

    if read.dtype != numpy.float32:
        return bool(numpy.array_equal(read, voxels))
    return bool(numpy.array_equal(read, voxels.astype(numpy.float32, copy=False), equal_nan=True))


def writeVolume(volumeNode: Any, path: Path) -> None:
    """Write a volume in world coordinates; nothing half-written stays. Raises DataError, ResourceError."""
    if fault := VolumeExchange.checkVolume(volumeNode):
        raise DataError(fault)
    part = path.with_name(f".part-{path.name}")
    try:
        VolumeExchange.writeVolume(volumeNode, part, VolumeExchange.frameOf(volumeNode))
        replace_when_free(part, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        remove_quietly(part)


def writtenAt(path: Path) -> str:
    """Return when a file was written, as the attribute WRITTEN has it."""
    return str(path.stat().st_mtime_ns)


def newSegmentation(volumeNode: Any, case: str, segments: Sequence[Segment]) -> Any:
    """Return a segmentation with the cohort's segments, all empty, on the volume's grid, for a hand to draw in."""
    node = SegmentationResult.createResult(volumeNode, _("{case} label").format(case=case))
    node.GetSegmentation().SetSourceRepresentationName(_LABELMAP)
    addSegments(node, segments)
    return node


def addSegments(node: Any, segments: Sequence[Segment]) -> None:
    """Add those of ``segments`` that a segmentation lacks by name, empty, with colour and terminology."""
    segmentation = node.GetSegmentation()
    present = {name_key(name) for name in segmentNames(node)}
    for segment in segments:
        if name_key(segment.name) in present:
            continue
        identity = segmentation.AddEmptySegment("", segment.name, segment.color)
        made = segmentation.GetSegment(identity)
        made.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), segment.terminology)


def segmentNames(node: Any) -> list[str]:
    """Return the names of a segmentation's segments, in order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(i).GetName() for i in range(segmentation.GetNumberOfSegments())]


def segmentsOf(node: Any) -> tuple[Segment, ...]:
    """Return a segmentation's segments as the engine knows them, numbered 1, 2, ... in order."""
    segmentation, found = node.GetSegmentation(), []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        tag = vtk.reference("")
        segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
        values: dict[str, Any] = {"terminology": str(tag)} if str(tag) else {}
        color = tuple(round(c, 4) for c in segment.GetColor())
        found.append(Segment(segment.GetName().strip() or f"segment {index + 1}", index + 1, color, **values))
    return tuple(found)


def drawnOn(node: Any, volumeNode: Any, case: str) -> Drawn:
    """Return what a segmentation holds on the volume's grid; raise DataError where it does not lie there.

    Where segments overlap the later one wins, and a note says so; one of which nothing is left then is refused.
    """
    import numpy

    if node.GetTransformNodeID() != volumeNode.GetTransformNodeID():
        raise DataError(
            _("Case {case}: {segmentation} is under another transform than its volume; harden it first.").format(
                case=case, segmentation=node.GetName()
            )
        )
    if not _hasLabelmaps(node):
        raise DataError(
            _(
                "Case {case}: {segmentation} has surfaces that cannot be turned into voxels; create its binary "
                "labelmap in the module Segmentations."
            ).format(case=case, segmentation=node.GetName())
        )
    voxels = numpy.zeros(VolumeExchange.voxelsOf(volumeNode).shape, numpy.uint8)
    filled, empty, drawn, overlap = [], [], [], 0
    over: dict[int, list[str]] = {}  # label of a segment -> the later ones that take voxels of it
    segmentation = node.GetSegmentation()
    for segment in segmentsOf(node):
        identity = segmentation.GetNthSegmentID(segment.label - 1)
        own = _ownMillilitres(segmentation.GetSegment(identity))
        if own <= 0:
            empty.append(segment.name)
            continue
        mask = VolumeExchange.segmentMask(node, identity, volumeNode)
        count = int(numpy.count_nonzero(mask))
        _checkPlace(case, segment.name, own, _millilitres(volumeNode) * count)
        below = numpy.bincount(voxels[mask], minlength=len(filled) + 1)
        overlap += int(below[1:].sum())
        for label in numpy.flatnonzero(below[1:]) + 1:
            over.setdefault(int(label), []).append(segment.name)
        filled.append(Segment(segment.name, len(filled) + 1, segment.color, segment.terminology))
        drawn.append(count)
        voxels[mask] = len(filled)
    left = numpy.bincount(voxels.ravel(), minlength=len(filled) + 1)[1:]
    notes = _overlapNotes(case, overlap, [(s, n, int(left[s.label - 1])) for s, n in zip(filled, drawn)], over)
    return Drawn(voxels, tuple(filled), tuple(empty), notes)


def _overlapNotes(
    case: str, overlap: int, counts: Sequence[tuple[Segment, int, int]], over: Mapping[int, Sequence[str]]
) -> tuple[str, ...]:
    """Say how segments overlap; raise DataError where nothing is left of one.

    overlap: voxels in two segments. counts: (segment, voxels drawn, voxels left) of each. over: which later segments
    lie over which label.
    """
    if not overlap:
        return ()
    note = _("Case {case}: {count} voxels lie in two segments; the later one was kept.").format(
        case=case, count=overlap
    )
    for segment, count, left in counts:
        others = ", ".join(over.get(segment.label, ()))
        if not left:
            raise DataError(
                _(
                    "Case {case}: nothing is left of the segment {name}: {others} covers it wholly, and where two "
                    "overlap the one further down in the list counts. Move {name} below it in the Segment Editor, or "
                    "let them not overlap."
                ).format(case=case, name=segment.name, others=others)
            )
        if 2 * left < count:
            note += " " + _("{percent} % of {name} went to {others}: is their order in the list right?").format(
                percent=round(100 * (1 - left / count)), name=segment.name, others=others
            )
    return (note,)


def writeLabel(drawn: Drawn, volumeNode: Any, path: Path) -> None:
    """Write a label as Slicer's segmentation file, on the grid of the volume's file. Atomic; raises ResourceError."""
    from caml_core.data.labels import write_labels

    write_labels(path, drawn.voxels.transpose(2, 1, 0), VolumeExchange.gridOf(volumeNode), drawn.segments)


def loadLabel(
    path: Path,
    volumeNode: Any,
    case: str,
    segments: Sequence[Segment],
    images: Sequence[Path] = (),
    renamed: Mapping[str, str] | None = None,
) -> Any:
    """Return a new segmentation with the labels of a file, on its volume; raise DataError where it cannot be read.

    segments: the cohort's, which give a plain label map its names by value, and every label its colours. images: the
    case's files; what lies on the grid of the first goes along with its voxels where these were moved in the scene.
    renamed: new names of segments by those that they have in files of before (``Project.old_names``).
    """
    from caml_core.data.labels import is_segmentation, read_labels

    found = read_labels(path, case, () if is_segmentation(path) else segments)
    known = {name_key(s.name): s for s in segments}
    own = {name_key(s.name) for s in found.segments}
    names = {name_key(o): n for o, n in (renamed or {}).items() if name_key(n) not in own}
    node = newSegmentation(volumeNode, case, ())
    grid = gridInScene(found.grid, volumeNode, images)
    labels = VolumeExchange.orientedLabels(found.array, grid, volumeNode)
    for segment in found.segments:
        name = names.get(name_key(segment.name), segment.name)
        look = known.get(name_key(name), segment)
        made = Segment(name, segment.label, look.color, look.terminology)
        SegmentationResult.setSegment(node.GetSegmentation(), made, labels)
    addSegments(node, segments)
    return node


def gridInScene(grid: Grid, volumeNode: Any, images: Sequence[Path]) -> Grid:
    """Return where in the scene the voxels of a file of the engine lie, which has them on ``grid``.

    That is there. Only where a case's file (the first of ``images``) has this grid, and its volume was moved in the
    scene, they go along with it.
    """
    there, here = fileGrid(images[0]) if images else None, VolumeExchange.gridOf(volumeNode)
    if there is None or not gridDifference(there, here) or gridDifference(there, grid):
        return grid
    order = orderIn(images[0], volumeNode, anywhere=True)
    if not order:
        return grid
    if grid.is_left_handed != there.is_left_handed:
        order = -order
    return here if order > 0 else here.reversed()


def _hasLabelmaps(node: Any) -> bool:
    """Segmentations from surfaces or contours are turned into voxels first."""
    segmentation = node.GetSegmentation()
    if not segmentation.GetNumberOfSegments() or segmentation.ContainsRepresentation(_LABELMAP):
        return True
    return bool(segmentation.CreateRepresentation(_LABELMAP))


def _ownMillilitres(segment: Any) -> float:
    """The volume of a segment's own label map."""
    image = segment.GetRepresentation(_LABELMAP)
    if image is None or image.GetPointData().GetScalars() is None:
        return 0.0
    dx, dy, dz = image.GetSpacing()
    count = int((VolumeExchange.labelsOf(image) == segment.GetLabelValue()).sum())
    return count * dx * dy * dz / 1000.0


def _millilitres(volumeNode: Any) -> float:
    dx, dy, dz = volumeNode.GetSpacing()
    return float(dx * dy * dz / 1000.0)


def _checkPlace(case: str, name: str, own: float, there: float) -> None:
    if there <= 0:
        message = _("Case {case}: the segment {name} does not lie on the volume; was it drawn on another scan?")
        raise DataError(message.format(case=case, name=name))
    if there < (1.0 - _MOST_OUTSIDE) * own:
        message = _(
            "Case {case}: {percent} % of the segment {name} lies outside of the volume; draw it on this volume, or "
            "crop it to it."
        )
        raise DataError(message.format(case=case, name=name, percent=round(100 * (1 - there / own))))
