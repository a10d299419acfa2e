"""What a training that starts from a model takes over of it, and what it does not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import tiny_plan, write_cohort

from caml_core.cli import main
from caml_core.config import Geometry, Plan, Segment
from caml_core.data.geometry import NetworkGrid
from caml_core.data.grid import Grid
from caml_core.data.labels import write_labels, write_scalar
from caml_core.events import silent
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, load_model, save_model
from caml_core.serialization import from_json, read_json
from caml_core.training import sizes
from caml_core.training.from_model import COARSE_START, NEW_SEGMENTS
from caml_core.training.preflight import Extras, preflight
from caml_core.training.request import Request
from caml_core.training.run import survey
from caml_core.training.warm_start import load_start, start_state


@pytest.mark.parametrize("asked", [("--base-filters", "4"), ("--patch", "32,16,16"), ("--spacing", "2,2,2")])
def test_a_start_model_keeps_its_shape_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    plan, start = tiny_plan(), tmp_path / "start.caml"
    save_model(start, spec=plan.model_spec, state=build_network(plan.network).state_dict(), info=ModelInfo("start"))
    cohort = write_cohort(tmp_path / "cohort")
    same = ("--base-filters", "2", "--patch", "16,16,16", "--spacing", "1,1,1", "--dtype", "fp32", "--threads", "1")
    command = ["plan", str(cohort), "--model", str(start), "--iterations", "2", "--progress", "none"]
    assert main([*command, *same]) == 0
    capsys.readouterr()
    assert main([*command, *asked]) == 2
    said = capsys.readouterr().err
    assert asked[0] in said and "from scratch" in said


def test_a_start_model_of_the_published_kind_attends_as_the_preset_that_trains_it_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, start = tiny_plan(), tmp_path / "start.caml"
    network = dataclasses.replace(plan.network, attention_evaluation="skip", attention_dropout=0.5)
    spec = dataclasses.replace(plan.model_spec, network=network)
    save_model(start, spec=spec, state=build_network(network).state_dict(), info=ModelInfo("start"))
    cohort = write_cohort(tmp_path / "cohort")
    for preset, expected in (("default", ("alone", 0.0)), ("paper", ("skip", 0.5))):
        command = ["plan", str(cohort), "--model", str(start), "--iterations", "2", "--progress", "none"]
        assert main([*command, "--preset", preset, "--dtype", "fp32", "-o", str(tmp_path / f"{preset}.json")]) == 0
        planned = from_json(Plan, read_json(tmp_path / f"{preset}.json"), "plan").network
        assert (planned.attention_evaluation, planned.attention_dropout) == expected, preset


def _tubes(folder: Path, radius: float) -> Path:
    """Two labelled scans with voxels of 0.5 mm, each with two tubes of ``radius`` mm."""
    path = write_cohort(folder, labeled=2, unlabeled=0, validation=0)
    grid = Grid((40, 40, 40), (0.5, 0.5, 0.5))
    x, y, z = (0.5 * axis for axis in np.indices(grid.size))
    for case in range(2):
        tubes = np.minimum(np.hypot(x - 7.3, y - 9.1 - case), np.hypot(y - 6.2, z - 14.4)) < radius
        image = np.random.default_rng(case).normal(100, 10, grid.size) + 100 * tubes
        write_scalar(folder / f"case{case}_image.nrrd", image.astype(np.float32), grid)
        write_labels(folder / f"case{case}_label.nrrd", tubes.astype(np.uint8), grid, (Segment("vessel", 1),))
    return path


@pytest.mark.parametrize(("radius", "spacing", "coarse"), [(1.1, 1.25, True), (5.0, 1.25, False), (1.1, 0.5, False)])
def test_a_start_model_whose_grid_does_not_keep_the_labels_is_a_caution(
    tmp_path: Path, radius: float, spacing: float, coarse: bool
) -> None:
    plan, start = tiny_plan(), tmp_path / "start.caml"
    spec = dataclasses.replace(plan.model_spec, geometry=Geometry((spacing,) * 3, (16, 16, 16)))
    save_model(start, spec=spec, state=build_network(plan.network).state_dict(), info=ModelInfo("start"))
    request = Request(threads=1, dtype="fp32", iterations=10)
    found = preflight(_tubes(tmp_path / "cohort", radius), request, silent, start, Extras(cache_folder=tmp_path))
    assert found["verdict"] == "fits" and found["plan"]["geometry"]["spacing"] == [spacing] * 3
    said = [note for note in found["cautions"] if note.startswith(COARSE_START)]
    assert len(said) == coarse and set(said) <= set(found["notes"])
    for note in said:
        (kept,) = re.findall(r"keep ([\d.]+) % Dice", note)
        assert 30 < float(kept) < 97 and "1.25x1.25x1.25 mm" in note and "train from scratch" in note


def test_only_a_coarser_start_s_grid_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are taken to one grid instead of six, and to none that is as fine as the scans."""
    cohort, found = survey(_tubes(tmp_path, 1.1), Request(), silent)
    cases, tried = cohort.with_role("labeled"), []
    original = NetworkGrid.of
    monkeypatch.setattr(NetworkGrid, "of", lambda grid, geometry: tried.append(geometry) or original(grid, geometry))
    coarse = Geometry((0.5, 0.5, 1.5), (16, 16, 16))
    assert sizes.study_labels(cases, found, (), coarse).start_ceiling < 0.97
    assert tried == [coarse, coarse]
    assert sizes.study_labels(cases, found, (), Geometry((0.5, 0.5, 0.4), (16, 16, 16))).start_ceiling == 1.0
    assert len(tried) == 2


# Segments that were renamed since


def _start_of(path: Path, *names: str) -> Path:
    """A model that was never trained, of segments with these names."""
    plan = tiny_plan()
    segments = tuple(Segment(name, label) for label, name in enumerate(names, 1))
    network = dataclasses.replace(plan.network, classes=len(segments) + 1)
    spec = dataclasses.replace(plan.model_spec, segments=segments, network=network)
    torch.manual_seed(0)
    save_model(path, spec=spec, state=build_network(network).state_dict(), info=ModelInfo("start"), half=False)
    return path


def test_what_a_renamed_segment_has_learnt_is_taken_over(tmp_path: Path) -> None:
    path = _start_of(tmp_path / "start.caml", "Old", "bright")
    start = load_start(path, (("old", "new"), ("never heard of", "x")))
    wanted = (Segment("bright", 1), Segment("new", 2))
    result, before = start_state(start, start.spec.network, wanted, seed=1), load_model(path).state
    for layer in ("decoder1.out_conv.weight", "decoder2.out_conv.bias"):
        assert torch.equal(result[layer][[0, 1, 2]], before[layer][[0, 2, 1]])


def test_a_new_name_that_the_model_has_already_stays_that_segments(tmp_path: Path) -> None:
    path = _start_of(tmp_path / "start.caml", "old", "older", "new")
    pairs = (("old", "new"), ("older", "newest"), ("new", "newest"))
    assert [s.name for s in load_start(path, pairs).spec.segments] == ["old", "newest", "new"]


def test_the_check_knows_renamed_segments(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1)
    path = _start_of(tmp_path / "start.caml", "old", "segment_2")
    request = Request(threads=1, dtype="fp32", iterations=10, renamed=(("old", "segment_1"),))
    found = preflight(cohort, request, silent, path, Extras(cache_folder=tmp_path / "cache"))
    assert (found["kept_segments"], found["new_segments"]) == (["segment_1", "segment_2"], [])
    assert not [note for note in found["cautions"] if note.startswith(NEW_SEGMENTS)]
