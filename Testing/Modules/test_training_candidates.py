"""Which segmentation of the scene is taken as a label, where several might be meant."""

from __future__ import annotations

import numpy as np
import pytest
from training_tools import accept, add_scan, add_segmentation, ball, case_of, cell, draw, message, roles, select

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
