"""Trainings that end before their end: paused, stopped and killed at every stage, and what the panel makes of them."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from training_tools import SMALL, train

from caml_core.errors import Cancelled
from caml_core.events import EventFile, fan_out
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import Round, Surroundings, start_round
from caml_core.rounds.round_folder import RoundFolder, read_object
from caml_core.training import trainer
from caml_core.training.request import Request

QUICK = Request(iterations=6, base_filters=4, patch=(16, 16, 16), threads=1, dtype="fp32")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@pytest.fixture
def stopped_at(training, monkeypatch):
    """``stopped_at(kind, **fields)``: the panel, opened on a round that was asked to stop when it told this event."""

    import slicer

    monkeypatch.setattr(trainer, "STEP_EVENT_SECONDS", 0.0)  # every step is told
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: True)

    def stop(kind, baseline=False, folds=0, **fields):
        logic = training.logic
        folder = RoundFolder(logic.project.next_round())
        start_round(folder, logic._trainingCohort(), RoundRequest(QUICK, baseline, folds))
        asked = []

        def listen(told, values):
            if told == kind and fields.items() <= values.items():
                asked.append(told)

        tell = fan_out(EventFile(folder.events), listen)
        with folder.lock(), pytest.raises(Cancelled) as end:
            Round(folder, Surroundings(tell, lambda: bool(asked))).run()
        tell("error", {"message": str(end.value), "exit_code": Cancelled.exit_code})
        logic.openProject(logic.project.folder)
        training.update()
        assert logic.round.state == "paused" and training.ui.stopButton.enabled
        return training

    return stop


def models():
    from CAMLSegmentationLib import Models

    return Models.library().entries()


@pytest.mark.parametrize(("part", "more"), [("labeled-only", {"baseline": True}), ("fold-1", {"folds": 2})])
@pytest.mark.slow
def test_stop_after_the_main_training_keeps_its_model(stopped_at, a_cohort, wait_for, part, more):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    panel = stopped_at("checkpoint", **more, part=part)
    panel.ui.stopButton.click()
    wait_for(lambda: panel.logic.round.state == "finished", 60)
    (found,) = panel.logic.rounds()
    assert found.ended == "finished" and found.row("caml").iterations == QUICK.iterations
    assert found.model.is_file() and len(models()) == 1
    assert not (found.folder / "given-up").exists()


def test_stop_before_the_first_step_gives_the_round_up(stopped_at, a_cohort):
    a_cohort(labeled=2, unlabeled=1)
    panel = stopped_at("checkpoint", iteration=0)
    folder = panel.logic.round.folder
    assert (folder / "caml" / "checkpoint.pt").is_file(), "it was saved, and there is nothing to score in it"
    panel.ui.stopButton.click()
    assert "before anything was learnt" in panel.ui.statusLabel.text
    assert not panel.logic.training and not panel.ui.resumeButton.enabled


def test_a_round_that_learnt_before_it_was_resumed_can_be_finished(stopped_at, a_cohort, wait_for):
    """What a later process has told is not all there is: the save of an earlier one counts."""
    a_cohort(labeled=2, unlabeled=1)
    panel = stopped_at("step", iteration=3)
    saved = panel.logic.round.folder / "caml" / "checkpoint.pt"
    before = saved.stat().st_mtime_ns
    panel.ui.resumeButton.click()
    panel.logic.round.kill()
    wait_for(lambda: not panel.logic.training, 60)
    assert saved.stat().st_mtime_ns == before, "ended before it could save anew"
    panel.ui.stopButton.click()
    wait_for(lambda: panel.logic.round.state == "finished", 60)
    (found,) = panel.logic.rounds()
    assert found.ended == "stopped" and 0 < found.row("caml").iterations < QUICK.iterations


def test_stop_of_a_paused_training_asks_first(stopped_at, a_cohort, monkeypatch):
    import slicer

    a_cohort(labeled=2, unlabeled=1)
    panel, asked = stopped_at("step", iteration=3), []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: asked.append(text))
    panel.ui.stopButton.click()
    assert len(asked) == 1 and "cannot be resumed" in asked[0]
    assert panel.logic.round.state == "paused" and panel.ui.resumeButton.enabled
    assert (panel.logic.round.folder / "caml" / "checkpoint.pt").is_file()


def test_a_stop_while_the_report_is_made_leaves_result_and_model_and_resume(stopped_at, a_cohort, wait_for):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    panel = stopped_at("stage", name="report")
    (found,) = panel.logic.rounds()
    assert found.finished and read_object(found.folder / "result.json")["report"] is None
    assert len(models()) == 1 and "Dice" in panel.ui.resultTextBrowser.html
    assert panel.ui.resumeButton.enabled and not panel.ui.reportButton.enabled
    panel.ui.resumeButton.click()
    wait_for(lambda: panel.logic.round.state == "finished", 60)
    assert panel.ui.reportButton.enabled and not panel.ui.resumeButton.enabled
    assert len(models()) == 1, "it is listed once"


def test_a_round_whose_report_could_not_be_made_is_over(stopped_at, a_cohort):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    panel = stopped_at("stage", name="report")
    EventFile(panel.logic.round.eventsFile)("finished", {"result": {}})
    panel.logic.openProject(panel.logic.project.folder)
    panel.update()
    assert panel.logic.round.state == "finished" and not panel.ui.resumeButton.enabled


# While the process is at work


@pytest.fixture
def at_work(training, a_cohort, wait_for, monkeypatch):
    """A training that lasts longer than the test, in its own process."""
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "4000", *SMALL))
    a_cohort(labeled=2, unlabeled=1)
    train(training, wait_for)
    wait_for(lambda: "iteration" in training.ui.statusLabel.text, 120)
    return training


def send(panel, number):
    """Hold the process of a training, or let it go on."""
    os.kill(panel.logic.round._process.pid, number)


@posix
def test_a_training_that_takes_its_time_is_waited_for_until_the_user_ends_it(at_work, wait_for, monkeypatch):
    import slicer

    ui, asked = at_work.ui, []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: asked.append(text) or True)
    send(at_work, signal.SIGSTOP)  # a step that takes long
    ui.pauseButton.click()
    assert not ui.pauseButton.enabled and ui.stopButton.enabled
    wait_for(lambda: "Pausing" in ui.statusLabel.text, 30)
    at_work.train.onRoundEvent("step", {"iteration": 7, "total": 4000, "part": "caml", "seconds_left": 1})
    assert "Pausing" in ui.statusLabel.text, "the last steps do not hide it"
    at_work.logic.pause()
    assert at_work.logic.round.alive(), "asked twice is not ended by force"
    send(at_work, signal.SIGCONT)
    wait_for(lambda: not at_work.logic.training, 60)
    assert at_work.logic.round.state == "paused" and "Paused" in ui.statusLabel.text

    ui.resumeButton.click()
    wait_for(lambda: "iteration" in ui.statusLabel.text, 120)
    assert ui.pauseButton.enabled, "a pause that is over is no pause"
    send(at_work, signal.SIGSTOP)
    ui.stopButton.click()
    assert at_work.logic.round.alive() and ui.stopButton.enabled
    ui.stopButton.click()
    assert ["by force" in text for text in asked] == [False, True]
    wait_for(lambda: at_work.logic.round.state == "finished", 120)
    log = ui.logTextEdit.plainText
    assert "ended by force, as you asked" in log and "memory" not in log
    (found,) = at_work.logic.rounds()
    assert found.ended == "stopped" and found.model.is_file(), "what was saved is kept"


def test_another_slicer_that_quits_leaves_the_training_alone_and_may_pause_it(at_work, wait_for):
    from CAMLTrainingLib import Parameters
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    first = at_work.logic.round
    Parameters.storeOnQuit("continue")
    other = CAMLTrainingLogic()
    other.openProject(at_work.logic.project.folder)
    assert other.training and other.round.folder == first.folder
    other.onQuit()
    assert not first.stopFile.exists() and first.alive()

    Parameters.storeOnQuit("pause")
    third = CAMLTrainingLogic()
    third.openProject(at_work.logic.project.folder)
    third.onQuit()
    wait_for(lambda: not at_work.logic.training, 60)
    assert first.state == "paused" and at_work.ui.resumeButton.enabled


def test_a_training_of_a_project_that_was_left_is_paused_as_well(at_work, wait_for, tmp_path):
    from CAMLTrainingLib import Parameters

    first = at_work.logic.round
    at_work.logic.openProject(tmp_path / "another")
    assert at_work.logic.round is None and first.alive()
    Parameters.storeOnQuit("pause")
    at_work.logic.onQuit()
    assert first.stopFile.is_file()
    wait_for(lambda: not first.alive(), 60)


@posix
def test_a_stop_that_could_not_be_asked_leaves_pause_a_pause(at_work, wait_for, monkeypatch):
    import slicer

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: True)
    logic, ui = at_work.logic, at_work.ui
    logic.round.stopFile.symlink_to(logic.round.folder / "missing" / "stop")  # nothing can be written there
    ui.stopButton.click()
    assert "cannot" in ui.statusLabel.text.casefold() and logic.training
    logic.round.stopFile.unlink()
    ui.pauseButton.click()
    wait_for(lambda: not logic.training, 60)
    assert logic.round.state == "paused" and logic.resumable


def test_a_label_that_is_gone_leaves_resume_with_a_sentence_and_stop_with_the_model(stopped_at, a_cohort, wait_for):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    panel = stopped_at("step", iteration=3)
    gone = panel.logic.project.with_role("labeled")[0]
    gone.label.unlink()
    panel.ui.resumeButton.click()
    wait_for(lambda: panel.logic.round.state == "failed", 60)
    words = panel.ui.statusLabel.text
    assert f"Case {gone.id}:" in words and "put the files back" in words and "press Stop" in words
    assert panel.ui.resumeButton.enabled and panel.ui.stopButton.enabled
    panel.ui.stopButton.click()
    wait_for(lambda: panel.logic.round.state == "finished", 60)
    (found,) = panel.logic.rounds()
    assert found.ended == "stopped" and found.row("caml").count == 1 and len(models()) == 1
