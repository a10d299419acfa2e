"""Folders that are segmented again: what a hand corrected in between is never replaced without a question."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from panel_tools import apply, results
from stand_ins import ijk_to_ras, noise, read_labels, write_series


@pytest.fixture
def scans(a_volume, tmp_path):
    """A folder of two scans; with a name that ends as if it were a file's."""
    import slicer

    folder = tmp_path / "2024.05.12"
    folder.mkdir()
    for n in range(2):
        node = a_volume(f"p{n}", noise(seed=n), ijk_to_ras())
        slicer.util.saveNode(node, str(folder / f"p{n}.nrrd"))
        slicer.mrmlScene.RemoveNode(node)
    return folder


@pytest.fixture
def done(panel, scans, wait_for):
    """The folder of results after one run of the panel."""
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(scans)
    apply(panel, wait_for)
    assert ui.statusLabel.text.startswith("2 done in"), ui.logTextEdit.plainText
    return scans.with_name("2024.05.12-segmentations")


def correct(path):
    """What a hand does: another voxel, the same file. Return the bytes of the file."""
    image = sitk.ReadImage(str(path))
    image[0, 0, 0] = 3 - int(image[0, 0, 0])
    sitk.WriteImage(image, str(path), True)
    return path.read_bytes()


def files(folder):
    return sorted(path.name for path in folder.glob("*.seg.nrrd"))


def again(panel, wait_for, answers, answer=None):
    """Press Apply; return the questions that were asked. Without an answer none may be."""
    asked = []
    answers.clear()
    if answer is not None:
        answers["QMessageBox"] = lambda question: asked.append(question) or answer
    apply(panel, wait_for)
    return asked


@pytest.mark.parametrize(
    ("line", "name", "missing"),
    [
        ("folderPathLineEdit", "inputFolder", "Choose a folder of scans."),
        ("outputFolderPathLineEdit", "outputFolder", "Choose a folder for the results."),
    ],
)
def test_a_folder_that_was_cleared_is_no_folder_any_more(panel, tmp_path, line, name, missing):
    ui, node = panel.ui, panel._parameterNode
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(tmp_path)
    ui.outputFolderPathLineEdit.currentPath = str(tmp_path / "results")
    assert ui.applyButton.enabled, panel.problem()
    getattr(ui, line).currentPath = ""
    assert getattr(node, name) == "" and getattr(ui, line).currentPath == ""
    assert not ui.applyButton.enabled and missing in ui.applyButton.toolTip
    getattr(ui, line).currentPath = str(tmp_path / "results")
    assert getattr(node, name) == str(tmp_path / "results")


def test_a_folder_with_a_dot_in_its_name_takes_results(done):
    assert files(done) == ["p0.seg.nrrd", "p1.seg.nrrd"]


