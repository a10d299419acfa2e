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
