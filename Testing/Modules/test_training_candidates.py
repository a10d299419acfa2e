"""Which segmentation of the scene is taken as a label, where several might be meant."""

from __future__ import annotations

import numpy as np
import pytest
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
    select,
)

from caml_core.data.labels import read_labels


def clone(node, name: str):
    """What Clone makes of a node: a copy with all its attributes and references."""
    import slicer

    made = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    made.Copy(node)
    made.SetName(name)
    return made


def voxels_of(panel, case: str) -> int:
    """How many voxels the label of a case has."""
    return int(np.count_nonzero(read_labels(case_of(panel, case).label, case).array))


# Clones


@pytest.fixture
def cloned(training):
    """A case whose label was taken, and a clone of its segmentation on which a hand went on."""
    volume = add_scan(0)
    node = add_segmentation(volume, ball(0))
    training.update()
    accept(training, "Scan 00")
    copy = clone(node, "second thoughts")
    training.update()
    draw(copy, volume, ball(3))
    return training, node, copy


def test_two_clones_that_differ_are_refused_by_name(cloned):
    panel, node, copy = cloned
    before = case_of(panel, "Scan 00").label
    accept(panel, "Scan 00")
    assert "has 2 segmentations that differ" in message(panel)
    assert node.GetName() in message(panel) and "second thoughts" in message(panel)
    assert case_of(panel, "Scan 00").label == before and roles(panel) == {"Scan 00": "labeled"}


def test_edits_of_a_clone_are_said_before_training(cloned):
    panel, _node, _copy = cloned
    panel.logic.cohort.noteStale()
    assert cell_status(panel) == "edited"


def cell_status(panel) -> str:
    """The status of the only case, as the user reads it."""
    panel.update()
    return cell(panel, "Scan 00", "Status")


@pytest.mark.parametrize("which", ["first", "clone"])
def test_of_two_clones_the_chosen_one_is_taken_and_the_other_stays(cloned, which):
    import slicer

    panel, node, copy = cloned
    chosen, seed = (node, 0) if which == "first" else (copy, 3)
    select(panel, ["Scan 00"])
    panel.ui.caseSegmentationSelector.nodeActivated.emit(chosen)
    accept(panel, "Scan 00")
    assert not message(panel)
    assert voxels_of(panel, "Scan 00") == ball(seed).sum()
    assert {slicer.mrmlScene.GetNodeByID(n.GetID()) for n in (node, copy)} == {node, copy}


def test_a_clone_that_holds_the_same_is_no_question(training):
    node = add_segmentation(add_scan(0), ball(0))
    training.update()
    accept(training, "Scan 00")
    clone(node, "copy")
    accept(training, "Scan 00")
    assert not message(training)


# What a model made


def result(volume, seed: int, name: str = "Model"):
    """What CAML Segmentation leaves of a volume."""
    from CAMLSegmentationLib import SegmentationResult

    node = add_segmentation(volume, ball(seed))
    node.SetName(f"{volume.GetName()} - {name}")
    SegmentationResult.sign(node, (), name, "0")
    return node


def prediction(panel, volume, seed: int):
    """A prediction of the training module, shown in the scene."""
    from CAMLTrainingLib.Predictions import showPrediction

    predict(panel, volume.GetName(), ball(seed))
    return showPrediction(panel.logic.cohort, volume.GetName(), "Model")


@pytest.fixture(params=["result", "prediction"])
def made(training, request):
    """A scan, and what a model made of it: a result of CAML Segmentation, or a prediction."""
    volume = add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    node = result(volume, 3) if request.param == "result" else prediction(training, volume, 3)
    training.update()
    return training, volume, node


def test_what_a_model_made_is_no_label_and_is_named(made):
    panel, _volume, node = made
    assert not cell(panel, "Scan 00", "Segmentation")
    accept(panel, "Scan 00")
    assert roles(panel) == {"Scan 00": "unlabeled"}
    assert "nothing was changed by hand" in message(panel) and node.GetName() in message(panel)
    assert "choose it under Segmentation below the table" in message(panel)


