"""Following a training through its events file: what is told, and how its state is judged."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import pytest

from caml_core import events
from caml_core.errors import ResourceError, TrainingError

#: They are about processes, or about starting them.
pytestmark = pytest.mark.cold_python


class Notes:
    """A listener that remembers."""

    def __init__(self):
        self.events, self.states = [], []

    def onRoundEvent(self, kind, fields):
        self.events.append((kind, fields.get("iteration")))

    def onRoundLook(self):
        pass

    def onRoundState(self, state, message):
        self.states.append((state, message))


@pytest.fixture
def notes():
    return Notes()


@pytest.fixture
def a_round(the_training_module, tmp_path, notes):
    from CAMLTrainingLib.RoundProcess import RoundProcess

    folder = tmp_path / "001"
    folder.mkdir()
    made = RoundProcess(folder, tmp_path / "training.lock", notes)
    yield made
    made.close()


@pytest.fixture
def a_holder(tmp_path, caml_environment):
    """A process that holds the project's lock, as a training does."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from caml_core.locking import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]), 'taken'); lock.__enter__(); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "training.lock")],
        env=caml_environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline().strip() == "held"
    yield process
    process.kill()
    process.wait()


def tell(a_round, kind, age=0.0, **fields):
    line = events.encode(kind, {"part": "caml", "pid": os.getpid(), **fields})
    stamp = f'"time": {time.time() - age:.3f}'
    start = line.index('"time"')
    line = line[:start] + stamp + line[line.index(",", start) :]
    with a_round.eventsFile.open("a") as stream:
        stream.write(line + "\n")


def test_events_are_told_once_and_in_order(a_round, a_holder, notes):
    for iteration in range(5):
        tell(a_round, "step", iteration=iteration, total=9, losses={}, learning_rate=0.1, seconds_left=1)
    a_round.follow()
    tell(a_round, "heartbeat", iteration=5)
    a_round.look()
    assert notes.events == [*(("step", i) for i in range(5)), ("heartbeat", 5)]
    assert a_round.state == "running" and a_round.active


def test_a_line_that_is_being_written_waits_for_its_end(a_round, a_holder, notes):
    line = events.encode("heartbeat", {"iteration": 7})
    a_round.eventsFile.write_text(line[:20])
    a_round.follow()
    assert notes.events == []
    a_round.eventsFile.write_text(line + "\nno event at all\n\x00\x01\n")
    a_round.look()
    assert notes.events == [("heartbeat", 7)]


