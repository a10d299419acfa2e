"""Label files that come for scans of the scene: which of them, and of what was opened before, becomes the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
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
    predict,
    roles,
    write_folder,
)

from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels

CASE = "case-00"
#: Where the first voxel of a file (LPS) is that lies on the scans of the scene.
AS_IN_THE_SCENE = (-4.0, 20.0, 11.0)


@pytest.fixture
def label_file(training, tmp_path, answers) -> Path:
    """A file with the label of the scene's scan; the button Label Files... is answered with its folder."""
    folder = write_folder(tmp_path / "labels of others", 1, labels=1)
    (folder / f"{CASE}.nii.gz").unlink()
    path = folder / f"{CASE}_label.nii.gz"
    image = sitk.ReadImage(str(path))
    image.SetOrigin(AS_IN_THE_SCENE)
    sitk.WriteImage(image, str(path))
    answers["getExistingDirectory"] = str(folder)
    return path


def is_its_label(panel) -> bool:
    """Whether the engine reads the ball of the label file on the scan."""
    case = case_of(panel, CASE).as_case
    found = read_case_labels(case, read_volume(case.images[0]).grid, panel.logic.project.segments)
    return np.array_equal(found.array.transpose(2, 1, 0) > 0, ball(0))


@pytest.mark.parametrize("role", ["labeled", "validation"])
def test_a_scan_that_the_scene_alone_has_takes_a_label_file(training, label_file, role):
    add_scan(0, CASE)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.ui.addLabelsButton.click()
    (training.ui.useAsLabeledButton if role == "labeled" else training.ui.validationButton).click()
    assert roles(training) == {CASE: role} and not message(training)
    assert case_of(training, CASE).label == label_file and is_its_label(training)


@pytest.fixture(params=["copy of a prediction", "new one"])
def opened_once(request, training):
    """A scan of the scene whose case was opened in the editor, and left without a stroke."""
    add_scan(0, CASE)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.logic.save()
    if request.param == "copy of a prediction":
        predict(training, CASE, np.roll(ball(0), 4, 0))
    training.openCase(CASE)
    training.edit.leave()
    return training


def test_what_was_opened_and_left_does_not_take_the_place_of_a_label_file(opened_once, label_file):
    opened_once.ui.addLabelsButton.click()
    assert cell(opened_once, CASE, "Segmentation") == label_file.name
    accept(opened_once, CASE)
    known = case_of(opened_once, CASE)
    assert (known.role, known.label, known.label_began) == ("labeled", label_file, "")
    assert is_its_label(opened_once)


def test_edit_opens_the_label_file_in_place_of_what_was_left(opened_once, label_file):
    import slicer

    opened_once.ui.addLabelsButton.click()
    opened_once.openCase(CASE)
    node, volume = opened_once.edit.editor.segmentationNode(), opened_once.edit.editor.sourceVolumeNode()
    voxels = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.array_equal(voxels > 0, ball(0))
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_what_was_drawn_before_a_label_file_came_counts_still(opened_once, label_file):
    cohort = opened_once.logic.cohort
    drawn = np.roll(ball(0), 2, 1)
    draw(cohort.segmentationNode(CASE), cohort.volumeNode(CASE), drawn)
    opened_once.ui.addLabelsButton.click()
    accept(opened_once, CASE)
    known = case_of(opened_once, CASE)
    assert known.label != label_file and known.label.parent == opened_once.logic.project.folder / "labels"
    found = read_case_labels(known.as_case, read_volume(known.images[0]).grid, opened_once.logic.project.segments)
    assert np.array_equal(found.array.transpose(2, 1, 0) > 0, drawn)


def test_an_empty_segmentation_does_not_hide_the_one_that_was_drawn(training):
    volume = add_scan(0)
    drawn = add_segmentation(volume, ball(0))
    drawn.SetName("drawn")
    add_segmentation(volume, np.zeros_like(ball(0))).SetName("empty")
    training.update()
    assert cell(training, "Scan 00", "Segmentation") == "drawn"
    accept(training, "Scan 00")
    assert roles(training) == {"Scan 00": "labeled"}


def test_an_untouched_copy_that_an_older_scene_brings_does_not_replace_a_label(training):
    import slicer

    volume = add_scan(0, CASE)
    training.update()
    cohort = training.logic.cohort
    cohort.setSegments([SEGMENT])
    training.logic.save()
    predict(training, CASE, np.roll(ball(0), 4, 0))
    training.openCase(CASE)
    copy = training.edit.editor.segmentationNode()
    training.edit.leave()
    drawn = add_segmentation(volume, ball(0))
    cohort.assign(CASE, drawn)
    accept(training, CASE)
    before = case_of(training, CASE)
    slicer.mrmlScene.RemoveNode(drawn)
    cohort.mark(copy, CASE)  # as the scene has it that was saved before
    accept(training, CASE)
    assert case_of(training, CASE) == before and before.label_began == ""
    training.openCase(CASE)
    opened = slicer.util.arrayFromSegmentBinaryLabelmap(training.edit.editor.segmentationNode(), "Segment_1", volume)
    assert np.array_equal(opened > 0, ball(0))