def test_a_dicom_series_is_loaded_with_its_result_where_that_is_wanted(panel, tmp_path, wait_for):
    import slicer

    from caml_core.data.io import read_volume

    write_series(tmp_path / "scans" / "patient")
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(tmp_path / "scans")
    ui.loadResultsCheckBox.checked = True
    apply(panel, wait_for)
    (node,) = results()
    (volume,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert volume.GetName() == "patient"
    expected = read_volume(tmp_path / "scans" / "patient")
    assert np.array_equal(slicer.util.arrayFromVolume(volume), expected.array.transpose(2, 1, 0))
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    shown = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID()
    assert shown == volume.GetID()


def test_a_result_whose_scan_has_gone_is_loaded_as_the_models(panel, done, scans, wait_for, monkeypatch):
    from CAMLSegmentationLib import SegmentationResult, Work

    loaded = Work.FileWork._loadVolume

    def gone(work):
        work._images[0].unlink()
        return loaded(work)

    monkeypatch.setattr(Work.FileWork, "_loadVolume", gone)
    panel.ui.loadResultsCheckBox.checked = True
    apply(panel, wait_for)
    assert len(results()) == 2 and panel.ui.statusLabel.text.startswith("2 done in"), panel.ui.logTextEdit.plainText
    assert all(node.GetAttribute(SegmentationResult.MODEL) for node in results())


def test_untouched_results_are_replaced_without_a_question(panel, done, wait_for, answers):
    assert again(panel, wait_for, answers) == []
    assert files(done) == ["p0.seg.nrrd", "p1.seg.nrrd"]


def test_a_corrected_result_is_asked_about_and_spared(panel, done, wait_for, answers):
    made, corrected = read_labels(done / "p0.seg.nrrd"), correct(done / "p0.seg.nrrd")
    log = panel.ui.logTextEdit.plainText
    assert len(again(panel, wait_for, answers, "Cancel")) == 1
    assert files(done) == ["p0.seg.nrrd", "p1.seg.nrrd"] and panel.ui.logTextEdit.plainText == log
    questions = again(panel, wait_for, answers, "Keep my edits")
    assert len(questions) == 1 and "p0.seg.nrrd" in questions[0] and "p1" not in questions[0]
    assert files(done) == ["p0-2.seg.nrrd", "p0.seg.nrrd", "p1.seg.nrrd"]
    assert (done / "p0.seg.nrrd").read_bytes() == corrected
    assert np.array_equal(read_labels(done / "p0-2.seg.nrrd"), made)
    assert "p0.seg.nrrd was changed" in panel.ui.logTextEdit.plainText
    assert again(panel, wait_for, answers) == [], "the newest result of each case is a run's own"
    assert (done / "p0.seg.nrrd").read_bytes() == corrected and len(files(done)) == 3


def test_a_corrected_result_is_replaced_when_the_user_says_so(panel, done, wait_for, answers):
    made = read_labels(done / "p0.seg.nrrd")
    correct(done / "p0.seg.nrrd")
    again(panel, wait_for, answers, "Replace")
    assert files(done) == ["p0.seg.nrrd", "p1.seg.nrrd"]
    assert np.array_equal(read_labels(done / "p0.seg.nrrd"), made)


def test_earlier_results_stay_where_the_user_wants_new_ones(panel, done, wait_for, answers):
    panel._parameterNode.existing = "add"
    corrected = correct(done / "p0.seg.nrrd")
    assert again(panel, wait_for, answers) == []
    assert files(done) == ["p0-2.seg.nrrd", "p0.seg.nrrd", "p1-2.seg.nrrd", "p1.seg.nrrd"]
    assert (done / "p0.seg.nrrd").read_bytes() == corrected


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_script_replaces_corrected_results_on_request_alone(panel, done, scans, a_model, overwrite):
    corrected = correct(done / "p0.seg.nrrd")
    options = {"overwriteEdits": True} if overwrite else {}
    run = panel.logic.segmentFolder(scans, done, a_model, load=True, **options)
    assert run.ended and not run.summary.failures and len(results()) == 2
    assert ((done / "p0.seg.nrrd").read_bytes() == corrected) != overwrite
    assert ("p0-2.seg.nrrd" in files(done)) != overwrite
    assert [delivery.path.name for delivery in run.summary.deliveries] == [
        "p0.seg.nrrd" if overwrite else "p0-2.seg.nrrd",
        "p1.seg.nrrd",
    ]


def test_what_is_no_case_is_named_in_the_log(panel, scans, monkeypatch):
    """A patient's folder with two volumes: which of them is meant?"""
    monkeypatch.setattr(panel.logic, "start", lambda card, works, *rest: None)
    patient = scans / "patient"
    patient.mkdir()
    for name in ("t1.nrrd", "t2.nrrd"):
        (patient / name).write_bytes((scans / "p0.nrrd").read_bytes())
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(scans)
    panel.update()
    ui.applyButton.click()
    assert "patient" in ui.logTextEdit.plainText and "p0" not in ui.logTextEdit.plainText
