"""Scan and label of a case always lie in one place, however its volume was moved in the scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from CAMLSegmentationLib import VolumeExchange
from stand_ins import write_series
from training_tools import (
    accept,
    add_segmentation,
    ball,
    case_of,
    draw,
    message,
    predict,
    roles,
    scan,
    write_folder,
    write_two_channels,
)

from caml_core.config import Segment
from caml_core.data.io import grid_difference, read_volume
from caml_core.data.labels import read_case_labels, read_labels, write_labels
from caml_core.errors import CamlError

CASE = "case-00"
#: Shifts in mm, along the axes of the patient, of scans with voxels of 1.5 mm.
SHIFTS = {"whole voxels": (3.0, -4.5, 6.0), "parts of voxels": (0.7, 0.4, -0.6)}
shifts = pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
hardened = pytest.mark.parametrize("hard", [False, True], ids=["under a transform", "hardened"])


def move(*nodes, by: tuple[float, float, float], hard: bool = False):
    """Put nodes under a transform that shifts them, and harden it; return the transform."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for axis, distance in enumerate(by):
        matrix.SetElement(axis, 3, distance)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix)
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
        if hard:
            node.HardenTransform()
    return transform


def added(panel, tmp_path: Path):
    """A scan loaded by Add Data; return its volume and the file."""
    import slicer

    path = write_folder(tmp_path / "scans", 1) / f"{CASE}.nii.gz"
    volume = slicer.util.loadVolume(str(path))
    panel.update()
    return volume, path


def listed(panel, tmp_path: Path):
    """A scan of a folder that was added, opened by Edit; return its volume, its segmentation and the file."""
    folder = write_folder(tmp_path / "scans", 1)
    panel.logic.addFolder(folder)
    panel.logic.cohort.setSegments(["ball"])
    volume, node = opened(panel)
    return volume, node, folder / f"{CASE}.nii.gz"


def opened(panel, case: str = CASE):
    """Volume and segmentation of a case as Edit shows them; the editor is left again."""
    panel.openCase(case)
    panel.edit.leave()
    return panel.logic.cohort.volumeNode(case), panel.logic.cohort.segmentationNode(case)


def check_labelled(panel, case: str, mask: np.ndarray, voxels: np.ndarray) -> Path:
    """Scan and label lie on one grid, and the label is on the voxels that it was drawn on; return the scan's file."""
    panel.logic.cohort.ready()
    known = case_of(panel, case)
    assert known.role == "labeled", message(panel)
    image, label = read_volume(known.images[0]), read_labels(known.label, case)
    assert grid_difference(image.grid, label.grid) == ""
    assert np.array_equal(image.array, voxels.transpose(2, 1, 0))
    found = read_case_labels(known.as_case, image.grid, panel.logic.project.segments)
    assert np.array_equal(found.array > 0, mask.transpose(2, 1, 0))
    return known.images[0]


def is_at(path: Path, volume) -> bool:
    """Whether a file lies where a volume is in the scene."""
    return grid_difference(read_volume(path).grid, VolumeExchange.gridOf(volume), 0.01) == ""


@shifts
@hardened
def test_a_label_stays_on_its_scan_when_both_are_moved(training, tmp_path, shift, hard):
    volume, path = added(training, tmp_path)
    node = add_segmentation(volume, ball(0))
    accept(training, CASE)
    move(volume, node, by=shift, hard=hard)
    assert check_labelled(training, CASE, ball(0), scan(0)) == path, "until a new label is taken both are as they were"
    accept(training, CASE)
    check_labelled(training, CASE, ball(0), scan(0))
    draw(node, volume, ball(5))
    accept(training, CASE)
    assert is_at(check_labelled(training, CASE, ball(5), scan(0)), volume)


@shifts
@hardened
def test_a_label_drawn_on_a_scan_that_was_moved_lies_on_it(training, tmp_path, shift, hard):
    volume, node, path = listed(training, tmp_path)
    move(volume, node, by=shift, hard=hard)
    draw(node, volume, ball(0))
    accept(training, CASE)
    moved = check_labelled(training, CASE, ball(0), scan(0))
    assert moved != path and is_at(moved, volume)


