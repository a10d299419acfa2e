"""``caml predict`` over scans that nobody has looked at: those that a model was not made for are named."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from test_predict import GRID, PLAIN, rows_of, save_a_model, write_scan

from caml_core.config import ChannelIntensity
from caml_core.data.io import write_image
from caml_core.inference.batch import CaseResult
from caml_core.inference.table import Table, table_for
from caml_core.model_file import load_model, save_model

CT = ChannelIntensity("window", -150.0, 600.0, 100.0, 150.0, "image", "CT")


@pytest.fixture(scope="module")
def ct_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    plain = load_model(save_a_model(folder / "mr.caml"))
    save_model(folder / "ct.caml", spec=replace(plain.spec, channels=(CT,)), state=plain.state, info=plain.info)
    return folder / "ct.caml"


def write_values(path, low, high):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(low, high, GRID.size, endpoint=True).astype(np.int16)
    values[0, 0, :2] = low, high
    write_image(path, values, GRID)
    return path


def test_scans_that_do_not_fit_the_model_are_named_once_and_segmented(caml, ct_model, tmp_path):
    write_values(tmp_path / "in" / "ct.nrrd", -1024, 900)
    write_values(tmp_path / "in" / "mr.nrrd", 0, 400)
    out = tmp_path / "out"
    code, stdout, err = caml("predict", ct_model, tmp_path / "in", "-o", out, "--dtype", "bf16", "--progress", "json")
    assert code == 0, err
    (warning,) = (e for e in map(json.loads, stdout.splitlines()) if e["event"] == "warning")
    assert warning["case"] == "mr" and warning["misfit"] is True and "exit_code" not in warning
    assert warning["message"].startswith("Case mr: The volume has values from 0 to 400 and the model expects a CT")
    rows = {row["case"]: row for row in rows_of(out / "predictions.csv")}
    assert rows["ct"]["remark"] == "" and rows["ct"]["output"]
    assert f"Case mr: {rows['mr']['remark']}" == warning["message"] and rows["mr"]["error"] == ""
    code, _, err = caml("predict", ct_model, tmp_path / "in" / "mr.nrrd", "-o", out / "one.nrrd", *PLAIN)
    assert code == 0 and err.count("warning: ") == 1 and "0 to 400" in err


def test_scans_that_fit_are_not_remarked_on(caml, tmp_path):
    scan = write_scan(tmp_path / "p1.nrrd")
    code, _, err = caml("predict", save_a_model(tmp_path / "mr.caml"), scan, "-o", tmp_path / "out", *PLAIN)
    assert code == 0 and not err
    assert "remark" not in rows_of(tmp_path / "out" / "predictions.csv")[0]


def test_a_table_goes_on_with_remarks_and_without(tmp_path):
    path, names = tmp_path / "predictions.csv", ["aorta"]
    for case, remark in (("a", ""), ("b", "too coarse"), ("c", "")):
        Table(table_for(path, names), names).write([CaseResult(case, volumes_ml={"aorta": 1.0}, remark=remark)])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert [(row["case"], row["remark"]) for row in rows_of(path)] == [("a", ""), ("b", "too coarse"), ("c", "")]
