"""Previews, and predictions, that give way to newer ones: what a hand has drawn stays, and whose they are is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from training_tools import (
    SEGMENT,
    accept,
    add_scan,
    add_segmentation,
    ball,
    case_of,
    draw,
    finish_round,
    predict,
    roles,
)

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import read_labels, write_labels

CASE = "Scan 00"


@pytest.fixture
def previewed(training, stand_in):
    """A panel that shows previews of a case, of which nothing was drawn."""
    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.logic.save()
    finish_round(training, 1, stand_in)
    training._parameterNode.previewCase = CASE
    training.logic.cohort.ensureFile(CASE)
    return training


@pytest.fixture
def a_preview(previewed) -> Callable[[int], object]:
    """``a_preview(shift)``: show the ball, moved by some voxels, as what the training says now; returns its node."""

    def show(shift: int):
        grid = read_volume(case_of(previewed, CASE).images[0]).grid
        voxels = np.roll(ball(0), shift, 0).astype(np.uint8).transpose(2, 1, 0)
        write_labels(previewed.logic.round.folder / "preview.seg.nrrd", voxels, grid, [Segment(SEGMENT, 1)])
        previewed.train.preview.show(CASE)
        return segmentations()[-1]

    return show


def segmentations() -> list:
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_a_preview_that_was_corrected_stays_as_the_hands_work(previewed, a_preview):
    first = a_preview(0)
    corrected = np.roll(ball(0), 3, 1)
    draw(first, previewed.logic.cohort.volumeNode(CASE), corrected)
    second = a_preview(1)
    assert segmentations() == [first, second]
    assert previewed.logic.cohort.segmentationNode(CASE) is first
    assert a_preview(2) is not second and len(segmentations()) == 2, "those that follow give way as ever"
    accept(previewed, CASE)
    known = case_of(previewed, CASE)
    assert (known.role, known.label_began) == ("labeled", "correction")
    assert np.array_equal(read_labels(known.label, CASE).array.transpose(2, 1, 0) > 0, corrected)


def test_what_was_drawn_for_the_case_counts_before_a_corrected_preview(previewed, a_preview):
    volume = previewed.logic.cohort.volumeNode(CASE)
    drawn = add_segmentation(volume, ball(0))
    draw(a_preview(0), volume, np.roll(ball(0), 3, 1))
    a_preview(1)
    assert previewed.logic.cohort.segmentationNode(CASE) is drawn and len(segmentations()) == 3
    accept(previewed, CASE)
    assert roles(previewed) == {CASE: "labeled"} and case_of(previewed, CASE).label_began == ""


def test_a_prediction_is_not_called_after_the_model_of_the_one_before(previewed):
    from CAMLTrainingLib.Predictions import showPrediction

    cohort = previewed.logic.cohort
    predict(previewed, CASE, ball(0))
    assert "First model" in showPrediction(cohort, CASE, "First model").GetName()
    assert "First model" in showPrediction(cohort, CASE).GetName()
    predict(previewed, CASE, np.roll(ball(0), 2, 0))
    assert "First model" not in showPrediction(cohort, CASE).GetName()
