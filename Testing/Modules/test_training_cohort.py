"""The cohort: scans of the scene and of folders, their labels and roles, and that nothing of them is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stand_ins import OBLIQUE, read_labels
from training_tools import (
    SEGMENT,
    add_scan,
    add_segmentation,
    ball,
    cell,
    draw,
    roles,
    scan,
    select,
    write_folder,
)

from caml_core.data.cohort import load_cohort
from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels


def message(panel) -> str:
    return panel.ui.cohortMessageLabel.text


def accept(panel, *cases):
    select(panel, cases)
    panel.ui.useAsLabeledButton.click()


def case_of(panel, name):
    return panel.logic.project.cases[name]


# The scene


def test_every_scan_of_the_scene_is_a_case(training, wait_for):
    import slicer

    add_scan(0, "LA 01")
    add_scan(1, "LA 02")
    hidden = add_scan(2, "hidden")
    hidden.SetHideFromEditors(True)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "a label map")
    wait_for(lambda: training.ui.casesTableWidget.rowCount == 2)
    assert roles(training) == {"LA 01": "unlabeled", "LA 02": "unlabeled"}
    assert cell(training, "LA 01", "Size") == "24 x 22 x 20"
    assert cell(training, "LA 01", "Spacing (mm)") == "1.5 x 1.5 x 1.5"


def test_two_scans_of_one_name_are_two_cases(training):
    add_scan(0, "LA")
    add_scan(1, "LA")
    training.update()
    assert list(roles(training)) == ["LA", "LA-2"]
    assert "LA-2" in message(training)


def test_a_scan_that_was_never_written_goes_with_its_volume(training):
    import slicer

    node = add_scan(0, "LA 01")
    training.update()
    slicer.mrmlScene.RemoveNode(node)
    training.update()
    assert not roles(training)
    assert "LA 01 was removed from the scene" in message(training)


def test_a_scan_that_was_written_stays(training):
    import slicer

    node = add_scan(0, "LA 01")
    add_segmentation(node, ball(0))
    training.update()
    accept(training, "LA 01")
    slicer.mrmlScene.RemoveNode(node)
    training.update()
    assert roles(training) == {"LA 01": "labeled"}
    assert not training.logic.project.missing()


def test_a_volume_from_a_file_is_referenced_where_it_lies(training, tmp_path):
    import slicer

    folder = write_folder(tmp_path / "scans", 1)
    volume = slicer.util.loadVolume(str(folder / "case-00.nii.gz"))
    add_segmentation(volume, ball(0))
    training.update()
    accept(training, volume.GetName())
    assert case_of(training, volume.GetName()).images == (folder / "case-00.nii.gz",)
    assert not (training.logic.project.folder / "volumes").exists()


def test_a_volume_that_was_changed_in_the_scene_is_written_once(training, tmp_path):
    import slicer

    folder = write_folder(tmp_path / "scans", 1)
    volume = slicer.util.loadVolume(str(folder / "case-00.nii.gz"))
    slicer.util.updateVolumeFromArray(volume, scan(5))
    training.update()
    training.logic.cohort.ensureFile(volume.GetName())
    (path,) = case_of(training, volume.GetName()).images
    assert path.parent == training.logic.project.folder / "volumes"
    assert np.array_equal(read_volume(path).array, scan(5).transpose(2, 1, 0))
    before = path.stat().st_mtime_ns
    training.logic.cohort.ensureFile(volume.GetName())
    assert path.stat().st_mtime_ns == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# Use as labeled


@pytest.mark.parametrize("axes", [None, OBLIQUE, np.eye(3)[:, [2, 0, 1]]], ids=["straight", "oblique", "sagittal"])
def test_what_was_drawn_is_what_the_engine_reads(training, axes):
    volume = add_scan(3, "LA 03", axes)
    add_segmentation(volume, ball(3))
    training.update()
    accept(training, "LA 03")
    cohort = load_cohort(training.logic.project.file)
    case = cohort.cases[0]
    assert case.role == "labeled"
    image = read_volume(case.images[0])
    found = read_case_labels(case, image.grid, cohort.segments)
    assert np.array_equal(image.array, scan(3).transpose(2, 1, 0))
    assert np.array_equal(found.array > 0, ball(3).transpose(2, 1, 0))
    assert [s.name for s in cohort.segments] == [SEGMENT]
    assert cohort.segments[0].color == pytest.approx((0.2, 0.4, 0.8))


def test_under_a_transform_scan_and_label_go_together(training):
    import slicer
    import vtk

    volume = add_scan(4, "LA 04")
    node = add_segmentation(volume, ball(4))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    for (row, column), value in {(0, 0): 0.0, (0, 1): -1.0, (1, 0): 1.0, (1, 1): 0.0, (2, 3): 40.0}.items():
        matrix.SetElement(row, column, value)
    transform.SetMatrixTransformToParent(matrix)
    for moved in (volume, node):
        moved.SetAndObserveTransformNodeID(transform.GetID())
    training.update()
    accept(training, "LA 04")
    cohort = load_cohort(training.logic.project.file)
    image = read_volume(cohort.cases[0].images[0])
    found = read_case_labels(cohort.cases[0], image.grid, cohort.segments)
    assert np.array_equal(found.array > 0, ball(4).transpose(2, 1, 0))
    # and back: a label that is opened again lies where it was drawn
    slicer.mrmlScene.RemoveNode(node)
    training.openCase("LA 04")
    again = training.logic.cohort.segmentationNode("LA 04")
    there = slicer.util.arrayFromSegmentBinaryLabelmap(again, again.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.array_equal(there > 0, ball(4))


def test_an_empty_segmentation_is_refused(training):
    add_segmentation(add_scan(0, "LA 01"), np.zeros_like(ball(0)))
    training.update()
    accept(training, "LA 01")
    assert roles(training) == {"LA 01": "unlabeled"}
    assert "is empty; draw its segments first" in message(training)


def test_a_case_without_a_segmentation_is_told_what_to_do(training):
    add_scan(0, "LA 01")
    training.update()
    accept(training, "LA 01")
    assert "press Edit and draw it" in message(training)


def test_a_segment_of_another_name_is_refused(training):
    for seed, name in ((0, "ball"), (1, "bowl")):
        add_segmentation(add_scan(seed), ball(seed), name)
    training.update()
    accept(training, "Scan 00")
    accept(training, "Scan 01")
    assert roles(training) == {"Scan 00": "labeled", "Scan 01": "unlabeled"}
    assert "'bowl'" in message(training).replace("&#x27;", "'") and "'ball'" in message(training).replace("&#x27;", "'")


def test_a_segment_that_was_left_empty_is_refused(training):
    node = add_segmentation(add_scan(0), ball(0))
    node.GetSegmentation().AddEmptySegment("", "handle")
    training.update()
    accept(training, "Scan 00")
    assert roles(training) == {"Scan 00": "unlabeled"}
    assert "the segment handle is empty" in message(training)


def test_a_segment_that_a_patient_lacks_is_allowed_and_said(training):
    first = add_segmentation(add_scan(0), ball(0))
    volume = add_scan(1)
    add_segmentation(volume, ball(1))
    first.GetSegmentation().AddEmptySegment("", "handle")
    training.update()
    draw(first, training.logic.cohort.volumeNode("Scan 00"), np.roll(ball(0), 3, 0) & ~ball(0), 1)
    accept(training, "Scan 00", "Scan 01")
    assert roles(training) == {"Scan 00": "labeled", "Scan 01": "labeled"}
    assert "Scan 01 has no handle" in message(training)


def test_a_segmentation_of_another_scan_is_refused(training):
    node = add_segmentation(add_scan(0), ball(0))
    add_scan(1).SetOrigin(500, 500, 500)
    training.update()
    training.logic.cohort.assign("Scan 01", node)
    accept(training, "Scan 01")
    assert roles(training)["Scan 01"] == "unlabeled"
    assert "does not lie on the volume" in message(training)


def test_a_segmentation_under_another_transform_is_refused(training):
    import slicer

    volume = add_scan(0)
    add_segmentation(volume, ball(0))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    volume.SetAndObserveTransformNodeID(transform.GetID())
    training.update()
    accept(training, "Scan 00")
    assert "another transform" in message(training)


def test_an_older_label_is_kept_when_a_newer_one_is_taken(training):
    volume = add_scan(0)
    node = add_segmentation(volume, ball(0))
    training.update()
    accept(training, "Scan 00")
    first = case_of(training, "Scan 00").label
    accept(training, "Scan 00")
    assert case_of(training, "Scan 00").label == first, "nothing changed, nothing is written"
    smaller = ball(0) & np.roll(ball(0), 2, 0)
    draw(node, volume, smaller)
    training.logic.cohort.noteEdits("Scan 00")
    training.update()
    assert cell(training, "Scan 00", "Status") == "edited"
    accept(training, "Scan 00")
    second = case_of(training, "Scan 00").label
    assert second != first and first.exists()
    assert np.array_equal(read_labels(second) > 0, smaller)
    assert cell(training, "Scan 00", "Status") == "accepted"


def test_a_full_disk_loses_no_label(training, a_full_disk):
    volume = add_scan(0)
    node = add_segmentation(volume, ball(0))
    training.update()
    accept(training, "Scan 00")
    before = case_of(training, "Scan 00")
    draw(node, volume, ball(0) & np.roll(ball(0), 2, 0))
    with a_full_disk(100):
        accept(training, "Scan 00")
    assert "disk is full" in message(training) or "could not be written" in message(training), message(training)
    assert case_of(training, "Scan 00").label == before.label and before.label.exists()
    assert [p.name for p in before.label.parent.iterdir()] == [before.label.name], "nothing half-written stays"
    assert load_cohort(training.logic.project.file).cases[0].label == before.label


# Folders


def test_a_folder_is_listed_and_nothing_loaded(training, tmp_path, answers, wait_for):
    import slicer

    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 4, labels=2))
    training.ui.addFolderButton.click()
    assert list(roles(training)) == [f"case-{i:02d}" for i in range(4)]
    assert set(roles(training).values()) == {"unlabeled"}
    assert "2 of 4 new cases have a label file" in message(training)
    wait_for(lambda: cell(training, "case-03", "Size") == "24 x 22 x 20")
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_the_same_folder_in_another_project_is_described_as_well(training, tmp_path, wait_for):
    folder = write_folder(tmp_path / "scans", 2)
    for name in ("project", "second"):
        training.ui.projectDirectoryButton.directory = str(tmp_path / name)
        training.logic.addFolder(folder)
        training.update()
        wait_for(lambda: cell(training, "case-01", "Size") == "24 x 22 x 20")


def test_label_files_become_labels_when_the_user_says_so(training, tmp_path, answers):
    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 3, labels=2))
    training.ui.addFolderButton.click()
    training.ui.segmentsLineEdit.text = "ball"
    training.cohort._onSegments()
    accept(training, "case-00", "case-01", "case-02")
    assert roles(training) == {"case-00": "labeled", "case-01": "labeled", "case-02": "unlabeled"}
    assert "case-02 has no segmentation" in message(training)
    assert cell(training, "case-00", "Segments") == "ball"


def test_many_labels_are_checked_while_the_window_stays_alive(training, tmp_path, wait_for):
    training.logic.addFolder(write_folder(tmp_path / "scans", 8, labels=7))
    training.update()
    accept(training, *roles(training))
    assert not training.ui.useAsLabeledButton.enabled, "not twice at once"
    assert set(roles(training).values()) == {"unlabeled"}, "nothing has happened before the next turn"
    wait_for(lambda: training.ui.useAsLabeledButton.enabled)
    assert list(roles(training).values()) == ["labeled"] * 7 + ["unlabeled"]
    assert "case-07 has no segmentation" in message(training)
    assert [c.role for c in load_cohort(training.logic.project.file).cases] == list(roles(training).values())


def test_a_damaged_label_file_is_refused_by_name(training, tmp_path, answers):
    folder = write_folder(tmp_path / "scans", 1, labels=1)
    (folder / "case-00_label.nii.gz").write_bytes(b"torn")
    answers["getExistingDirectory"] = str(folder)
    training.ui.addFolderButton.click()
    accept(training, "case-00")
    assert roles(training) == {"case-00": "unlabeled"}
    assert "case-00_label.nii.gz" in message(training)


def test_labels_are_taken_in_bulk_and_are_selected(training, tmp_path, answers):
    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 3))
    training.ui.addFolderButton.click()
    labels = write_folder(tmp_path / "drawn", 2, labels=2)
    for image in labels.glob("case-??.nii.gz"):
        image.unlink()
    answers["getExistingDirectory"] = str(labels)
    training.ui.addLabelsButton.click()
    assert training.cohort.table.selected() == ["case-00", "case-01"]
    training.ui.useAsLabeledButton.click()
    assert list(roles(training).values()) == ["labeled", "labeled", "unlabeled"]


def test_an_empty_folder_is_said(training, tmp_path, answers):
    (tmp_path / "nothing").mkdir()
    answers["getExistingDirectory"] = str(tmp_path / "nothing")
    training.ui.addFolderButton.click()
    assert "has no cases" in message(training)


def test_scans_that_moved_are_located(training, tmp_path, answers):
    folder = write_folder(tmp_path / "scans", 2)
    answers["getExistingDirectory"] = str(folder)
    training.ui.addFolderButton.click()
    shutil.move(folder, tmp_path / "archive")
    assert len(training.logic.project.missing()) == 2
    answers["getExistingDirectory"] = str(tmp_path / "archive")
    training.ui.locateButton.click()
    assert not training.logic.project.missing()
    assert "2 cases were found there; 0 are still missing" in message(training)


def write_series(folder: Path) -> Path:
    """A DICOM series whose slices are stored from the top down."""
    import SimpleITK as sitk

    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, position in enumerate((8.0, 6.0, 4.0, 2.0)):
        plane = sitk.GetImageFromArray((np.arange(12 * 10).reshape(12, 10) + 200 * index).astype(np.int16))
        plane.SetSpacing((0.5, 0.75))
        tags = {
            "0008|0060": "MR", "0008|0016": "1.2.840.10008.5.1.4.1.1.4", "0008|0018": f"1.2.3.{index + 1}",
            "0020|000e": "1.2.3", "0020|000d": "1.2", "0020|0013": str(index + 1), "0020|0032": f"1\\2\\{position}",
            "0020|0037": "1\\0\\0\\0\\1\\0", "0028|0030": "0.75\\0.5",
        }  # fmt: skip
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(plane)
    return folder


def test_a_dicom_series_is_labelled_where_training_looks(training, tmp_path):
    folder = write_series(tmp_path / "scans" / "patient")
    training.logic.addFolder(tmp_path / "scans")
    training.logic.cohort.setSegments(["ball"])
    training.update()
    training.openCase("patient")
    volume, node = training.edit.editor.sourceVolumeNode(), training.edit.editor.segmentationNode()
    mask = np.zeros((4, 12, 10), bool)
    mask[1, 3:6, 2:9] = True
    draw(node, volume, mask)
    training.ui.acceptNextButton.click()
    case = load_cohort(training.logic.project.file).cases[0]
    assert case.images == (folder,) and case.role == "labeled"
    image = read_volume(folder)
    found = read_case_labels(case, image.grid, training.logic.project.segments)
    assert np.array_equal(found.array > 0, mask.transpose(2, 1, 0))
    values = set(image.array[found.array > 0].tolist())
    import slicer

    assert values == set(slicer.util.arrayFromVolume(volume)[mask].tolist())


def test_practice_makes_a_cohort_where_there_is_none(training, wait_for, tmp_path):
    assert training.ui.practiceButton.enabled
    training.ui.practiceButton.click()
    assert "practise" in message(training) and not training.ui.practiceButton.enabled
    wait_for(lambda: len(roles(training)) == 14, 300)
    assert set(roles(training).values()) == {"unlabeled"}
    assert "7 of 14 new cases have a label file" in message(training)
    assert not training.ui.practiceButton.enabled
    assert "your own" in training.ui.practiceButton.toolTip


# The table


def test_many_roles_at_once(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 5))
    training.update()
    select(training, ["case-01", "case-03"])
    training.ui.excludeButton.click()
    assert [r == "excluded" for r in roles(training).values()] == [False, True, False, True, False]
    training.ui.unlabeledButton.click()
    assert set(roles(training).values()) == {"unlabeled"}


def test_the_table_sorts_and_filters(training, tmp_path):
    import qt

    training.logic.addFolder(write_folder(tmp_path / "scans", 4))
    training.logic.project.update("case-02", role="excluded", agreement={"ball": 0.5})
    training.logic.project.update("case-01", agreement={"ball": 0.9})
    training.update()
    table, column = training.ui.casesTableWidget, 4
    table.sortByColumn(column, qt.Qt.DescendingOrder)
    assert [table.item(row, 0).text() for row in range(2)] == ["case-02", "case-01"]
    training.ui.filterSearchBox.text = "CASE-0 excl"
    shown = [table.item(row, 0).text() for row in range(table.rowCount) if not table.isRowHidden(row)]
    assert shown == ["case-02"]
    training.ui.filterSearchBox.text = ""
    training.ui.filterRoleComboBox.currentIndex = training.ui.filterRoleComboBox.findData("unlabeled")
    shown = [table.item(row, 0).text() for row in range(table.rowCount) if not table.isRowHidden(row)]
    assert sorted(shown) == ["case-00", "case-01", "case-03"]


def test_hidden_rows_are_not_changed(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 3))
    training.update()
    select(training, ["case-00", "case-01", "case-02"])
    training.ui.filterSearchBox.text = "case-01"
    training.ui.excludeButton.click()
    assert [c for c, r in roles(training).items() if r == "excluded"] == ["case-01"]


def test_hundreds_of_cases_are_listed_without_being_read(training, tmp_path):
    """Speed is measured in Testing/benchmarks; here, that no file is opened to list them."""
    (tmp_path / "scans").mkdir()
    for number in range(300):
        (tmp_path / "scans" / f"case-{number:03d}.nii.gz").write_bytes(b"")
    training.logic.addFolder(tmp_path / "scans")
    training.update()
    assert training.ui.casesTableWidget.rowCount == 300


def test_the_table_is_saved_as_csv(training, tmp_path, answers):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2))
    answers["getSaveFileName"] = str(tmp_path / "table.csv")
    training.ui.exportTableButton.click()
    assert [c.id for c in load_cohort(tmp_path / "table.csv").cases] == ["case-00", "case-01"]


def test_validation_cases_are_held_out_by_chance_once(a_cohort, training):
    a_cohort(labeled=4, unlabeled=1)
    training.ui.holdOutSpinBox.value = 2
    training.ui.holdOutButton.click()
    held = [c for c, r in roles(training).items() if r == "validation"]
    assert len(held) == 2
    assert [
        c["id"] for c in json.loads(training.logic.project.file.read_text())["cases"] if c["role"] == "validation"
    ] == held


# Editing


def test_one_case_takes_two_clicks_besides_the_drawing(training):
    for seed in range(3):
        add_scan(seed)
    training.ui.segmentsLineEdit.text = "ball, handle"
    training.cohort._onSegments()
    select(training, ["Scan 00"])
    training.ui.editButton.click()
    assert training.ui.pagesStackedWidget.currentIndex == 1
    node, volume = training.edit.editor.segmentationNode(), training.edit.editor.sourceVolumeNode()
    assert volume.GetName() == "Scan 00"
    names = [node.GetSegmentation().GetNthSegment(i).GetName() for i in range(2)]
    assert names == ["ball", "handle"]
    draw(node, volume, ball(0), 0)
    training.ui.acceptNextButton.click()
    assert "handle is empty" in training.ui.editMessageLabel.text, "a forgotten segment keeps the case open"
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(1))
    training.ui.acceptNextButton.click()
    assert roles(training)["Scan 00"] == "labeled"
    assert training.edit.case == "Scan 01"
    assert training.edit.editor.sourceVolumeNode().GetName() == "Scan 01"


def test_back_keeps_what_was_drawn(training):
    add_scan(0)
    training.ui.segmentsLineEdit.text = "ball"
    training.cohort._onSegments()
    training.openCase("Scan 00")
    node = training.edit.editor.segmentationNode()
    draw(node, training.edit.editor.sourceVolumeNode(), ball(0))
    training.ui.backButton.click()
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert cell(training, "Scan 00", "Status") == "edited"
    training.openCase("Scan 00")
    assert training.edit.editor.segmentationNode() is node


def test_colours_and_terminology_of_the_cohort_are_in_a_new_segmentation(training, stand_in):
    from stand_ins import SEGMENTS

    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([s.name for s in SEGMENTS], SEGMENTS)
    training.openCase("Scan 00")
    from CAMLTrainingLib.CaseExchange import segmentsOf

    found = segmentsOf(training.edit.editor.segmentationNode())
    assert [(s.name, s.terminology) for s in found] == [(s.name, s.terminology) for s in SEGMENTS]
    assert [s.color for s in found] == [pytest.approx(s.color) for s in SEGMENTS]


def test_next_goes_through_all_and_then_back(training):
    for seed in range(3):
        add_scan(seed)
    training.update()
    training.openCase("Scan 01")
    seen = [training.edit.case]
    training.ui.nextButton.click()
    seen.append(training.edit.case)
    training.ui.nextButton.click()
    seen.append(training.edit.case)
    assert seen == ["Scan 01", "Scan 02", "Scan 00"]


def test_a_case_whose_scan_is_gone_says_so(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 1))
    training.update()
    (tmp_path / "scans" / "case-00.nii.gz").unlink()
    training.openCase("case-00")
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert "case-00 is not there" in message(training)


def test_a_label_file_opens_for_correction_as_it_is(training, tmp_path):
    import slicer

    training.logic.addFolder(write_folder(tmp_path / "scans", 1, labels=1))
    training.logic.cohort.setSegments(["ball"])
    training.update()
    training.openCase("case-00")
    node, volume = training.edit.editor.segmentationNode(), training.edit.editor.sourceVolumeNode()
    there = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.array_equal(there > 0, ball(0))
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "ball"


# Coming back


def test_the_scene_brings_cohort_roles_and_split_back(training, a_cohort, tmp_path):
    import slicer

    names = a_cohort(labeled=2, unlabeled=1, validation=1)
    before = roles(training)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    training.update()
    assert not roles(training)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert roles(training) == before
    assert training.logic.cohort.volumeNode(names[0]) is not None
    assert training.logic.cohort.segmentationNode(names[0]) is not None


def test_without_its_folder_the_scene_still_knows(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=1)
    before = roles(training)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    shutil.rmtree(tmp_path / "project")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert roles(training) == before
    assert "the cohort comes from the scene" in message(training)


def test_the_folder_alone_brings_everything_back_in_a_fresh_process(training, a_cohort, caml_environment):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    code = (
        "import sys; from pathlib import Path\n"
        "from caml_core.project.project import Project\n"
        "p = Project.open(Path(sys.argv[1]))\n"
        "print({c.id: c.role for c in p.cases.values()}, p.missing(), [s.name for s in p.segments])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(training.logic.project.folder)],
        env=caml_environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"{roles(training)} () ['{SEGMENT}']"


def test_another_project_does_not_mix_with_the_first(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=0, validation=1)
    slicer.mrmlScene.Clear()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    assert not roles(training)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    assert list(roles(training).values()) == ["labeled", "labeled", "validation"]


def test_a_project_of_a_newer_version_is_left_alone(training, tmp_path):
    folder = tmp_path / "newer"
    folder.mkdir()
    (folder / "cohort.json").write_text(json.dumps({"format": 99, "cases": []}))
    training.ui.projectDirectoryButton.directory = str(folder)
    assert "newer version" in message(training)
    assert training.logic.project.folder == tmp_path / "project"
    assert json.loads((folder / "cohort.json").read_text())["format"] == 99


def test_a_folder_that_cannot_be_written_is_said_and_roles_stay_known(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2))
    training.update()
    training.logic.project.folder = tmp_path / "scans" / "case-00.nii.gz" / "project"
    select(training, ["case-01"])
    training.ui.excludeButton.click()
    assert "Cannot write" in message(training)
    assert roles(training)["case-01"] == "excluded"


def test_an_unwritten_scan_removed_while_it_is_edited(training, wait_for):
    import slicer

    add_scan(0)
    training.update()
    training.openCase("Scan 00")
    slicer.mrmlScene.RemoveNode(training.logic.cohort.volumeNode("Scan 00"))
    training.ui.acceptNextButton.click()
    assert "Scan 00 is neither in the scene nor in a file" in training.ui.editMessageLabel.text
    wait_for(lambda: training.ui.pagesStackedWidget.currentIndex == 0)
    assert "removed from the scene" in message(training)


def test_what_a_script_chooses_is_shown(training):
    training._parameterNode.budget = "overnight"
    training._parameterNode.ranking = "random"
    assert training.ui.budgetComboBox.currentText.startswith("Overnight")
    assert training.ui.rankingComboBox.currentText == "At random"


def test_sentences_do_not_outlive_their_scene(training):
    import slicer

    slicer.mrmlScene.RemoveNode(add_scan(0))
    add_scan(1, "LA")
    add_scan(2, "LA")
    training.update()
    assert message(training)
    slicer.mrmlScene.Clear()
    training.update()
    assert not message(training)


def test_closing_the_scene_while_a_case_is_open(training):
    import slicer

    add_scan(0)
    training.update()
    training.openCase("Scan 00")
    slicer.mrmlScene.Clear()
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert training.edit.editor.segmentationNode() is None
