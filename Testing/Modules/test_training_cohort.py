"""The cohort: scans of the scene, and segmentations that become labels when they are fit for it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from CAMLSegmentationLib import VolumeExchange
from stand_ins import OBLIQUE, read_labels
from training_tools import (
    SEGMENT,
    accept,
    add_scan,
    add_segmentation,
    ball,
    case_of,
    cell,
    draw,
    message,
    roles,
    scan,
    write_folder,
)

from caml_core.data.cohort import load_cohort
from caml_core.data.io import grid_difference, read_volume
from caml_core.data.labels import read_case_labels
from caml_core.project.headers import read_grid

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


def write_placed(path, direction, origin):
    """Write a scan as a file with these axes and this origin (LPS)."""
    image = sitk.GetImageFromArray(scan(0))
    image.SetSpacing((1.5, 1.5, 1.5))
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("option", ["center", "discardOrientation"])
def test_a_scan_loaded_otherwise_than_its_file_lies_is_written_as_it_is_seen(training, tmp_path, option):
    import slicer

    write_placed(tmp_path / "LA.nrrd", (0, 1, 0, 1, 0, 0, 0, 0, -1), (-100, 30, 55))
    volume = slicer.util.loadVolume(str(tmp_path / "LA.nrrd"), {option: True})
    add_segmentation(volume, ball(0))
    training.update()
    accept(training, "LA")
    assert roles(training) == {"LA": "labeled"}, message(training)
    training.logic.cohort.ready()
    case = case_of(training, "LA")
    image, label = read_volume(case.images[0]), read_labels(case.label)
    assert grid_difference(image.grid, VolumeExchange.gridOf(volume)) == ""
    assert grid_difference(image.grid, read_grid(case.label)) == ""
    assert np.array_equal(label > 0, ball(0))


def test_an_option_that_changes_nothing_makes_no_copy(training, tmp_path):
    """Without its orientation a file begins at the origin, along right, anterior and superior; this one does anyway."""
    import slicer

    write_placed(tmp_path / "LA.nrrd", (-1, 0, 0, 0, -1, 0, 0, 0, 1), (0, 0, 0))
    slicer.util.loadVolume(str(tmp_path / "LA.nrrd"), {"discardOrientation": True})
    training.update()
    training.logic.cohort.ensureFile("LA")
    assert case_of(training, "LA").images == (tmp_path / "LA.nrrd",)


def move(*nodes, by: float):
    """Put nodes under a transform that shifts them along the axis of the patient."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, by)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix)
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())


def test_a_scan_that_was_moved_since_it_was_written_is_written_anew(training):
    volume = add_scan(1, "LA 01")
    training.update()
    training.logic.cohort.ensureFile("LA 01")
    (first,) = case_of(training, "LA 01").images
    move(volume, by=30.0)
    training.logic.cohort.ensureFile("LA 01")
    (second,) = case_of(training, "LA 01").images
    before, after = (read_volume(path).grid.origin for path in (first, second))
    assert np.subtract(after, before) == pytest.approx((0, 0, 30.0), abs=1e-4)
    training.logic.cohort.ensureFile("LA 01")
    assert case_of(training, "LA 01").images == (second,)


def test_scan_and_label_stay_together_when_they_are_moved(training):
    volume = add_scan(2, "LA 02")
    node = add_segmentation(volume, ball(2))
    training.update()
    accept(training, "LA 02")
    first = case_of(training, "LA 02").images
    move(volume, node, by=30.0)
    training.logic.cohort.ensureFile("LA 02")
    assert case_of(training, "LA 02").images == first, "the label lies on the scan as it was written"
    for moved in (volume, node):
        moved.HardenTransform()
    accept(training, "LA 02")
    assert case_of(training, "LA 02").images != first
    cohort = load_cohort(training.logic.project.file)
    image = read_volume(cohort.cases[0].images[0])
    found = read_case_labels(cohort.cases[0], image.grid, cohort.segments)
    assert np.array_equal(found.array > 0, ball(2).transpose(2, 1, 0))


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


