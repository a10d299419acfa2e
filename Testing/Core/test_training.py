"""Whole trainings on a tiny cohort: interrupted, resumed, killed, failed, and what they leave behind."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from synthetic import tiny_plan, write_cohort

from caml_core.config import Plan
from caml_core.data.cohort import load_cohort
from caml_core.data.files import replacing
from caml_core.errors import CamlError, Cancelled, ResourceError, TrainingError, UsageError
from caml_core.events import Listener, decode, silent
from caml_core.model_file import LoadedModel, load_model
from caml_core.training.checkpoint import load_checkpoint, save_checkpoint
from caml_core.training.request import Request
from caml_core.training.run import Session, resume_training, run_training, start_training
from caml_core.training.run_folder import RunFolder
from caml_core.training.trainer import Outcome

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def a_cohort(tmp_path: Path) -> Path:
    """A list of three labelled, three unlabelled and one held-out case."""
    return write_cohort(tmp_path / "cohort")


@pytest.fixture
def train(a_cohort: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Train the tiny plan in a folder of this name."""

    def start(
        name: str, plan: Plan | None = None, stop: Callable[[], bool] = lambda: False, listener: Listener = silent
    ) -> Outcome:
        folder, cohort = RunFolder(tmp_path / name), load_cohort(a_cohort)
        plan = plan or tiny_plan()
        with folder:
            folder.create(plan, cohort)
            session = Session(listener, stop, tmp_path / "cache")
            return run_training(plan, cohort, folder, session, None, resumed=False)

    return start


def _resume(folder: Path) -> Outcome:
    return resume_training(RunFolder(folder), Session(silent, lambda: False, folder.parent / "cache"))


def _model(folder: Path) -> LoadedModel:
    return load_model(folder / "model.caml")


def _same_weights(a: Path, b: Path) -> bool:
    first, second = (load_checkpoint(f / "checkpoint.pt")["engine"] for f in (a, b))
    pairs = [(first[part][k], second[part][k]) for part in ("network", "average") for k in first[part]]
    return all(torch.equal(x, y) for x, y in pairs)


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


