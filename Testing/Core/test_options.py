"""Shared options: durations, whole numbers, stop requests, and who hears of progress."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from caml_core.cli import options, parent
from caml_core.cli.progress import ProgressBar, warnings_only
from caml_core.errors import DataError, ResourceError, UsageError


@pytest.fixture
def a_parser():
    parser = argparse.ArgumentParser()
    options.add_device(parser)
    options.add_seed(parser)
    options.add_progress(parser)
    parser.add_argument("--budget", type=options.duration)
    parser.set_defaults(command="test")
    return parser


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("1h30m", 5400),
        ("20 min", 1200),
        ("20 minutes", 1200),
        ("1.5 hours", 5400),
        ("45s", 45),
        (" 2D ", 172800),
        ("1h 30 min 5s", 5405),
        ("0.5h", 1800),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert options.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "90", "m", "1h30", "-5m", "5 parsecs", "1:30", "0m", "500d", "nan h", "1e3s", "h1"]
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(UsageError, match="such as 90m") as caught:
        options.parse_duration(text)
    assert str(caught.value).endswith(".") and repr(text) in str(caught.value)


def test_the_command_line_repeats_the_sentence(a_parser, capsys):
    with pytest.raises(SystemExit):
        a_parser.parse_args(["--budget", "90"])
    assert "'90' is not a duration; write it with its unit, such as 90m" in capsys.readouterr().err


def test_defaults_and_values(a_parser):
    args = a_parser.parse_args([])
    assert (args.device, args.threads, args.seed, args.progress, args.stop_file) == ("auto", 0, 0, "bar", None)
    args = a_parser.parse_args(
        ["--device", "cuda:1", "--threads", "4", "--seed", "9", "--progress", "json", "--budget", "2m"]
    )
    assert (args.device, args.threads, args.seed, args.progress, args.budget) == ("cuda:1", 4, 9, "json", 120.0)


@pytest.mark.parametrize("arguments", [["--threads", "-1"], ["--seed", "x"], ["--seed", str(2**32)]])
def test_numbers_out_of_range_are_refused(a_parser, capsys, arguments):
    with pytest.raises(SystemExit):
        a_parser.parse_args(arguments)
    assert "expected a whole number from 0 to" in capsys.readouterr().err


def test_json_lines_begin_with_started_and_end_with_the_error(a_parser, capsys):
    args = a_parser.parse_args(["--progress", "json"])
    more = []
    with (
        pytest.raises(DataError),
        options.reporting(args, lambda kind, fields: more.append(kind)) as listener,
    ):
        listener("progress", {"done": 1, "total": 2, "unit": "case"})
        raise DataError("Case p1 is empty.", "p1")
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == more == ["started", "progress", "error"]
    assert events[0]["pid"] == os.getpid()
    assert (events[-1]["message"], events[-1]["exit_code"]) == ("Case p1 is empty.", 3)
    assert out.isascii() and not err


def test_memory_that_runs_out_anywhere_is_one_sentence(a_parser, capsys):
    args = a_parser.parse_args(["--progress", "json"])
    with pytest.raises(ResourceError, match="Memory ran out .*Close other programs"), options.reporting(args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["event"] == "error" and told["exit_code"] == ResourceError.exit_code
    assert told["message"].startswith("Memory ran out")


def test_an_unexpected_fault_is_told_and_goes_on(a_parser, capsys):
    args = a_parser.parse_args(["--progress", "json"])
    with pytest.raises(ZeroDivisionError), options.reporting(args):
        1 / 0  # noqa: B018
    assert "ZeroDivisionError" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]


def test_a_bar_leaves_stdout_alone(a_parser, capsys):
    args = a_parser.parse_args([])
    with options.reporting(args) as listener:
        listener("progress", {"done": 1, "total": 2, "unit": "case"})
        listener("finished", {"result": "x"})
    out, err = capsys.readouterr()
    assert not out and "1/2" in err


def test_quiet_still_warns(a_parser, capsys):
    args = a_parser.parse_args(["--progress", "none"])
    with options.reporting(args) as listener:
        listener("step", {"iteration": 1, "total": 2, "losses": {}})
        listener("warning", {"message": "odd spacing"})
    assert capsys.readouterr() == ("", "warning: odd spacing\n")


# Stop requests


def test_nothing_asks_to_stop(tmp_path):
    assert not options.StopRequest(None)()
    assert not options.StopRequest(tmp_path / "stop")()


def test_a_stop_file_is_seen_and_stays_seen(tmp_path):
    path = tmp_path / "stop"
    request = options.StopRequest(path)
    assert not request()
    path.touch()
    deadline = time.monotonic() + 10
    while not request() and time.monotonic() < deadline:
        time.sleep(0.02)
    path.unlink()
    assert request() and request.reason == "the stop file appeared"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_asks_and_handlers_are_put_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with options.StopRequest() as request:
        assert not request()
        os.kill(os.getpid(), number)
        assert request() and name in request.reason
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_second_interrupt_interrupts():
    with pytest.raises(KeyboardInterrupt), options.StopRequest() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)


def test_outside_the_main_thread_the_stop_file_still_counts(tmp_path):
    (tmp_path / "stop").touch()
    seen = []

    def work():
        with options.StopRequest(tmp_path / "stop") as request:
            seen.append(request())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


# The process that waits


@pytest.fixture
def a_process():
    """A process that ends when its input does."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def test_the_end_of_the_waiting_process_asks_to_stop(a_process, monkeypatch):
    monkeypatch.setattr(options.StopRequest, "_PARENT_PAUSE", 0.0)
    request = options.StopRequest(None, a_process.pid)
    assert not request()
    a_process.kill()
    a_process.wait()
    assert request() and str(a_process.pid) in request.reason
    assert options.StopRequest(None, a_process.pid)()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_process_of_another_user_counts_as_alive(a_plain_user):
    with a_plain_user():
        assert parent.ParentProcess(1).alive()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_an_own_parent_is_missed_even_where_nobody_waited_for_it(tmp_path, caml_environment):
    """The middle process ends while its child works; as a zombie it still has its number."""
    child = (
        "import os, sys, time; from caml_core.cli.options import StopRequest; StopRequest._PARENT_PAUSE = 0.0\n"
        "request = StopRequest(None, os.getppid()); assert not request(); open(sys.argv[1], 'w').close()\n"
        "deadline = time.monotonic() + 30\n"
        "while not request() and time.monotonic() < deadline: time.sleep(0.02)\n"
        "open(sys.argv[2], 'w').write(request.reason)"
    )
    middle = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.02)"
    )
    ready, done = tmp_path / "ready", tmp_path / "done"
    process = subprocess.Popen([sys.executable, "-c", middle, child, ready, done], env=caml_environment)
    deadline = time.monotonic() + 60
    while not (done.exists() and done.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)  # nobody waits for the middle process meanwhile
    assert "has ended" in done.read_text()
    process.wait()


