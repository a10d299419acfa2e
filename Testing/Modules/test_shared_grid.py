"""Channels of one case lie voxel on voxel: those that only the scene shows so are not segmented unnoticed."""

from __future__ import annotations

import numpy as np
import pytest
from stand_ins import OBLIQUE, ijk_to_ras, noise

from caml_core.errors import DataError

GRID = ijk_to_ras(axes=OBLIQUE)


@pytest.fixture
def two(a_volume):
    """T1 and T2 on one grid."""
    return [a_volume(name, noise(seed=seed), GRID) for seed, name in enumerate(("T1", "T2"))]


@pytest.fixture
def grids(a_scene):
    from CAMLSegmentationLib import SharedGrid

    return SharedGrid


def a_shift(millimetres):
    matrix = np.eye(4)
    matrix[0, 3] = millimetres
    return linear(matrix)


def a_shear(share=0.2):
    matrix = np.eye(4)
    matrix[0, 1] = share
    return linear(matrix)


def linear(matrix):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def a_warp(millimetres=4.0, voxel=(13, 12, 10)):
    """A warp that moves the middle of the volumes, and their corners hardly."""
    import slicer
    import vtk

    size = noise().shape[::-1]
    corners = [(x, y, z) for x in (0, size[0] - 1) for y in (0, size[1] - 1) for z in (0, size[2] - 1)]
    places = [(GRID @ [*ijk, 1.0])[:3] for ijk in (*corners, voxel)]
    warp, source, target = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
    for place in places:
        source.InsertNextPoint(*place)
        target.InsertNextPoint(*place)
    target.SetPoint(len(corners), *(places[-1] + [millimetres, 0.0, 0.0]))
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    warp.SetBasisToR()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "W")
    node.SetAndObserveTransformToParent(warp)
    return node


def under(volume, transform):
    volume.SetAndObserveTransformNodeID(transform.GetID())


def test_volumes_share_a_grid_only_where_their_voxels_coincide(grids, a_volume):
    first = a_volume("a", noise(), GRID)
    moved = GRID.copy()
    moved[0, 3] += 0.5
    assert grids.sameGrid([first, a_volume("b", noise(seed=1), GRID)])
    assert not grids.sameGrid([first, a_volume("c", noise(), moved)])
    assert not grids.sameGrid([first, a_volume("d", noise((26, 24, 21)), GRID)])


@pytest.mark.parametrize("make", [a_shear, a_warp])
def test_a_channel_that_a_transform_moves_which_files_cannot_hold_is_refused(grids, two, tmp_path, make):
    from CAMLSegmentationLib.Job import JobFiles
    from CAMLSegmentationLib.Work import VolumeWork

    assert grids.fault(two) == ""
    transform = make()
    under(two[1], transform)
    assert grids.sameGrid(two), "which is what the files would say"
    with pytest.raises(DataError, match="T1, T2 are under different transforms.*harden it"):
        VolumeWork("x", two).export(JobFiles(tmp_path))
    assert not list(tmp_path.rglob("*.nrrd"))
    under(two[0], transform)
    assert grids.fault(two) == "", "both are where they were, as seen from each other"


@pytest.mark.parametrize("make", [a_shear, a_warp])
def test_transforms_that_do_the_same_are_as_good_as_one(grids, two, make):
    """Each series of a tilted gantry is loaded with a transform of its own."""
    for volume in two:
        under(volume, make())
    assert grids.fault(two) == ""
    under(two[1], a_warp(9.0))
    assert "different transforms" in grids.fault(two)


def test_a_transform_that_files_can_hold_counts_as_the_place_of_a_volume(grids, two):
    under(two[1], a_shift(3.0))
    assert "different grids" in grids.fault(two)
    under(two[0], a_shift(3.0))
    assert grids.fault(two) == ""


def test_a_warp_of_less_than_a_tenth_of_a_voxel_is_none(grids, two):
    under(two[1], a_warp(0.01))
    assert grids.fault(two) == ""
