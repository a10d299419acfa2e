"""Boxes that limit a segmentation: where they lie in a volume, and how one is put around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.errors import DataError


def isPlaced(roiNode: Any) -> bool:
    """Whether a region has a box: one that was only made has no size, and one that is being drawn is flat at first."""
    return min(roiNode.GetSize()) > 0


def checkPlaced(roiNode: Any) -> None:
    """Raise DataError for a region that has no box yet."""
    if not isPlaced(roiNode):
        raise DataError(
            _(
                "The region {roi} has no size yet; place it around what is to be segmented (module Markups), or choose "
                "another region or the whole volume."
            ).format(roi=roiNode.GetName())
        )


def fit(roiNode: Any, volumeNode: Any) -> None:
    """Put the box of a region around a whole volume, along the volume's axes; raise DataError under a warp."""
    import numpy

    extent = volumeNode.GetImageData().GetExtent()
    toWorld = numpy.array(_rows(_voxelsToWorld(volumeNode)))
    edges = corners([(extent[2 * i] - 0.5, extent[2 * i + 1] + 0.5) for i in range(3)])
    axes = _axes(toWorld[:3, :3])
    places = (numpy.array(edges) @ toWorld[:3, :3].T + toWorld[:3, 3]) @ axes
    low, high = places.min(axis=0), places.max(axis=0)
    matrix = numpy.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, axes @ (0.5 * (low + high))
    roiNode.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    roiNode.SetSize(*(float(side) for side in high - low))


def cornersInVoxels(volumeNode: Any, roiNode: Any) -> list[tuple[float, ...]]:
    """Return the corners of a region's box as indices of the volume's voxels; raise DataError under a warp."""
    fromRoi = _voxelsToRoi(volumeNode, roiNode)
    fromRoi.Invert()
    half = [0.5 * side for side in roiNode.GetSize()]
    return [fromRoi.MultiplyPoint((*corner, 1.0))[:3] for corner in corners([(-h, h) for h in half])]


def markInside(voxels: Any, extent: Sequence[int], volumeNode: Any, roiNode: Any) -> bool:
    """Set voxels [k, j, i] of ``extent`` to whether their centre lies inside; return whether some lie outside."""
    import numpy

    toRoi = numpy.array(_rows(_voxelsToRoi(volumeNode, roiNode)))
    i, j, k = (numpy.arange(extent[2 * n], extent[2 * n + 1] + 1) for n in range(3))
    limits = 0.5 * numpy.array(roiNode.GetSize()) + 1e-6
    some = False
    for plane, slice_ in zip(k, voxels):  # one after the other: positions take 24 bytes a voxel
        start = toRoi[:, 2] * plane + toRoi[:, 3]
        position = toRoi[:, 0, None, None] * i + toRoi[:, 1, None, None] * j[:, None] + start[:, None, None]
        slice_[...] = (abs(position) <= limits[:, None, None]).all(axis=0)
        some = some or not slice_.all()
    return some


def corners(ends: Sequence[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Return the eight corners of a box from its two ends along each axis."""
    return [(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]]


def _axes(toWorld: Any) -> Any:
    """A rotation along the axes of a grid (columns), the one that is nearest to R, A and S: handles are named so."""
    import numpy

    units = toWorld / numpy.linalg.norm(toWorld, axis=0)
    order = max(itertools.permutations(range(3)), key=lambda order: abs(units[range(3), order]).sum())
    units = units[:, order]
    units = units * numpy.where(numpy.diag(units) < 0, -1.0, 1.0)
    axes, triangle = numpy.linalg.qr(units)  # a sheared grid has no right angles
    axes = axes * numpy.where(numpy.diag(triangle) < 0, -1.0, 1.0)
    if numpy.linalg.det(axes) < 0:
        axes[:, 2] *= -1.0
    return axes


def _rows(matrix: Any) -> list[list[float]]:
    """The upper three rows of a vtkMatrix4x4."""
    return [[matrix.GetElement(row, column) for column in range(4)] for row in range(3)]


def _voxelsToWorld(volumeNode: Any) -> Any:
    """The matrix from voxel indices to world RAS; raise DataError under a transform that is not linear."""
    transformNode = volumeNode.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    if transformNode is not None:
        if not transformNode.IsTransformToWorldLinear():
            raise DataError(
                _(
                    "{volume} is under a warping transform, where a region cannot be used; harden the transform first."
                ).format(volume=volumeNode.GetName())
            )
        toWorld = vtk.vtkMatrix4x4()
        transformNode.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return matrix


def _voxelsToRoi(volumeNode: Any, roiNode: Any) -> Any:
    """The matrix from voxel indices to the coordinates in which the region is a box around the origin."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(roiNode.GetObjectToWorldMatrix())
    matrix.Invert()
    vtk.vtkMatrix4x4.Multiply4x4(matrix, _voxelsToWorld(volumeNode), matrix)
    return matrix
