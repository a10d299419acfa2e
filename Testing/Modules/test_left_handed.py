"""Scans of left-handed files, whose slices Slicer reverses as it loads them, are as any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_training_moved import opened
from training_tools import AXES, accept, ball, case_of, draw, message, predict, roles, scan, write_folder

CASE = "case-00"
handed = pytest.mark.parametrize("axes", AXES.values(), ids=AXES)


def a_folder(panel, tmp_path: Path, axes, labels: int = 0) -> Path:
    """The cohort has a folder with one scan; return the scan's file."""
    folder = write_folder(tmp_path / "scans", 1, labels=labels, axes=axes)
    panel.logic.addFolder(folder)
    panel.logic.cohort.setSegments(["ball"])
    panel.update()
    return folder / f"{CASE}.nii.gz"


def in_file_order(voxels: np.ndarray, axes) -> np.ndarray:
    """Voxels [k, j, i] of a file as its volume in the scene has them, and the other way round."""
    return voxels[::-1] if np.linalg.det(np.reshape(axes, (3, 3))) < 0 else voxels


def shown(node, volume) -> np.ndarray:
    """Where the first segment lies on a volume: bool [k, j, i]."""
    import slicer

    identity = node.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume) > 0


@handed
def test_slicer_loads_what_these_tests_are_about(training, tmp_path, axes):
    import slicer

    a_folder(training, tmp_path, axes)
    volume = training.logic.cohort.load(CASE)
    assert np.array_equal(slicer.util.arrayFromVolume(volume), in_file_order(scan(0), axes))


# Scan and file


@handed
def test_a_scan_that_counts_as_modified_keeps_its_file_and_its_prediction(training, tmp_path, axes):
    """Saving the scene as .mrb marks all volumes as modified."""
    path = a_folder(training, tmp_path, axes)
    predict(training, CASE, ball(0))
    volume = training.logic.cohort.load(CASE)
    volume.GetImageData().Modified()
    assert volume.GetModifiedSinceRead()
    training.logic.cohort.ready()
    known = case_of(training, CASE)
    assert known.images == (path,) and known.prediction is not None and known.status == "predicted"
    assert known.uncertainty is not None
    volume.GetImageData().GetPointData().GetScalars().SetTuple1(7, 1)
    volume.GetImageData().Modified()
    training.logic.cohort.ready()
    assert case_of(training, CASE).images != (path,), "it is another scan now"


@handed
def test_a_listed_scan_that_is_dragged_in_and_counts_as_modified_is_its_case(training, tmp_path, axes):
    import slicer

    path = a_folder(training, tmp_path, axes)
    volume = slicer.util.loadVolume(str(path))
    volume.GetImageData().Modified()
    training.update()
    assert list(roles(training)) == [CASE], message(training)
    assert training.logic.cohort.volumeNode(CASE) is volume


@handed
def test_a_scan_of_an_older_scene_is_known_by_its_file(training, tmp_path, axes):
    """Its mark says no more than the case."""
    import slicer

    path = a_folder(training, tmp_path, axes)
    volume = slicer.util.loadVolume(str(path))
    volume.SetAttribute(training.logic.cohort.attribute, CASE)
    volume.GetImageData().Modified()
    assert training.logic.cohort.load(CASE) is volume
    assert list(roles(training)) == [CASE]


@handed
def test_a_label_that_is_taken_again_as_it_is_is_not_written_again(training, tmp_path, axes):
    path = a_folder(training, tmp_path, axes)
    volume, node = opened(training)
    draw(node, volume, ball(5))
    accept(training, CASE)
    label = case_of(training, CASE).label
    accept(training, CASE)
    assert case_of(training, CASE).label == label and case_of(training, CASE).images == (path,)
    training.logic.cohort.ready()


#: To the patient's left, and with left and right exchanged.
PLACES = {"shifted": np.array([[1, 0, 0, 3.0], [0, 1, 0, 0.4], [0, 0, 1, 0]]), "mirrored": np.diag([-1.0, 1, 1, 0])[:3]}


@handed
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("whose", ["drawn here", "of others"])
def test_a_label_goes_along_with_its_scans_voxels_wherever_these_were_moved(training, tmp_path, axes, place, whose):
    import slicer

    a_folder(training, tmp_path, axes, labels=int(whose == "of others"))
    volume, node = opened(training)
    expected = in_file_order(ball(0), axes)
    if whose == "drawn here":
        draw(node, volume, expected)
        accept(training, CASE)
    slicer.mrmlScene.RemoveNode(node)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.vstack([place, [0, 0, 0, 1.0]])))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    volume.HardenTransform()
    volume, node = opened(training)
    assert np.array_equal(shown(node, volume), expected)
