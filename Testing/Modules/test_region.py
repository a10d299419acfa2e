"""Boxes that limit a segmentation: made in the panel, put around the volume, and waited for until they are there."""

from __future__ import annotations

import numpy as np
import pytest
from stand_ins import OBLIQUE, ijk_to_ras, noise

from caml_core.errors import DataError

GRIDS = {
    "straight": ijk_to_ras(),
    "oblique": ijk_to_ras(axes=OBLIQUE),
    "sagittal": ijk_to_ras(axes=np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),
    "left-handed": ijk_to_ras(axes=np.diag([-1.0, -1.0, -1.0])),
}
TURNED = np.array([[0.8, -0.6, 0.0, 5.0], [0.6, 0.8, 0.0, -7.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
SHEARED = np.array([[1.0, 0.4, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.2, 0.0], [0.0, 0.0, 0.0, 1.0]])
TRANSFORMS = {"none": None, "turned": TURNED, "sheared": SHEARED}


def a_region():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")


def under(volume, matrix):
    import slicer

    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    volume.SetAndObserveTransformNodeID(transform.GetID())


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_box_that_is_fitted_holds_the_volume_and_no_more(a_volume, tmp_path, grid, transform):
    import slicer
    from CAMLSegmentationLib import Region, VolumeExchange

    volume, region = a_volume("scan", noise(), GRIDS[grid]), a_region()
    if TRANSFORMS[transform] is not None:
        under(volume, TRANSFORMS[transform])
    Region.fit(region, volume)
    frame = VolumeExchange.frameOf(volume, region)
    assert frame.extent == volume.GetImageData().GetExtent()
    assert not VolumeExchange.writeRegion(volume, region, tmp_path / "region.nrrd", frame), "no voxel lies outside"
    if transform != "sheared":
        sides = np.array([26, 24, 20]) * [1.0, 1.1, 1.5]
        assert sorted(region.GetSize()) == pytest.approx(sorted(sides))
    axes = slicer.util.arrayFromVTKMatrix(region.GetObjectToWorldMatrix())[:3, :3]
    assert np.allclose(axes.T @ axes, np.eye(3)) and np.linalg.det(axes) == pytest.approx(1.0)
    assert np.all(np.diag(axes) > 0.5), "what the views call R, A and S is that"


def test_a_region_without_a_size_is_none_wherever_it_lies(a_volume):
    from CAMLSegmentationLib import VolumeExchange

    volume = a_volume("scan", noise(), ijk_to_ras(origin=(0.0, 0.0, 0.0)))
    assert VolumeExchange.voxelsOf(volume).shape == (20, 24, 26)  # its first voxel's centre is where the region is
    region = a_region()
    with pytest.raises(DataError, match="R has no size yet; place it"):
        VolumeExchange.frameOf(volume, region)
    region.SetSize(5.0, 5.0, 0.0)
    with pytest.raises(DataError, match="no size yet"):
        VolumeExchange.frameOf(volume, region)


def test_a_region_that_is_made_in_the_panel_can_be_used_at_once(panel, a_scan):
    from CAMLSegmentationLib import VolumeExchange

    ui = panel.ui
    region = ui.regionSelector.addNode()
    assert panel._parameterNode.region is region and ui.applyButton.enabled, panel.problem()
    assert VolumeExchange.frameOf(a_scan, region).extent == a_scan.GetImageData().GetExtent()
    assert region.GetNumberOfControlPoints() == 1 and region.GetDisplayNode() is not None, "there is a box to drag"


def test_a_region_that_is_made_before_a_volume_is_chosen_waits_for_it(panel, a_scan, a_volume):
    ui, node = panel.ui, panel._parameterNode
    node.inputVolume = None
    region = ui.regionSelector.addNode()
    assert not any(region.GetSize()) and not ui.applyButton.enabled and "Choose a volume" in ui.applyButton.toolTip
    node.inputVolume = a_scan
    fitted = region.GetSize()
    assert min(fitted) > 0 and ui.applyButton.enabled, panel.problem()
    node.inputVolume = a_volume("larger", noise((40, 40, 40)), ijk_to_ras())
    assert region.GetSize() == fitted, "it is the user's from then on"


def test_apply_waits_for_a_region_that_lies_in_the_volume(panel, a_scan):
    ui, node, bounds = panel.ui, panel._parameterNode, [0.0] * 6
    a_scan.GetRASBounds(bounds)
    assert ui.applyButton.enabled, panel.problem()
    region = a_region()
    node.region = region
    assert not any(region.GetSize()), "one that was made elsewhere is being placed by somebody"
    assert not ui.applyButton.enabled and "The region R has no size yet" in ui.applyButton.toolTip
    region.SetCenter(*(0.5 * (bounds[2 * i] + bounds[2 * i + 1]) for i in range(3)))
    region.SetSize(17, 17, 17)
    assert ui.applyButton.enabled, panel.problem()
    region.SetCenter(1000, 0, 0)
    assert not ui.applyButton.enabled and "does not meet" in ui.applyButton.toolTip
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("all")
    assert ui.applyButton.enabled, "it limits one volume alone"
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("one")
    assert not ui.applyButton.enabled
    node.region = None
    assert ui.applyButton.enabled, panel.problem()


def test_a_region_under_a_warp_says_what_is_in_the_way(panel, a_scan):
    import slicer
    import vtk

    warp = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for place in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (30, 30, 30)):
        points.InsertNextPoint(*place)
    moved = vtk.vtkPoints()
    moved.DeepCopy(points)
    moved.SetPoint(4, 33, 31, 30)
    warp.SetSourceLandmarks(points)
    warp.SetTargetLandmarks(moved)
    warp.SetBasisToR()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "W")
    transform.SetAndObserveTransformToParent(warp)
    a_scan.SetAndObserveTransformNodeID(transform.GetID())
    panel.ui.regionSelector.addNode()
    assert not panel.ui.applyButton.enabled and "warping transform" in panel.ui.applyButton.toolTip
