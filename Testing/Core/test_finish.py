"""Trainings that are ended with what they have learnt: ``caml train --finish``, and what their cards then say."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from round_tools import StopAt, a_plan, planned_round, result_of, row_of, work
from synthetic import write_cohort

from caml_core.case_names import digest_of
from caml_core.config import Plan
from caml_core.data.cohort import load_cohort
from caml_core.errors import Cancelled, DataError
from caml_core.events import Listener, silent
from caml_core.model_file import load_model, read_card
from caml_core.training import trainer as trainer_module
from caml_core.training.checkpoint import load_checkpoint, save_checkpoint
from caml_core.training.ending import FALL_NOTE, STOP_NOTE
from caml_core.training.run import Session, resume_training, run_training
from caml_core.training.run_folder import RunFolder
from caml_core.training.trainer import Outcome


def trained(
    folder: RunFolder, plan: Plan, stop: Callable[[], bool] = lambda: False, listener: Listener = silent
) -> Outcome:
    """Train ``plan`` in a new folder beside its cohort."""
    cohort = load_cohort(folder.path.parent / "cohort" / "cohort.csv")
    with folder:
        folder.create(plan, cohort)
        session = Session(listener, stop, folder.path.parent / "cache")
        return run_training(plan, cohort, folder, session, None, resumed=False)


@pytest.fixture(scope="module")
def a_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with a training of eight iterations beside it that was stopped after the fifth."""
    home = tmp_path_factory.mktemp("home")
    write_cohort(home / "cohort", labeled=3, unlabeled=2, validation=1)
    stop = StopAt("step", iteration=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
        outcome = trained(RunFolder(home / "run"), a_plan(), stop, lambda k, f: stop.listen(k, {**f, "part": "caml"}))
    assert (outcome.reason, outcome.iteration) == ("stopped", 5)
    return home


@pytest.fixture
def stopped(a_home: Path, tmp_path: Path) -> RunFolder:
    """The stopped training, in a copy."""
    shutil.copytree(a_home, tmp_path, dirs_exist_ok=True)
    return RunFolder(tmp_path / "run")


def finish(folder: RunFolder, caml: Any, *more: object) -> tuple[int, str, str]:
    words = ("train", "--resume", folder.path, "--cache", folder.path.parent / "cache", "--progress", "none")
    return caml(*words, "--finish", *more)


# caml train --finish


def test_a_stopped_training_is_ended_with_what_it_has_learnt(stopped: RunFolder, caml: Any) -> None:
    before = stopped.checkpoint.read_bytes()
    for scan in (stopped.path.parent / "cohort").glob("case[0-4]_*.nrrd"):  # what it has learnt from may be gone
        scan.unlink()
    code, _, err = finish(stopped, caml, "--name", "Mine")
    assert code == 0 and not err
    model = load_model(stopped.model)
    assert (
        model.info.name == "Mine" and f"5 of {a_plan().iterations} iterations, stopped early" in model.info.description
    )
    assert model.info.metrics["held_out"]["count"] == 1 and stopped.scores.is_file()
    assert (model.info.labeled_cases, model.info.unlabeled_cases) == (3, 2)
    assert stopped.checkpoint.read_bytes() == before


def test_it_is_the_end_of_a_round_with_the_same_checkpoint(stopped: RunFolder, caml: Any) -> None:
    assert finish(stopped, caml)[0] == 0
    home = stopped.path.parent
    twin = planned_round(home / "round", home / "cohort" / "cohort.csv", a_plan())
    shutil.copyfile(stopped.checkpoint, twin.part("caml").checkpoint)
    row = row_of(work(twin, finish=True), "caml")
    first, second = load_model(stopped.model), load_model(twin.model)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    assert first.info.metrics == second.info.metrics and row["iterations"] == 5
    assert first.info.description == second.info.description


def test_it_may_be_gone_on_with_afterwards(stopped: RunFolder, caml: Any) -> None:
    assert finish(stopped, caml)[0] == 0
    assert (
        caml("train", "--resume", stopped.path, "--cache", stopped.path.parent / "cache", "--progress", "none")[0] == 0
    )
    info = read_card(stopped.model).info
    assert "stopped early" not in info.description and info.provenance["iterations"] == a_plan().iterations


def test_what_was_never_begun_is_not_finished(stopped: RunFolder, tmp_path: Path, caml: Any) -> None:
    code, _, err = finish(RunFolder(tmp_path / "none"), caml)
    assert code == 6 and "holds no training" in err
    state = load_checkpoint(stopped.checkpoint)
    save_checkpoint(stopped.checkpoint, {**state, "iteration": 0})
    model = stopped.model.read_bytes()
    code, _, err = finish(stopped, caml)
    assert code == 6 and "Nothing has been trained" in err and stopped.model.read_bytes() == model
    stopped.checkpoint.unlink()
    assert finish(stopped, caml)[0] == 6


def test_a_stop_while_it_is_scored_leaves_the_figures_to_come(stopped: RunFolder, tmp_path: Path, caml: Any) -> None:
    (tmp_path / "stop").touch()
    code, _, err = finish(stopped, caml, "--stop-file", tmp_path / "stop")
    assert code == 130 and "go on with: caml train --resume" in err and not stopped.scores.exists()
    assert finish(stopped, caml)[0] == 0 and stopped.scores.is_file()


@pytest.mark.skipif(os.name == "nt", reason="quotes of a POSIX shell")
def test_the_command_that_goes_on_can_be_entered_as_it_is_told(stopped: RunFolder, tmp_path: Path, caml: Any) -> None:
    folder = RunFolder(Path(shutil.copytree(stopped.path, stopped.path.with_name("l'atrium (2)"))))
    (tmp_path / "stop").touch()
    code, _, err = finish(folder, caml, "--stop-file", tmp_path / "stop")
    told = err.strip().rpartition("go on with: ")[2]
    assert code == 130 and shlex.split(told) == ["caml", "train", "--resume", str(folder.path)]


def test_without_held_out_cases_it_ends_without_figures(tmp_path: Path, caml: Any) -> None:
    write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    folder = RunFolder(tmp_path / "run")
    trained(folder, a_plan(2))
    assert finish(folder, caml)[0] == 0 and not read_card(folder.model).info.metrics


def test_a_training_that_cannot_go_on_names_this_way_out(stopped: RunFolder, caml: Any) -> None:
    (stopped.path.parent / "cohort" / "case0_image.nrrd").unlink()
    words = ("train", "--resume", stopped.path, "--cache", stopped.path.parent / "cache", "--progress", "none")
    code, _, err = caml(*words)
    assert code == DataError.exit_code and f"caml train --resume {stopped.path} --finish" in err
    assert finish(stopped, caml)[0] == 0


# How it ended


def test_a_stop_after_the_last_step_does_not_make_it_stopped_early(tmp_path: Path, caml: Any) -> None:
    """The held-out cases were not scored yet: neither the card of then nor that of the end says so."""
    write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1)
    folder, stop = RunFolder(tmp_path / "run"), StopAt("stage", name="scoring")
    outcome = trained(folder, a_plan(3), stop, lambda k, f: stop.listen(k, {**f, "part": "caml"}))
    assert outcome.reason == "stopped" and outcome.iteration == 3
    for _ in range(2):
        assert "3 of 3 iterations." in read_card(folder.model).info.description
        assert finish(folder, caml)[0] == 0
    home = planned_round(tmp_path / "round", tmp_path / "cohort" / "cohort.csv", a_plan(3))
    stop = StopAt("stage", name="scoring")
    with pytest.raises(Cancelled):
        work(home, listener=stop.listen, stop=stop)
    assert work(home, finish=True)["ended"] == result_of(home)["ended"] == "finished"


