"""Sentences that are right whatever the numbers are: one, none, all of them."""

from __future__ import annotations

import pytest
from training_tools import choose_time, finish_round, message, roles, select, write_folder


@pytest.mark.parametrize("scans", [1, 2])
def test_labels_that_came_and_those_that_did_not_are_counted(training, tmp_path, answers, scans):
    write_folder(tmp_path / "scans", scans)
    training.logic.addFolder(tmp_path / "scans")
    training.update()
    labels = write_folder(tmp_path / "labels", 2, labels=2)
    for path in labels.glob("case-0?.nii.gz"):
        path.unlink()
    answers["getExistingDirectory"] = str(labels)
    training.ui.addLabelsButton.click()
    said = {1: ("1 case got a label file. Select it", "1 file fits no case"), 2: ("2 cases got a label file.",)}
    assert all(words in message(training) for words in said[scans]) and ("fits no" in message(training)) == (scans == 1)


def test_label_files_of_no_case_are_not_to_be_selected(training, tmp_path, answers):
    training.logic.addFolder(write_folder(tmp_path / "scans", 1))
    labels = write_folder(tmp_path / "labels", 1, labels=1, first=7)
    (labels / "case-07.nii.gz").unlink()
    answers["getExistingDirectory"] = str(labels)
    training.ui.addLabelsButton.click()
    assert message(training).startswith("No case got a label file.") and "Select" not in message(training)


def test_where_all_labels_are_held_out_that_is_what_is_said(training, a_cohort):
    a_cohort(labeled=1, unlabeled=1)
    assert training.ui.trainButton.enabled
    select(training, ["Scan 00"])
    training.ui.validationButton.click()
    assert "held out" in training.ui.trainButton.toolTip and not training.ui.trainButton.enabled


def test_one_case_that_is_held_out_by_itself_is_one(training, a_cohort):
    a_cohort(labeled=5, unlabeled=0)
    training.logic._trainingCohort()
    held = [case for case, role in roles(training).items() if role == "validation"]
    assert len(held) == 1
    assert f"{held[0]} is held out from now on" in message(training)


def test_until_better_takes_the_cases_that_the_check_will_hold_out(training, a_cohort):
    a_cohort(labeled=5, unlabeled=0)
    choose_time(training, "better")
    assert training.ui.checkButton.enabled and "set aside" in training.ui.checkButton.toolTip
    training.ui.holdOutSpinBox.value = 0
    training.ui.holdOutButton.click()
    assert not training.ui.checkButton.enabled and "validation case" in training.ui.checkButton.toolTip


def test_without_an_unlabelled_case_the_button_says_so(training, a_cohort, stand_in):
    a_cohort(labeled=2, unlabeled=0)
    finish_round(training, 1, stand_in, caml=0.8)
    assert not training.ui.predictButton.enabled
    assert "no unlabelled case" in training.ui.predictButton.toolTip


def test_names_that_look_like_options_are_names(training):
    import argparse

    from CAMLTrainingLib.Preflight import TrainingSettings

    from caml_core.cli.round import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = TrainingSettings(name="-LA").training()
    assert parser.parse_args(["cohort.json", *words, "-o", "001"]).name == "-LA"
