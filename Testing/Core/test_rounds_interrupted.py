"""Rounds that are stopped, killed, refused, or run out of disk: what was done stays done, and nothing counts twice."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from round_tools import (
    StopAt,
    a_plan,
    baseline_plan,
    events_of,
    planned_round,
    result_of,
    row_of,
    table_of,
    work,
)
from synthetic import write_cohort

from caml_core.data.labels import read_labels
from caml_core.errors import Cancelled, ResourceError, TrainingError
from caml_core.events import decode
from caml_core.locking import FileLock, is_locked
from caml_core.model_file import load_model, read_card
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training import trainer as trainer_module
from caml_core.training.engine import Engine
from caml_core.training.request import Request

REPOSITORY = Path(__file__).resolve().parents[2]

_CHILD = """
import sys
import caml_core.training.trainer as trainer
from caml_core.cli import main
trainer.CHECKPOINT_SECONDS = trainer.STEP_EVENT_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def a_cohort(tmp_path) -> Path:
    return write_cohort(tmp_path / "cohort", labeled=3, unlabeled=2, validation=1)


@pytest.fixture
def a_round(a_cohort, tmp_path) -> Callable[[str], RoundFolder]:
    """A planned round of twelve iterations with a baseline of as many, by name."""

    def make(name: str) -> RoundFolder:
        plan = a_plan(12, validate_every=4)
        folder = planned_round(tmp_path / name, a_cohort, plan, RoundRequest(Request(), baseline=True))
        folder.part("labeled-only").create(baseline_plan(plan), folder.read_cohort())
        return folder

    return make