def test_a_label_drawn_on_a_scan_that_was_centred_lies_on_it(training, tmp_path):
    import slicer

    volume, node, _path = listed(training, tmp_path)
    slicer.modules.volumes.logic().CenterVolume(volume)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    draw(node, volume, ball(0))
    accept(training, CASE)
    assert is_at(check_labelled(training, CASE, ball(0), scan(0)), volume)


def test_a_scan_that_is_moved_back_is_its_file_again(training, tmp_path):
    volume, node, path = listed(training, tmp_path)
    move(volume, node, by=(3.0, 0.0, 0.0))
    draw(node, volume, ball(0))
    accept(training, CASE)
    moved = check_labelled(training, CASE, ball(0), scan(0))
    for back in (volume, node):
        back.SetAndObserveTransformNodeID(None)
    assert check_labelled(training, CASE, ball(0), scan(0)) == moved
    draw(node, volume, ball(5))
    accept(training, CASE)
    assert check_labelled(training, CASE, ball(5), scan(0)) == path


def test_a_moved_scan_that_was_saved_to_a_file_of_its_own_is_not_left_by_its_label(training, tmp_path):
    """Its volume counts as unmodified then, though the case's file is another one."""
    import slicer

    volume, path = added(training, tmp_path)
    node = add_segmentation(volume, ball(0))
    accept(training, CASE)
    move(volume, node, by=(3.0, 0.0, 0.0), hard=True)
    assert slicer.util.saveNode(volume, str(tmp_path / "moved.nrrd"))
    assert check_labelled(training, CASE, ball(0), scan(0)) == path
    draw(node, volume, ball(5))
    accept(training, CASE)
    assert check_labelled(training, CASE, ball(5), scan(0)) == tmp_path / "moved.nrrd"


@hardened
def test_a_label_that_cannot_be_written_leaves_its_scan_where_it_is(training, tmp_path, monkeypatch, hard):
    import errno
    import os

    volume, path = added(training, tmp_path)
    node = add_segmentation(volume, ball(0))
    accept(training, CASE)
    move(volume, node, by=(3.0, 0.0, 0.0), hard=hard)
    draw(node, volume, ball(5))
    replace = os.replace

    def full(source, target):
        if str(target).endswith(".seg.nrrd"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    accept(training, CASE)
    assert "disk is full" in message(training)
    monkeypatch.undo()
    assert check_labelled(training, CASE, ball(0), scan(0)) == path


@shifts
def test_a_label_that_is_opened_on_a_moved_scan_goes_along_with_it(training, tmp_path, shift):
    import slicer

    volume, node, _path = listed(training, tmp_path)
    draw(node, volume, ball(0))
    accept(training, CASE)
    slicer.mrmlScene.RemoveNode(node)
    move(volume, by=shift)
    volume, node = opened(training)
    identity = node.GetSegmentation().GetNthSegmentID(0)
    shown = slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume) > 0
    assert np.array_equal(shown, ball(0))
    accept(training, CASE)
    check_labelled(training, CASE, ball(0), scan(0))


def test_a_label_file_of_others_keeps_its_scan(training, tmp_path):
    folder = write_folder(tmp_path / "scans", 1, labels=1)
    training.logic.addFolder(folder)
    volume = training.logic.cohort.load(CASE)
    training.update()
    accept(training, CASE)
    move(volume, by=(3.0, 0.0, 0.0), hard=True)
    assert check_labelled(training, CASE, ball(0), scan(0)) == folder / f"{CASE}.nii.gz"


def test_a_scan_that_is_gone_is_not_replaced_by_one_that_was_moved_off_its_label(training, tmp_path):
    volume, path = added(training, tmp_path)
    node = add_segmentation(volume, ball(0))
    accept(training, CASE)
    move(volume, node, by=(3.0, 0.0, 0.0))
    path.rename(tmp_path / "elsewhere.nii.gz")
    with pytest.raises(CamlError, match="Locate"):
        training.logic.cohort.ready()
    (tmp_path / "elsewhere.nii.gz").rename(path)
    assert check_labelled(training, CASE, ball(0), scan(0)) == path