def test_a_segment_that_was_drawn_is_not_missed_for_an_empty_one_of_its_name(training):
    """Edit adds the cohort's segments; what the user then renames to one of them stands beside it."""
    for seed, name in ((0, "ball"), (1, "bowl")):
        node = add_segmentation(add_scan(seed), ball(seed), name)
    training.update()
    accept(training, "Scan 00")
    training.openCase("Scan 01")
    segments = [node.GetSegmentation().GetNthSegment(place) for place in range(2)]
    assert [segment.GetName() for segment in segments] == ["bowl", "ball"]
    segments[0].SetName("Ball")
    training.edit.leave()
    accept(training, "Scan 01")
    assert roles(training)["Scan 01"] == "labeled", message(training)
    assert case_of(training, "Scan 01").segments == ("Ball",)
    written = case_of(training, "Scan 01").label
    accept(training, "Scan 01")
    assert case_of(training, "Scan 01").label == written, "an untouched drawing is not written again"


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


@pytest.mark.parametrize("blocked", ["project", "project/volumes", "project/labels"])
def test_a_folder_that_takes_no_files_is_said_and_nothing_counts_as_labelled(training, tmp_path, blocked):
    """A file in a folder's place: that stops root, too."""
    add_segmentation(add_scan(0), ball(0))
    training.update()
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("no folder")
    accept(training, "Scan 00")
    assert f"Cannot write {tmp_path / 'project'}" in message(training)
    assert roles(training) == {"Scan 00": "unlabeled"}
    assert (tmp_path / blocked).read_text() == "no folder"


def test_the_segmentation_that_was_chosen_is_the_label_also_when_it_was_one_before(training):
    """Two raters: S1 was taken, then S2, then S1 is chosen again."""
    volume = add_scan(0, "LA")
    masks = (ball(0), np.roll(ball(0), 2, 0))
    nodes = [add_segmentation(volume, mask) for mask in masks]
    training.update()
    for place in (0, 1, 0):
        training.logic.cohort.assign("LA", nodes[place])
        training.logic.cohort.noteEdits("LA")
        accept(training, "LA")
        assert not message(training)
        found = read_labels(case_of(training, "LA").label) > 0
        assert np.array_equal(found, masks[place])
        assert case_of(training, "LA").status == "accepted"
    labels = training.logic.project.folder / "labels"
    assert len(list(labels.iterdir())) == 3
    accept(training, "LA")
    assert len(list(labels.iterdir())) == 3, "taken again as it is, it is not written again"


def test_a_segmentation_that_was_the_label_once_counts_as_edited(training):
    volume = add_scan(0, "LA")
    first, second = (add_segmentation(volume, np.roll(ball(0), shift, 0)) for shift in (0, 2))
    training.update()
    for node in (first, second):
        training.logic.cohort.assign("LA", node)
        accept(training, "LA")
    training.logic.cohort.assign("LA", first)
    training.logic.cohort.noteEdits("LA")
    assert case_of(training, "LA").status == "edited"


def test_a_scan_in_the_projects_folder_is_never_overwritten(training):
    """Two who have one project open, each with a volume of the same name that is written nowhere yet."""
    import slicer
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    other = CAMLTrainingLogic()
    other.openProject(training.logic.project.folder)
    add_segmentation(add_scan(0, "CT"), ball(0))
    training.update()
    accept(training, "CT")
    path = case_of(training, "CT").images[0]
    before = path.read_bytes()
    slicer.mrmlScene.Clear()
    add_segmentation(add_scan(5, "CT"), ball(5))
    other.takeInScene()
    faults = other.cohort.setRole(["CT"], "labeled")
    other.close()
    assert "changed by another Slicer" in faults["CT"]
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["CT.nrrd"]


def test_a_file_of_the_same_name_in_the_projects_folder_stays(training):
    add_segmentation(add_scan(0, "CT"), ball(0))
    left = training.logic.project.volume_path("CT")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"of a case that was taken off the list")
    training.update()
    accept(training, "CT")
    assert left.read_bytes().startswith(b"of a case")
    assert np.array_equal(read_volume(case_of(training, "CT").images[0]).array, scan(0).transpose(2, 1, 0))
