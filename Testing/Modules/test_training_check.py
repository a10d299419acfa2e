"""What changes while the check before a training runs: no training begins with what was not checked."""

from __future__ import annotations

import pytest
import SlicerHost
from training_tools import accept, choose_time, roles, select, write_folder


@pytest.fixture
def checked(training, a_cohort, short_training, monkeypatch, wait_for):
    """The panel in a check after which it is to train, and the list of cohorts that trainings have started with."""
    a_cohort(labeled=3, unlabeled=2, validation=1)
    choose_time(training)
    started = []
    monkeypatch.setattr(training.logic, "startTraining", lambda settings: started.append(roles(training)))
    training.ui.trainButton.click()
    wait_for(lambda: training.logic.checking and not training.logic.scans.running)
    return training, started


def test_a_cohort_that_changes_during_its_check_is_checked_again(checked, wait_for):
    training, started = checked
    select(training, ["Scan 00"])
    training.ui.excludeButton.click()
    asked = []
    look = training.logic._preflight.look
    training.logic._preflight.look = lambda *arguments: asked.append(roles(training)) or look(*arguments)
    wait_for(lambda: asked or started, 120)
    assert asked and asked[0]["Scan 00"] == "excluded" and not started
    training.logic.cancelPreflight()
    wait_for(lambda: not training.logic.checking, 120)
    assert not started


def test_a_scene_that_is_closed_during_the_check_is_not_trained_on(checked, wait_for):
    import slicer

    training, started = checked
    SlicerHost.leave("CAMLTraining")
    slicer.mrmlScene.Clear()
    wait_for(lambda: not training.logic.checking, 120)
    assert not started and not training.logic.training


def test_a_verdict_that_comes_while_labels_are_checked_starts_nothing(checked, tmp_path, wait_for):
    from CAMLTrainingLib.Preflight import Verdict

    training, started = checked
    training.logic.addFolder(write_folder(tmp_path / "many", 15, labels=15))
    training.update()
    accept(training, *[case for case in roles(training) if case.startswith("case")])
    assert training.cohort.checking
    training.onPreflight(Verdict("fits", "It fits."))
    assert not started
    training.logic.cancelPreflight()
    wait_for(lambda: not training.logic.checking and not training.cohort.checking, 120)