def test_what_a_hand_has_corrected_is_taken(made):
    panel, volume, node = made
    draw(node, volume, ball(0))
    panel.update()
    assert cell(panel, "Scan 00", "Segmentation") == node.GetName()
    accept(panel, "Scan 00")
    assert not message(panel)
    assert voxels_of(panel, "Scan 00") == ball(0).sum() and case_of(panel, "Scan 00").label_began == "correction"
    accept(panel, "Scan 00")
    assert not message(panel), "it is the case's from now on"


@pytest.mark.parametrize("opened", [False, True], ids=["never opened", "opened before and left"])
def test_what_a_hand_has_corrected_is_what_edit_opens(made, opened):
    panel, volume, node = made
    if opened:
        panel.openCase("Scan 00")
        panel.ui.backButton.click()
    draw(node, volume, ball(0))
    panel.openCase("Scan 00")
    assert panel.edit.editor.segmentationNode() is node
    panel.ui.acceptNextButton.click()
    assert voxels_of(panel, "Scan 00") == ball(0).sum()


def test_a_prediction_that_is_made_anew_does_not_touch_what_was_taken(made):
    panel, volume, node = made
    draw(node, volume, ball(0))
    accept(panel, "Scan 00")
    again = prediction(panel, volume, 5)
    assert again is not node and panel.logic.cohort.segmentationNode("Scan 00") is node
    assert voxels_of(panel, "Scan 00") == ball(0).sum()


def test_of_two_corrected_ones_none_is_taken_before_one_is_chosen(training):
    volume = add_scan(0)
    training.update()
    nodes = [result(volume, seed, f"Model {seed}") for seed in (2, 3)]
    for seed, node in enumerate(nodes):
        draw(node, volume, ball(seed))
    accept(training, "Scan 00")
    assert roles(training) == {"Scan 00": "unlabeled"}
    assert all(node.GetName() in message(training) for node in nodes) and "choose one" in message(training)
    training.ui.caseSegmentationSelector.nodeActivated.emit(nodes[1])
    accept(training, "Scan 00")
    assert voxels_of(training, "Scan 00") == ball(1).sum()


def test_what_a_hand_drew_counts_before_what_it_corrected(training):
    volume = add_scan(0)
    training.update()
    own, node = add_segmentation(volume, ball(0)), result(volume, 3)
    draw(node, volume, ball(4))
    assert training.logic.cohort.segmentationNode("Scan 00") is own


def test_a_corrected_result_does_not_replace_a_label(training):
    volume = add_scan(0)
    training.update()
    own = add_segmentation(volume, ball(0))
    accept(training, "Scan 00")
    import slicer

    slicer.mrmlScene.RemoveNode(own)
    draw(result(volume, 3), volume, ball(4))
    accept(training, "Scan 00")
    assert voxels_of(training, "Scan 00") == ball(0).sum()


# Files of their own


def test_a_segmentation_of_no_scan_is_named_and_may_be_chosen(training, tmp_path):
    import slicer

    volume = add_scan(0)
    node = add_segmentation(volume, ball(0))
    slicer.util.saveNode(node, str(tmp_path / "drawn elsewhere.seg.nrrd"))
    slicer.mrmlScene.RemoveNode(node)
    training.update()
    loaded = slicer.util.loadSegmentation(str(tmp_path / "drawn elsewhere.seg.nrrd"))
    faults = training.logic.setRole(["Scan 00"], "labeled")
    assert loaded.GetName() in faults["Scan 00"] and "Segmentations of no scan" in faults["Scan 00"]
    training.openCase("Scan 00")  # and so the case has an empty one
    training.ui.acceptNextButton.click()
    assert loaded.GetName() in training.ui.editMessageLabel.text
    training.ui.backButton.click()
    select(training, ["Scan 00"])
    training.ui.caseSegmentationSelector.nodeActivated.emit(loaded)
    training.openCase("Scan 00")
    assert training.edit.editor.segmentationNode() is loaded
    training.ui.acceptNextButton.click()
    assert voxels_of(training, "Scan 00") == ball(0).sum()