class _StopAfter:
    """Says stop after so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_training_leaves_model_curves_scores_and_events(train: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = train("run", tiny_plan(volume_size=(22.0, 18.0, 20.0), volume_spacing=(1.0, 1.0, 1.0)))
    assert outcome.reason == "finished" and outcome.iteration == 8 and outcome.scores is not None
    folder = tmp_path / "run"
    model = _model(folder)
    assert [s.name for s in model.spec.segments] == ["dim", "bright"]
    assert (model.info.labeled_cases, model.info.unlabeled_cases) == (3, 3)
    held_out = model.info.metrics["held_out"]
    assert held_out["count"] == 1 and set(held_out["summary"]) == {"mean", "v", "a"}
    assert len(model.info.provenance["cases"]) == 7 and model.info.provenance["versions"]["torch"] == torch.__version__
    assert model.info.provenance["training_volumes"] == {"size_mm": [22.0, 18.0, 20.0], "spacing": [1.0, 1.0, 1.0]}
    assert [row["iteration"] for row in _rows(folder)] == [str(i) for i in range(1, 9)]
    assert [bool(row["validation_dice"]) for row in _rows(folder)] == [False, False, False, True] * 2


def test_a_stopped_training_goes_on_bit_for_bit(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train("whole")
    stopped = train("parts", stop=_StopAfter(7 + 3))  # seven cases are prepared before the first iteration
    assert stopped.reason == "stopped" and 0 < stopped.iteration < 8
    assert "stopped early" in _model(tmp_path / "parts").info.description
    assert _resume(tmp_path / "parts").reason == "finished"
    assert _same_weights(tmp_path / "whole", tmp_path / "parts")
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "parts")


def test_a_held_out_case_that_cannot_be_scored_costs_no_model(
    train: Callable[..., Outcome], a_cohort: Path, tmp_path: Path
) -> None:
    (case,) = load_cohort(a_cohort).with_role("validation")
    assert case.label is not None
    whole = case.label.read_bytes()

    def damage(kind: str, fields: dict[str, object]) -> None:
        if kind == "stage" and fields.get("name") == "scoring":
            case.label.write_bytes(b"torn")

    with pytest.raises(CamlError, match=case.id):
        train("run", listener=damage)
    assert "held_out" not in _model(tmp_path / "run").info.metrics
    case.label.write_bytes(whole)
    assert _resume(tmp_path / "run").reason == "finished"
    assert _model(tmp_path / "run").info.metrics["held_out"]["count"] == 1


def test_a_segmentation_that_cannot_be_kept_is_said_and_scored(
    train: Callable[..., Outcome], a_cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("a file where a folder should be")
    told: list[str] = []

    def listen(kind: str, fields: dict[str, object]) -> None:
        told.extend([str(fields["message"])] if kind == "warning" else [])

    cohort, plan = load_cohort(a_cohort), tiny_plan(2)
    folder = RunFolder(tmp_path / "run")
    with folder:
        folder.create(plan, cohort)
        session = Session(listen, lambda: False, tmp_path / "cache", keep=tmp_path / "kept")
        outcome = run_training(plan, cohort, folder, session, None, resumed=False)
    assert outcome.held_out["count"] == 1
    assert any("is not kept" in message for message in told)


@pytest.mark.parametrize("changed", [True, False])
def test_a_resumed_training_names_the_cases_that_have_changed(
    train: Callable[..., Outcome], a_cohort: Path, tmp_path: Path, changed: bool
) -> None:
    train("run", stop=_StopAfter(7 + 3))
    case = load_cohort(a_cohort).with_role("labeled")[1]
    assert case.label is not None
    if changed:
        label = sitk.ReadImage(str(case.label))
        label[10, 9, 9] = 1 - label[10, 9, 9]
        sitk.WriteImage(label, str(case.label))
    else:
        case.label.write_bytes(case.label.read_bytes())  # another time of the file alone
    told: list[str] = []

    def listen(kind: str, fields: dict[str, object]) -> None:
        told.extend([str(fields["message"])] if kind == "warning" else [])

    resume_training(RunFolder(tmp_path / "run"), Session(listen, lambda: False, tmp_path / "cache"))
    assert ["The files of 1 case(s) have changed" in one and f"({case.id})" in one for one in told] == [True] * changed


_CHILD = """
import sys
import caml_core.training.trainer as trainer
from caml_core.cli import main
trainer.CHECKPOINT_SECONDS = trainer.STEP_EVENT_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""


