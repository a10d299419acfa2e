"""What other systems do differently: devices that compute wrongly, files that are held, drives that go, sleep."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from synthetic import prepared, tiny_plan, write_cohort
from torch.utils._python_dispatch import TorchDispatchMode

from caml_core import device_check, events
from caml_core.cli import awake as awake_module
from caml_core.cli.awake import awake
from caml_core.cli.options import StopRequest
from caml_core.data import cache, cohort, files, geometry
from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort
from caml_core.errors import DataError, ResourceError, UsageError
from caml_core.inference import batch
from caml_core.inference.batch import find_cases
from caml_core.training import trainer as trainer_module
from caml_core.training.measurement import candidate_modes
from caml_core.training.run_folder import RunFolder
from caml_core.training.trainer import Streams, Trainer

DENIED = PermissionError(errno.EACCES, "Permission denied")
GONE = OSError(errno.EINVAL, "The specified network name is no longer available")


# Devices


def test_a_device_that_computes_what_the_processor_does_is_taken():
    assert device_check.fault("cpu") == ""


@pytest.mark.parametrize("name", ["conv3d", "conv_transpose3d", "max_pool3d"])
def test_a_device_that_leaves_channels_out_without_an_error_is_refused(monkeypatch, name):
    original, calls = getattr(F, name), []

    def wrong(*arguments: Any, **named: Any) -> torch.Tensor:
        result = original(*arguments, **named)
        if not calls or calls[-1] != "cpu":
            result = torch.cat([result[:, :1], torch.zeros_like(result[:, 1:])], dim=1)
        return result

    computed = device_check._computed

    def noted(device: str) -> Any:
        calls.append("cpu" if calls else "device")
        return computed(device)

    monkeypatch.setattr(device_check, "_computed", noted)  # the first of the two is the device's
    monkeypatch.setattr(F, name, wrong)
    assert device_check.fault("cpu") == "it computes wrong results"


def test_an_operation_that_a_device_lacks_is_its_fault(monkeypatch):
    def lacking(*_: Any, **__: Any) -> None:
        raise NotImplementedError("The operator 'aten::max_pool3d' is not there for MPS.\nMore of it.")

    monkeypatch.setattr(F, "max_pool3d", lacking)
    assert device_check.fault("cpu") == "The operator 'aten::max_pool3d' is not there for MPS."


def test_resampling_writes_into_no_part_of_a_tensor_by_out():
    """Metal's matrix product does not write there on some systems."""

    class Outs(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = (kwargs or {}).get("out")
            assert out is None or out.is_contiguous(), func
            return func(*args, **(kwargs or {}))

    array = torch.rand(3, 5, 70)
    with Outs(), torch.no_grad():
        result = geometry.contract(array, 100, 2)
    assert torch.isfinite(result).all() and result.shape == (3, 5, 100)


def test_on_apples_gpu_one_layout_is_tried():
    assert [mode.channels_last for mode in candidate_modes("mps", 0)] == [False]
    assert {mode.channels_last for mode in candidate_modes("cpu", 0)} == {False, True}


# Folders and files


def test_a_folder_that_refuses_is_asked_once(tmp_path, monkeypatch):
    """Python's tempfile goes on asking for hours on Windows."""
    asked = []

    def refuse(path: Any, *_: Any, **__: Any) -> int:
        asked.append(path)
        raise DENIED

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ResourceError, match="No permission"):
        files.check_writable(tmp_path)
    assert len(asked) == 1


def test_an_entry_of_the_cache_waits_until_a_scanner_lets_go_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_FOLDER_TRIES", 4)
    monkeypatch.setattr(files.when_free, "__defaults__", (1, 0.0))
    rename, held = os.rename, iter((True, True))

    def busy(source: Any, target: Any) -> None:
        if next(held, False):
            raise DENIED
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    listed = load_cohort(write_cohort(tmp_path / "cohort", labeled=1, unlabeled=0, validation=0))
    plan, (case,) = tiny_plan(), listed.cases
    made = cache.CaseCache(tmp_path / "cache").prepare(case, plan.geometry, plan.channels, plan.segments, ())
    assert made.folder.is_dir() and next(held, None) is None


def test_a_probe_leaves_nothing_behind(tmp_path):
    files.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())


def test_results_are_not_probed_by_tempfile(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: pytest.fail("asked by tempfile"))
    probed: list[Path] = []
    monkeypatch.setattr(batch, "check_writable", probed.append)
    batch._check_outputs([Case("p1", (tmp_path / "p1.nrrd",))], batch.Output(tmp_path / "out"), ())
    assert probed == [tmp_path / "out"]