def test_a_label_that_was_left_behind_before_is_named_and_put_right(training, tmp_path):
    """As early versions left it: the scan was written anew where it was moved, its label stayed."""
    from CAMLTrainingLib import CaseExchange

    volume, _path = added(training, tmp_path)
    node = add_segmentation(volume, ball(0))
    accept(training, CASE)
    move(volume, node, by=(3.0, 0.0, 0.0))
    moved = training.logic.project.folder / "volumes" / "moved.nrrd"
    CaseExchange.writeVolume(volume, moved)
    training.logic.project.update(CASE, images=(moved,))
    with pytest.raises(CamlError, match=rf"{CASE}: its label does not lie on its scan .*3.00 mm.*Use as Labeled"):
        training.logic.cohort.ready()
    accept(training, CASE)
    check_labelled(training, CASE, ball(0), scan(0))


@hardened
def test_of_several_images_none_is_moved_or_dropped(training, tmp_path, hard):
    training.logic.addFolder(write_two_channels(tmp_path / "two channels"))
    training.logic.cohort.setSegments(["ball"])
    before = case_of(training, "p0").images
    volume, node = opened(training, "p0")
    transform = move(volume, node, by=(3.0, 0.0, 0.0), hard=hard)
    draw(node, volume, ball(0))
    accept(training, "p0")
    assert roles(training)["p0"] == "unlabeled" and "several images" in message(training)
    assert case_of(training, "p0").images == before and len(before) == 2
    if hard:
        return
    for back in (volume, node):
        back.SetAndObserveTransformNodeID(None)
    accept(training, "p0")
    check_labelled(training, "p0", ball(0), scan(0))
    for again in (volume, node):
        again.SetAndObserveTransformNodeID(transform.GetID())
    check_labelled(training, "p0", ball(0), scan(0))
    accept(training, "p0")
    check_labelled(training, "p0", ball(0), scan(0))
    assert case_of(training, "p0").images == before


@hardened
def test_a_series_that_was_moved_is_written_with_its_label(training, tmp_path, hard):
    """Volumes of series come from no file that Slicer knows of."""
    write_series(tmp_path / "scans" / "patient")
    training.logic.addFolder(tmp_path / "scans")
    training.logic.cohort.setSegments(["ball"])
    volume, node = opened(training, "patient")
    before, voxels = case_of(training, "patient").images, VolumeExchange.voxelsOf(volume).copy()
    mask = np.zeros(voxels.shape, bool)
    mask[1, 3:6, 2:9] = True
    draw(node, volume, mask)
    accept(training, "patient")
    assert check_labelled(training, "patient", mask, voxels) == before[0], "a series that was not touched is no copy"
    move(volume, node, by=(3.0, 0.0, 0.0), hard=hard)
    assert check_labelled(training, "patient", mask, voxels) == before[0]
    draw(node, volume, np.roll(mask, 1, 2))
    accept(training, "patient")
    assert is_at(check_labelled(training, "patient", np.roll(mask, 1, 2), voxels), volume)


def test_a_label_of_other_axes_is_none_that_was_left_behind(training, tmp_path):
    """Renamed, the label of others lies in the project, on a grid of its own that fills its scan's box."""
    import SimpleITK as sitk

    folder = write_folder(tmp_path / "scans", 1, labels=1)
    path = folder / f"{CASE}_label.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "RPS"), str(path))
    turned = read_volume(path)
    write_labels(folder / f"{CASE}.seg.nrrd", turned.array.astype(np.uint8), turned.grid, [Segment("ball", 1)])
    path.unlink()
    training.logic.addFolder(folder)
    training.update()
    accept(training, CASE)
    assert roles(training)[CASE] == "labeled", message(training)
    training.logic.cohort.setSegments(["globe"])
    known = case_of(training, CASE)
    assert known.label.parent == training.logic.project.folder / "labels"
    assert grid_difference(read_volume(known.images[0]).grid, read_labels(known.label, CASE).grid)
    training.logic.cohort.ready()


def test_a_prediction_does_not_outlive_the_place_it_was_made_for(training, tmp_path):
    volume, _path = added(training, tmp_path)
    predict(training, CASE, ball(0))
    assert case_of(training, CASE).prediction is not None
    move(volume, by=SHIFTS["parts of voxels"], hard=True)
    training.logic.cohort.ready()
    known = case_of(training, CASE)
    assert known.images[0].parent == training.logic.project.folder / "volumes"
    assert known.prediction is None and known.status == "" and known.uncertainty is None
