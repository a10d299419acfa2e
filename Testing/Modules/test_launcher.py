"""A worker that the system ends, seen through PythonSlicer: a launcher that turns the death into a line and a 1."""

from __future__ import annotations

import os

import pytest
from stand_ins import ijk_to_ras, noise, save_stand_in

from caml_core import events

#: They are about processes, or about starting them.
pytestmark = [
    pytest.mark.cold_python,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="workers are ended by POSIX signals here"),
]
KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
ABNORMAL = "error: [python-real] exit abnormally - Report the problem."


class Ears:
    def __init__(self):
        self.log, self.ends = [], []

    def onWorkerEvent(self, kind, fields):  # noqa: N802
        """Nothing of it matters here."""

    def onWorkerLog(self, text):  # noqa: N802
        self.log.append(text)

    def onWorkerEnd(self, exitCode, crashed):  # noqa: N802, N803
        self.ends.append((exitCode, crashed))


@pytest.fixture
def python_slicer(slicer_host, tmp_path, monkeypatch):
    """Slicer's launcher is what is found; ``python_slicer(code)`` says what the workers do that it starts."""
    from CAMLSegmentationLib import Worker
    from SlicerHost import launcher

    (tmp_path / "bin").mkdir()
    launcher.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def works(code):
        (tmp_path / "work.py").write_text(f"import sys\n{code}")
        monkeypatch.setattr(Worker, "__file__", str(tmp_path / "work.py"))

    return works


@pytest.fixture
def ran(python_slicer, wait_for, tmp_path):
    """``ran(code)``: what was heard of a worker that did this."""
    from CAMLSegmentationLib.Process import WorkerProcess

    def run(code):
        python_slicer(code)
        ears = Ears()
        worker = WorkerProcess(ears)
        worker.start([], tmp_path / "stop")
        wait_for(lambda: ears.ends, 30)
        return ears

    return run


def test_a_worker_that_the_system_has_ended_crashed_and_the_launcher_is_not_quoted(ran):
    ears = ran(f"print('bad_alloc', file=sys.stderr, flush=True)\n{KILLED}")
    assert ears.ends == [(1, True)] and ears.log == ["bad_alloc"]


@pytest.mark.parametrize(("code", "exit_code"), [("print('nothing to do')", 0), ("1 / 0", 1), ("sys.exit(3)", 3)])
def test_a_worker_that_ends_by_itself_has_not_crashed(ran, code, exit_code):
    assert ran(code).ends == [(exit_code, False)]


def test_the_line_means_nothing_where_others_follow_it(ran):
    """It may be that of a program which the worker has started."""
    ears = ran(f"print({ABNORMAL!r}, file=sys.stderr)\nprint('tried otherwise', file=sys.stderr)\nsys.exit(1)")
    assert ears.ends == [(1, False)] and ears.log == [ABNORMAL, "tried otherwise"]


def test_a_volume_over_which_the_worker_dies_is_told_as_memory(python_slicer, a_volume, tmp_path, wait_for):
    from CAMLSegmentationLib.Logic import CAMLSegmentationLogic

    event = events.encode("stage", {"name": "predict", "detail": "LA_0"})
    python_slicer(f"print({event!r}, flush=True)\n{KILLED}")
    volumes = [a_volume(f"LA {n}", noise(seed=n), ijk_to_ras()) for n in range(2)]
    logic, said = CAMLSegmentationLogic(), []

    class Listener:
        def __init__(self):
            self.onRunProgress = self.onRunEnd = self.onRunDelivery = lambda *_: None
            self.onRunLog = said.append

    run = logic.segmentVolumes(volumes, save_stand_in(tmp_path / "stand-in.caml"), Listener(), wait=False)
    wait_for(lambda: run.ended, 60)
    assert list(run.summary.failures) == ["LA 0", "LA 1"], "the second one was tried, too"
    assert all("want of memory" in sentence for sentence in run.summary.failures.values())
    assert not any("abnormally" in line for line in said)
    logic.close()


