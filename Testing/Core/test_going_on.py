"""Trainings that are gone on with where something is missing: the device, the start model, a free table."""

from __future__ import annotations

import copy
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from round_tools import ONE_THREAD, a_plan, planned_round, result_of, work
from synthetic import prepared, tiny_plan, write_cohort

from caml_core.config import NumericMode, Plan
from caml_core.data import files
from caml_core.data.cohort import load_cohort
from caml_core.errors import ResourceError, TrainingError
from caml_core.events import Listener, silent
from caml_core.model_file import ModelInfo, load_model, save_model
from caml_core.presets import Preset, default_preset, paper_preset
from caml_core.rounds import parts
from caml_core.rounds import round as round_module
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training import at_hand as at_hand_module
from caml_core.training import run as run_module
from caml_core.training.at_hand import at_hand
from caml_core.training.checkpoint import load_checkpoint
from caml_core.training.engine import Engine
from caml_core.training.measurement import random_batch
from caml_core.training.request import Request
from caml_core.training.run import Session, resume_training, run_training
from caml_core.training.run_folder import MetricsTable, RunFolder
from caml_core.training.trainer import Streams, Trainer


def begun(folder: Path, cohort: Path, plan: Plan, steps: int) -> RunFolder:
    """A training that was stopped after some steps."""
    made, asked = RunFolder(folder), iter(range(10**6))
    with made:
        made.create(plan, load_cohort(cohort))
        left = steps + 1 + len(load_cohort(cohort).cases)
        session = Session(silent, lambda: next(asked) >= left, folder.parent / "cache")
        run_training(plan, load_cohort(cohort), made, session, None, resumed=False)
    return made


def warnings_to(told: list[str]) -> Listener:
    return lambda kind, fields: told.append(fields["message"]) if kind == "warning" else None


@pytest.fixture
def a_cohort(tmp_path: Path) -> Path:
    return write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1)


# The device


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without the device")
def test_a_training_whose_gpu_has_gone_goes_on_on_the_processor(tmp_path: Path, a_cohort: Path) -> None:
    folder = begun(tmp_path / "run", a_cohort, a_plan(6), 3)
    at = load_checkpoint(folder.checkpoint)["iteration"]
    assert 0 < at < 6
    folder.write_plan(dataclasses.replace(folder.read_plan(), device="cuda:0", numeric=NumericMode("fp16")))
    told: list[str] = []
    outcome = resume_training(folder, Session(warnings_to(told), lambda: False, tmp_path / "cache"))
    assert (outcome.reason, outcome.iteration) == ("finished", 6)
    (message,) = [text for text in told if "cuda:0" in text]
    assert "goes on on the processor" in message
    with pytest.raises(ResourceError, match="cuda:0"):
        resume_training(folder, Session(silent, lambda: False, tmp_path / "cache"), "cuda")


def test_a_round_goes_on_on_the_device_that_is_named(tmp_path: Path, a_cohort: Path, caml: Any) -> None:
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(3, device="cuda:0"))
    words = ("round", "--resume", folder.path, "--device", "cpu", "--progress", "json")
    code, out, err = caml(*words)
    assert code == 0, err
    assert not [line for line in out.splitlines() if "no device" in line], "asked for, it is no fault"
    assert result_of(folder)["ended"] == "finished"


def test_a_training_in_fp16_goes_back_to_it_after_a_session_without() -> None:
    """The processor's session has no scale for the losses: it is found anew, while one that is there is kept."""
    fp16 = tiny_plan(numeric=NumericMode("fp16", threads=1))
    after_processor = Engine(tiny_plan(numeric=ONE_THREAD), 1).state_dict()
    back = Engine(fp16, 1)
    first = back.scaler.get_scale()
    back.load_state_dict(after_processor)
    assert back.scaler.is_enabled() and back.scaler.get_scale() == first
    found = Engine(fp16, 1)
    found.scaler.load_state_dict({**found.scaler.state_dict(), "scale": first / 8})
    back.load_state_dict(found.state_dict())
    assert back.scaler.get_scale() == first / 8


