"""Options of commands: none is dropped without a word, and what is printed suits wherever it is printed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fixtures.seeded_weights import seeded_tensor
from round_tools import QUICK
from synthetic import write_cohort

from caml_core.cli import options, train
from caml_core.cli import round as round_command
from caml_core.cli.planning_options import add_planning, with_defaults
from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, save_model

SHAPING = (
    *(("--budget", "2h"), ("--iterations", "9"), ("--threads", "1"), ("--dtype", "fp32"), ("--seed", "3")),
    *(("--patch", "16,16,16"), ("--spacing", "1,1,1"), ("--base-filters", "2"), ("--batch", "1")),
    *(("--model", "m.caml"), ("--preset", "paper"), ("--hold-out", "0")),
    ("--renamed", "A", "B"),
    *(("--seed", "0"), ("--threads", "0"), ("--preset", "default"), ("--seed=0",)),  # written, though it is the default
)
OF_TRAIN = (("--labeled-only",),)
OF_ROUND = (
    ("--baseline",),
    ("--folds", "2"),
    ("--until-better",),
    ("--preview", "p1"),
    ("--name", "Mine"),
    ("--name", ""),
)


# Going on


@pytest.mark.parametrize(
    ("command", "option"),
    [("train", o) for o in (*SHAPING, *OF_TRAIN)] + [("round", o) for o in (*SHAPING, *OF_ROUND)],
)
def test_what_a_training_cannot_take_up_any_more_is_refused_by_name(tmp_path, caml, command, option):
    code, _, err = caml(command, "--resume", tmp_path / "begun", *option, "--progress", "none")
    assert code == 2 and f"leave {option[0].partition('=')[0]} away" in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_all_of_them_are_named(tmp_path, caml):
    code, _, err = caml("round", "--resume", tmp_path / "r", "--budget", "1h", "--seed", "2", "--baseline")
    assert code == 2 and all(name in err for name in ("--budget", "--seed", "--baseline")) and "--device" not in err


@pytest.mark.parametrize(
    ("command", "more"),
    [("train", ("--name", "Mine", "--finish")), ("round", ("--lock", "lock", "--finish"))],
)
def test_what_counts_for_a_training_that_goes_on_is_taken(tmp_path, caml, monkeypatch, command, more):
    """It is then missed that there is nothing to go on with."""
    monkeypatch.chdir(tmp_path)
    words = ("--resume", "begun", "--device", "auto", "--cache", "c", "--stop-file", "s", "--parent-pid", os.getppid())
    code, _, err = caml(command, *words, *more, "--progress", "none")
    assert code != 0 and "leave" not in err and "begun" in err and "unrecognized" not in err


@pytest.mark.parametrize("command", [train, round_command])
def test_what_was_not_written_is_the_default_that_the_help_names(command):
    parser, shaping = argparse.ArgumentParser(), argparse.ArgumentParser()
    command.add_arguments(parser)
    add_planning(shaping)
    found = vars(with_defaults(parser.parse_args(["cohort", "-o", "folder", "--seed", "0", "--batch", "2"])))
    wanted = {**vars(shaping.parse_args([])), "batch": 2, "name": "", "cache": None}
    assert {name: found[name] for name in wanted} == wanted
    assert "(default: 0)" in parser.format_help()


@pytest.mark.parametrize("command", ["train", "round"])
def test_there_is_nothing_to_finish_of_a_new_training(tmp_path, caml, command):
    code, _, err = caml(command, tmp_path / "cohort", "-o", tmp_path / "new", "--finish", "--progress", "none")
    assert code == 2 and "nothing to finish yet" in err and not list(tmp_path.iterdir())


# Ending in good order


def test_a_plan_that_is_stopped_writes_nothing(tmp_path, caml):
    cohort, output = write_cohort(tmp_path / "cohort"), tmp_path / "plan.json"
    (tmp_path / "stop").touch()
    words = ("plan", cohort, "-o", output, *QUICK, "--stop-file", tmp_path / "stop")
    code, out, err = caml(*words)
    assert code == 130 and "Stopped" in err and not out and not output.exists()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    code, out, _ = caml("plan", cohort, "-o", output, *QUICK[:-1], "json", "--parent-pid", process.pid)
    last = json.loads(out.splitlines()[-1])
    assert code == 130 and (last["event"], last["exit_code"]) == ("error", 130) and not output.exists()


# What is printed


@pytest.mark.parametrize(
    ("code_page", "shown"),
    [("cp1252", "gr\u00f6\\u0105"), ("ascii", "gr\\xf6\\u0105"), ("utf-8", "gr\u00f6\u0105")],
)
def test_names_are_shown_as_well_as_the_code_page_can(tmp_path, caml_environment, code_page, shown):
    code = "from caml_core.cli.options import say; say('gr\\u00f6\\u0105')"
    environment = {**caml_environment, "PYTHONIOENCODING": code_page}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60, check=True)
    assert done.stdout.decode(code_page).strip() == shown


def test_lines_stay_lines_and_nothing_else_steers(capsys):
    options.say("one\ntwo \x1b[31m\r\x08\x85\u2028\u202e\ud800")
    assert capsys.readouterr().out == "one\ntwo \\x1b[31m\\r\\x08\\x85\\u2028\\u202e\\ud800\n"


def _process(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "PYTHONIOENCODING": "cp1252"}
    command = [sys.executable, "-m", "caml_core", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="cp1252", env=environment, timeout=120)


def test_a_name_beyond_the_code_page_ends_no_command(tmp_path, caml_environment):
    """The code page of a Windows in western Europe, and a segment named in Greek."""
    name = "\u03ba\u03cc\u03bb\u03c0\u03bf\u03c2"
    network = NetworkConfig(classes=2, base_filters=2)
    spec = ModelSpec(Geometry((1.0,) * 3, (16,) * 3), network, (ChannelIntensity(),), (Segment(name, 1),))
    state = build_network(network).state_dict()
    save_model(tmp_path / f"{name}.caml", spec=spec, state=state, info=ModelInfo(name))
    cohort = _named(write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1), name)
    for words in (
        ("info", tmp_path / f"{name}.caml"),
        ("preflight", cohort, *QUICK, "--iterations", "2"),  # says what plan says, and more
    ):
        done = _process(caml_environment, *words)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert name.encode("ascii", "backslashreplace").decode("ascii") in done.stdout


def test_an_import_whose_name_is_beyond_the_code_page_says_where_it_lies(tmp_path, caml_environment, fixtures_folder):
    names = json.loads((fixtures_folder / "caml3d_v1_state_dict.json").read_text())
    state = {name: torch.from_numpy(seeded_tensor(name, tuple(shape))) for name, shape in names.items()}
    torch.save(state, tmp_path / "c.pth")
    output = tmp_path / "\u03ba.caml"
    words = ("import-checkpoint", tmp_path / "c.pth", "-o", output, "--half", "--progress", "none")
    done = _process(caml_environment, *words)
    assert done.returncode == 0 and r"\u03ba.caml: 470 tensors" in done.stdout, done.stderr


def _named(cohort: Path, name: str) -> Path:
    """A list of the same cases whose first class has a name."""
    rows = [line.split(",") for line in cohort.read_text().splitlines()[1:]]
    document = {
        "segments": [{"name": name, "label": 1}, {"name": "bright", "label": 2}],
        "cases": [
            {"id": case, "image": image, "role": role, **({"label": label} if label else {})}
            for case, image, label, role in rows
        ],
    }
    path = cohort.with_name("cohort.json")
    path.write_text(json.dumps(document))
    return path
