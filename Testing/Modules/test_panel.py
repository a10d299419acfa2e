"""The panel as a user meets it: real .ui file, real scene, real worker process, buttons clicked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SlicerHost
from panel_tools import apply, caml_predict, finish, labels_of, results
from scipy import ndimage
from stand_ins import OBLIQUE, ijk_to_ras, noise

# Opening


def test_the_panel_opens_without_torch_and_without_importing_it():
    code = (
        "import sys, time\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'safetensors', 'SimpleITK', 'scipy'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *a: None if n in ('torch', 'safetensors') else real(n, *a)\n"
        "import SlicerHost\n"
        "SlicerHost.install()\n"
        "widget = SlicerHost.load_module(__import__('pathlib').Path(sys.argv[1]))\n"
        "SlicerHost.enter('CAMLSegmentation')\n"
        "assert 'torch' not in sys.modules and 'SimpleITK' not in sys.modules\n"
        "from SlicerHost import proxy\n"
        "assert not proxy.slot_errors\n"
        "assert 'PyTorch' in widget.panel.problem(), widget.panel.problem()\n"
        "assert not widget.ui.installFrame.isHidden() and not widget.ui.applyButton.enabled\n"
        "print('ready')\n"
    )
    repository = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(repository / "Testing")}
    module = repository / "CAMLSegmentation" / "CAMLSegmentation.py"
    done = subprocess.run(
        [sys.executable, "-c", code, str(module)], env=environment, capture_output=True, text=True, check=False
    )
    assert "ready" in done.stdout, done.stderr[-3000:]


def test_an_empty_panel_says_what_is_missing(the_segmentation_panel):
    ui = the_segmentation_panel.ui
    assert not ui.applyButton.enabled and "model" in ui.applyButton.toolTip
    assert "no model yet" in ui.modelCardTextBrowser.plainText


def test_without_a_volume_apply_says_so(panel):
    assert not panel.ui.applyButton.enabled and "volume" in panel.ui.applyButton.toolTip


def test_everything_that_can_be_operated_has_a_tooltip(panel):
    import qt

    for kind in (qt.QPushButton, qt.QComboBox, qt.QCheckBox, qt.QDoubleSpinBox, qt.QProgressBar, qt.QTableWidget):
        for widget in panel.ui.applyButton.window().findChildren(kind):
            if widget.objectName and not widget.objectName.startswith("qt_"):
                assert widget.toolTip, widget.objectName


def test_the_panel_fits_450_pixels(panel, a_scan):
    from SlicerHost import proxy

    native = proxy.to_native(panel.ui.applyButton).window()
    assert native.minimumSizeHint().width() <= 450


# Segmenting


@pytest.mark.parametrize(
    ("kind", "matrix"),
    [
        ("straight", ijk_to_ras()),
        ("anisotropic", ijk_to_ras(spacing=(0.7, 0.8, 4.0))),
        ("oblique", ijk_to_ras(axes=OBLIQUE)),
        ("sagittal", ijk_to_ras(axes=np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))),
    ],
)
def test_apply_gives_voxel_by_voxel_what_the_command_line_gives(
    panel, a_volume, a_model, wait_for, tmp_path, kind, matrix
):
    import slicer

    node = a_volume("scan", noise(), matrix)
    panel._parameterNode.inputVolume = node
    assert slicer.util.saveNode(node, str(tmp_path / "scan.nrrd"))
    apply(panel, wait_for)
    expected = caml_predict(a_model, tmp_path / "scan.nrrd", tmp_path / "labels.nrrd")
    assert expected.any()
    assert np.array_equal(labels_of(results()[0], node), expected)


def test_a_transformed_volume_is_segmented_as_the_hardened_one(panel, a_volume, a_model, wait_for, tmp_path):
    import slicer

    turn = np.eye(4)
    turn[:3, :3] = [[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]  # axes change places
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(turn))
    node = a_volume("scan", noise(), ijk_to_ras())
    node.SetAndObserveTransformNodeID(transform.GetID())
    panel._parameterNode.inputVolume = node
    apply(panel, wait_for)
    found = labels_of(results()[0], node)
    assert results()[0].GetParentTransformNode() is transform
    node.HardenTransform()
    assert slicer.util.saveNode(node, str(tmp_path / "hard.nrrd"))
    expected = caml_predict(a_model, tmp_path / "hard.nrrd", tmp_path / "labels.nrrd")
    assert expected.any() and np.array_equal(found, expected)


@pytest.mark.cold_python
def test_a_real_scan_gives_what_the_command_line_gives(panel, a_model, shared_folder, wait_for, tmp_path):
    import slicer

    path = sorted((shared_folder / "la2018").glob("*_image.nii.gz"))[0]
    node = slicer.util.loadVolume(str(path))
    panel._parameterNode.inputVolume = node
    apply(panel, wait_for)
    expected = caml_predict(a_model, path, tmp_path / "labels.nii.gz")
    assert expected.any() and np.array_equal(labels_of(results()[0], node), expected)


def test_the_result_is_shown_with_its_figures_and_its_uncertain_slices(panel, a_scan, wait_for):
    import slicer

    apply(panel, wait_for)
    ui, node = panel.ui, results()[0]
    assert panel._parameterNode.result is node and not ui.resultCollapsibleButton.collapsed
    assert ui.measuresTableWidget.rowCount == 2
    assert ui.measuresTableWidget.item(0, 0).text() == "Left atrium"
    volume = float(ui.measuresTableWidget.item(0, 1).text())
    voxel_ml = float(np.prod(a_scan.GetSpacing())) / 1000
    assert volume == pytest.approx((labels_of(node, a_scan) == 1).sum() * voxel_ml, abs=0.006)
    assert ui.nextStopButton.enabled
    ui.nextStopButton.click()
    assert "number 1 of" in ui.stopLabel.text
    position = [
        slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceToRAS().GetElement(row, 3)
        for row in range(3)
    ]
    assert position == pytest.approx(panel.result._stops[0].position)
    ui.overlayCheckBox.click()
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    from CAMLSegmentationLib import SegmentationResult

    assert composite.GetForegroundVolumeID() == node.GetNodeReferenceID(SegmentationResult.DISAGREEMENT)
    assert composite.GetBackgroundVolumeID() == a_scan.GetID()
    ui.overlayCheckBox.click()
    assert composite.GetForegroundVolumeID() is None
    ui.show3DButton.click()
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")


def test_edit_opens_the_segment_editor_with_the_volume_set(panel, a_scan, wait_for):
    import slicer

    apply(panel, wait_for)
    panel.ui.editButton.click()
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert SlicerHost.selected_module() == "SegmentEditor"
    assert editor.segmentationNode() is results()[0] and editor.sourceVolumeNode() is a_scan


def test_settings_reach_the_engine(panel, a_scan, a_model, wait_for, tmp_path):
    import slicer

    ui = panel.ui
    ui.partsComboBox.currentIndex = ui.partsComboBox.findData("largest")
    ui.disagreementCheckBox.click()
    ui.probabilityCheckBox.click()
    ui.qualityComboBox.currentIndex = ui.qualityComboBox.findData("fast")
    assert slicer.util.saveNode(a_scan, str(tmp_path / "scan.nrrd"))
    apply(panel, wait_for)
    expected = caml_predict(
        a_model, tmp_path / "scan.nrrd", tmp_path / "labels.nrrd", "--quality", "fast", "--largest-component"
    )
    node = results()[0]
    assert np.array_equal(labels_of(node, a_scan), expected)
    from CAMLSegmentationLib import SegmentationResult

    assert node.GetNodeReference(SegmentationResult.DISAGREEMENT) is None
    probability = node.GetNodeReference(SegmentationResult.PROBABILITY)
    assert slicer.util.arrayFromVolume(probability).max() <= 100
    assert not ui.overlayCheckBox.enabled and "Settings" in ui.overlayCheckBox.toolTip


def test_a_region_limits_the_result(panel, a_scan, wait_for):
    import slicer

    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    bounds = [0.0] * 6
    a_scan.GetRASBounds(bounds)
    region.SetCenter(*(0.5 * (bounds[2 * i] + bounds[2 * i + 1]) for i in range(3)))
    region.SetSize(17, 17, 17)
    panel._parameterNode.region = region
    apply(panel, wait_for)
    found = np.argwhere(labels_of(results()[0], a_scan))
    assert len(found) and np.all(np.ptp(found, axis=0) * np.array([1.5, 1.1, 1.0]) <= 17)


def test_parts_are_chosen_and_measured_within_a_turned_region(panel, a_scan, wait_for):
    """The largest part in the box around it may lie outside of the region itself."""
    import slicer
    from CAMLSegmentationLib import ResultTable, SegmentationResult

    bounds, turned = [0.0] * 6, np.eye(4)
    a_scan.GetRASBounds(bounds)
    turned[:3, :3] = [[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]
    turned[:3, 3] = [0.5 * (bounds[2 * i] + bounds[2 * i + 1]) for i in range(3)]
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "turned box")
    region.SetSize(24, 20, 28)
    region.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(turned))
    panel._parameterNode.region, panel._parameterNode.subModel = region, "v"
    to_ras, found = slicer.util.vtkMatrixFromArray(np.eye(4)), {}
    a_scan.GetIJKToRASMatrix(to_ras)
    to_ras = slicer.util.arrayFromVTKMatrix(to_ras)
    for parts in ("all", "largest"):
        panel._parameterNode.parts = parts
        apply(panel, wait_for)
        found[parts] = labels_of(results()[0], a_scan)
        places = np.c_[np.argwhere(found[parts])[:, ::-1], np.ones(np.count_nonzero(found[parts]))] @ to_ras.T
        assert np.all(np.abs(places @ np.linalg.inv(turned).T)[:, :3] <= np.array([12, 10, 14]) + 1e-6)
        rows = ResultTable.rowsOf(results()[0].GetNodeReference(SegmentationResult.TABLE))
        volumes = [np.count_nonzero(found[parts] == label) * 1.5 * 1.1 / 1000 for label in (1, 2)]
        assert [float(row[1]) for row in rows] == pytest.approx(volumes, abs=0.006)
    parts = {}
    for label in np.unique(found["all"][found["all"] > 0]):
        numbers, parts[label] = ndimage.label(found["all"] == label, np.ones((3, 3, 3)))
        largest = 1 + int(np.argmax(np.bincount(numbers.ravel())[1:]))
        assert np.array_equal(found["largest"] == label, numbers == largest)
    assert max(parts.values()) > 1


def test_several_volumes_queue_and_one_failure_does_not_stop_the_others(panel, a_volume, wait_for):
    import slicer

    good = [a_volume(f"LA {n}", noise(seed=n), ijk_to_ras()) for n in range(2)]
    flat = a_volume("flat", np.full(noise().shape, 7, np.int16), ijk_to_ras())
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("several")
    import qt

    for node in (good[0], flat, good[1]):
        ui.volumesSelector.setCheckState(node, qt.Qt.Checked)
    apply(panel, wait_for)
    assert len(results()) == 2
    assert "2 done, 1 failed" in ui.statusLabel.text and "flat" in ui.statusLabel.text
    assert "Traceback" not in ui.logTextEdit.plainText
    assert slicer.util.getNodesByClass("vtkMRMLTableNode")


def test_all_volumes_of_the_scene_leave_out_the_maps_that_were_made(panel, a_volume, wait_for):
    for n in range(2):
        a_volume(f"LA {n}", noise(seed=n), ijk_to_ras())
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("all")
    apply(panel, wait_for)
    assert len(results()) == 2
    apply(panel, wait_for)
    assert len(results()) == 2 and ui.statusLabel.text.startswith("2 done in"), ui.logTextEdit.plainText


def test_a_folder_is_segmented_into_files(panel, a_volume, a_model, wait_for, tmp_path):
    import slicer

    scans = tmp_path / "scans"
    scans.mkdir()
    for n in range(2):
        node = a_volume(f"p{n}", noise(seed=n), ijk_to_ras())
        slicer.util.saveNode(node, str(scans / f"p{n}.nrrd"))
        slicer.mrmlScene.RemoveNode(node)
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    assert not ui.applyButton.enabled
    ui.folderPathLineEdit.currentPath = str(scans)
    for end in range(1, len(str(scans))):  # as it is typed
        ui.folderPathLineEdit.currentPath = str(scans)[:end]
    ui.folderPathLineEdit.currentPath = str(scans)
    assert ui.outputFolderPathLineEdit.currentPath == str(tmp_path / "scans-segmentations")
    apply(panel, wait_for)
    written = sorted(p.name for p in (tmp_path / "scans-segmentations").iterdir())
    assert {"p0.seg.nrrd", "p1.seg.nrrd", "predictions.csv"} <= set(written)
    assert not results() and "2 done" in ui.statusLabel.text
    ui.loadResultsCheckBox.click()
    apply(panel, wait_for)
    assert len(results()) == 2


def test_a_sequence_is_segmented_frame_by_frame(panel, a_volume, wait_for):
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for n in range(3):
        node = a_volume("frame", noise(seed=n), ijk_to_ras())
        sequence.SetDataNodeAtValue(node, str(n))
        slicer.mrmlScene.RemoveNode(node)
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("sequence")
    panel._parameterNode.inputSequence, panel._parameterNode.subModel = sequence, "v"
    panel._parameterNode.parts = "largest"
    apply(panel, wait_for)
    assert panel.ui.logTextEdit.plainText.count("mL in other parts left out.") == 3
    found = [s for s in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if s is not sequence]
    assert len(found) == 1 and found[0].GetNumberOfDataNodes() == 3
    browser = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")[0]
    assert browser.IsSynchronizedSequenceNode(sequence, True) and browser.IsSynchronizedSequenceNode(found[0], True)
    assert len({found[0].GetNthIndexValue(n) for n in range(3)}) == 3
    proxy = browser.GetProxyNode(found[0])
    assert proxy.GetSegmentation().GetNumberOfSegments() == 2
    browser.SetSelectedItemNumber(0)
    proxy.GetSegmentation().GetSegment("Segment_1").SetName("mine")
    browser.SetSelectedItemNumber(1)
    browser.SetSelectedItemNumber(0)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    assert proxy.GetSegmentation().GetSegment("Segment_1").GetName() == "mine", "edits belong to their frame"


# Ending


@pytest.mark.cold_python
def test_cancel_ends_the_processes_within_three_seconds_and_leaves_the_scene(panel, a_volume, wait_for):
    import slicer

    big = a_volume("big", noise((220, 220, 160)), ijk_to_ras(spacing=(1.0, 1.0, 1.0)))
    panel._parameterNode.inputVolume = big
    panel.ui.qualityComboBox.currentIndex = panel.ui.qualityComboBox.findData("best")
    panel.update()
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.applyButton.click()
    worker = panel.logic.run._worker
    wait_for(lambda: worker._pid and "Segmenting" in panel.ui.statusLabel.text)
    pid, began = worker._pid, time.monotonic()
    assert panel.ui.cancelButton.enabled
    panel.ui.cancelButton.click()
    finish(panel, wait_for)
    assert time.monotonic() - began < 3.0
    assert not Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert panel.ui.statusLabel.text == "Cancelled." and panel.ui.applyButton.enabled


@pytest.mark.cold_python
def test_closing_the_scene_in_mid_run_ends_the_worker(panel, a_scan, wait_for):
    import slicer

    panel.ui.applyButton.click()
    worker = panel.logic.run._worker
    wait_for(lambda: worker._pid)
    pid = worker._pid
    slicer.mrmlScene.Clear()
    assert not panel.logic.running and not worker.running
    assert not Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    assert not results()


@pytest.mark.cold_python
def test_leaving_the_module_lets_the_run_go_on(panel, a_scan, wait_for):
    panel.ui.applyButton.click()
    SlicerHost.leave("CAMLSegmentation")
    finish(panel, wait_for)
    assert len(results()) == 1
    SlicerHost.enter("CAMLSegmentation")
    assert panel._parameterNode.result is results()[0]


@pytest.mark.cold_python
def test_quitting_or_reloading_in_mid_run_leaves_no_process(panel, a_scan, wait_for):
    panel.ui.applyButton.click()
    worker = panel.logic.run._worker
    wait_for(lambda: worker._pid)
    pid = worker._pid
    widget = SlicerHost.reload_module("CAMLSegmentation")
    assert not worker.running and (not Path(f"/proc/{pid}").exists() or sys.platform != "linux")
    SlicerHost.enter("CAMLSegmentation")
    assert widget.panel.ui.applyButton.enabled