@pytest.mark.parametrize(
    ("last", "state"),
    [
        ({"kind": "heartbeat", "iteration": 50}, "running"),
        ({"kind": "finished", "result": {}}, "finished"),
        ({"kind": "error", "message": "Stopped.", "exit_code": 130}, "paused"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_long_file_is_told_in_pieces_and_its_end_counts_at_once(
    a_round, notes, monkeypatch, wait_for, request, last, state
):
    from CAMLTrainingLib import RoundProcess

    if state == "running":
        request.getfixturevalue("a_holder")
    monkeypatch.setattr(RoundProcess, "CHUNK", 500)
    for iteration in range(50):
        tell(a_round, "heartbeat", iteration=iteration)
    tell(a_round, **last)
    a_round.follow()
    assert 0 < len(notes.events) < 10 and a_round.catchingUp
    assert a_round.state == state and not notes.states, "it is told once all of before is"
    wait_for(lambda: notes.states, 10)
    assert [i for kind, i in notes.events if kind == "heartbeat"][:50] == list(range(50))
    assert notes.events[-1][0] == last["kind"] and [told for told, _ in notes.states] == [state]
    assert not a_round.catchingUp


@pytest.mark.parametrize("state", ["paused", "silent"])
def test_who_acts_while_a_long_file_is_told_acts_on_all_of_it(a_round, notes, monkeypatch, request, tmp_path, state):
    """Resuming tells nothing twice and nothing never; ending knows on which computer the process is."""
    from CAMLTrainingLib import RoundProcess

    monkeypatch.setattr(RoundProcess, "CHUNK", 500)
    tell(a_round, "started", host="workstation-of-another")
    for iteration in range(50):
        tell(a_round, "heartbeat", iteration=iteration, age=1000)
    if state == "paused":
        tell(a_round, "error", message="Stopped.", exit_code=130)
        monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(tmp_path / "no-python"))
        a_round.follow()
        with pytest.raises(ResourceError, match="could not be started"):
            a_round.resume()
    else:
        request.getfixturevalue("a_holder")
        a_round.follow()
        with pytest.raises(TrainingError, match="workstation-of-another; stop it there"):
            a_round.kill()
    assert [i for kind, i in notes.events if kind == "heartbeat"] == list(range(50)) and a_round.state == state


def test_a_file_that_cannot_be_read_is_not_asked_without_end(a_round, a_holder, notes, monkeypatch):
    """Its size is known, as of one on a drive that has lost its rights; that must not keep Slicer busy."""
    tell(a_round, "heartbeat", iteration=1)
    whole = a_round.eventsFile.read_bytes()
    a_round.eventsFile.unlink()
    a_round.eventsFile.mkdir()
    a_round.follow()
    a_round.look()
    assert notes.events == [] and a_round._timer.interval > 0
    a_round.eventsFile.rmdir()
    a_round.eventsFile.write_bytes(whole)
    a_round.look()
    assert notes.events == [("heartbeat", 1)]


def test_silence_is_told_apart_from_death(a_round, a_holder, notes):
    tell(a_round, "heartbeat", age=1000, iteration=3)
    a_round.follow()
    assert a_round.state == "silent" and a_round.active
    assert "may have slept" in notes.states[-1][1] and "17 min" in notes.states[-1][1]
    tell(a_round, "heartbeat", iteration=4)
    a_round.look()
    assert a_round.state == "running"


def test_a_process_that_is_gone_was_interrupted(a_round, a_holder, notes):
    tell(a_round, "heartbeat", iteration=3)
    a_round.follow()
    a_holder.kill()
    a_holder.wait()
    a_round.look()
    assert a_round.state == "interrupted" and not a_round.active
    assert "press Resume" in notes.states[-1][1]


@pytest.mark.parametrize(
    ("code", "message", "state"),
    [(130, "Stopped.", "paused"), (5, "The disk is full: free some space.", "failed"), (1, "Unexpected.", "failed")],
)
def test_the_last_word_of_a_process_counts(a_round, notes, code, message, state):
    tell(a_round, "started", command="round", version="0")
    tell(a_round, "error", message=message, exit_code=code)
    a_round.follow()
    assert a_round.state == state
    assert notes.states[-1][1] == (
        message if state == "failed" else "Paused with everything saved; press Resume to go on."
    )


def test_a_package_that_is_missing_is_named_with_its_cure(a_round, notes):
    tell(a_round, "started", command="round", version="0")
    tell(a_round, "error", message="Unexpected fault: ModuleNotFoundError: No module named 'torch'", exit_code=1)
    a_round.follow()
    assert a_round.state == "failed"
    assert "missing (torch); press Install" in notes.states[-1][1]


def test_an_error_of_before_is_forgotten_once_it_goes_on(a_round, notes):
    tell(a_round, "started", command="round", version="0")
    tell(a_round, "error", message="The disk is full.", exit_code=5)
    tell(a_round, "started", command="round", version="0")
    tell(a_round, "finished", result={})
    a_round.follow()
    assert a_round.state == "finished"


def test_a_program_that_is_not_there_is_named(a_round, tmp_path, monkeypatch):
    from CAMLTrainingLib import RoundProcess

    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(tmp_path / "no-python"))
    with pytest.raises(ResourceError, match="could not be started .*no-python"):
        a_round.start(["cohort"])


@pytest.mark.parametrize(
    ("says", "expected"),
    [("ModuleNotFoundError: No module named 'torch'", "press Install"), ("Bus error", "could not start: Bus error")],
)
def test_a_process_that_dies_before_a_word_leaves_its_last_line(
    a_round, notes, tmp_path, monkeypatch, wait_for, says, expected
):
    from CAMLTrainingLib import RoundProcess

    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "{says}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    a_round.start(["cohort"])
    wait_for(lambda: a_round.state == "failed", 30)
    assert expected in notes.states[-1][1]


def test_a_process_killed_by_the_system_is_told_as_memory(a_round, notes, tmp_path, monkeypatch, wait_for):
    from CAMLTrainingLib import RoundProcess

    line = events.encode("heartbeat", {"iteration": 1})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{line}' >> {a_round.eventsFile}\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    a_round.start(["cohort"])
    wait_for(lambda: a_round.state == "interrupted", 30)
    assert "want of memory" in notes.states[-1][1]


def test_pausing_is_told_until_it_is_over_and_asked_twice_ends_nothing(a_round, a_holder, notes):
    tell(a_round, "heartbeat", iteration=1, pid=a_holder.pid)
    a_round.follow()
    assert not a_round.pausing
    a_round.pause()
    a_round.pause()
    assert a_round.stopFile.is_file() and a_round.pausing and a_holder.poll() is None
    a_round.look()
    assert a_round.state == "running" and "Pausing" in notes.states[-1][1]
    tell(a_round, "error", message="Stopped.", exit_code=130)
    a_holder.kill()
    a_holder.wait()
    a_round.look()
    assert a_round.state == "paused" and not a_round.pausing


def test_a_pause_that_another_slicer_has_asked_for_is_seen(a_round, a_holder):
    tell(a_round, "heartbeat", iteration=1)
    a_round.follow()
    a_round.stopFile.touch()
    a_round.look()
    assert a_round.pausing


def test_a_silent_process_is_asked_not_killed(a_round, a_holder):
    tell(a_round, "heartbeat", age=1000, iteration=3, pid=a_holder.pid)
    a_round.follow()
    a_round.pause()
    assert a_round.state == "silent" and a_holder.poll() is None and a_round.stopFile.is_file()


def test_a_process_that_we_have_ended_died_of_nothing_else(a_round, notes, tmp_path, monkeypatch, wait_for):
    from CAMLTrainingLib import RoundProcess

    line = events.encode("heartbeat", {"iteration": 1})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{line}' >> {a_round.eventsFile}\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    a_round.start(["cohort"])
    wait_for(lambda: notes.events, 30)
    a_round.kill()
    wait_for(lambda: a_round.state == "interrupted", 30)
    assert "ended by force, as you asked" in notes.states[-1][1] and "memory" not in notes.states[-1][1]


def test_a_folder_that_cannot_be_written_is_one_sentence(a_round, tmp_path, notes):
    from CAMLTrainingLib import RoundFiles
    from CAMLTrainingLib.RoundProcess import RoundProcess

    a_round.stopFile.mkdir()  # it cannot be removed
    with pytest.raises(ResourceError, match="stop"):
        a_round.resume()
    (tmp_path / "file").touch()
    gone = RoundProcess(tmp_path / "file" / "001", tmp_path / "training.lock", notes)
    for action in (gone.resume, gone.pause, lambda: RoundFiles.giveUp(gone.folder)):
        with pytest.raises(ResourceError, match="annot write|No permission"):
            action()
    gone.close()


def test_resuming_tells_only_what_is_new(a_round, notes, tmp_path, monkeypatch, wait_for):
    from CAMLTrainingLib import RoundProcess

    tell(a_round, "started", command="round", version="0")
    tell(a_round, "error", message="Stopped.", exit_code=130)
    a_round.follow()
    done = events.encode("finished", {"result": {}})
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntest -e {a_round.stopFile} && exit 3\necho '{done}' >> {a_round.eventsFile}\n")
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    a_round.stopFile.touch()
    notes.events.clear()
    a_round.resume()
    wait_for(lambda: a_round.state == "finished", 30)
    assert [kind for kind, _ in notes.events] == ["finished"]


@pytest.mark.parametrize(("device", "wanted"), [("cpu", "--device cpu"), ("auto", "")])
def test_resuming_goes_on_on_the_device_of_this_computer(
    a_round, tmp_path, monkeypatch, wait_for, device, wanted, the_training_module
):
    from CAMLSegmentationLib.Parameters import storeDevice
    from CAMLTrainingLib import ModelChoice, RoundProcess

    program, heard = tmp_path / "python", tmp_path / "heard"
    program.write_text(f'#!/bin/sh\necho "$@" > {heard}.part && mv {heard}.part {heard}\n')
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    storeDevice(device)
    a_round.resume(device=ModelChoice.device())
    wait_for(heard.exists, 30)
    assert heard.read_text().partition(str(a_round.folder))[2].partition("--lock")[0].strip() == wanted


def test_words_that_come_while_a_process_ends_are_heard(a_round, notes, monkeypatch):
    """It says "finished" and lets go of its lock between the look at the file and the question whether it lives."""
    tell(a_round, "started")

    def ends():
        tell(a_round, "finished", result={})
        return False

    monkeypatch.setattr(a_round, "alive", ends)
    a_round.look()
    monkeypatch.setattr(a_round, "alive", lambda: False)
    assert a_round.state != "interrupted"
    a_round.look()
    assert a_round.state == "finished"


def test_a_process_of_another_computer_is_not_ended_here(a_round, a_holder):
    """On a shared drive: here its number belongs to somebody else."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        tell(a_round, "started", pid=stranger.pid, host="workstation-of-another")
        a_round.follow()
        assert a_round.active
        with pytest.raises(TrainingError, match="workstation-of-another; stop it there"):
            a_round.kill()
        assert stranger.poll() is None
        tell(a_round, "started", pid=stranger.pid, host=platform.node())
        a_round.look()
        a_round.kill()
        assert stranger.wait(10) != 0
    finally:
        stranger.kill()
        stranger.wait()


def test_a_round_that_has_ended_is_not_another_ones_process(a_round, a_holder, notes):
    """The project's lock is held by a newer round; the number of the old process may be anybody's by now."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        tell(a_round, "started", age=90_000.0, pid=stranger.pid)
        tell(a_round, "finished", age=89_000.0, pid=stranger.pid, result={})
        a_round.follow()
        assert a_round.state == "finished" and not a_round.active
        a_round.kill()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_no_case_is_named_where_other_users_of_the_computer_can_read_it(a_round):
    from CAMLTrainingLib.Preflight import TrainingSettings

    case = "-DOE^JANE 1970"
    a_round.start(["nowhere.json", *TrainingSettings(previewCase=case).training()], case)
    try:
        assert not any("DOE" in word for word in a_round._process.args)
        assert (a_round.folder / "preview-case.txt").read_text(encoding="utf-8") == case
    finally:
        a_round._process.wait(120)
