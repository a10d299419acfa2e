"""Labels that began as predictions: none measures a model unless that is asked for, and results tell of them."""

from __future__ import annotations

import json

import pytest
from training_tools import SEGMENT, add_scan, ball, case_of, draw, message, predict, roles, select


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The questions that were asked; each is answered with No, as long as "yes" is not among them."""
    import slicer

    questions: list[str] = []

    def ask(text: str) -> bool:
        questions.append(text)
        return "yes" in questions

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", ask)
    return questions


@pytest.fixture
def predicted(training):
    """Two scans of the scene with a prediction each; the first is open in the editor as a copy of it."""
    for seed in range(2):
        add_scan(seed)
    training.update()
    for seed in range(2):
        predict(training, f"Scan {seed:02d}", ball(seed))
    training.logic.cohort.setSegments([SEGMENT])
    training.openCase("Scan 00")
    return training


def forget(panel, case: str) -> None:
    """Remove a case's segmentation from the scene, so that its label is the file alone."""
    import slicer

    slicer.mrmlScene.RemoveNode(panel.logic.cohort.segmentationNode(case))


def test_an_untouched_copy_is_no_validation_label_without_a_word(predicted, asked):
    panel = predicted
    panel.ui.acceptValidationButton.click()
    assert len(asked) == 1 and "Scan 00" in asked[0] and "100 %" in asked[0]
    assert (panel.edit.case, roles(panel)["Scan 00"]) == ("Scan 00", "unlabeled")
    assert "nothing was changed in it" in panel.ui.editMessageLabel.text
    asked.append("yes")
    panel.ui.acceptValidationButton.click()
    assert (panel.edit.case, roles(panel)["Scan 00"]) == ("Scan 01", "validation")
    listed = json.loads(panel.logic.project.file.read_text())["cases"]
    assert {case["id"]: case.get("label_began") for case in listed} == {"Scan 00": "prediction", "Scan 01": None}


def test_a_corrected_copy_is_one_and_is_known_as_such(predicted, asked):
    panel = predicted
    draw(panel.edit.editor.segmentationNode(), panel.edit.editor.sourceVolumeNode(), ball(5))
    panel.ui.acceptValidationButton.click()
    assert not asked and roles(panel)["Scan 00"] == "validation"
    assert case_of(panel, "Scan 00").label_began == "correction"
    assert next(c for c in panel.logic.project.cohort().cases if c.id == "Scan 00").label_began == "correction"


def test_taking_an_empty_segment_away_corrects_nothing(training, asked):
    add_scan(0)
    training.update()
    predict(training, "Scan 00", ball(0))
    training.logic.cohort.setSegments([SEGMENT, "handle"])
    training.openCase("Scan 00")
    segmentation = training.edit.editor.segmentationNode().GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(1))
    training.ui.acceptValidationButton.click()
    assert len(asked) == 1 and roles(training)["Scan 00"] == "unlabeled"


@pytest.mark.parametrize("inScene", [True, False])
def test_a_prediction_that_was_learnt_from_does_not_become_one_later(predicted, asked, inScene):
    panel = predicted
    panel.ui.acceptNextButton.click()
    assert not asked and roles(panel)["Scan 00"] == "labeled"
    panel.ui.backButton.click()
    if not inScene:
        forget(panel, "Scan 00")
    select(panel, ["Scan 00"])
    panel.ui.validationButton.click()
    assert len(asked) == 1 and roles(panel)["Scan 00"] == "labeled" and "nothing was changed" in message(panel)
    panel.openCase("Scan 00")  # of its file, where the scene has lost it
    draw(panel.edit.editor.segmentationNode(), panel.edit.editor.sourceVolumeNode(), ball(5))
    panel.ui.acceptValidationButton.click()
    assert len(asked) == 1 and roles(panel)["Scan 00"] == "validation"
    assert case_of(panel, "Scan 00").label_began == "correction"


def test_scripts_have_to_say_so(predicted):
    faults = predicted.logic.setRole(["Scan 00"], "validation")
    assert list(faults) == ["Scan 00"] and "correct it first" in faults["Scan 00"]
    assert predicted.logic.setRole(["Scan 00"], "validation", asPredicted=True) == {}
    assert roles(predicted)["Scan 00"] == "validation"


def test_what_a_hand_drew_is_nobodys_prediction(predicted, asked):
    from training_tools import add_segmentation

    panel = predicted
    panel.ui.backButton.click()
    own = add_segmentation(panel.logic.cohort.volumeNode("Scan 00"), ball(0))
    panel.logic.cohort.assign("Scan 00", own)
    select(panel, ["Scan 00"])
    panel.ui.validationButton.click()
    assert not asked and case_of(panel, "Scan 00").label_began == ""


def test_a_prediction_that_is_given_to_a_case_as_it_is_counts_as_one(predicted, asked):
    from CAMLTrainingLib.Predictions import showPrediction

    panel = predicted
    panel.ui.backButton.click()
    panel.logic.cohort.assign("Scan 01", showPrediction(panel.logic.cohort, "Scan 01", "model"))
    select(panel, ["Scan 01"])
    panel.ui.validationButton.click()
    assert len(asked) == 1 and roles(panel)["Scan 01"] == "unlabeled"


def test_predictions_are_held_out_by_chance_last(a_cohort, training):
    a_cohort(labeled=3, unlabeled=1)
    predict(training, "Scan 03", ball(3))
    training.openCase("Scan 03")
    training.ui.acceptNextButton.click()
    training.ui.backButton.click()
    assert list(roles(training).values()) == ["labeled"] * 4
    training.logic.cohort.holdOut(3)
    assert roles(training)["Scan 03"] == "labeled"
