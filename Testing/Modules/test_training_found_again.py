"""Which round a panel follows when a project is opened while a training is at work there."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from training_tools import finish_round

from caml_core.locking import FileLock
from caml_core.rounds.round_folder import RoundFolder


@pytest.fixture
def at_work(training, a_cohort, stand_in):
    """A project whose first round was left for a second one, which has ended, and is at work again now."""
    a_cohort(labeled=2, unlabeled=0)
    first = training.logic.project.rounds_folder() / "001"
    tell(first)
    finish_round(training, 2, stand_in, caml=0.8)
    with ExitStack() as held:
        held.enter_context(FileLock(training.logic.lock, "taken"))
        held.enter_context(RoundFolder(first).lock())
        yield training


def tell(folder: Path, *events: dict) -> None:
    """Make the folder of a round with these events, which waits to be resumed."""
    folder.mkdir(parents=True, exist_ok=True)
    RoundFolder(folder).round.write_text("{}")
    told = [{"event": "started", "command": "round", "pid": os.getpid(), "version": "0"}, *events]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))


def step(part: str, loss: float) -> dict:
    """The event of a step."""
    return {"event": "step", "part": part, "iteration": 1, "total": 9, "losses": {"total": loss}}


def opened(panel) -> Path:
    """The folder of the round that is followed once the project is opened anew."""
    panel.logic.openProject(panel.logic.project.folder)
    panel.update()
    return panel.logic.round.folder


def test_an_older_round_that_is_at_work_is_followed_and_may_be_paused(at_work):
    assert opened(at_work).name == "001"
    assert at_work.logic.training and at_work.ui.pauseButton.enabled and at_work.ui.stopButton.enabled


def test_a_round_that_has_taken_the_projects_lock_alone_so_far_is_the_newest(training, a_cohort, stand_in):
    a_cohort(labeled=2, unlabeled=0)
    finish_round(training, 1, stand_in, caml=0.8)
    begun = training.logic.project.rounds_folder() / "002"
    begun.mkdir()
    with FileLock(training.logic.lock, "taken"):
        assert opened(training) == begun


def test_curves_are_those_of_the_round_that_is_followed(training, a_cohort):
    from CAMLTrainingLib import Curves

    a_cohort(labeled=2, unlabeled=0)
    rounds = training.logic.project.rounds_folder()
    tell(rounds / "001", step("caml", 2.0), step("labeled-only", 3.0))
    opened(training)
    training.train.draw()
    assert Curves.chartNode("loss").GetNumberOfPlotSeriesNodes() == 2
    tell(rounds / "002", step("caml", 1.0))  # by another Slicer
    training.enter()
    training.train.curves.update()
    assert training.logic.round.folder.name == "002"
    assert Curves.chartNode("loss").GetNumberOfPlotSeriesNodes() == 1