@pytest.mark.parametrize("preset", [default_preset(1, 3), paper_preset(1, 3, 4)])
@pytest.mark.parametrize("last", [True, False])
def test_moments_stay_with_their_weights_in_another_memory_layout(preset: Preset, last: bool) -> None:
    """A training of a GPU that goes on on the processor, and the other way round."""
    plan = tiny_plan(optimizer=preset.optimizer)
    there, here = (
        Engine(dataclasses.replace(plan, numeric=dataclasses.replace(ONE_THREAD, channels_last=layout)), 1)
        for layout in (not last, last)
    )
    there.step(random_batch(plan), plan.iterations - 1)
    here.load_state_dict(copy.deepcopy(there.state_dict()))
    for engine in (there, here):
        generator = torch.Generator().manual_seed(0)
        for parameter in engine.network.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
        engine.optimizer.step()
    for weight, wanted in zip(here.network.parameters(), there.network.parameters()):
        assert torch.allclose(weight, wanted, rtol=0, atol=1e-7)
    state = here.optimizer.state
    assert all(m.stride() == p.stride() for p, kept in state.items() for m in kept.values() if m.shape == p.shape)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without the device")
@pytest.mark.parametrize("named", ["auto", "cpu"])
def test_a_round_that_was_not_planned_yet_is_planned_where_it_can_go_on(
    tmp_path: Path, a_cohort: Path, caml: Any, named: str
) -> None:
    folder = RoundFolder(tmp_path / "round")
    request = Request(device="cuda:0", iterations=1, base_filters=2, patch=(16, 16, 16), threads=1, dtype="fp32")
    start_round(folder, a_cohort, RoundRequest(request))
    assert caml("round", "--resume", folder.path, "--device", "cuda:0", "--progress", "none")[0] == 5
    assert not folder.part("caml").plan.exists()
    code, out, err = caml("round", "--resume", folder.path, "--device", named, "--progress", "json")
    assert code == 0, err
    told = [line for line in out.splitlines() if "no device" in line]
    assert ["goes on on the processor" in line for line in told] == ([True] if named == "auto" else [])
    assert result_of(folder)["ended"] == "finished" and folder.part("caml").read_plan().device == "cpu"


def test_where_nothing_is_missing_the_plan_stays_as_it_is() -> None:
    plan, told = a_plan(), list[str]()
    assert at_hand(plan, warnings_to(told)) == plan and not told


def test_what_this_processor_does_not_know_is_not_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    plan = tiny_plan(numeric=NumericMode("bf16", channels_last=True, threads=4096))
    monkeypatch.setattr(at_hand_module, "_knows_bf16", lambda: False)  # an input of the machine
    threads = torch.get_num_threads()
    found = at_hand(plan, warnings_to(told)).numeric
    assert (found.dtype, found.channels_last, found.threads) == ("fp32", True, 0)
    assert "float32" in told[0] and torch.get_num_threads() == threads <= (os.cpu_count() or 1)


