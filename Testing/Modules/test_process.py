"""The worker process: followed line by line, ended with everything it started."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

#: They are about processes, or about starting them.
pytestmark = pytest.mark.cold_python

posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process trees are looked at through POSIX here")


class Ears:
    def __init__(self):
        self.events, self.log, self.ends = [], [], []

    def onWorkerEvent(self, kind, fields):  # noqa: N802
        self.events.append((kind, fields))

    def onWorkerLog(self, text):  # noqa: N802
        self.log.append(text)

    def onWorkerEnd(self, exitCode, crashed):  # noqa: N802, N803
        self.ends.append((exitCode, crashed))


@pytest.fixture
def worker(slicer_host):
    from CAMLSegmentationLib.Process import WorkerProcess

    ears = Ears()
    made = WorkerProcess(ears)
    made.ears = ears
    yield made
    made.end()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_events_and_the_end_are_told_in_order(worker, wait_for, tmp_path):
    worker.start(["devices", "--progress", "json"], tmp_path / "stop")
    assert worker.running
    wait_for(lambda: worker.ears.ends)
    kinds = [kind for kind, _ in worker.ears.events]
    assert kinds[0] == "started" and kinds[-1] == "finished" and worker.ears.ends == [(0, False)]
    assert worker.ears.events[-1][1]["result"]["devices"][-1]["name"] == "cpu"
    assert not worker.running


def test_what_is_no_event_goes_to_the_log(worker, wait_for, tmp_path):
    worker.start(["nonsense"], tmp_path / "stop")
    wait_for(lambda: worker.ears.ends)
    assert worker.ears.ends[0][0] == 2 and any("nonsense" in line for line in worker.ears.log)
    assert not worker.ears.events


def test_a_program_that_cannot_be_started_is_an_end_with_a_reason(worker, wait_for, tmp_path, monkeypatch):
    from CAMLSegmentationLib import Process

    monkeypatch.setattr(Process, "pythonProgram", lambda: str(tmp_path / "no-python"))
    worker.start(["devices"], tmp_path / "stop")
    wait_for(lambda: worker.ears.ends)
    assert worker.ears.ends == [(-1, True)] and "no-python" in worker.ears.log[0]


def test_slicers_own_python_is_used_where_it_is(slicer_host, monkeypatch, tmp_path):
    from CAMLSegmentationLib.Process import pythonProgram

    assert pythonProgram() == sys.executable
    program = tmp_path / "PythonSlicer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert pythonProgram() == str(program)


def test_lines_that_arrive_in_pieces_are_put_together(worker, wait_for, tmp_path):
    worker._listener, told = worker.ears, worker.ears
    worker._take("out", b'{"event": "log", "mess')
    assert not told.events
    worker._take("out", b'age": "a"}\n{"event": "log", "message": "b"}\nplain \xff text\n')
    assert [fields["message"] for _, fields in told.events] == ["a", "b"] and len(told.log) == 1


def a_program(tmp_path, monkeypatch, *lines):
    """In the place of Python: says one line after the other, in pieces, and ends."""
    from CAMLSegmentationLib import Process

    program = tmp_path / "worker"
    said = "sleep 0.2\n".join(f"echo '{line}'\n" for line in lines)
    program.write_text(f"#!/bin/sh\n{said}")
    program.chmod(0o755)
    monkeypatch.setattr(Process, "pythonProgram", lambda: str(program))


def while_events_are_handled(seconds=1.0):
    """As Slicer does where a file is loaded: its window of progress handles events."""
    import slicer

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()
        time.sleep(0.01)


@posix
def test_what_arrives_while_a_listener_lets_events_be_handled_waits_for_its_turn(
    worker, wait_for, tmp_path, monkeypatch
):
    a_program(tmp_path, monkeypatch, "one\ntwo", "three")
    told = []

    def slow(text):
        told.append(f"{text} begins")
        while_events_are_handled() if text == "one" else None
        told.append(f"{text} ends")

    worker.ears.onWorkerLog = slow
    worker.ears.onWorkerEnd = lambda code, crashed: told.append((code, crashed))
    worker.start([], tmp_path / "stop")
    wait_for(lambda: not worker.running)
    assert told == [*(f"{n} {w}" for n in ("one", "two", "three") for w in ("begins", "ends")), (0, False)]


@posix
def test_ending_a_worker_while_a_listener_is_told_something_is_the_end(worker, wait_for, tmp_path, monkeypatch):
    a_program(tmp_path, monkeypatch, "one\ntwo", "three")

    def closing(text):
        worker.ears.log.append(text)
        while_events_are_handled()
        worker.end()
        assert worker.ears.ends, "told before end() returns"

    worker.ears.onWorkerLog = closing
    worker.start([], tmp_path / "stop")
    wait_for(lambda: worker.ears.ends)
    while_events_are_handled(0.1)
    assert worker.ears.log == ["one"] and len(worker.ears.ends) == 1 and not worker.running


@posix
def test_ending_a_tree_takes_the_grandchildren_and_spares_the_others(slicer_host):
    from CAMLSegmentationLib.ProcessTree import endTree

    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    grandchild = int(parent.stdout.readline())
    endTree([parent.pid, 0, 999999999])
    parent.wait(5)
    end = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(grandchild) and other.poll() is None
    other.kill()
    other.wait()


@posix
def test_a_worker_that_does_not_listen_is_ended_by_force(worker, wait_for, tmp_path, monkeypatch):
    from CAMLSegmentationLib import Process

    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' TERM\nsleep 60 & wait\n")
    deaf.chmod(0o755)
    monkeypatch.setattr(Process, "pythonProgram", lambda: str(deaf))
    worker.start([], tmp_path / "stop")
    wait_for(lambda: worker._process.processId() and worker._process.state() == 2)
    time.sleep(0.1)
    began = time.monotonic()
    worker.stop()
    wait_for(lambda: worker.ears.ends, 5)
    assert time.monotonic() - began < 3.0 and (tmp_path / "stop").exists()
    assert worker.ears.ends[0][1]