def _process(folder: RoundFolder, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    command = [sys.executable, "-c", _CHILD, "round", "--resume", str(folder.path), "--progress", "json", *more]
    command += ["--cache", str(folder.path.parent / "cache")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _signal_after(folder: RoundFolder, part: str, iteration: int, how: signal.Signals) -> int:
    """Resume in a process, send a signal once a part has saved this iteration; return the exit code."""
    process = _process(folder)
    assert process.stdout is not None
    for line in process.stdout:
        event = decode(line)
        if event and event[0] == "checkpoint" and event[1]["part"] == part and event[1]["iteration"] >= iteration:
            process.send_signal(how)
            break
    process.communicate(timeout=120)
    return process.returncode


def _same_models(a: RoundFolder, b: RoundFolder, part: str) -> bool:
    first, second = (load_model(folder.part(part).model).state for folder in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.slow
def test_a_round_that_is_killed_twice_ends_like_one_that_is_not(a_round):
    whole, killed = a_round("whole"), a_round("killed")
    wanted = work(whole)
    assert _signal_after(killed, "caml", 6, signal.SIGKILL) == -signal.SIGKILL
    assert not killed.result.exists() and not killed.model.exists()
    assert _signal_after(killed, "labeled-only", 5, signal.SIGKILL) == -signal.SIGKILL
    main = killed.part("caml")
    done = {path: path.stat().st_mtime_ns for path in main.path.iterdir() if path.name not in ("lock", "curves.png")}
    assert not killed.result.exists() and main.outcome in done
    assert _signal_after(killed, "labeled-only", 8, signal.SIGTERM) == 130
    process = _process(killed)
    process.communicate(timeout=120)
    assert process.returncode == 0
    found = result_of(killed)
    assert {p: p.stat().st_mtime_ns for p in done} == done  # the finished part was left alone
    for part in ("caml", "labeled-only"):
        assert table_of(killed, part) == table_of(whole, part)
        assert [row["iteration"] for row in table_of(killed, part)] == [str(i) for i in range(1, 13)]
        assert _same_models(whole, killed, part)
        assert row_of(found, part)["cases"] == row_of(wanted, part)["cases"]
    assert found["difference"] == wanted["difference"]
    trained = [f["part"] for kind, f in events_of(killed) if kind == "stage" and f["name"] == "training"]
    assert trained == ["caml", "caml", "labeled-only", "labeled-only", "labeled-only"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_round_that_is_killed_before_it_is_planned_goes_on(a_cohort, tmp_path):

    folder = RoundFolder(tmp_path / "round")
    request = Request(iterations=2, base_filters=2, patch=(16, 16, 16), threads=1, dtype="fp32")
    start_round(folder, a_cohort, RoundRequest(request), None, "case0")
    process = _process(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if '"measuring"' in line:
            process.kill()
            break
    process.communicate(timeout=60)
    assert not folder.part("caml").plan.exists()
    assert work(folder)["ended"] == "finished" and folder.preview.is_file()


@pytest.mark.slow
def test_a_validation_that_was_cut_short_is_made_up_for(a_round, monkeypatch):
    monkeypatch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
    whole, stopped = a_round("whole"), a_round("stopped")
    work(whole)
    stop = StopAt("step", iteration=8)  # the validation after this step finds that it is to end
    with pytest.raises(Cancelled, match="iteration 8"):
        work(stopped, listener=stop.listen, stop=stop)
    assert [row["iteration"] for row in table_of(stopped)][-1] == "7"
    work(stopped)
    assert table_of(stopped) == table_of(whole) and _same_models(whole, stopped, "caml")


def test_a_round_that_is_stopped_while_it_scores_scores_again(a_round):
    folder = a_round("round")
    stop = StopAt("stage", name="scoring")
    with pytest.raises(Cancelled, match="iteration 12"):
        work(folder, listener=stop.listen, stop=stop)
    assert not folder.part("caml").outcome.exists()
    found = work(folder)
    assert row_of(found, "caml")["count"] == 1 and row_of(found, "caml")["iterations"] == 12


def test_a_stop_between_result_and_report_leaves_the_report_to_come(a_round):
    folder = a_round("round")
    stop = StopAt("stage", part="", name="report")
    with pytest.raises(Cancelled, match="result itself is complete"):
        work(folder, listener=stop.listen, stop=stop)
    assert result_of(folder)["report"] is None
    assert work(folder)["report"] == "report/index.html" and folder.report.is_file()


def test_a_paused_round_can_be_finished_with_what_it_has(a_round, monkeypatch):
    monkeypatch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
    folder = a_round("round")
    stop = StopAt("step", iteration=6)
    with pytest.raises(Cancelled):
        work(folder, listener=stop.listen, stop=stop)
    found = work(folder, finish=True)
    assert found["ended"] == "stopped" and [row["name"] for row in found["rows"]] == ["caml"]
    assert row_of(found, "caml")["iterations"] == 6 and row_of(found, "caml")["count"] == 1
    assert "stopped early" in read_card(folder.model).info.description
    assert work(folder) == found  # a finished round stays finished


def test_a_pause_in_the_baseline_can_be_finished_without_it(a_round):
    folder = a_round("round")
    stop = StopAt("checkpoint", "labeled-only")
    with pytest.raises(Cancelled):
        work(folder, listener=stop.listen, stop=stop)
    found = work(folder, finish=True)
    assert found["ended"] == "finished" and [row["name"] for row in found["rows"]] == ["caml"]


def test_nothing_can_be_finished_before_a_step_was_made(a_round):
    folder = a_round("round")
    with pytest.raises(TrainingError, match="Nothing has been trained"):
        work(folder, finish=True)
    assert work(folder)["ended"] == "finished"


# Memory


def test_a_round_says_of_its_main_training_too_that_memory_ran_out(a_cohort, tmp_path, monkeypatch):
    """Also where the session in which it did was stopped."""
    plan = a_plan(4, batch_labeled=2, batch_unlabeled=2)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    folder = planned_round(tmp_path / "round", a_cohort, plan)
    step = Engine.step

    def narrow(engine, batch, iteration):
        if engine.plan.batch_labeled > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(engine, batch, iteration)

    monkeypatch.setattr(Engine, "step", narrow)
    monkeypatch.setattr(trainer_module, "MEMORY_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
    stop = StopAt("step", iteration=2)
    with pytest.raises(Cancelled, match="iteration 2"):
        work(folder, listener=stop.listen, stop=stop)
    found = work(folder)
    told = [note for note in found["notes"] if "caml went on with smaller batches or patches" in note]
    assert len(told) == 1 and row_of(found, "caml")["iterations"] == 4


def test_a_plan_that_cannot_be_read_any_more_does_not_hide_what_ended_the_training(a_cohort, tmp_path):
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(4))
    stop = StopAt("stage", name="training")

    def lose_the_plan(kind, fields):
        stop.listen(kind, fields)
        if stop.stopped:
            folder.part("caml").plan.unlink(missing_ok=True)
            raise ResourceError("The disk is gone.")

    with pytest.raises(ResourceError, match="The disk is gone"):
        work(folder, listener=lose_the_plan)


# The preview


def test_the_case_to_preview_may_change_at_any_time(a_cohort, tmp_path):
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(12, validate_every=3), preview="case3")
    told: list[tuple[str, dict]] = []

    def listen(kind, fields):
        told.append((kind, fields))
        if kind == "preview" and fields["iteration"] == 3:
            folder.preview_case.write_text("nobody\n")
        if kind == "validation" and fields["iteration"] == 9:
            folder.preview_case.write_text("case5\n")
        if kind == "preview" and fields["iteration"] == 9:
            assert read_labels(folder.preview).array.shape == (22, 18, 20)
            folder.preview_case.unlink()

    found = work(folder, listener=listen)
    shown = [(f["case"], f["iteration"]) for kind, f in told if kind == "preview"]
    assert shown == [("case3", 3), ("case5", 9)]
    assert [f["message"] for kind, f in told if kind == "warning"] == [
        "There is no preview of iteration 6: The cohort has no case 'nobody'."
    ]
    assert found["ended"] == "finished"


def test_a_preview_leaves_the_training_as_it_is(a_cohort, tmp_path):
    plain = planned_round(tmp_path / "plain", a_cohort, a_plan(8, validate_every=2))
    shown = planned_round(tmp_path / "shown", a_cohort, a_plan(8, validate_every=2), preview="case0")
    work(plain)
    work(shown)
    assert _same_models(plain, shown, "caml")


def test_without_validation_cases_there_are_previews_all_the_same(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    folder = planned_round(tmp_path / "round", cohort, a_plan(6, validate_every=2), preview="case2")
    work(folder)
    assert [f["iteration"] for kind, f in events_of(folder) if kind == "preview"] == [2, 4, 6]


# Locks


def test_a_second_training_of_the_project_is_refused_and_leaves_no_trace(a_round, tmp_path, caml):
    folder, lock = a_round("round"), tmp_path / "project.lock"
    before = sorted(p.name for p in folder.path.iterdir())
    with FileLock(lock, "taken"):
        assert is_locked(lock)
        code, _, err = caml("round", "--resume", folder.path, "--lock", lock, "--progress", "none")
        assert code == 6 and "Another training of this project is running" in err and err.count("\n") == 1
        new = tmp_path / "new"
        assert caml("round", tmp_path / "cohort", "-o", new, "--lock", lock, "--progress", "none")[0] == 6
        assert not new.exists()
    assert sorted(p.name for p in folder.path.iterdir()) == before
    assert not is_locked(lock)


def test_a_second_process_on_the_same_round_is_refused(a_round, caml):
    folder = a_round("round")
    with folder.lock():
        code, _, err = caml("round", "--resume", folder.path, "--progress", "none")
    assert code == 6 and "Another process is at work" in err and not folder.events.exists()


def test_asking_for_a_lock_makes_no_file_and_takes_nothing(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path) and not path.exists()
    with FileLock(path, "taken"):
        pass
    assert path.is_file() and not is_locked(path) and not is_locked(path)
    with FileLock(path, "taken"), pytest.raises(TrainingError, match="taken"), FileLock(path, "taken"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_a_lock_goes_with_its_process_and_is_asked_for_without_pytorch(tmp_path, caml_environment):
    path = tmp_path / "lock"
    hold = "import sys, time; from pathlib import Path; from caml_core.locking import FileLock\n"
    hold += "with FileLock(Path(sys.argv[1]), 'taken'):\n    print('held', flush=True); time.sleep(600)"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True, env=caml_environment
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    ask = "import sys; from pathlib import Path; from caml_core.locking import is_locked\n"
    ask += "assert not {'torch', 'numpy'} & set(sys.modules); print(is_locked(Path(sys.argv[1])))"

    def answer() -> str:
        done = subprocess.run(
            [sys.executable, "-c", ask, str(path)], capture_output=True, text=True, env=caml_environment
        )
        return done.stdout.strip() + done.stderr

    assert answer() == "True"
    holder.kill()
    holder.communicate()
    assert answer() == "False"


# The disk


def test_a_full_disk_is_one_sentence_and_the_round_goes_on_afterwards(a_round, a_full_disk, caml):
    folder = a_round("round")
    with a_full_disk(60_000):  # events and tables fit, a checkpoint does not
        code, _, err = caml("round", "--resume", folder.path, "--cache", folder.path.parent / "c", "--progress", "none")
    assert code == ResourceError.exit_code and err.count("\n") == 1
    assert events_of(folder)[-1][0] == "error"
    assert work(folder)["ended"] == "finished"


def test_events_that_cannot_be_written_are_one_sentence(a_round, a_full_disk, caml):
    folder = a_round("round")
    with a_full_disk(100):  # less than the first event
        code, _, err = caml("round", "--resume", folder.path, "--progress", "none")
    assert code == ResourceError.exit_code and "events.jsonl" in err and err.count("\n") == 1
    torn = folder.events.read_bytes()
    assert torn and not torn.endswith(b"\n")
    cache = folder.path.parent / "cache"
    assert caml("round", "--resume", folder.path, "--cache", cache, "--progress", "none")[0] == 0
    lines = folder.events.read_text("ascii").splitlines()
    assert lines[0].encode() == torn and all(decode(line) for line in lines[1:])


def test_a_folder_that_is_read_only_is_named(an_open_folder, a_plain_user, caml):
    cohort = write_cohort(an_open_folder / "cohort", labeled=2, unlabeled=1, validation=1)
    locked = an_open_folder / "locked"
    locked.mkdir(mode=0o755)
    with a_plain_user():
        code, _, err = caml("round", cohort, "-o", locked / "001", "--progress", "none")
    assert code == ResourceError.exit_code and "No permission to write" in err and err.count("\n") == 1
    folder = planned_round(locked / "002", cohort, a_plan(2))
    with a_plain_user():
        code, _, err = caml("round", "--resume", folder.path, "--progress", "none")
    assert code == ResourceError.exit_code and "No permission to write" in err and err.count("\n") == 1


def test_planning_can_be_interrupted_too(a_cohort, tmp_path):
    folder = RoundFolder(tmp_path / "round")
    request = Request(iterations=2, base_filters=2, patch=(16, 16, 16), threads=1)
    start_round(folder, a_cohort, RoundRequest(request))
    for name in ("reading", "measuring"):
        stop = StopAt("stage", part="", name=name)
        with pytest.raises(Cancelled, match="--resume"):
            work(folder, listener=stop.listen, stop=stop)
    assert not folder.part("caml").plan.exists()