def _child(folder: Path, tmp_path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    command = [sys.executable, "-c", _CHILD, "train", "--resume", str(folder), "--progress", "json"]
    return subprocess.Popen(
        [*command, "--cache", str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True, env=environment
    )


def _kill_after(folder: Path, tmp_path: Path, iterations: int, how: signal.Signals) -> int:
    """Let a process resume the run, send a signal once it has done some iterations, return its exit code."""
    process, done = _child(folder, tmp_path), 0
    assert process.stdout is not None
    for line in process.stdout:
        event = decode(line)
        done += event is not None and event[0] == "checkpoint"
        if done > iterations:
            process.send_signal(how)
            break
    process.stdout.read()
    return process.wait(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit(a_cohort: Path, tmp_path: Path) -> None:
    plan = dataclasses.replace(
        tiny_plan(iterations=30), numeric=dataclasses.replace(tiny_plan().numeric, threads=torch.get_num_threads())
    )
    for name in ("whole", "killed"):
        RunFolder(tmp_path / name).create(plan, load_cohort(a_cohort))
    assert _kill_after(tmp_path / "killed", tmp_path, 3, signal.SIGKILL) == -signal.SIGKILL
    at_kill = load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["iteration"]
    assert 0 < at_kill < 30
    assert not list((tmp_path / "killed").glob("model*"))
    assert _kill_after(tmp_path / "killed", tmp_path, 3, signal.SIGTERM) == 130
    at_stop = load_checkpoint(tmp_path / "killed" / "checkpoint.pt")["iteration"]
    assert at_kill < at_stop < 30 and (tmp_path / "killed" / "model.caml").is_file()
    for name in ("whole", "killed"):
        assert _resume(tmp_path / name).reason == "finished"
    assert _same_weights(tmp_path / "whole", tmp_path / "killed")
    assert _rows(tmp_path / "whole") == _rows(tmp_path / "killed")
    events = [decode(line) for line in (tmp_path / "killed" / "events.jsonl").read_text("ascii").splitlines()]
    assert all(event is not None and event[1]["pid"] > 0 for event in events)


def test_a_stop_file_ends_it_within_seconds(a_cohort: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(tiny_plan(iterations=100_000), load_cohort(a_cohort))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    stop = tmp_path / "stop"
    command = [sys.executable, "-m", "caml_core", "train", "--resume", str(folder.path), "--stop-file", str(stop)]
    process = subprocess.Popen(
        [*command, "--progress", "json", "--cache", str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"event": "step"' in line:
            break
    stop.touch()
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "with everything saved" in errors
    assert time.monotonic() - began < 30
    assert load_checkpoint(folder.checkpoint)["iteration"] > 0


def test_a_stop_while_the_cases_are_read_ends_it_before_the_second(a_cohort: Path, tmp_path: Path) -> None:
    events: list[str] = []
    folder, request = RunFolder(tmp_path / "run"), Request(base_filters=2, threads=1, iterations=2)
    session = Session(lambda kind, fields: events.append(kind), lambda: "progress" in events, tmp_path / "cache")
    with pytest.raises(Cancelled, match="before the training began"):
        start_training(a_cohort, folder, request, session)
    assert events == ["stage", "progress"]
    assert not folder.plan.exists()


def test_a_stop_while_it_is_measured_leaves_the_folder_free_for_another_start(a_cohort: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def listen(kind: str, fields: dict[str, Any]) -> None:
        if kind == "stage":
            stages.append(fields["name"])

    folder, request = RunFolder(tmp_path / "run"), Request(base_filters=2, threads=1, iterations=2)
    request = dataclasses.replace(request, patch=(16, 16, 16), dtype="fp32")
    with pytest.raises(Cancelled, match="before the training began"):
        start_training(a_cohort, folder, request, Session(listen, lambda: "measuring" in stages, tmp_path / "cache"))
    assert stages == ["reading", "measuring"]
    assert start_training(a_cohort, folder, request, Session(silent, lambda: False, tmp_path / "cache")).iteration == 2


def test_resuming_never_measures_again(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train("run", stop=_StopAfter(7 + 2))
    before = (tmp_path / "run" / "plan.json").read_bytes()
    stages: list[str] = []
    session = Session(
        lambda kind, fields: stages.append(fields["name"]) if kind == "stage" else None,
        lambda: False,
        tmp_path / "cache",
    )
    resume_training(RunFolder(tmp_path / "run"), session)
    assert "measuring" not in stages and (tmp_path / "run" / "plan.json").read_bytes() == before


def test_a_second_training_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path / "run"),
        pytest.raises(TrainingError, match="Another process"),
        RunFolder(tmp_path / "run"),
    ):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be ended in the middle of a line")
def test_what_a_killed_process_left_of_a_checkpoint_goes_with_the_next_one(tmp_path: Path) -> None:
    """It is as large as the checkpoint, and would stay for good; that of a process at work is not touched."""
    run = RunFolder(tmp_path / "run")
    with run:
        save_checkpoint(run.checkpoint, {"iteration": 3})
        if (child := os.fork()) == 0:
            with replacing(run.checkpoint) as temporary:
                temporary.write_bytes(b"half of")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        (left,) = run.path.glob(".part-*")
        with pytest.raises(TrainingError, match="Another process"), RunFolder(run.path):
            pass
        assert left.exists()
    with RunFolder(run.path):
        assert not left.exists() and load_checkpoint(run.checkpoint)["iteration"] == 3


def test_a_folder_that_holds_a_training_is_not_overwritten(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train("run", tiny_plan(iterations=1))
    kept = (tmp_path / "run" / "model.caml").read_bytes()
    with pytest.raises(UsageError, match="already holds a training"):
        train("run")
    assert (tmp_path / "run" / "model.caml").read_bytes() == kept


def test_without_unlabelled_cases_it_trains_on_labels(tmp_path: Path) -> None:
    cohort = load_cohort(write_cohort(tmp_path / "cohort", labeled=2, unlabeled=0, validation=1))
    folder = RunFolder(tmp_path / "run")
    with folder:
        folder.create(tiny_plan(iterations=3), cohort)
        session = Session(silent, lambda: False, tmp_path / "cache")
        assert run_training(tiny_plan(iterations=3), cohort, folder, session, None, resumed=False).reason == "finished"
    assert _model(tmp_path / "run").info.unlabeled_cases == 0


def test_two_channels_and_a_class_that_some_cases_lack(a_cohort: Path, tmp_path: Path) -> None:
    lines = a_cohort.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    lines = ["id,image,image2,label,role"]
    lines += [",".join((case, image, image, label, role)) for case, image, label, role in rows]
    a_cohort.write_text("\n".join(lines) + "\n")
    label = sitk.ReadImage(str(a_cohort.parent / "case0_label.nrrd"))
    sitk.WriteImage(label * sitk.Cast(label == 1, label.GetPixelID()), str(a_cohort.parent / "case0_label.nrrd"))
    plan = tiny_plan(iterations=3)
    plan = dataclasses.replace(
        plan, network=dataclasses.replace(plan.network, in_channels=2), channels=plan.channels * 2
    )
    cohort, folder = load_cohort(a_cohort), RunFolder(tmp_path / "run")
    with folder:
        folder.create(plan, cohort)
        outcome = run_training(
            plan, cohort, folder, Session(silent, lambda: False, tmp_path / "cache"), None, resumed=False
        )
    assert outcome.reason == "finished" and outcome.scores is not None
    assert _model(folder.path).spec.network.in_channels == 2


def test_a_damaged_checkpoint_and_a_newer_run_are_refused(train: Callable[..., Outcome], tmp_path: Path) -> None:
    train("run", stop=_StopAfter(7 + 2))
    folder = RunFolder(tmp_path / "run")
    content = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainingError, match="damaged"):
        _resume(folder.path)
    save_checkpoint(folder.checkpoint, {"format": 99})
    with pytest.raises(TrainingError, match="newer version"):
        _resume(folder.path)
    plan = json.loads(folder.plan.read_text())
    folder.plan.write_text(json.dumps({**plan, "format": 99}))
    with pytest.raises(TrainingError, match="newer version"):
        _resume(folder.path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(ResourceError):
        save_checkpoint(blocked / "checkpoint.pt", {"iteration": 1})
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"iteration": 1})
    with pytest.raises(Exception):  # noqa: B017 - whatever cannot be pickled must not touch the file
        save_checkpoint(path, {"iteration": lambda: None})
    assert load_checkpoint(path)["iteration"] == 1 and [p.name for p in tmp_path.glob("*checkpoint*")] == [path.name]


@pytest.mark.slow
def test_training_learns_the_synthetic_segments(train: Callable[..., Outcome]) -> None:
    plan = tiny_plan(iterations=100, validate_every=100)
    network = dataclasses.replace(plan.network, base_filters=4, dropout=0.0)
    optimizer = dataclasses.replace(plan.optimizer, learning_rate=1e-2, warmup=0, ema=0.9)
    outcome = train("run", dataclasses.replace(plan, optimizer=optimizer, network=network))
    assert outcome.scores is not None and min(outcome.scores.segments.values()) > 0.7
