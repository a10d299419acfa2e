"""Workers that are forked from a process with PyTorch: to whoever starts them they are like any other process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

WAITS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def program(a_warm_python) -> Path:
    if a_warm_python is None:
        pytest.skip("on Linux alone; elsewhere workers start from nothing in all tests")
    return a_warm_python.folder / "PythonSlicer"


@pytest.fixture
def script(tmp_path):
    def write(code: str) -> Path:
        (tmp_path / "work.py").write_text(code)
        return tmp_path / "work.py"

    return write


def _waiting(program: Path, script: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([program, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def _gone(pid: int) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def test_it_runs_the_script_with_its_arguments_folder_environment_and_streams(program, script, tmp_path):
    code = (
        "import os, sys\n"
        "print(sys.argv[1:], os.getcwd(), os.environ.get('MARK'), __name__, sys.path[0], 'torch' in sys.modules)\n"
        "print(sys.stdin.read() + '\\u00e9', file=sys.stderr)\n"
    )
    work = script(code)
    environment = {**os.environ, "MARK": "here"}
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [program, work, "a b", "--c"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        input="said",
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout == f"{['a b', '--c']} {tmp_path / 'elsewhere'} here __main__ {tmp_path} True\n"
    assert done.stderr == "said\u00e9\n"
    assert "MARK" not in os.environ


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('in words')", 1, "in words"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import atexit, sys\natexit.register(print, 'last', file=sys.stderr)", 0, "last"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", -9, ""),
    ],
)
def test_it_ends_as_the_worker_does(program, script, code, exit_code, said):
    done = subprocess.run([program, script(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, said in done.stderr) == (exit_code, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ends_the_program_ends_the_worker(program, script, number):
    process, worker = _waiting(program, script(WAITS))
    assert worker != process.pid
    process.send_signal(number)
    assert process.wait(20) == -number and _gone(worker)


def test_a_worker_that_answers_a_signal_is_heard_out(program, script):
    answers = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(7))\n"
    process, worker = _waiting(program, script(answers + WAITS))
    process.terminate()
    assert process.wait(20) == 7 and _gone(worker)


def test_one_that_ends_does_not_disturb_another(program, script, tmp_path):
    first, worker = _waiting(program, script(WAITS))
    other = subprocess.run([program, script("print('done')")], capture_output=True, text=True, check=True)
    assert other.stdout == "done\n" and Path(f"/proc/{worker}").exists()
    first.kill()
    assert first.wait(20) == -signal.SIGKILL and _gone(worker)


def test_clients_that_are_ended_before_they_have_asked_leave_the_server_at_work(program, script):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(program.with_name("socket")))
    work = script(WAITS)
    for milliseconds in range(0, 40, 2):
        process = subprocess.Popen([program, work], stdout=subprocess.DEVNULL)
        time.sleep(milliseconds / 1000)
        process.kill()
        process.wait()
    done = subprocess.run([program, script("print('done')")], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_a_worker_and_its_program_may_end_at_once(program, script):
    work = script(WAITS)
    for _ in range(10):
        process, worker = _waiting(program, work)
        os.kill(worker, signal.SIGKILL)
        process.kill()
        process.wait()
    done = subprocess.run([program, script("print('done')")], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