def in_the_fall(folder: RunFolder, end: int) -> None:
    """Let a checkpoint be that of a training whose Dice has levelled off, and whose rate falls until ``end``."""
    state = load_checkpoint(folder.checkpoint)
    state["engine"]["annealing"] = (2, end)
    state["plateau"] = {"best": 0.5, "validations": 8, "stale": 5, "reached": True}
    save_checkpoint(folder.checkpoint, state)


@pytest.mark.parametrize(
    ("end", "ended", "note", "words"),
    [
        (9, "stopped", FALL_NOTE, "5 iterations, stopped early, after it no longer improved."),
        (5, "plateau", STOP_NOTE, "5 iterations, until it no longer improved."),
    ],
    ids=["in the fall", "at its end"],
)
def test_what_decided_the_end_is_known_when_it_is_finished(
    stopped: RunFolder, end: int, ended: str, note: str, words: str
) -> None:
    in_the_fall(stopped, end)
    home = stopped.path.parent
    folder = planned_round(home / "round", home / "cohort" / "cohort.csv", a_plan())
    shutil.copyfile(stopped.checkpoint, folder.part("caml").checkpoint)
    found = work(folder, finish=True)
    info = read_card(folder.model).info
    assert found["ended"] == ended and note in found["words"] and note in info.description
    assert words in info.description and info.provenance["stopped_by"] == [digest_of("case5")]
    # And where the result has to be made again from what is on disk.
    folder.result.unlink()
    assert work(folder)["words"] == found["words"]


def test_what_decided_the_end_is_known_of_one_that_is_stopped_in_the_fall(stopped: RunFolder) -> None:
    """Its model may be started from, or used, before it is gone on with."""
    in_the_fall(stopped, 8)
    stopped.write_plan(a_plan(optimizer=dataclasses.replace(a_plan().optimizer, schedule="plateau")))
    stop, cache = StopAt("step", iteration=6), stopped.path.parent / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
        told = Session(lambda k, f: stop.listen(k, {**f, "part": "caml"}), stop, cache)
        outcome = resume_training(stopped, told)
    assert (outcome.reason, outcome.iteration, outcome.plateau) == ("stopped", 6, True)
    info = read_card(stopped.model).info
    assert info.provenance["stopped_by"] == [digest_of("case5")] and FALL_NOTE in info.description
    outcome = resume_training(stopped, Session(silent, lambda: False, cache))
    assert (outcome.reason, outcome.iteration) == ("plateau", 8)
    assert STOP_NOTE in read_card(stopped.model).info.description
