"""Copies of a result in the scene: the user's own work, never taken for the result nor shown with its figures."""

from __future__ import annotations

import pytest
from panel_tools import apply, labels_of, results
from stand_ins import ijk_to_ras, noise


@pytest.fixture
def a_result(panel, a_scan, wait_for):
    apply(panel, wait_for)
    (node,) = results()
    return node


def copied_by_script(node):
    """All of a node, references as well."""
    import slicer

    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.Copy(node)
    copy.SetName("copy")
    return copy


def cloned(node):
    """What *Clone* in the module Data makes, on the volume that the Segment Editor then asks for."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node)
    made = slicer.vtkSlicerSubjectHierarchyModuleLogic.CloneSubjectHierarchyItem(hierarchy, item, "copy")
    copy = hierarchy.GetItemDataNode(made)
    copy.SetReferenceImageGeometryParameterFromVolumeNode(slicer.util.getNode("LA 01"))
    return copy


COPIES = pytest.mark.parametrize("make_copy", [copied_by_script, cloned])


def draw(node, scan):
    import slicer

    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", scan).copy()
    voxels[:] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, "Segment_1", scan)


@COPIES
def test_a_run_updates_the_original_and_leaves_the_copy(panel, a_scan, a_result, wait_for, make_copy):
    import slicer

    copy = make_copy(a_result)
    kept = labels_of(copy, a_scan)
    slicer.util.updateVolumeFromArray(a_scan, noise(seed=5))
    apply(panel, wait_for)
    assert results() == [a_result, copy] and panel._parameterNode.result is a_result
    assert (labels_of(copy, a_scan) == kept).all() and (labels_of(a_result, a_scan) != kept).any()


@COPIES
def test_a_copy_stays_the_users_when_the_original_is_gone(panel, a_scan, a_result, wait_for, make_copy):
    import slicer

    copy = make_copy(a_result)
    slicer.mrmlScene.RemoveNode(a_result)
    kept = labels_of(copy, a_scan)
    slicer.util.updateVolumeFromArray(a_scan, noise(seed=5))
    apply(panel, wait_for)
    first, second = results()
    assert first is copy and (labels_of(copy, a_scan) == kept).all() and (labels_of(second, a_scan) != kept).any()


@COPIES
def test_a_copy_has_no_figures_of_the_original_and_is_not_asked_about(panel, a_scan, a_result, make_copy):
    from CAMLSegmentationLib.Logic import editedResults

    ui = panel.ui
    assert ui.measuresTableWidget.rowCount and ui.overlayCheckBox.enabled and ui.editedLabel.isHidden()
    panel._parameterNode.result = copy = make_copy(a_result)
    panel.update()
    assert not ui.measuresTableWidget.rowCount and not ui.overlayCheckBox.enabled
    assert not ui.nextStopButton.enabled and "A copy of a result" in ui.editedLabel.text and ui.editButton.enabled
    panel._parameterNode.result = a_result
    panel.update()
    assert ui.measuresTableWidget.rowCount and ui.overlayCheckBox.enabled and ui.editedLabel.isHidden()
    draw(copy, a_scan)
    assert editedResults([a_scan], panel.models.card) == []
    draw(a_result, a_scan)
    assert editedResults([a_scan], panel.models.card) == [a_result]


def test_a_result_of_an_earlier_version_is_told_from_its_copy(panel, a_scan, a_result):
    from CAMLSegmentationLib import SegmentationResult

    a_result.RemoveAttribute("CAMLSegmentation.Id")
    a_result.GetNodeReference(SegmentationResult.TABLE).RemoveNodeReferenceIDs("CAMLSegmentation.result")
    assert not SegmentationResult.isCopy(a_result)
    copy = copied_by_script(a_result)
    assert SegmentationResult.isCopy(copy) and not SegmentationResult.isCopy(a_result)
    assert SegmentationResult.findResult(a_scan, "Stand-in") is a_result


@pytest.mark.parametrize("added", [False, True])
def test_a_saved_scene_still_tells_result_and_copy_apart(panel, a_volume, a_result, tmp_path, added):
    import slicer
    from CAMLSegmentationLib import SegmentationResult

    copied_by_script(a_result)
    before = a_result.GetID()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    if added:  # to a scene with a node of the same id, so that the result gets another one
        a_volume("other", noise(), ijk_to_ras())
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "other")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {"clear": not added})
    found = {node.GetName(): SegmentationResult.isCopy(node) for node in results() if node.GetName() != "other"}
    assert found == {"LA 01 - Stand-in": False, "copy": True} and len(results()) == 2 + added
    assert (slicer.util.getNode("LA 01 - Stand-in").GetID() != before) == added