# The bar


def drawn(*events) -> str:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for kind, fields in events:
        bar(kind, fields)
    bar.close()
    return stream.getvalue()


def step(iteration, total=100):
    return "step", {"iteration": iteration, "total": total, "losses": {"dice": 0.25, "omni": None}, "seconds_left": 1.0}


def test_cases_that_are_done_in_part_leave_whole_numbers():
    parts = [("progress", {"done": done, "total": 2, "unit": "cases"}) for done in (0.3, 1.0, 1.1, 1.7, 2.0)]
    last = drawn(*parts).rstrip().split("\r")[-1]
    assert "| 2/2 [" in last


def test_losses_and_the_last_dice_stand_in_the_bar():
    dice = {"v": {"mean": 0.8125, "Left atrium": 0.8125}, "a": {"mean": 0.8}}
    text = drawn(step(1), ("validation", {"iteration": 1, "cases": 2, "dice": dice}), step(100))
    assert "iteration 1: validation Dice v mean 0.812, v Left atrium 0.812, a mean 0.800" in text
    assert "100/100" in text.split("\r")[-1] and "dice 0.25 Dice 0.812" in text.split("\r")[-1]


def test_a_dice_that_is_one_number_is_shown_too():
    assert "validation Dice 0.500" in drawn(("validation", {"iteration": 3, "dice": 0.5}))


def test_a_resumed_training_begins_in_the_middle():
    assert " 50%" in drawn(step(50))


def test_each_stage_has_its_own_bar_and_title():
    text = drawn(
        ("stage", {"name": "reading", "detail": "60 cases"}),
        ("progress", {"done": 3, "total": 3, "unit": "case"}),
        ("stage", {"name": "training"}),
        step(1),
    )
    assert "reading: 60 cases\n" in text and "3/3" in text and "training:" in text and "1/100" in text


def test_cases_warnings_and_logs_are_lines_of_their_own():
    case = {"case": "p1", "output": "p1.nrrd", "volumes_ml": {"LA": 71.234}, "agreement": {"LA": 0.93, "wall": None}}
    text = drawn(step(1), ("case", case), ("warning", {"message": "odd"}), ("log", {"message": "hello"}))
    lines = [line.split("\r")[-1] for line in text.splitlines()]
    assert "p1: LA 71.23 mL, agreement on LA 0.930, -> p1.nrrd" in lines
    assert "warning: odd" in lines and "hello" in lines


def test_every_kind_of_event_is_borne():
    from caml_core.events import KINDS

    for kind in sorted(set(KINDS) - {"step", "progress"}):
        drawn((kind, {}))
    warnings_only(io.StringIO())("heartbeat", {})


def test_options_load_nothing_heavy(caml_environment):
    code = "import sys, caml_core.cli.options; assert not {'torch', 'numpy', 'tqdm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=caml_environment, timeout=60)


def test_windows_without_a_utf8_locale_does_not_mind(monkeypatch, caml, tmp_path):
    """The locale is Windows' own; where a system does not know it, as here, everything else goes on."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert "There is no model file" in caml("info", tmp_path / "none.caml")[2]
