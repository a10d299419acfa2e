"""The one place where volumes go from the scene to files and come back.

Volumes are written in world coordinates: a linear transform above the volume is part of where the patient lies, and
the engine must see the patient as the user does. What was written so comes back voxel by voxel, on the volume's own
grid, under the same transform. What the engine made of files that Slicer reads itself is put in its place of the world:
Slicer reverses the slices of left-handed files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.data.files import make_folder, remove_quietly
from caml_core.errors import DataError, ResourceError
from caml_core.model_fit import VolumeFacts

from . import Region

if TYPE_CHECKING:
    from caml_core.data.grid import Grid

Extent = tuple[int, int, int, int, int, int]
#: A grid whose axes are farther from right angles than this (cosine) is not a volume's any more.
_LEAST_STRAIGHT = 1e-4
#: Signs between RAS (Slicer) and LPS (files and the engine).
_LPS = (-1.0, -1.0, 1.0)
#: Kinds of numbers that Slicer's NRRD writer refuses, int64 of NIfTI files among them. What they are written as
#: instead, the first whose range suffices: no voxel changes below 2**53.
_NOT_WRITTEN = (
    vtk.VTK_SIGNED_CHAR,
    vtk.VTK_LONG,
    vtk.VTK_UNSIGNED_LONG,
    vtk.VTK_LONG_LONG,
    vtk.VTK_UNSIGNED_LONG_LONG,
    vtk.VTK_ID_TYPE,
)
_WRITTEN_AS = ((vtk.VTK_SHORT, 2.0**15), (vtk.VTK_INT, 2.0**31), (vtk.VTK_DOUBLE, float("inf")))


@dataclass(frozen=True)
class Frame:
    """Which voxels of a volume were written: ``extent`` in the volume's own indices, both ends included."""

    extent: Extent

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along i, j and k."""
        x0, x1, y0, y1, z0, z1 = self.extent
        return x1 - x0 + 1, y1 - y0 + 1, z1 - z0 + 1


def checkVolume(volumeNode: Any) -> str:
    """Return why a volume cannot be segmented, as one sentence; empty where it can."""
    name = volumeNode.GetName()
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return _("{name} has no voxels; load the volume again.").format(name=name)
    if image.GetNumberOfScalarComponents() != 1:
        return _("{name} has {count} values a voxel; expected a grey-value volume.").format(
            name=name, count=image.GetNumberOfScalarComponents()
        )
    return ""


def frameOf(volumeNode: Any, roiNode: Any = None) -> Frame:
    """Return the whole volume, or its part inside the box around ``roiNode``.

    Raises DataError where that is empty, and where the region has no box yet.
    """
    extent = tuple(volumeNode.GetImageData().GetExtent())
    if roiNode is None:
        return Frame(extent)
    corners = Region.cornersInVoxels(volumeNode, roiNode)
    Region.checkPlaced(roiNode)
    limits: list[int] = []
    for axis in range(3):
        values = [corner[axis] for corner in corners]
        # A voxel counts where its centre lies inside.
        low = max(extent[2 * axis], _ceil(min(values)))
        high = min(extent[2 * axis + 1], _floor(max(values)))
        if high < low:
            raise DataError(
                _("The region {roi} does not meet {volume}; move the region onto the volume.").format(
                    roi=roiNode.GetName(), volume=volumeNode.GetName()
                )
            )
        limits += [low, high]
    return Frame(tuple(limits))


def writeVolume(volumeNode: Any, path: Path, frame: Frame) -> None:
    """Write the voxels of ``frame`` as an uncompressed NRRD file with world geometry.

    Raises DataError for a volume that cannot be segmented, ResourceError where the disk is full or refuses.
    """
    if fault := checkVolume(volumeNode):
        raise DataError(fault)
    _write(volumeNode.GetImageData(), volumeNode, path, frame)


def writeRegion(volumeNode: Any, roiNode: Any, path: Path, frame: Frame) -> bool:
    """Write which voxels of ``frame`` lie in a region as a label map on their grid; raise ResourceError as above.

    A region whose box runs along the volume's axes holds all of its frame: then nothing is written. Return whether
    something was.
    """
    image = vtk.vtkImageData()
    image.SetExtent(*frame.extent)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    if not Region.markInside(_arrayOf(image), frame.extent, volumeNode, roiNode):
        return False
    _write(image, volumeNode, path, frame)
    return True


def _write(image: Any, volumeNode: Any, path: Path, frame: Frame) -> None:
    make_folder(path.parent)
    part, matrix = _cropped(image, worldMatrix(volumeNode), frame.extent)
    part = _writable(part)
    needed = part.GetScalarSize() * frame.size[0] * frame.size[1] * frame.size[2]
    if shutil.disk_usage(path.parent).free < needed + 2**20:
        raise ResourceError(
            _("The disk is full: {volume} needs {needed} MB in {folder}; free some space.").format(
                volume=volumeNode.GetName(), needed=needed // 2**20 + 1, folder=path.parent
            )
        )
    writer = _nrrd("vtkTeemNRRDWriter")
    writer.SetFileName(str(path))
    writer.SetInputData(part)
    writer.SetIJKToRASMatrix(matrix)
    writer.SetUseCompression(0)
    writer.Write()
    if writer.GetWriteError() or not path.is_file() or path.stat().st_size < needed:
        remove_quietly(path)
        raise ResourceError(
            _("{volume} could not be written to {folder}; check the disk and its permissions.").format(
                volume=volumeNode.GetName(), folder=path.parent
            )
        )


def _writable(image: Any) -> Any:
    """The image, or a copy in numbers that the writer knows."""
    if image.GetScalarType() not in _NOT_WRITTEN:
        return image
    low, high = image.GetScalarRange()
    cast = vtk.vtkImageCast()
    cast.SetOutputScalarType(next(kind for kind, limit in _WRITTEN_AS if -limit <= low and high < limit))
    cast.SetInputData(image)
    cast.Update()
    return cast.GetOutput()


def worldMatrix(volumeNode: Any) -> Any:
    """Return the vtkMatrix4x4 from voxel indices to world RAS, as far as it is a straight grid.

    Under a warping transform, or one that shears the grid, the volume's own geometry is returned: it is that of the
    scanner, and no straight file can hold the other.
    """
    matrix, toWorld = vtk.vtkMatrix4x4(), _straightToWorld(volumeNode)
    volumeNode.GetIJKToRASMatrix(matrix)
    if toWorld is not None:
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return matrix


def shownPlaces(volumeNode: Any, indices: Iterable[Sequence[float]]) -> list[tuple[float, ...]]:
    """Return where the scene shows places of a volume, given as indices of its voxels (i, j, k): world RAS, mm.

    Unlike ``worldMatrix`` that is under transforms that warp or shear, too.
    """
    toWorld, matrix = vtk.vtkGeneralTransform(), vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volumeNode.GetParentTransformNode(), None, toWorld)
    volumeNode.GetIJKToRASMatrix(matrix)
    return [toWorld.TransformPoint(matrix.MultiplyPoint((*ijk, 1.0))[:3]) for ijk in indices]


def readLabels(path: Path, volumeNode: Any, frame: Frame) -> Any:
    """Return the label map of a written volume as vtkOrientedImageData on the volume's own grid.

    Raises DataError where file and volume do not fit.
    """
    image = _readOnto(path, volumeNode, frame)
    labels = slicer.vtkOrientedImageData()
    labels.ShallowCopy(image)
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    labels.SetImageToWorldMatrix(matrix)
    return labels


def readMap(path: Path, volumeNode: Any, frame: Frame, mapNode: Any) -> None:
    """Put a map (uint8) of a volume that was written here into a volume node, on that grid and under its transform.

    Raises DataError where file and volume do not fit.
    """
    image = _readOnto(path, volumeNode, frame)
    matrix, first = vtk.vtkMatrix4x4(), [frame.extent[0], frame.extent[2], frame.extent[4], 1.0]
    volumeNode.GetIJKToRASMatrix(matrix)
    origin = matrix.MultiplyPoint(first)
    for axis in range(3):
        matrix.SetElement(axis, 3, origin[axis])
    image.SetExtent(0, frame.size[0] - 1, 0, frame.size[1] - 1, 0, frame.size[2] - 1)
    mapNode.SetIJKToRASMatrix(matrix)
    mapNode.SetAndObserveImageData(image)
    mapNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())


def voxelsOf(volumeNode: Any) -> Any:
    """Return a volume's voxels as a numpy array [k, j, i] that shares their memory."""
    return _arrayOf(volumeNode.GetImageData())


