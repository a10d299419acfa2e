"""What the user chooses for a training in the panel, and what the check, the preview and the buttons make of it."""

from __future__ import annotations

import numpy as np
import pytest
from training_tools import (
    SMALL,
    accept,
    add_scan,
    add_segmentation,
    ball,
    choose_time,
    draw,
    select,
    train,
    write_folder,
)


def test_labels_alone_are_trained_on_request_and_their_price_is_said(training):
    box = training.ui.baselineCheckBox
    assert not box.checked and not training.train.settings().baseline
    assert "same time again" in box.text
    box.checked = True
    assert training.train.settings().baseline and "--baseline" in training.train.settings().training()


# Cross-validation


@pytest.mark.parametrize(("validation", "folds"), [(0, 3), (2, 3), (3, 0)])
def test_a_cross_validation_is_made_where_few_cases_are_held_out(training, a_cohort, validation, folds):
    a_cohort(labeled=2, unlabeled=0, validation=validation)
    assert training.train.settings().folds == 0
    training.ui.crossValidateCheckBox.checked = True
    settings = training.train.settings()
    assert settings.folds == folds
    assert settings.training().count("--folds") == (folds > 0)


def test_a_cross_validation_needs_two_labelled_cases_and_says_so_before(training, a_cohort):
    a_cohort(labeled=1, unlabeled=1)
    ui = training.ui
    assert ui.trainButton.enabled
    ui.crossValidateCheckBox.checked = True
    assert not ui.trainButton.enabled and not ui.checkButton.enabled
    assert "two labelled cases" in ui.trainButton.toolTip
    ui.crossValidateCheckBox.checked = False
    assert ui.trainButton.enabled


# The check


def test_the_check_says_which_segments_the_start_model_knows(a_model, training, wait_for, monkeypatch):
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "12", "--dtype", "fp32"))
    for seed in range(2):
        volume = add_scan(seed)
        node = add_segmentation(volume, ball(seed), "left atrium")
        node.GetSegmentation().AddEmptySegment("", "Appendage", (0.2, 0.8, 0.4))
        draw(node, volume, np.roll(ball(seed), 4, 2) & ~ball(seed), 1)
    training.update()
    accept(training, "Scan 00", "Scan 01")
    choose_time(training)
    combo = training.ui.startModelComboBox
    combo.currentIndex = combo.findData("Stand-in")
    training.ui.checkButton.click()
    wait_for(lambda: not training.logic.checking, 120)
    lines = training.ui.verdictTextBrowser.toPlainText().splitlines()
    text = " ".join(lines)
    assert training.logic.verdict.mayTrain, text
    kept, new = text.index("Segments kept"), text.index("New segments")
    assert "left atrium" in text[kept:new] and "Appendage" not in text[kept:new]
    assert "Appendage" in text[new : new + 40]


# The preview


def test_a_case_that_was_excluded_is_not_previewed(training, a_cohort):
    a_cohort(labeled=2, unlabeled=1)
    combo = training.ui.previewComboBox
    combo.currentIndex = combo.findData("Scan 02")
    assert training.train.settings().previewCase == "Scan 02"
    select(training, ["Scan 02"])
    training.ui.excludeButton.click()
    assert training.train.settings().previewCase == "" and combo.currentText == "No preview"
    select(training, ["Scan 02"])
    training.ui.unlabeledButton.click()
    assert training.train.settings().previewCase == "Scan 02", "the choice comes back with the case"


def test_a_preview_case_is_loaded_when_it_is_chosen(training, tmp_path):
    folder = write_folder(tmp_path / "scans", 2)
    training.logic.addFolder(folder)
    training.update()
    combo, cohort = training.ui.previewComboBox, training.logic.cohort
    assert cohort.volumeNode("case-00") is None
    combo.currentIndex = combo.findData("case-00")
    node = cohort.volumeNode("case-00")
    assert node is not None and node.GetImageData().GetDimensions() == (24, 22, 20)
    training.update()
    assert len(training.logic.project.cases) == 2, "what was loaded is the case, not another one"
    (folder / "case-01.nii.gz").write_bytes(b"torn")
    combo.currentIndex = combo.findData("case-01")
    assert "case-01 cannot be loaded" in training.ui.statusLabel.text
    assert training._parameterNode.previewCase == "case-01"


@pytest.mark.slow
def test_the_preview_case_may_change_in_mid_run(training, wait_for, monkeypatch, tmp_path):
    import slicer
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "1500", *SMALL))
    training.logic.addFolder(write_folder(tmp_path / "scans", 4, labels=2))
    training.logic.setRole(["case-00", "case-01"], "labeled")
    training._parameterNode.previewCase = "case-02"  # as a scene that was loaded says: nobody has chosen it here
    training.update()
    train(training, wait_for)
    status, cohort = training.ui.statusLabel, training.logic.cohort
    wait_for(lambda: "iteration" in status.text and "case-02 is not loaded" in status.text, 120)

    combo = training.ui.previewComboBox
    combo.currentIndex = combo.findData("case-03")
    assert cohort.volumeNode("case-03") is not None and cohort.volumeNode("case-02") is None

    def previews():
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [node.GetName() for node in nodes if "preview" in node.GetName()]

    wait_for(previews, 120)
    assert previews() == ["case-03 - training preview"]
    wait_for(lambda: "iteration" in status.text, 30)
    assert "not loaded" not in status.text