def test_a_checkpoint_over_which_the_worker_dies_is_told_as_memory(
    panel, python_slicer, answers, tmp_path, monkeypatch, wait_for
):
    import slicer

    errors = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *a, **k: errors.append(text))
    python_slicer(f"print('a warning of some library', file=sys.stderr, flush=True)\n{KILLED}")
    (tmp_path / "weights.pth").write_bytes(b"")
    answers["getOpenFileName"] = str(tmp_path / "weights.pth")
    panel.ui.importModelButton.click()
    wait_for(lambda: panel.ui.importModelButton.enabled, 30)
    assert len(errors) == 1 and "want of memory" in errors[0] and "abnormally" not in errors[0]


def test_a_question_to_the_engine_that_dies_is_told_as_memory(the_training_module, python_slicer, tmp_path, wait_for):
    from CAMLTrainingLib.EngineCall import EngineCall

    python_slicer(KILLED)
    answers = []
    call = EngineCall(lambda *answer: answers.append(answer), lambda *event: None)
    call.start(["preflight"], tmp_path)
    wait_for(lambda: answers, 30)
    assert answers[0][0] is None and "want of memory" in answers[0][1]


@pytest.fixture
def a_round(the_training_module, python_slicer, tmp_path):
    """A round of training; ``states`` has what was said of it."""
    from CAMLTrainingLib.RoundProcess import RoundProcess

    class Notes:
        def __init__(self):
            self.states = []
            self.onRoundEvent, self.onRoundLook = lambda kind, fields: None, lambda: None
            self.onRoundState = lambda state, message: self.states.append((state, message))

    made = RoundProcess(tmp_path / "001", tmp_path / "training.lock", Notes())
    made.states, made.says = made._listener.states, python_slicer
    yield made
    made.close()


def saying(a_round, kind, **fields):
    """Code that reports an event of a round."""
    return f"open({str(a_round.eventsFile)!r}, 'a').write({events.encode(kind, fields)!r} + chr(10))\n"


def test_a_round_that_the_system_has_ended_is_told_as_memory(a_round, wait_for):
    a_round.says(saying(a_round, "heartbeat", iteration=1) + KILLED)
    a_round.start(["cohort"])
    wait_for(lambda: not a_round.active, 30)
    assert a_round.state == "interrupted" and "want of memory" in a_round.states[-1][1]


def test_a_round_that_the_system_has_ended_before_a_word_is_told_as_memory(a_round, wait_for):
    a_round.says(f"print('Loading', file=sys.stderr, flush=True)\n{KILLED}")
    a_round.start(["cohort"])
    wait_for(lambda: not a_round.active, 30)
    assert a_round.state == "failed"
    assert "want of memory" in a_round.states[-1][1] and "abnormally" not in a_round.states[-1][1]


def test_a_round_that_was_ended_while_slicer_was_closed_is_told_as_memory_by_the_next(a_round, wait_for, tmp_path):
    from CAMLTrainingLib.RoundProcess import RoundProcess

    a_round.says(saying(a_round, "heartbeat", iteration=1) + KILLED)
    a_round.start(["cohort"])
    wait_for(lambda: a_round._process.poll() is not None, 30)
    later = RoundProcess(a_round.folder, a_round.lock, a_round._listener)
    later.follow()
    assert later.state == "interrupted" and "want of memory" in a_round.states[-1][1]
    later.close()


def test_how_a_round_ended_before_is_not_told_again(a_round, wait_for):
    """The log is one file for all processes of a round."""
    a_round.says(saying(a_round, "heartbeat", iteration=1) + KILLED)
    a_round.start(["cohort"])
    wait_for(lambda: not a_round.active, 30)
    assert "want of memory" in a_round.states[-1][1]
    a_round.says(saying(a_round, "heartbeat", iteration=2))
    a_round.resume()
    wait_for(lambda: not a_round.active, 30)
    assert a_round.state == "interrupted" and "without a word" in a_round.states[-1][1]
