"""``caml predict`` from files to files."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_io import dicom_series

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.data.geometry import Grid
from caml_core.data.io import grid_difference, read_volume, write_image
from caml_core.data.labels import labels_on_grid, read_labels, write_labels
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, load_model, save_model

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
GRID = Grid((26, 24, 20), (1.0, 1.1, 1.5), (4.0, -20.0, 11.0), OBLIQUE)
SEGMENTS = (Segment("left atrium", 1, (0.9, 0.2, 0.1)), Segment("aorta", 2))


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("CAML_CACHE_DIR", str(tmp_path / "cache"))


def save_a_model(path, channels=1, spacing=1.5):
    torch.manual_seed(0)
    config = NetworkConfig(
        in_channels=channels, base_filters=2, attention_heads=2, classes=3, attention_evaluation="alone"
    )
    spec = ModelSpec(Geometry((spacing,) * 3, (16, 16, 16)), config, (ChannelIntensity(),) * channels, SEGMENTS, (0,))
    network = build_network(config)
    with torch.no_grad():
        for decoder in (network.decoder1, network.decoder2):
            decoder.out_conv.weight *= 20
            decoder.out_conv.bias.zero_()
    save_model(path, spec=spec, state=network.state_dict(), info=ModelInfo("test"))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_a_model(tmp_path_factory.mktemp("model") / "test.caml")


def write_scan(path, seed=0, grid=GRID):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(300, 80, grid.size).astype(np.int16)
    write_image(path, values, grid)
    return path


@pytest.fixture
def scan(tmp_path):
    return write_scan(tmp_path / "p1_image.nii.gz")


PLAIN = ("--dtype", "bf16", "--progress", "none")  # one candidate: nothing is measured


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["out.seg.nrrd", "out.nii.gz", "sub/folder/out.mha"])
def test_one_scan_becomes_one_label_map_on_its_own_grid(caml, model, scan, tmp_path, name):
    code, _, err = caml("predict", model, scan, "-o", tmp_path / name, *PLAIN)
    assert code == 0, err
    result = read_labels(tmp_path / name)
    assert GRID.is_left_handed, "which Slicer's segmentations must not be"
    stored = GRID.right_handed() if name.endswith(".seg.nrrd") else GRID
    assert not grid_difference(result.grid, stored, 1e-4)
    assert labels_on_grid(result, GRID, tmp_path / name).shape == GRID.size
    assert set(np.unique(result.array)) <= {0, 1, 2} and result.array.any()
    if name.endswith(".seg.nrrd"):
        assert [s.name for s in result.segments] == ["left atrium", "aorta"]
        assert result.segments[0].color == pytest.approx((0.9, 0.2, 0.1), abs=0.01)
    leftovers = [p.name for p in (tmp_path / name).parent.iterdir() if "part" in p.name]
    assert not leftovers


def test_a_folder_becomes_a_folder_with_a_table_and_one_bad_case_does_not_stop_it(caml, model, tmp_path):
    images = tmp_path / "in"
    images.mkdir()
    for number in (1, 3):
        write_scan(images / f"case{number}.nrrd", number)
    (images / "case2.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    code, stdout, err = caml("predict", model, images, "-o", out, "--progress", "json", "--dtype", "bf16")
    assert code == 3
    assert "1 of 3" in err and "case2" in err
    assert {p.name for p in out.iterdir()} == {"case1.seg.nrrd", "case3.seg.nrrd", "predictions.csv"}
    table = {row["case"]: row for row in rows_of(out / "predictions.csv")}
    assert table["case2"]["output"] == "" and "case2" in table["case2"]["error"]
    labels = read_labels(out / "case1.seg.nrrd").array
    for segment in SEGMENTS:
        expected = (labels == segment.label).sum() * np.prod(GRID.spacing) / 1000
        assert float(table["case1"][f"{segment.name} mL"]) == pytest.approx(expected, abs=1e-3)
        assert 0 <= float(table["case1"][f"agreement {segment.name}"]) <= 1
    assert float(table["case1"]["seconds"]) > 0 and table["case1"]["error"] == ""
    events = [json.loads(line) for line in stdout.splitlines()]
    assert [e["case"] for e in events if e["event"] == "case"] == ["case1", "case3"]
    assert [e["case"] for e in events if e["event"] == "warning"] == ["case2"]
    assert events[0]["event"] == "started" and events[-1]["event"] == "error" and events[-1]["exit_code"] == 3
    assert [(e.get("case"), e["exit_code"]) for e in events if "exit_code" in e] == [("case2", 3), (None, 3)]
    progress = [e["done"] for e in events if e["event"] == "progress"]
    assert progress == sorted(progress) and progress[-1] == 3
    assert {e["case"] for e in events if e["event"] == "progress"} == {"case1", "case2", "case3"}
    stages = [(e["name"], e.get("case")) for e in events if e["event"] == "stage"]
    assert stages[:2] == [("load", None), ("predict", None)]
    names = {"case1": ("prepare", "predict", "write"), "case2": ("prepare",), "case3": ("prepare", "predict", "write")}
    assert stages[2:] == [(name, case) for case in names for name in names[case]]


def test_windows_and_stages_of_a_single_scan_name_it(caml, model, scan, tmp_path):
    code, stdout, err = caml(
        "predict", model, scan, "-o", tmp_path / "out.nrrd", "--progress", "json", "--dtype", "bf16"
    )
    assert code == 0, err
    events = [json.loads(line) for line in stdout.splitlines()]
    progress = [e for e in events if e["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] and {e["unit"] for e in progress} == {"windows"}
    assert {e["case"] for e in progress} == {"p1_image"}
    assert [e["detail"] for e in events if e["event"] == "stage"][2:] == ["p1_image"] * 3


def test_a_terminal_has_one_bar_for_all_cases(caml, model, tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / "in" / f"case{number}.nrrd", number)
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--dtype", "bf16")
    assert code == 0 and "2/2" in err
    stages = [line for line in err.splitlines() if ": " in line and "%" not in line and "mL" not in line]
    assert stages == ["load: test.caml", "predict: 2 cases, balanced, on cpu"]


def test_a_single_bad_case_is_told_as_it_is(caml, model, tmp_path):
    bad = tmp_path / "torn.nii.gz"
    bad.write_bytes(b"\x1f\x8bno")
    code, _, err = caml("predict", model, bad, "-o", tmp_path / "out.nrrd", *PLAIN)
    assert code == 3 and "torn" in err
    assert not (tmp_path / "out.nrrd").exists()


def test_maps_on_request_lie_beside_the_labels(caml, model, scan, tmp_path):
    out = tmp_path / "out.seg.nrrd"
    code, _, err = caml("predict", model, scan, "-o", out, "--uncertainty", "--probability", *PLAIN)
    assert code == 0, err
    for name in ("out_disagreement.nrrd", "out_probability.nrrd"):
        extra = read_volume(tmp_path / name)
        assert extra.array.dtype == np.uint8 and not grid_difference(extra.grid, GRID, 1e-4)


def test_the_published_protocol_can_be_run(caml, model, scan, tmp_path):
    out = tmp_path / "out.nrrd"
    code, _, err = caml("predict", model, scan, "-o", out, "--sub-model", "v", "--stride", "9,9,2", *PLAIN)
    assert code == 0, err
    code, _, err = caml("predict", model, scan, "-o", out, "--window-weights", "uniform", *PLAIN)
    assert code == 2 and "--stride" in err
    code, _, err = caml("predict", model, scan, "-o", out, "--stride", "9,9,2", "--quality", "best", *PLAIN)
    assert code == 2 and "--quality best" in err and "--stride" in err and err.count("\n") == 1
    code, _, err = caml("predict", model, scan, "-o", tmp_path / "gaps.nrrd", "--stride", "9,9,17", *PLAIN)
    assert code == 2 and "9x9x17 is longer than the model's patch 16x16x16" in err
    assert not (tmp_path / "gaps.nrrd").exists()
    for wrong in ("9,9", "0,1,1", "a,b,c"):
        assert caml("predict", model, scan, "-o", out, "--stride", wrong)[0] == 2


def test_nothing_is_labelled_outside_a_region(caml, model, scan, tmp_path):
    other = write_scan(tmp_path / "q9_image.nii.gz", seed=7)
    assert caml("predict", model, scan, other, "-o", tmp_path / "whole", "--format", "nrrd", *PLAIN)[0] == 0
    regions, out = tmp_path / "regions", tmp_path / "out"
    command = ("predict", model, scan, other, "-o", out, "--format", "nrrd", "--within", regions, *PLAIN)
    code, _, err = caml(*command)
    assert code == 2 and "--within" in err and not out.exists()
    regions.mkdir()
    other, name = sorted((p.stem for p in (tmp_path / "whole").glob("*.nrrd")), key=lambda stem: stem[0] == "p")
    region = np.zeros(GRID.size, np.uint8)
    region[: GRID.size[0] // 2] = 1
    write_labels(regions / f"{name}.nii.gz", region, GRID, (Segment("region", 1),))
    assert caml(*command)[0] == 0
    before, after = (
        {path.stem: read_labels(path).array for path in folder.glob("*.nrrd")} for folder in (tmp_path / "whole", out)
    )
    assert np.array_equal(after[name], before[name] * region) and (before[name] * (1 - region)).any()
    assert np.array_equal(after[other], before[other]) and after[other].any()


@pytest.fixture
def scan_in_parts(tmp_path):
    """A scan in which the model finds the left atrium in three parts."""
    return write_scan(tmp_path / "p1_image.nii.gz", seed=5)


def test_cleaning_keeps_one_component(caml, model, scan_in_parts, tmp_path):
    from scipy import ndimage

    out = tmp_path / "out.nrrd"
    for wanted, parts in (((), 3), (("--largest-component", "--fill-holes"), 1)):
        assert caml("predict", model, scan_in_parts, "-o", out, *wanted, *PLAIN)[0] == 0
        assert ndimage.label(read_labels(out).array == 1, np.ones((3, 3, 3)))[1] == parts


def test_a_model_of_labels_in_one_piece_keeps_one_component_unless_told_otherwise(caml, model, scan_in_parts, tmp_path):
    loaded = load_model(model)
    one = tmp_path / "one.caml"
    save_model(one, spec=replace(loaded.spec, one_component=True), state=loaded.state, info=loaded.info)
    maps, removed = {}, {}
    for name, (file, *asked) in {
        "asked": (model, "--largest-component"),
        "by the model": (one,),
        "all parts": (one, "--no-largest-component"),
        "as it comes": (model,),
    }.items():
        out = tmp_path / name
        code, stdout, err = caml("predict", file, scan_in_parts, "-o", out, *asked, *PLAIN, "--progress", "json")
        assert code == 0, err
        (case,) = (e for e in map(json.loads, stdout.splitlines()) if e["event"] == "case")
        maps[name] = read_labels(Path(case["output"])).array
        removed[name] = case.get("removed_ml", {})
        (row,) = rows_of(out / "predictions.csv")
        assert ("left atrium removed mL" in row) == bool(removed[name])
    assert np.array_equal(maps["by the model"], maps["asked"])
    assert np.array_equal(maps["all parts"], maps["as it comes"])
    gone = np.count_nonzero(maps["as it comes"]) - np.count_nonzero(maps["asked"])
    assert gone > 0 and sum(removed["by the model"].values()) == pytest.approx(gone * GRID.voxel_ml)
    assert not removed["all parts"] and not removed["as it comes"]


def test_measures_are_those_of_the_written_labels(caml, model, tmp_path):
    from caml_core.inference.measures import measure

    for number in (1, 2):
        write_scan(tmp_path / "in" / f"case{number}.nrrd", number)
    out = tmp_path / "out"
    arguments = ("predict", model, tmp_path / "in", "-o", out, "--dtype", "bf16", "--largest-component")
    code, stdout, err = caml(*arguments, "--measures", "--progress", "json")
    assert code == 0, err
    events = [json.loads(line) for line in stdout.splitlines()]
    cases = {event["case"]: event for event in events if event["event"] == "case"}
    for row in rows_of(out / "predictions.csv"):
        written = read_labels(out / f"{row['case']}.seg.nrrd")
        expected = measure(written.array, GRID.spacing, SEGMENTS)
        assert cases[row["case"]]["surface_mm2"] == pytest.approx(expected.surface_mm2)
        assert cases[row["case"]]["components"] == expected.components
        assert expected.components["left atrium"] == 1
        for name, surface in expected.surface_mm2.items():
            assert float(row[f"{name} mm2"]) == pytest.approx(surface, abs=0.06)
            assert row[f"{name} components"] == str(expected.components[name])
    code, stdout, _ = caml(*arguments, "--progress", "json")
    assert code == 0 and "surface" not in stdout
    assert not any("mm2" in name or "components" in name for name in rows_of(out / "predictions.csv")[0])


def test_a_dicom_folder_is_one_case(caml, model, tmp_path):
    series = tmp_path / "series"
    dicom_series(series, range(0, 24, 2))
    out = tmp_path / "out.seg.nrrd"
    code, _, err = caml("predict", model, series, "-o", out, "--quality", "fast", *PLAIN)
    assert code == 0, err
    assert not grid_difference(read_labels(out).grid, read_volume(series).grid, 1e-3)


def test_files_are_grouped_for_a_model_of_two_channels(caml, tmp_path):
    two = save_a_model(tmp_path / "two.caml", channels=2)
    scans = [write_scan(tmp_path / f"{name}.nrrd", seed) for seed, name in enumerate(["t1", "t2"])]
    code, _, err = caml("predict", two, *scans, "-o", tmp_path / "out", *PLAIN)
    assert code == 0, err
    assert (tmp_path / "out" / "t1.seg.nrrd").exists()
    code, _, err = caml("predict", two, scans[0], "-o", tmp_path / "out2", *PLAIN)
    assert code == 2 and "2 images a case" in err


def test_a_list_is_read_and_roles_choose_from_it(caml, model, tmp_path):
    for number in range(3):
        write_scan(tmp_path / f"s{number}.nrrd", number)
    listed = tmp_path / "cases.csv"
    listed.write_text("id,image,role\na,s0.nrrd,unlabeled\nb,s1.nrrd,excluded\nc,s2.nrrd,unlabeled\n")
    out = tmp_path / "out"
    code, _, err = caml("predict", model, listed, "-o", out, "--format", "nii.gz", *PLAIN)
    assert code == 0, err
    assert sorted(p.name for p in out.glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz"]
    code, _, err = caml("predict", model, listed, "-o", out, "--role", "validation", *PLAIN)
    assert code == 3 and "no case" in err


def test_a_json_list_names_cases_and_their_channels(caml, tmp_path):
    two = save_a_model(tmp_path / "two.caml", channels=2)
    for seed, name in enumerate(["t1", "t2"]):
        write_scan(tmp_path / f"{name}.nrrd", seed)
    names = ["7", "MR head (2) #1", "T\u00eate, 50 %"]
    cases = [{"id": name, "images": ["t1.nrrd", str(tmp_path / "t2.nrrd")]} for name in names]
    (tmp_path / "list.json").write_text(json.dumps({"cases": cases}))
    out = tmp_path / "out"
    code, _, err = caml("predict", two, tmp_path / "list.json", "-o", out, "--format", "nrrd", "--uncertainty", *PLAIN)
    assert code == 0, err
    expected = {f"{name}{end}" for name in names for end in (".nrrd", "_disagreement.nrrd")}
    assert {p.name for p in out.iterdir()} == expected | {"predictions.csv"}
    assert [row["case"] for row in rows_of(out / "predictions.csv")] == names


@pytest.mark.parametrize("name", ["../escaped", "a/b", "a\\b", "c:d", "what?", "two\nlines"])
def test_an_id_that_is_no_file_name_is_refused(caml, model, tmp_path, name):
    write_scan(tmp_path / "s.nrrd")
    (tmp_path / "list.json").write_text(json.dumps({"cases": [{"id": name, "image": "s.nrrd"}]}))
    code, _, err = caml("predict", model, tmp_path / "list.json", "-o", tmp_path / "out", *PLAIN)
    assert code in (2, 3) and repr(name) in err and ("cannot name a file" in err or "leads out of the folder" in err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["list.json", "s.nrrd"]


@pytest.mark.parametrize(
    ("output", "words"),
    [("p1_image.nii.gz", "overwrite"), ("picture.png", "no format"), ("out.v2", "no format"), ("", None)],
)
def test_outputs_that_make_no_sense_are_refused(caml, model, scan, tmp_path, output, words):
    if words is None:  # one file for two cases
        other = write_scan(tmp_path / "p2.nrrd", 2)
        code, _, err = caml("predict", model, scan, other, "-o", tmp_path / "one.nrrd", *PLAIN)
        assert code == 2 and "2 cases" in err
        return
    before = scan.read_bytes()
    code, _, err = caml("predict", model, scan, "-o", tmp_path / output, *PLAIN)
    assert code == 2 and words in err
    assert scan.read_bytes() == before


def test_equal_names_are_refused(caml, model, scan, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    copy = write_scan(other / "p1_image.nrrd")
    code, _, err = caml("predict", model, scan, copy, "-o", tmp_path / "out", *PLAIN)
    assert code == 2 and "'p1_image'" in err


def test_a_stop_file_ends_a_batch_with_what_is_finished_kept(caml, model, tmp_path):
    write_scan(tmp_path / "a.nrrd")
    stop = tmp_path / "stop"
    stop.touch()
    code, _, err = caml("predict", model, tmp_path / "a.nrrd", "-o", tmp_path / "out", "--stop-file", stop, *PLAIN)
    assert code == 130 and "Stopped" in err
    assert not (tmp_path / "out" / "a.seg.nrrd").exists()


def test_a_prediction_ends_with_the_process_that_waited_for_it(caml, model, scan, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    out = tmp_path / "out.nrrd"
    for pid, expected in ((gone.pid, 130), (os.getpid(), 0)):
        code, _, _ = caml("predict", model, scan, "-o", out, "--parent-pid", pid, *PLAIN)
        assert code == expected and out.exists() == (expected == 0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(caml, model, scan, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = caml("predict", model, scan, "-o", locked / "out.nrrd", *PLAIN)
    assert code == 5 and "permission" in err


def test_a_folder_that_cannot_be_is_told_before_anything_is_computed(caml, model, scan, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = caml("predict", model, scan, "-o", tmp_path / "file" / "out", *PLAIN)
    assert code == 5 and "file" in err


def test_prediction_imports_nothing_of_training_and_no_heavy_extra(model, scan, tmp_path, caml_environment):
    program = (
        "import sys; from caml_core.cli import main; code = main(sys.argv[1:]);"
        "heavy = [m for m in sys.modules if m.startswith('caml_core.training') or m.split('.')[0] in "
        "('matplotlib', 'monai', 'pandas', 'scipy', 'pydicom') or m == 'torch._dynamo'];"
        "print(code, sorted({'.'.join(m.split('.')[:2]) for m in heavy}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", model, scan, "-o", tmp_path / "out.nrrd", *PLAIN],
        env=caml_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "0 []", done.stdout + done.stderr


def test_maps_can_be_written_as_percent(caml, model, scan, tmp_path):
    for name, options in (("bytes", ()), ("percent", ("--percent",))):
        assert caml("predict", model, scan, "-o", tmp_path / f"{name}.nrrd", "--uncertainty", *options)[0] == 0
    full = read_volume(tmp_path / "bytes_disagreement.nrrd").array
    percent = read_volume(tmp_path / "percent_disagreement.nrrd").array
    assert np.abs(percent - full / 2.55).max() <= 0.51 and percent.max() <= 100


def test_a_list_of_one_case_brings_all_its_channels(caml, tmp_path):
    two = save_a_model(tmp_path / "two.caml", channels=2)
    for name in ("t1", "t2"):
        write_scan(tmp_path / f"{name}.nrrd", seed=len(name))
    (tmp_path / "list.json").write_text(json.dumps({"cases": [{"id": "p", "images": ["t1.nrrd", "t2.nrrd"]}]}))
    code, _out, err = caml("predict", two, tmp_path / "list.json", "-o", tmp_path / "out", "--format", "nrrd")
    assert code == 0 and (tmp_path / "out" / "p.nrrd").is_file(), err
