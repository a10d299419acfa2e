"""Output that nobody takes any more: the work goes on or ends in good order, and a result that is lost is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_predict import write_scan

from caml_core.cli.progress import ProgressBar
from caml_core.cli.streams import lasting
from caml_core.data.cohort import load_cohort

posix = pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
MODEL = Path(__file__).parents[2] / "CAMLSegmentation" / "Resources" / "Models" / "contrast-vessels.caml"


def run(environment: dict[str, str], *arguments: object, **streams: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "caml_core", *map(str, arguments)]
    return subprocess.run(command, env=environment, timeout=120, check=False, **streams)


@pytest.fixture
def a_pipe_without_reader():
    """As ``tee`` leaves it, which Ctrl-C ends with the command."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@posix
@pytest.mark.parametrize("progress", ["bar", "json"])
def test_work_goes_on_where_nobody_reads_of_its_progress(tmp_path, caml_environment, a_pipe_without_reader, progress):
    words = ("phantom", "atrium", "-o", tmp_path / "made", "--cases", "2", "--labeled", "1", "--validation", "0")
    pipe = a_pipe_without_reader
    done = run(caml_environment, *words, "--progress", progress, stdout=pipe, stderr=pipe)
    assert done.returncode == 0
    assert len(load_cohort(tmp_path / "made").cases) == 2


@posix
def test_the_events_file_tells_how_it_ended_all_the_same(tmp_path, caml_environment, a_pipe_without_reader):
    words = ("train", write_scan(tmp_path / "scan.nii.gz"), "-o", tmp_path / "run", "--device", "cpu")
    done = run(caml_environment, *words, stderr=a_pipe_without_reader)
    last = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "error" and "no labelled case" in last["message"]
    assert done.returncode == last["exit_code"] == 3


@posix
def test_a_result_that_finds_no_room_is_missed_in_one_sentence(caml_environment):
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with open("/dev/full", "wb") as full:
        done = run(caml_environment, "info", MODEL, stdout=full, stderr=subprocess.PIPE)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 5 and len(lines) == 1 and "could not be printed (No space left" in lines[0]


@posix
def test_a_process_without_a_console_does_its_work(tmp_path, caml_environment):
    code = (
        "import sys; sys.stdout = sys.stderr = None\n"  # as Windows' pythonw has them
        "from caml_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ("phantom", "atrium", "-o", tmp_path, "--cases", "1", "--labeled", "1", "--validation", "0")
    command = [sys.executable, "-c", code, *map(str, words)]
    assert subprocess.run(command, env=caml_environment, timeout=120, check=False).returncode == 0


class Broken:
    """A stream of a Windows whose pipe has gone."""

    def write(self, text: str) -> int:
        raise OSError(22, "Invalid argument")

    flush = isatty = lambda self: False


def test_a_bar_on_a_broken_stream_is_drawn_for_nobody():
    bar = ProgressBar(lasting(Broken()))
    for iteration in range(1, 4):
        bar("step", {"iteration": iteration, "total": 3, "losses": {"dice": torch.ones(()).item()}})
    bar("warning", {"message": "odd"})
    bar("finished", {"result": {}})
