"""The pre-flight: a verdict for whatever cohort and machine, and nothing that could get it killed."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
from round_tools import a_plan
from synthetic import write_cohort

from caml_core.config import Plan, Segment
from caml_core.device import Device
from caml_core.errors import ResourceError
from caml_core.events import decode, silent
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, save_model
from caml_core.serialization import from_json
from caml_core.training import memory, planner, preflight
from caml_core.training.measurement import Measurement, early_share
from caml_core.training.memory import MemoryModel, fit_to_memory, smaller_patch
from caml_core.training.preflight import Extras
from caml_core.training.request import Request

QUICK = Request(base_filters=2, threads=1, dtype="fp32", iterations=10)
MIB = 2**20


@pytest.fixture
def a_cohort(tmp_path) -> Path:
    return write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1)


def _free(monkeypatch, megabytes: float) -> None:
    """So much memory is free: an input of the machine."""
    monkeypatch.setattr(memory, "available_ram", lambda: int(megabytes * MIB))


def _answer(cohort: Path, request: Request = QUICK, start: Path | None = None, **extras) -> dict:
    return preflight.preflight(cohort, request, silent, start, Extras(**extras))


# Foretelling memory


def test_memory_grows_with_the_voxels_and_never_shrinks():
    model = MemoryModel(500.0, 1000, 1024.0, 800.0)
    assert model.peak_mb(1000) == model.peak_mb(10) == 500
    assert model.peak_mb(1000 + MIB) == pytest.approx(500 + 1024 * memory.SAFETY)
    least = (800 - memory.RESERVE_MB) * memory.USABLE_SHARE / memory.SAFETY / 1024 * MIB
    assert model.fits(1000 + int(0.99 * least)) and not model.fits(1000 + int(1.01 * least))
    assert dataclasses.replace(model, free_mb=0).fits(10**12)  # nothing is known: nothing is refused


@pytest.mark.parametrize("free", [320.0, 400.0, 700.0])
def test_the_largest_patch_that_fits_is_taken_and_keeps_its_shape(free):
    model, patch, divisor = MemoryModel(500.0, 16**3, 4096.0, free), (96, 64, 48), (16, 16, 8)
    found = smaller_patch(patch, divisor, model)
    assert found is not None and model.fits(math.prod(found))
    assert all(s % d == 0 and 2 * d <= s <= p for s, d, p in zip(found, divisor, patch))
    larger = [tuple(s + d * (a == axis) for a, (s, d) in enumerate(zip(found, divisor))) for axis in range(3)]
    assert any(not model.fits(math.prod(x)) for x in larger)


def test_where_nothing_fits_no_patch_is_made_up():
    assert smaller_patch((64, 64, 64), (16, 16, 16), MemoryModel(500.0, 4096, 4096.0, 255.0)) is None


def test_with_plenty_of_memory_nothing_is_tried_and_nothing_changes(monkeypatch):
    _free(monkeypatch, 10**6)
    monkeypatch.setattr(memory, "measure_memory", lambda *_: pytest.fail("there was no need to"))
    assert fit_to_memory(a_plan(), 2, may_shrink=True) == (a_plan(), "")


# Verdicts


def test_a_small_training_fits_and_all_is_told(a_cohort, tmp_path):
    found = _answer(a_cohort, cache_folder=tmp_path)
    assert found["verdict"] == "fits" and "MB of memory" in found["sentence"]
    assert [case["id"] for case in found["cases"]] == ["case0", "case1", "case2", "case3"]
    first = found["cases"][0]
    assert first["size"] == [22, 18, 20] and first["spacing"] == [1.0, 1.0, 1.0]
    assert (first["role"], first["orientation"], first["modality"], first["notes"]) == ("labeled", "LPS", ["MR"], [])
    ((low, high),) = first["grey_values"]  # noise of 100 +- 10, and objects 60 and 120 brighter
    assert 60 < low < 90 and 210 < high < 250
    plan = from_json(Plan, found["plan"])
    assert found["iterations"] == plan.iterations == 10 and "2 labelled, 1 unlabelled, 1 held out" in found["text"]
    assert found["memory_mb"] > 0 and found["memory_total_mb"] >= found["memory_free_mb"] > 0
    assert found["disk_free_mb"] > found["disk_mb"] > 0
    assert json.loads(json.dumps(found)) == found


def test_baseline_and_folds_take_their_time(a_cohort):
    long = dataclasses.replace(QUICK, iterations=20_000)
    plain = _answer(a_cohort, long)
    more = _answer(a_cohort, long, baseline=True, folds=2)
    step = from_json(Plan, plain["plan"]).seconds_per_iteration
    assert plain["seconds"] > 20_000 * step * 0.99
    assert more["seconds"] > 2.9 * 20_000 * from_json(Plan, more["plan"]).seconds_per_iteration


def test_an_open_end_is_planned_for_half_a_day(a_cohort):
    plan = from_json(Plan, _answer(a_cohort, dataclasses.replace(QUICK, iterations=None, until_better=True))["plan"])
    assert plan.budget_seconds == 12 * 3600 and plan.optimizer.schedule == "plateau"
    assert 0 < plan.horizon < plan.iterations and plan.horizon / plan.validate_every <= 20
    assert plan.horizon * plan.seconds_per_iteration < 3600 < plan.iterations * plan.seconds_per_iteration


@pytest.mark.parametrize("until_better", [True, False])
def test_a_step_is_as_long_as_the_steps_of_the_plan_are(a_cohort, monkeypatch, until_better):
    """With an open end few of all steps are cheap ones: each learns alone for a share of the usual time."""
    measured = Measurement(0.4, 0.8, 0.01, 100.0)
    monkeypatch.setattr(planner, "measure", lambda *_: measured)  # what a machine is like is an input
    request = dataclasses.replace(QUICK, iterations=None, budget_seconds=None, until_better=until_better)
    plan = from_json(Plan, _answer(a_cohort, request)["plan"])
    expected = measured.seconds_per_iteration(early_share(plan))
    assert plan.seconds_per_iteration == pytest.approx(expected, abs=1e-4)
    assert (early_share(plan) < 0.03) == until_better


def test_a_smaller_patch_is_taken_where_memory_is_short(a_cohort, monkeypatch):
    _free(monkeypatch, memory.RESERVE_MB + 10)  # weights and small patches fit, 100,000 voxels do not
    found = _answer(a_cohort, dataclasses.replace(QUICK, spacing=(0.5, 0.5, 0.5)))
    assert found["verdict"] == "smaller-patch" and found["sentence"] in found["notes"]
    plan = from_json(Plan, found["plan"])
    sizes = [tuple(map(int, text.split("x"))) for text in re.findall(r"\d+x\d+x\d+", found["sentence"])]
    assert plan.geometry.patch == sizes[0] and math.prod(sizes[0]) < math.prod(sizes[1])
    assert all(s <= w for s, w in zip(*sizes))


def test_what_cannot_fit_is_told_without_being_tried(a_cohort, monkeypatch):
    _free(monkeypatch, 20)
    monkeypatch.setattr(memory, "Engine", lambda *_: pytest.fail("it must not be tried"))
    found = _answer(a_cohort)
    assert found["verdict"] == "does-not-fit" and "close other programs" in found["sentence"]
    assert found["plan"] is None and found["text"] == "" and found["iterations"] == 0
    assert found["memory_mb"] > 0 and found["memory_free_mb"] == 20 and len(found["cases"]) == 4


def test_a_patch_that_was_asked_for_is_kept_or_refused(a_cohort, monkeypatch):
    _free(monkeypatch, memory.RESERVE_MB + 10)
    found = _answer(a_cohort, dataclasses.replace(QUICK, spacing=(0.5, 0.5, 0.5), patch=(64, 64, 64)))
    assert found["verdict"] == "does-not-fit" and "64x64x64" in found["sentence"]


def test_running_out_of_memory_while_it_is_tried_is_a_verdict(a_cohort, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(planner, "measure", fail)
    found = _answer(a_cohort)
    assert found["verdict"] == "does-not-fit" and "ran out of memory" in found["sentence"] and found["memory_mb"] > 0


def test_a_step_is_held_against_the_memory_of_its_own_device(monkeypatch):
    """A GPU may have more than the machine beside it, and less."""
    gib = 2**30
    devices = (Device("cuda:0", "large", 80 * gib, 40 * gib), Device("cuda:1", "small", 8 * gib, 8 * gib))
    monkeypatch.setattr(planner, "find_devices", lambda: (*devices, Device("cpu", "", 32 * gib, 16 * gib)))
    step, notes = Measurement(1.0, 1.0, 1.0, 30 * 1024.0), []
    planner._check_memory(step, "cuda:0", notes)
    assert notes == []
    for name in ("cuda:1", "cpu"):
        with pytest.raises(ResourceError, match=f"device {name} has"):
            planner._check_memory(step, name, notes)


def test_training_meets_the_same_limit_as_its_preflight(a_cohort, tmp_path, monkeypatch, caml):
    _free(monkeypatch, 20)
    options = ("--base-filters", "2", "--threads", "1", "--iterations", "2", "--progress", "none")
    code, _, err = caml("round", a_cohort, "-o", tmp_path / "round", *options)
    assert code == 5 and "close other programs" in err and err.count("\n") == 1


# What is said of the cohort


def test_a_cohort_that_lacks_everything_is_told_what_to_expect(tmp_path):
    found = _answer(write_cohort(tmp_path / "cohort", labeled=1, unlabeled=0, validation=0))
    text = " ".join(found["notes"])
    assert found["verdict"] == "fits"
    for words in ("no unlabelled case", "accuracy will not be known", "One labelled case"):
        assert words in text
    assert found["kept_segments"] == found["new_segments"] == []


def test_a_case_that_stands_out_carries_its_note(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", labeled=3, unlabeled=7, validation=1)
    path = tmp_path / "cohort" / "case1_image.nrrd"
    for name in ("image", "label"):
        path = tmp_path / "cohort" / f"case1_{name}.nrrd"
        volume = sitk.ReadImage(str(path))
        volume.SetSpacing((1.0, 1.0, 5.0))
        sitk.WriteImage(volume, str(path))
    found = _answer(cohort)
    noted = {case["id"]: case["notes"] for case in found["cases"] if case["notes"]}
    assert set(noted) == {"case1"} and "spacing" in noted["case1"][0]
    assert noted["case1"][0] in found["notes"]


def _start(path: Path, segments: tuple[Segment, ...], channels: int = 1, cases: dict | None = None) -> Path:
    plan = a_plan()
    network = dataclasses.replace(plan.network, classes=len(segments) + 1, in_channels=channels)
    spec = dataclasses.replace(plan.model_spec, segments=segments, network=network, channels=plan.channels * channels)
    torch.manual_seed(0)
    state = build_network(network).state_dict()
    save_model(path, spec=spec, state=state, info=ModelInfo("start", provenance={"cases": cases or {}}))
    return path


def test_segments_are_taken_over_or_new(a_cohort, tmp_path):
    start = _start(tmp_path / "start.caml", (Segment("Segment_2", 1),), cases={"case3": {"role": "labeled"}})
    found = _answer(a_cohort, start=start)
    assert (found["kept_segments"], found["new_segments"]) == (["segment_2"], ["segment_1"])
    text = " ".join(found["notes"])
    assert "does not know segment_1" in text and "labels of case3, held out here" in text
    assert any("does not know segment_1" in note for note in found["cautions"]), "it is to be read before training"
    assert from_json(Plan, found["plan"]).geometry == a_plan().geometry


def test_a_start_model_of_other_channels_is_a_verdict(a_cohort, tmp_path):
    found = _answer(a_cohort, start=_start(tmp_path / "start.caml", (Segment("segment_1", 1),), channels=2))
    assert found["verdict"] == "does-not-fit" and "channels" in found["sentence"] and found["plan"] is None


def test_an_open_end_without_validation_is_a_verdict(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    found = _answer(cohort, dataclasses.replace(QUICK, until_better=True))
    assert found["verdict"] == "does-not-fit" and "validation case" in found["sentence"]


def test_a_cross_validation_of_one_case_is_a_verdict(tmp_path):
    found = _answer(write_cohort(tmp_path / "cohort", labeled=1, unlabeled=1, validation=1), folds=2)
    assert found["verdict"] == "does-not-fit" and "two labelled cases" in found["sentence"]


# The command


def test_the_command_answers_as_json_and_in_words(a_cohort, caml):
    options = ("--base-filters", "2", "--threads", "1", "--dtype", "fp32", "--iterations", "5")
    code, out, _ = caml("preflight", a_cohort, *options, "--baseline", "--progress", "json")
    kind, fields = decode(out.splitlines()[-1]) or ("", {})
    assert code == 0 and kind == "finished" and fields["result"]["verdict"] == "fits"
    code, out, _ = caml("preflight", a_cohort, *options, "--progress", "none")
    assert code == 0 and "iterations   5" in out and "It fits" in out.splitlines()[-1]
    told = re.search(r"^in all       about (\d+) min", out, re.MULTILINE)
    assert (
        told and int(told[1]) >= fields["result"]["seconds"] // 120 and re.search(r"^disk +\d+ MB", out, re.MULTILINE)
    )


def test_cases_that_cannot_be_used_are_errors(a_cohort, caml):
    (a_cohort.parent / "case0_image.nrrd").write_text("no image")
    code, _, err = caml("preflight", a_cohort, "--progress", "none")
    assert code == 3 and "case0" in err


def test_a_full_disk_is_seen_before(a_cohort, monkeypatch):
    monkeypatch.setattr(preflight, "_free_mb", lambda folder: 1.0)
    found = _answer(a_cohort)
    assert found["verdict"] == "does-not-fit" and "on the disk" in found["sentence"] and found["plan"] is None


def test_a_disk_without_room_for_the_prepared_cases_is_told(a_cohort, monkeypatch):
    """They may be there from before, so that it is no verdict."""
    monkeypatch.setattr(preflight, "_cache_mb", lambda plan, found: 28_800.0)
    for free, told in ((20_000.0, True), (40_000.0, False)):
        monkeypatch.setattr(preflight, "_free_mb", lambda folder, free=free: free)
        found = _answer(a_cohort)
        assert found["verdict"] == "fits"
        assert any("20000 MB are free; unless they are prepared" in note for note in found["notes"]) is told