def labelsOf(orientedImage: Any) -> Any:
    """Return a label map's voxels as a numpy array [k, j, i] that shares their memory."""
    return _arrayOf(orientedImage)


def factsOf(volumeNode: Any, modality: str = "", frame: Frame | None = None) -> VolumeFacts:
    """Return what tells whether a model fits: size, spacing, directions, modality, name, and the range of voxels."""
    image = volumeNode.GetImageData()
    matrix = worldMatrix(volumeNode)
    columns = [[matrix.GetElement(row, axis) for row in range(3)] for axis in range(3)]
    spacing = tuple(sum(c * c for c in column) ** 0.5 for column in columns)
    direction = tuple(_LPS[row] * columns[axis][row] / spacing[axis] for row in range(3) for axis in range(3))
    low, high = image.GetScalarRange()
    return VolumeFacts(
        size=frame.size if frame is not None else tuple(image.GetDimensions()),
        spacing=spacing,
        direction=direction,
        modality=modality,
        lowest=float(low),
        highest=float(high),
        name=volumeNode.GetName() or "",
    )


def gridOf(volumeNode: Any) -> Grid:
    """Return the grid of a volume in the world, as the engine describes it (LPS)."""
    from caml_core.data.grid import Grid

    facts, matrix = factsOf(volumeNode), worldMatrix(volumeNode)
    x, y, z = (sign * matrix.GetElement(row, 3) for row, sign in enumerate(_LPS))
    return Grid(facts.size, facts.spacing, (x, y, z), facts.direction)