def test_a_checkpoint_that_is_held_in_passing_ends_no_training(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    folder, told = RunFolder(tmp_path / "run"), []
    folder.check_writable()
    streams = Streams([prepared(0), prepared(1)], [prepared(2)], [])
    save, calls = trainer_module.save_checkpoint, []

    def held(path: Path, state: dict[str, Any]) -> None:
        calls.append(path)
        if 1 < len(calls) < 4:
            try:
                raise DENIED
            except PermissionError as error:
                raise files.disk_error(error, path) from error
        save(path, state)

    monkeypatch.setattr(trainer_module, "save_checkpoint", held)

    def listen(kind: str, fields: dict[str, Any]) -> None:
        told.append((kind, fields.get("message", "")))

    trainer = Trainer(tiny_plan(iterations=6), streams, folder, listener=listen, stop=lambda: False)
    assert trainer.run().reason == "finished"
    assert sum("This checkpoint was left out" in message for _, message in told) == 2
    assert folder.checkpoint.is_file()


def test_a_full_disk_still_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    folder = RunFolder(tmp_path / "run")
    folder.check_writable()
    trainer = Trainer(
        tiny_plan(iterations=6), Streams([prepared(0)], [prepared(2)], []), folder, listener=events.silent, stop=bool
    )
    save = trainer_module.save_checkpoint
    calls: list[Path] = []

    def full(path: Path, state: dict[str, Any]) -> None:
        calls.append(path)
        if len(calls) > 1:
            raise ResourceError("The disk is full.") from OSError(errno.ENOSPC, "full")
        save(path, state)

    monkeypatch.setattr(trainer_module, "save_checkpoint", full)
    with pytest.raises(ResourceError, match="disk is full"):
        trainer.run()


def test_events_wait_for_a_file_that_is_held_and_none_is_lost(tmp_path, monkeypatch):
    told, opened, held = events.EventFile(tmp_path / "events.jsonl"), os.open, {2, 3}
    count = iter(range(1, 100))

    def busy(path: Any, *more: Any) -> int:
        if next(count) in held:
            raise DENIED
        return opened(path, *more)

    monkeypatch.setattr(os, "open", busy)
    for number in range(1, 6):
        told("step", {"iteration": number})
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [events.decode(line)[1]["iteration"] for line in lines] == [1, 2, 3, 4, 5]


def test_the_last_event_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "_PAUSE", 0.0)
    told, opened, count = events.EventFile(tmp_path / "events.jsonl"), os.open, iter(range(100))

    def busy(path: Any, *more: Any) -> int:
        if next(count) < 5:
            raise DENIED
        return opened(path, *more)

    monkeypatch.setattr(os, "open", busy)
    told("finished", {"result": {}})
    assert events.decode((tmp_path / "events.jsonl").read_text())[0] == "finished"


def test_events_do_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "_MOST_HELD", -1.0)

    def busy(*_: Any) -> int:
        raise DENIED

    monkeypatch.setattr(os, "open", busy)
    told = events.EventFile(tmp_path / "events.jsonl")
    told("step", {"iteration": 1})
    with pytest.raises(ResourceError, match="events.jsonl"):
        told("step", {"iteration": 2})


# A drive that is gone for a moment


@pytest.fixture
def a_lost_drive(monkeypatch):
    """Everything below a folder of this name is asked in vain, as on a share that Windows has lost."""
    stat = os.stat

    def lost(path: Any, *more: Any, **named: Any) -> os.stat_result:
        if "share" in str(path):
            raise GONE
        return stat(path, *more, **named)

    monkeypatch.setattr(os, "stat", lost)


def test_a_stop_file_on_a_lost_drive_is_not_there(a_lost_drive, tmp_path):
    assert not StopRequest(tmp_path / "share" / "stop")()


def test_a_scan_on_a_lost_drive_is_named(a_lost_drive, tmp_path):
    case = Case("p1", (tmp_path / "share" / "p1.nrrd",))
    with pytest.raises(DataError, match="Case p1: .* does not exist"):
        cohort.check_files(cohort.Cohort((case,), tmp_path))


# Names


def test_names_that_differ_in_capitals_alone_are_refused(tmp_path):
    rows = ["id,image,label,role"]
    for name in ("P1", "p1"):
        (tmp_path / f"{name}_scan.nrrd").touch()
        rows.append(f"{name},{name}_scan.nrrd,,unlabeled")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match="two cases called p1.*capitals"):
        find_cases([tmp_path / "list.csv"], 1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "P1.nrrd").touch()
    (tmp_path / "two" / "p1.nrrd").touch()
    with pytest.raises(UsageError, match="called 'P1'"):
        find_cases([tmp_path / "one" / "P1.nrrd", tmp_path / "two" / "p1.nrrd"], 1)


# Sleep


def test_windows_is_kept_awake_and_let_go_of_whatever_happens(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(awake_module, "_windows", asked.append)
    with pytest.raises(ValueError, match="in between"), awake():
        assert asked == [0x80000001]
        raise ValueError("in between")
    assert asked == [0x80000001, 0x80000000]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX program stands in for caffeinate")
def test_macos_is_kept_awake_by_its_own_program(monkeypatch, tmp_path):
    program = tmp_path / "caffeinate"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/heard\nsleep 60\n')
    program.chmod(0o755)
    monkeypatch.setattr(awake_module, "_CAFFEINATE", str(program))
    monkeypatch.setattr(sys, "platform", "darwin")
    made: list[Any] = []
    caffeinate = awake_module._caffeinate
    monkeypatch.setattr(awake_module, "_caffeinate", lambda: made.append(caffeinate()) or made[-1])
    with awake():
        assert made[0].poll() is None
    assert made[0].wait(10) != 0 and made[0].args[1:] == ["-i", "-w", str(os.getpid())]


def test_a_mac_without_it_trains_all_the_same(monkeypatch):
    monkeypatch.setattr(awake_module, "_CAFFEINATE", "/nowhere/caffeinate")
    monkeypatch.setattr(sys, "platform", "darwin")
    with awake():
        pass
