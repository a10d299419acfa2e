"""The panel when something goes wrong, and what it remembers."""

from __future__ import annotations

import numpy as np
import pytest
import SlicerHost
from panel_tools import apply, finish, labels_of, results
from stand_ins import ijk_to_ras, noise

# What goes wrong


def test_a_truncated_model_is_listed_with_its_fault(panel, a_model, a_scan):
    a_model.write_bytes(a_model.read_bytes()[:2000])
    panel.enter()
    ui = panel.ui
    assert not ui.applyButton.enabled
    assert "cut short" in ui.modelCardTextBrowser.plainText


def test_weights_that_were_altered_are_one_sentence(panel, a_model, a_scan, wait_for):
    content = bytearray(a_model.read_bytes())
    content[len(content) // 2] ^= 0xFF
    a_model.write_bytes(content)
    panel.enter()
    apply(panel, wait_for)  # the card is whole: only the worker reads the weights
    text = panel.ui.statusLabel.text
    assert not results() and "stand-in.caml" in text and "again" in text and "Error" not in text


def test_a_model_that_vanished_is_said_before_and_not_after(panel, a_model, a_scan):
    a_model.unlink()
    panel.update()
    assert not panel.ui.applyButton.enabled and "gone" in panel.ui.applyButton.toolTip


def test_a_volume_of_another_modality_gets_a_warning_before(panel, a_volume):
    ct = a_volume("CT", np.random.default_rng(0).integers(-1024, 1500, (20, 24, 26)).astype(np.int16), ijk_to_ras())
    panel._parameterNode.inputVolume = ct
    assert "<b>Warning:</b>" in panel.ui.fitLabel.text and "MR" in panel.ui.fitLabel.text
    assert panel.ui.applyButton.enabled
    panel._parameterNode.inputVolume = a_volume("MR", noise(), ijk_to_ras())
    assert "CT" not in panel.ui.fitLabel.text


def test_the_region_is_compared_with_what_the_model_saw(panel, a_scan):
    import slicer

    ui, bounds = panel.ui, [0.0] * 6
    a_scan.GetRASBounds(bounds)
    assert not ui.fitLabel.text
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    panel._parameterNode.region = region
    assert not ui.fitLabel.text, "it is still to be placed"
    region.SetCenter(*(0.5 * (bounds[2 * i] + bounds[2 * i + 1]) for i in range(3)))
    region.SetSize(8, 8, 8)
    assert "spans" in ui.fitLabel.text and "region that shows more" in ui.fitLabel.text
    region.SetSize(60, 60, 60)
    assert not ui.fitLabel.text
    region.SetCenter(1000, 0, 0)
    assert "does not meet" in ui.fitLabel.text
    panel._parameterNode.region = None
    assert not ui.fitLabel.text
    region.SetSize(8, 8, 8)
    assert not ui.fitLabel.text


def test_a_map_of_a_result_is_no_scan(panel, a_scan, wait_for):
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    mapNode = results()[0].GetNodeReference(SegmentationResult.DISAGREEMENT)
    panel._parameterNode.inputVolume = mapNode
    assert not panel.ui.applyButton.enabled and "no scan" in panel.ui.applyButton.toolTip


def test_running_again_goes_on_showing_the_overlay(panel, a_scan, wait_for):
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    panel.ui.overlayCheckBox.click()
    apply(panel, wait_for)
    import slicer

    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == results()[0].GetNodeReferenceID(SegmentationResult.DISAGREEMENT)
    assert len(slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")) == 1


def test_a_volume_that_gets_its_voxels_later_can_be_segmented(panel, wait_for):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "late")
    panel._parameterNode.inputVolume = node
    assert panel.ui.applyButton.enabled
    panel.ui.applyButton.click()
    finish(panel, wait_for)
    assert "no voxels" in panel.ui.statusLabel.text
    slicer.util.updateVolumeFromArray(node, noise())
    apply(panel, wait_for)
    assert len(results()) == 1


def test_a_removed_volume_is_no_longer_asked_for(panel, a_volume):
    import slicer

    first, second = (a_volume(f"LA {n}", noise(seed=n), ijk_to_ras()) for n in range(2))
    panel._parameterNode.inputVolume = first
    panel._parameterNode.inputKind = "several"
    panel._parameterNode.inputVolumes = [first, second]
    slicer.mrmlScene.RemoveNode(first)
    assert panel.inputs.volumes() == [second] and panel.ui.applyButton.enabled


def test_hand_edits_are_asked_about(panel, a_scan, wait_for, answers):
    import slicer

    apply(panel, wait_for)
    node = results()[0]
    changed = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", a_scan).copy()
    changed[:3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, "Segment_1", a_scan)
    answers["QMessageBox"] = "Cancel"
    panel.ui.applyButton.click()
    assert not panel.logic.running and len(results()) == 1
    answers["QMessageBox"] = "Keep my edits"
    apply(panel, wait_for)
    assert len(results()) == 2
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", a_scan), changed)


def test_hand_edits_are_replaced_when_the_user_says_so(panel, a_scan, wait_for, answers):
    import slicer

    apply(panel, wait_for)
    node = results()[0]
    made = labels_of(node, a_scan)
    changed = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", a_scan).copy()
    changed[:3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, "Segment_1", a_scan)
    answers["QMessageBox"] = "Replace"
    apply(panel, wait_for)
    assert len(results()) == 1 and np.array_equal(labels_of(node, a_scan), made)


# What is remembered


def test_a_scene_saved_and_opened_again_keeps_settings_and_links(panel, a_scan, wait_for, tmp_path):
    import slicer

    panel.ui.partsComboBox.currentIndex = panel.ui.partsComboBox.findData("largest")
    panel.ui.smallestIslandSpinBox.value = 0.25
    panel.ui.qualityComboBox.currentIndex = panel.ui.qualityComboBox.findData("fast")
    apply(panel, wait_for)
    before = labels_of(results()[0], a_scan)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    node = panel.logic.getParameterNode()
    assert node.inputVolume.GetName() == "LA 01" and node.result is results()[0]
    assert node.parts == "largest" and node.smallestIslandMl == 0.25 and node.quality == "fast"
    from CAMLSegmentationLib import SegmentationResult

    result = results()[0]
    assert SegmentationResult.sourceOf(result) is node.inputVolume
    assert result.GetNodeReference(SegmentationResult.TABLE) is not None
    assert np.array_equal(labels_of(result, node.inputVolume), before)
    assert not SegmentationResult.isEdited(result)
    ui = panel.ui
    assert ui.partsComboBox.currentData == "largest" and ui.qualityComboBox.currentData == "fast"
    assert ui.volumeSelector.currentNode() is node.inputVolume and ui.applyButton.enabled
    apply(panel, wait_for)
    assert len(results()) == 1, "the result of the opened scene is updated, not added to"


def test_a_scene_whose_map_is_missing_on_the_disk_can_be_worked_with(panel, a_scan, wait_for, tmp_path):
    import slicer
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    mapNode = results()[0].GetNodeReference(SegmentationResult.DISAGREEMENT)
    for node, name in ((a_scan, "scan.nrrd"), (mapNode, "map.nrrd"), (results()[0], "result.seg.nrrd")):
        slicer.util.saveNode(node, str(tmp_path / name))
    slicer.util.saveScene(str(tmp_path / "scene.mrml"))
    (tmp_path / "map.nrrd").unlink()
    with pytest.raises(RuntimeError, match="disagreement"):  # as Slicer's window says
        slicer.util.loadScene(str(tmp_path / "scene.mrml"), {"clear": True})
    ui, node = panel.ui, panel._parameterNode
    panel.setParameterNode(None)
    panel.setParameterNode(node)  # as loading did; VTK does not let the exceptions of its observers through
    assert node.result is results()[0] and ui.editButton.enabled
    assert ui.applyButton.enabled and not ui.overlayCheckBox.enabled and not ui.nextStopButton.enabled
    apply(panel, wait_for)
    assert len(results()) == 1 and ui.overlayCheckBox.enabled, "the next run makes the map again"


@pytest.mark.parametrize("meanwhile", ["a second click", "the scene is closed"])
def test_what_happens_while_apply_looks_at_the_input(panel, a_scan, wait_for, monkeypatch, meanwhile):
    """Slicer handles what waits before it looks."""
    import slicer

    def happen():
        monkeypatch.undo()
        panel.ui.applyButton.click() if meanwhile == "a second click" else slicer.mrmlScene.Clear()

    monkeypatch.setattr(slicer.app, "processEvents", happen)
    panel.ui.applyButton.click()
    assert "is running" not in panel.ui.statusLabel.text + panel.ui.logTextEdit.plainText
    assert panel.logic.running == (meanwhile == "a second click") and not panel.ui.applyButton.enabled
    finish(panel, wait_for)
    assert len(results()) == (1 if meanwhile == "a second click" else 0)


def test_the_device_belongs_to_the_computer_and_not_to_the_scene(panel, a_scan, wait_for):
    import slicer

    ui = panel.ui
    ui.settingsCollapsibleButton.collapsed = False
    wait_for(lambda: not panel.settings._worker.running)
    titles = [ui.deviceComboBox.itemText(i) for i in range(ui.deviceComboBox.count)]
    assert titles[0] == "Auto" and any("Processor" in title and "GB" in title for title in titles)
    ui.deviceComboBox.currentIndex = ui.deviceComboBox.findData("cpu")
    slicer.mrmlScene.Clear()
    assert ui.deviceComboBox.currentData == "cpu"
    from CAMLSegmentationLib import Parameters

    assert Parameters.settingsOf(panel.logic.getParameterNode()).device == "cpu"


def test_the_log_can_be_copied(panel, a_scan, wait_for):
    import qt

    apply(panel, wait_for)
    panel.ui.copyLogButton.click()
    assert "LA 01" in qt.QApplication.clipboard().text()


def edit(node, volume):
    """What a hand does to a result: some slices more of the first segment."""
    import slicer

    changed = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", volume).copy()
    changed[:3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, "Segment_1", volume)


def test_figures_of_a_result_that_a_hand_edited_since_are_marked(panel, a_scan, wait_for, answers):
    apply(panel, wait_for)
    ui, node = panel.ui, results()[0]
    assert ui.editedLabel.isHidden()
    SlicerHost.leave("CAMLSegmentation")
    edit(node, a_scan)
    SlicerHost.enter("CAMLSegmentation")
    assert not ui.editedLabel.isHidden() and "not of your edits" in ui.editedLabel.text
    answers["QMessageBox"] = "Replace"
    apply(panel, wait_for)
    assert results() == [node] and ui.editedLabel.isHidden() and not ui.editedLabel.text
    edit(node, a_scan)
    panel.update()
    assert not ui.editedLabel.isHidden(), "also without leaving the module"


def test_a_temporary_folder_that_cannot_be_used_is_one_sentence(panel, a_scan, wait_for, monkeypatch, tmp_path):
    import slicer

    (tmp_path / "taken").write_text("a file")
    with monkeypatch.context() as changed:
        changed.setattr(slicer.app, "temporaryPath", str(tmp_path / "taken"))
        panel.ui.applyButton.click()
        text = panel.ui.statusLabel.text
        assert str(tmp_path / "taken") in text and "settings" in text and not panel.logic.running
    apply(panel, wait_for)
    assert len(results()) == 1