def orientedLabels(array: Any, grid: Grid, volumeNode: Any) -> Any:
    """Return labels [X, Y, Z] of the engine as vtkOrientedImageData in the volume's own coordinates.

    Slices are in the order that makes axes right-handed there; Slicer's surfaces would be inside out otherwise.
    """
    matrix = _ownMatrixOf(grid, volumeNode)
    if matrix.Determinant() < 0:
        array, matrix = array[:, :, ::-1], _ownMatrixOf(grid.reversed(), volumeNode)
    labels = slicer.vtkOrientedImageData()
    _fill(labels, array)
    labels.SetImageToWorldMatrix(matrix)
    return labels


def placeMap(array: Any, grid: Grid, volumeNode: Any, mapNode: Any) -> None:
    """Put a map [X, Y, Z] of the engine into a volume node where it lies in the world, under a volume's transform.

    Its numbers stay as they are. Where it has the volume's voxels it is on the volume's own grid, so that both have the
    same slices; else on ``grid``.
    """
    from caml_core.data.placement import place

    placed, isWhole = place(array, grid, gridOf(volumeNode))
    image, matrix = vtk.vtkImageData(), vtk.vtkMatrix4x4()
    if isWhole:
        _fill(image, placed)
        volumeNode.GetIJKToRASMatrix(matrix)
    else:
        _fill(image, array)
        matrix = _ownMatrixOf(grid, volumeNode)
    mapNode.SetIJKToRASMatrix(matrix)
    mapNode.SetAndObserveImageData(image)
    mapNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())


def addVolume(array: Any, grid: Grid, name: str) -> Any:
    """Add a volume [X, Y, Z] of the engine to the scene and return its node."""
    import numpy

    voxels = numpy.ascontiguousarray(array.transpose(2, 1, 0))
    node = slicer.util.addVolumeFromArray(voxels, name=name)
    node.SetIJKToRASMatrix(_matrixOf(grid))
    return node


def segmentMask(segmentationNode: Any, segmentId: str, volumeNode: Any) -> Any:
    """Return where a segment lies on a volume's grid, as a numpy array of truth values [k, j, i]."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode) > 0


def _matrixOf(grid: Grid) -> Any:
    """The matrix from voxel indices to RAS of a grid of the engine."""
    matrix = vtk.vtkMatrix4x4()
    for row, sign in enumerate(_LPS):
        for axis in range(3):
            matrix.SetElement(row, axis, sign * grid.direction[3 * row + axis] * grid.spacing[axis])
        matrix.SetElement(row, 3, sign * grid.origin[row])
    return matrix


def _ownMatrixOf(grid: Grid, volumeNode: Any) -> Any:
    """The matrix from voxel indices of a grid in the world to RAS in a volume's own coordinates."""
    matrix, fromWorld = _matrixOf(grid), _straightToWorld(volumeNode)
    if fromWorld is not None:  # files are in world coordinates, as worldMatrix has them
        fromWorld.Invert()
        vtk.vtkMatrix4x4.Multiply4x4(fromWorld, matrix, matrix)
    return matrix


