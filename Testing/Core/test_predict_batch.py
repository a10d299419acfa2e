"""Many scans at once: where the results may go, what is no case, and a table that cannot be written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_predict import PLAIN, rows_of, save_a_model, write_scan

from caml_core.config import NumericMode
from caml_core.data.case import Case
from caml_core.data.grid import Grid
from caml_core.errors import DiskFullError
from caml_core.inference import batch
from caml_core.inference.batch import CaseResult, Output, find_cases, load_network, run_cases
from caml_core.inference.measures import measure
from caml_core.inference.predictor import Predictor
from caml_core.inference.table import Table, table_for
from caml_core.inference.uncertainty import case_score
from caml_core.model_file import load_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_a_model(tmp_path_factory.mktemp("model") / "test.caml")


def test_a_table_that_cannot_be_written_does_not_end_the_batch(caml, model, tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / "in" / f"case{number}.nrrd", number)
    table = tmp_path / "out" / "predictions.csv"
    table.mkdir(parents=True)
    command = ("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--progress", "json", "--dtype", "bf16")
    code, stdout, err = caml(*command)
    assert code == 5 and f"Cannot write {table}" in err
    assert {p.name for p in (tmp_path / "out").glob("*.seg.nrrd")} == {"case1.seg.nrrd", "case2.seg.nrrd"}
    events = [json.loads(line) for line in stdout.splitlines()]
    (warning,) = [e["message"] for e in events if e["event"] == "warning"]
    assert f"Cannot write {table}" in warning and "tried again" in warning
    table.rmdir()
    assert caml(*command)[0] == 0 and len(rows_of(table)) == 2


def test_a_table_that_becomes_free_during_the_batch_is_whole(model, tmp_path):
    cases = find_cases([write_scan(tmp_path / f"case{i}.nrrd", i) for i in (1, 2)], 1)
    table, out = tmp_path / "table.csv", tmp_path / "out"
    table.mkdir()
    told: list[str] = []

    def listener(kind: str, fields: dict) -> None:
        told.extend([fields["message"]] if kind == "warning" else [])
        if kind == "warning":
            table.rmdir()

    loaded = load_model(model)
    predictor = Predictor(load_network(loaded), loaded.spec, numeric=NumericMode("fp32"), quality="fast")
    run_cases(predictor, cases, Output(out), table=table, listener=listener)
    assert len(told) == 1 and [row["case"] for row in rows_of(table)] == ["case1", "case2"]


def test_a_case_that_memory_does_not_suffice_to_measure_does_not_end_the_batch(caml, model, tmp_path, monkeypatch):
    """What the machine says when it is full, for one case of two."""
    full = iter((MemoryError("no room"), None))

    def measured(*arguments):
        if (error := next(full)) is not None:
            raise error
        return measure(*arguments)

    monkeypatch.setattr(batch, "measure", measured)
    for number in (1, 2):
        write_scan(tmp_path / "in" / f"case{number}.nrrd", number)
    out = tmp_path / "out"
    code, _, err = caml("predict", model, tmp_path / "in", "-o", out, "--measures", *PLAIN)
    assert code != 0 and "1 of 2" in err and "case1" in err
    assert [path.name for path in out.glob("*.seg.nrrd")] == ["case2.seg.nrrd"]


def test_a_result_that_is_held_by_another_program_does_not_end_the_batch(caml, model, tmp_path):
    for name in ("a", "b"):
        write_scan(tmp_path / "in" / f"{name}.nrrd")
    out = tmp_path / "out"
    (out / "a.seg.nrrd").mkdir(parents=True)  # what cannot be replaced
    code, _, err = caml("predict", model, tmp_path / "in", "-o", out, *PLAIN)
    assert code == 5 and f"Cannot write {out / 'a.seg.nrrd'}" in err and "1 of 2" in err
    assert (out / "b.seg.nrrd").is_file()
    first, second = rows_of(out / "predictions.csv")
    assert first["error"].startswith("Case a: ") and not second["error"]


def test_a_full_disk_ends_the_batch(caml, model, tmp_path, monkeypatch):
    def full(*arguments):
        raise DiskFullError("The disk is full.")

    monkeypatch.setattr(batch, "write_labels", full)
    for name in ("a", "b"):
        write_scan(tmp_path / "in" / f"{name}.nrrd")
    code, out, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--progress", "json")
    assert code == 5 and "disk is full" in err + out and "Case" not in err


def test_a_scan_that_no_memory_holds_is_named_with_its_spacing(caml, model, tmp_path):
    """A header that is wrong by a thousand, of one case of two."""
    write_scan(tmp_path / "in" / "a.nrrd", grid=Grid((24, 24, 24), (1500.0,) * 3, (0.0,) * 3))
    write_scan(tmp_path / "in" / "b.nrrd")
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / "out", *PLAIN)
    assert code == 5 and "Case a: The scan has 24 x 24 x 24 voxels of 1500 x 1500 x 1500 mm" in err
    assert "check the spacing" in err and "1 of 2" in err and (tmp_path / "out" / "b.seg.nrrd").is_file()


def test_the_windows_of_a_case_are_told(caml, model, tmp_path):
    scan = write_scan(tmp_path / "a.nrrd")
    _, out, _ = caml("predict", model, scan, "-o", tmp_path / "a.seg.nrrd", "--progress", "json", "--dtype", "fp32")
    (case,) = (event for event in map(json.loads, out.splitlines()) if event["event"] == "case")
    assert len(case["window"]) == 3 and min(case["window"]) >= 16


@pytest.mark.parametrize(
    ("message", "named"), [("Case a is odd.", True), ("Case a1 is odd.", False), ("a: odd", False)]
)
def test_a_failed_case_is_named_once(message, named):
    case = Case("a", (Path("a.nrrd"),), None, "unlabeled")
    told = batch._failed(case, message, 1, 0.0, lambda kind, fields: None).error
    assert told == (message if named else f"Case a: {message}")


def test_a_case_in_which_nothing_was_found_has_no_agreement_in_the_table(model, tmp_path):
    loaded = load_model(model)
    network = load_network(loaded)
    with torch.no_grad():
        for decoder in (network.decoder1, network.decoder2):
            decoder.out_conv.bias[0] += 1e6
    predictor = Predictor(network, loaded.spec, numeric=NumericMode("fp32"), quality="balanced")
    cases = find_cases([write_scan(tmp_path / "case1.nrrd", 1)], 1)
    (case,) = run_cases(predictor, cases, Output(tmp_path / "out"), table=tmp_path / "table.csv")
    assert set(case.agreement.values()) == {1.0} and set(case.volumes_ml.values()) == {0.0}
    (row,) = rows_of(tmp_path / "table.csv")
    assert case.score is None and row["agreement"] == ""


def test_full_agreement_on_what_was_found_counts():
    assert case_score({"a": 1.0, "b": 0.5, "c": 1.0}, {"a": 2.0, "b": 0.0, "c": 0.0}) == 0.75
    assert case_score({}, {"a": 2.0}) is None


def test_what_is_no_case_is_told_and_the_rest_is_segmented(caml, model, tmp_path):
    for name in ("case1.nrrd", "sub/a.nrrd", "sub/b.nrrd", "lost_label.nrrd"):
        write_scan(tmp_path / "in" / name)
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / "out", *PLAIN)
    assert code == 0, err
    assert "left out (1): sub." in err and "left out (1): lost_label.nrrd." in err
    assert [row["case"] for row in rows_of(tmp_path / "out" / "predictions.csv")] == ["case1"]


@pytest.mark.parametrize("name", ["2024.05.12-segmentations", "Dr. Meier", "1.2.840.113"])
def test_the_folder_for_many_scans_may_have_a_dot_in_its_name(caml, model, tmp_path, name):
    write_scan(tmp_path / "in" / "case1.nrrd")
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / name, *PLAIN)
    assert code == 0, err
    assert (tmp_path / name / "case1.seg.nrrd").is_file()


@pytest.mark.parametrize("name", ["out.png", "out.JPG", "out.dcm", "out.csv", "out.json", "out.caml", "out.mhd"])
def test_the_name_of_another_file_is_no_folder_for_many_scans(caml, model, tmp_path, name):
    write_scan(tmp_path / "in" / "case1.nrrd")
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / name, *PLAIN)
    assert code == 2 and "no format for label maps" in err and not (tmp_path / name).exists()


# Results that would become labels


@pytest.mark.parametrize("where", ["", "results", "results/model 2", "p2/segmentation.nrrd"])
def test_results_do_not_go_among_the_scans_of_a_folder(caml, model, tmp_path, where):
    write_scan(tmp_path / "in" / "p1.nrrd")
    code, _, err = caml("predict", model, tmp_path / "in", "-o", tmp_path / "in" / where, *PLAIN)
    assert code == 2 and "taken for labels" in err and "choose a folder outside of it" in err
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["p1.nrrd"]


@pytest.mark.parametrize(
    ("names", "source", "where"),
    [
        (("p1.nrrd",), "p1.nrrd", ""),
        (("p1.nrrd", "cases.csv"), "", "out"),
        (("images/p1.nrrd",), "", "out"),
        (("p1.nrrd",), "", "_out"),
    ],
    ids=["one file", "a list", "a folder of images", "a folder that is never read"],
)
def test_results_go_where_no_scan_is_looked_for(caml, model, tmp_path, names, source, where):
    scans = tmp_path / "in"
    write_scan(scans / names[0])
    if names[1:]:
        (scans / "cases.csv").write_text("id,image\np1,p1.nrrd\n")
    code, _, err = caml("predict", model, scans / source, "-o", scans / where, *PLAIN)
    assert code == 0, err
    assert (scans / where / "p1.seg.nrrd").is_file()


# What earlier runs wrote into the table


def cases_of(path):
    return [row["case"] for row in rows_of(path)]


def test_rows_of_other_cases_stay_in_the_table(caml, model, tmp_path):
    for number in (1, 2):
        write_scan(tmp_path / f"in{number}" / f"case{number}.nrrd", number)
    out = tmp_path / "out"
    assert caml("predict", model, tmp_path / "in1", "-o", out, *PLAIN, "--measures")[0] == 0
    (first,) = rows_of(out / "predictions.csv")
    (tmp_path / "in2" / "bad.nrrd").write_text("no image")
    assert caml("predict", model, tmp_path / "in2", "-o", out, *PLAIN)[0] == 3, "whose columns are fewer"
    rows = rows_of(out / "predictions.csv")
    assert [row["case"] for row in rows] == ["case1", "bad", "case2"] and rows[0] == first
    assert rows[1]["error"] and rows[2]["aorta mL"] and rows[2]["aorta mm2"] == ""
    assert [p.name for p in out.glob("*.csv")] == ["predictions.csv"]


def test_a_case_that_is_segmented_again_has_one_row(tmp_path):
    path = tmp_path / "table.csv"
    for cases, volume in ((("a", "b"), 1.0), (("b", "c"), 2.0)):
        table = Table(path, ["aorta"])
        for done in range(1, 3):
            table.write([CaseResult(case, volumes_ml={"aorta": volume}) for case in cases[:done]])
    assert [(row["case"], row["aorta mL"]) for row in rows_of(path)] == [("a", "1.000"), ("b", "2.000"), ("c", "2.000")]


@pytest.mark.parametrize(
    "content",
    [
        b"case,output,liver mL,agreement liver,agreement,seconds,error\nx,x,1,1,1,1,\n",
        b"patient,age\nx,80\n",
        b"",
        b"case,output,aorta mL,agreement aorta,agreement,seconds,error\nx,\xe9\n",
        b"case,output,aorta mL,agreement aorta,agreement,seconds,error\nx,x,1,1,1,1,,a note\n",
    ],
    ids=["another model", "another table", "empty", "not UTF-8", "a hand was at work"],
)
def test_a_table_of_something_else_is_left_alone(tmp_path, content):
    path, names = tmp_path / "predictions.csv", ["aorta"]
    path.write_bytes(content)
    for case in ("a", "b"):
        Table(table_for(path, names), names).write([CaseResult(case, volumes_ml={"aorta": 1.0})])
    assert path.read_bytes() == content
    assert cases_of(tmp_path / "predictions-2.csv") == ["a", "b"], "which the next run goes on with"


# What earlier runs left beside the labels


@pytest.mark.parametrize("single", [True, False])
def test_maps_of_an_earlier_run_do_not_stay_beside_new_labels(caml, model, tmp_path, single):
    scan = write_scan(tmp_path / "in" / "p1.nrrd")
    out = tmp_path / "out" / "p1.seg.nrrd" if single else tmp_path / "out"
    command = ("predict", model, scan if single else scan.parent, "-o", out, *PLAIN)
    maps = {f"p1_{kind}.nrrd" for kind in ("disagreement", "probability")}
    for asked, expected in ((("--uncertainty", "--probability"), maps), (("--probability",), {"p1_probability.nrrd"})):
        assert caml(*command, *asked)[0] == 0
        assert {p.name for p in (tmp_path / "out").glob("*_*.nrrd")} == expected


def test_a_scan_that_is_called_like_a_map_is_not_removed(caml, model, tmp_path):
    scans = [write_scan(tmp_path / name) for name in ("p1.nrrd", "p1_disagreement.nrrd")]
    code, _, err = caml("predict", model, *scans, "-o", tmp_path, *PLAIN)
    assert code == 2 and "overwrite p1_disagreement.nrrd, a file of case p1_disagreement" in err
    assert all(scan.is_file() for scan in scans)