def test_patches_that_became_too_small_for_bf16_are_gone_on_with_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan on disk keeps the arithmetic with which it was begun when its patch had to shrink."""
    told: list[str] = []
    monkeypatch.setattr(at_hand_module, "_knows_bf16", lambda: True)  # an input of the machine
    plan = tiny_plan(numeric=dataclasses.replace(ONE_THREAD, dtype="bf16"))
    assert at_hand(plan, warnings_to(told)) == plan and not told
    small = dataclasses.replace(plan, geometry=dataclasses.replace(plan.geometry, patch=(8, 16, 16)))
    assert at_hand(small, warnings_to(told)).numeric == ONE_THREAD
    assert "patches of this size" in told[0] and "float32" in told[0]


# The start model


@pytest.fixture
def a_start_model(tmp_path: Path) -> Path:
    plan = tiny_plan()
    state = Engine(plan, 1).network.state_dict()
    save_model(tmp_path / "start.caml", spec=plan.model_spec, state=state, info=ModelInfo("start"))
    return tmp_path / "start.caml"


def test_a_start_model_that_finds_no_room_leaves_nothing_to_resume(
    tmp_path: Path, a_cohort: Path, a_start_model: Path, monkeypatch: pytest.MonkeyPatch, caml: Any
) -> None:
    """Else the training would be resumed without it: from random weights, by the plan of a fine-tuning."""
    words = ("train", a_cohort, "-o", tmp_path / "run", "--model", a_start_model, "--iterations", "2", "--threads", "1")
    words = (*words, "--cache", tmp_path / "cache", "--progress", "none")

    def full(*_: object, **__: object) -> None:
        raise ResourceError("There is no room on the disk.")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_model", full)
        assert caml(*words)[0] == 5
    assert caml("train", "--resume", tmp_path / "run", "--progress", "none")[0] != 0
    assert caml(*words)[0] == 0, "the same command, once there is room"
    assert load_model(tmp_path / "run" / "model.caml").info.provenance["start_model"] == "start"


def test_a_training_that_lacks_its_start_model_is_not_begun_without(tmp_path: Path, a_cohort: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder:
        folder.create(a_plan(from_model=True), load_cohort(a_cohort))
    with pytest.raises(TrainingError, match="lacks the model to start from"):
        resume_training(folder, Session(silent, lambda: False, tmp_path / "cache"))


# Files that another program holds


def test_a_table_that_is_open_elsewhere_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_writable()
    plan = tiny_plan(iterations=8, validate_every=2, numeric=ONE_THREAD)
    told: list[str] = []
    streams = Streams([prepared(0), prepared(1)], [prepared(2)], [])
    opened, held = Path.open, range(1, 4)
    tries = iter(range(100))

    def denied(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if path.name == "metrics.csv" and mode == "a" and next(tries) in held:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", denied)
    trainer = Trainer(plan, streams, folder, listener=warnings_to(told), stop=lambda: False)
    assert trainer.run().reason == "finished"
    rows = folder.metrics.read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 9)), "none is lost, none is there twice"
    assert len(told) == 1 and "metrics.csv is open in another program" in told[0]


def test_a_full_disk_is_still_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.start(0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ResourceError, match="disk is full"):
        table.append(iteration=1)


def test_a_model_file_that_is_held_for_a_moment_is_replaced(
    tmp_path: Path, a_start_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scanner for viruses does on Windows, where the file cannot be replaced meanwhile."""
    monkeypatch.setattr(files, "_TRIES", 3)
    monkeypatch.setattr(files.replace_when_free, "__defaults__", (3, 0.0))
    replace, held = os.replace, iter((True, True))

    def busy(source: Any, target: Any) -> None:
        if next(held, False):
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    model = load_model(a_start_model)
    save_model(a_start_model, spec=model.spec, state=model.state, info=ModelInfo("again"))
    assert load_model(a_start_model).info.name == "again"


# Sizes


@pytest.mark.parametrize("preset", [lambda n: default_preset(1, n), lambda n: paper_preset(1, n, 8)])
def test_correlation_matrices_do_not_grow_with_the_number_of_classes(preset: Any) -> None:
    def cells(classes: int) -> tuple[int, int]:
        losses = preset(classes).losses
        return classes * losses.queries_per_class, classes * losses.memory_per_class

    (rows, columns), most = cells(2), [cells(n) for n in (8, 14, 40, 200)]
    assert all(r <= 2 * rows and c <= 2 * columns for r, c in most)
    assert all(preset(n).losses.memory_per_class >= 5 for n in (8, 40, 200))
    assert (rows // 2, columns // 2) == (preset(2).losses.queries_per_class, 256), "few classes have what they had"


@pytest.mark.slow
def test_fewer_folds_than_asked_for_share_the_whole_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    fold_plan = parts.fold_plan

    def noted(plan: Plan, iterations: int, folds: int, *others: Any) -> Plan:
        asked.append(folds)
        return fold_plan(plan, iterations, folds, *others)

    monkeypatch.setattr(round_module, "fold_plan", noted)
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    work(planned_round(tmp_path / "round", cohort, a_plan(2), RoundRequest(Request(), folds=3)))
    assert asked == [2, 2]