def _fill(image: Any, array: Any) -> None:
    """Give an empty image the voxels of an array [X, Y, Z]."""
    import numpy
    from vtk.util.numpy_support import numpy_to_vtk

    image.SetDimensions(*array.shape)
    image.GetPointData().SetScalars(numpy_to_vtk(numpy.ascontiguousarray(array.transpose(2, 1, 0)).ravel(), deep=True))


def _readOnto(path: Path, volumeNode: Any, frame: Frame) -> Any:
    if not path.is_file():
        raise DataError(_("The result {path} is not there; segment the volume again.").format(path=path))
    reader = _nrrd("vtkTeemNRRDReader")
    reader.SetFileName(str(path))
    reader.Update()
    image = vtk.vtkImageData()
    image.ShallowCopy(reader.GetOutput())
    extent = volumeNode.GetImageData().GetExtent()
    inside = all(extent[2 * i] <= frame.extent[2 * i] <= frame.extent[2 * i + 1] <= extent[2 * i + 1] for i in range(3))
    if tuple(image.GetDimensions()) != frame.size or image.GetScalarType() != vtk.VTK_UNSIGNED_CHAR or not inside:
        raise DataError(
            _("{volume} was changed while it was being segmented; segment it again.").format(
                volume=volumeNode.GetName()
            )
        )
    image.SetOrigin(0.0, 0.0, 0.0)
    image.SetSpacing(1.0, 1.0, 1.0)
    image.SetExtent(*frame.extent)
    return image


def _nrrd(name: str) -> Any:
    """Make a reader or writer of Slicer's kit vtkTeem: a module of its own, and only on slicer-core part of slicer."""
    made = getattr(slicer, name, None)
    if made is None:
        import vtkTeem

        made = getattr(vtkTeem, name)
    return made()


def _arrayOf(image: Any) -> Any:
    from vtk.util.numpy_support import vtk_to_numpy

    x, y, z = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z, y, x)


def _cropped(image: Any, matrix: Any, extent: Extent) -> tuple[Any, Any]:
    """The voxels of ``extent``, counted from 0, and the matrix of their indices. The whole volume is not copied."""
    moved = vtk.vtkMatrix4x4()
    moved.DeepCopy(matrix)
    origin = matrix.MultiplyPoint((extent[0], extent[2], extent[4], 1.0))
    for axis in range(3):
        moved.SetElement(axis, 3, origin[axis])
    part = vtk.vtkImageData()
    if tuple(image.GetExtent()) == tuple(extent):
        part.ShallowCopy(image)
    else:
        cutter = vtk.vtkExtractVOI()
        cutter.SetInputData(image)
        cutter.SetVOI(*extent)
        cutter.Update()
        part.ShallowCopy(cutter.GetOutput())
    x, y, z = (extent[2 * i + 1] - extent[2 * i] for i in range(3))
    part.SetExtent(0, x, 0, y, 0, z)
    part.SetOrigin(0.0, 0.0, 0.0)
    part.SetSpacing(1.0, 1.0, 1.0)
    return part, moved


def _straightToWorld(volumeNode: Any) -> Any:
    """The vtkMatrix4x4 of a volume's transform; None without one, and where it would warp or shear the grid."""
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is None or not transformNode.IsTransformToWorldLinear():
        return None
    toWorld, own, world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    transformNode.GetMatrixTransformToWorld(toWorld)
    volumeNode.GetIJKToRASMatrix(own)
    vtk.vtkMatrix4x4.Multiply4x4(toWorld, own, world)
    return toWorld if _isStraight(world) else None


def _isStraight(matrix: Any) -> bool:
    columns = [[matrix.GetElement(row, axis) for row in range(3)] for axis in range(3)]
    lengths = [sum(c * c for c in column) ** 0.5 for column in columns]
    if min(lengths) <= 0:
        return False
    return all(
        abs(sum(a * b for a, b in zip(columns[i], columns[j]))) / (lengths[i] * lengths[j]) < _LEAST_STRAIGHT
        for i, j in ((0, 1), (0, 2), (1, 2))
    )


def _ceil(value: float) -> int:
    return -_floor(-value)


def _floor(value: float) -> int:
    return int((value + 1e-6) // 1)
