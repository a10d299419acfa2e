"""Curves and reports: tolerant of what runs lack, honest in what they say, safe and complete as a page."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib import image as images
from matplotlib import rc_context
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from scipy import ndimage

from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.data.geometry import Grid
from caml_core.data.io import read_volume, write_image
from caml_core.data.labels import read_labels, write_labels
from caml_core.errors import DataError, UsageError
from caml_core.metrics import case_metrics
from caml_core.phantom.atrium import SEGMENTS, make_atrium
from caml_core.phantom.cohort import CohortShape, write_cohort
from caml_core.report import style
from caml_core.report.cases import compare
from caml_core.report.curves import draw_curves, draw_runs
from caml_core.report.description import Description, ReportedRun, Section, read_description
from caml_core.report.figures import rows, verdict
from caml_core.report.overlays import draw_case
from caml_core.report.page import link
from caml_core.report.report import write_report
from caml_core.report.table import points, read_table

HEADER = (
    "iteration,seconds,learning_rate,loss_total,loss_supervised,loss_consistency,loss_omni,loss_pseudo,"
    "validation_dice,validation_dice_v,validation_dice_a"
)
NAUGHTY = 'A <script>alert(1)</script> & "B"'


class _Page(HTMLParser):
    """Collects the tags and the addresses of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("href", "src")]


def _metrics(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(text, encoding="utf-8")
    return folder


def _usual(folder: Path, labeled_only: bool = False) -> Path:
    lines = [HEADER]
    for i in range(1, 21):
        dice = f"{0.04 * i:.3f},{0.04 * i:.3f},{'' if labeled_only else 0.03}" if i % 5 == 0 else ",,"
        lines.append(f"{10 * i},{3.0 * i},{0.01 / i},{1 / i},{0.8 / i},{0.1 / i},{0.0},,{dice}")
    return _metrics(folder, "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two test cases, a run that segments them a little too small, and one that misses half of each."""
    folder = tmp_path_factory.mktemp("study")
    write_cohort(folder / "cohort", "atrium", CohortShape(1, 1, 0, 2), seed=3)
    for name in ("good", "bad"):
        _usual(folder / name, labeled_only=name == "bad")
    for case in load_cohort(folder / "cohort" / "test.csv").cases:
        found = read_labels(case.label)
        good = ndimage.binary_erosion(found.array).astype(np.uint8)
        bad = found.array.copy()
        bad[: bad.shape[0] // 2] = 0
        for name, array in (("good", good), ("bad", bad)):
            suffix = ".seg.nrrd" if name == "good" else ".nii.gz"
            write_labels(folder / name / "test" / f"{case.id}{suffix}", array, found.grid, SEGMENTS)
    return folder


def _described(study: Path, good: str = "Good", bad: str = "Bad") -> Description:
    runs = (
        ReportedRun(bad, study / "bad", study / "bad" / "test"),
        ReportedRun(good, study / "good", study / "good" / "test"),
    )
    return Description(f"Title {NAUGHTY}", (Section(NAUGHTY, runs, NAUGHTY, study / "cohort" / "test.csv"),), NAUGHTY)


@pytest.fixture(scope="module")
def report(study, tmp_path_factory) -> Path:
    return write_report(_described(study, good=NAUGHTY), tmp_path_factory.mktemp("report"))


def test_excluded_cases_need_no_label_and_are_not_shown(study, tmp_path):
    original = study / "cohort" / "test.csv"
    lines = original.read_text().splitlines()
    image = lines[0].split(",").index("image")
    cells = lines[1].split(",")
    rows = ["id,image,label,role"]
    for line in lines[1:]:
        row = dict(zip(lines[0].split(","), line.split(",")))
        rows.append(f"{row['id']},{row['image']},{row['label']},validation")
    rows.append(f"left_out,{cells[image]},,excluded")
    listed = study / "cohort" / "with_excluded.csv"
    listed.write_text("\n".join(rows) + "\n")
    described = _described(study)
    section = dataclasses.replace(described.sections[0], cases=listed)
    page = write_report(dataclasses.replace(described, sections=(section,)), tmp_path)
    cases = json.loads((page.parent / "report.json").read_text())["sections"][0]["cases"]
    assert len(cases) == len(lines) - 1 and "left_out" not in cases


# Curves


def test_rows_that_were_torn_and_columns_that_miss_do_no_harm(tmp_path):
    path = _metrics(tmp_path, "iteration,loss_total,odd\n10,0.5,x\n20,nan,1\n3,\n\n,0.1,2\nabc,1,1\n30,0.2")
    table = read_table(path / "metrics.csv")
    assert points(table, "iteration", "loss_total") == ([10.0, 30.0], [0.5, 0.2])
    assert points(table, "iteration", "validation_dice") == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "\n",
        "iteration\n1\n",
        "iteration,loss_total\n1,-0.5\n2,0\n",
        "iteration,seconds,validation_dice\n5,1,0.5\n",
        HEADER + "\n10,1,0.1,nan,inf,,,,,,\n",
    ],
)
def test_curves_are_drawn_from_whatever_there_is(tmp_path, text):
    run = _metrics(tmp_path / "run", text)
    path = draw_curves(run)
    assert path == run / "curves.png"
    assert images.imread(path).shape[1] > 600
    assert draw_runs({"one": run, "two": run}, tmp_path / "both.png").is_file()
    assert sorted(p.name for p in run.iterdir()) == ["curves.png", "metrics.csv"]


def test_the_loss_of_two_sub_models_is_drawn_as_their_mean(tmp_path):
    """The table has the sum of both: half of it, by one sub-model alone, makes the same picture."""

    def picture(name: str, scale: float, labeled_only: bool) -> np.ndarray:
        rows = [f"{10 * i},{30 * i},,,{scale * loss},,,,,," for i, loss in enumerate((0.9, 0.6, 0.5), 1)]
        run = _metrics(tmp_path / name, "\n".join([HEADER, *rows]))
        (run / "plan.json").write_text(json.dumps({"plan": {"labeled_only": labeled_only}}))
        together = draw_runs({"one": run}, tmp_path / f"{name}.png")
        return np.hstack([images.imread(path)[:300] for path in (together, draw_curves(run))])

    both, alone = picture("both", 2.0, False), picture("alone", 1.0, True)
    np.testing.assert_array_equal(both, alone)
    assert not np.array_equal(both, picture("twice", 2.0, True))


def test_curves_show_the_numbers(tmp_path):
    """Other losses make another picture, and the same ones the same picture."""
    first = images.imread(draw_curves(_usual(tmp_path / "a")))
    again = images.imread(draw_curves(_usual(tmp_path / "b")))
    other = _usual(tmp_path / "c")
    (other / "metrics.csv").write_text((other / "metrics.csv").read_text().replace(",0.8,", ",0.1,"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, images.imread(draw_curves(other)))


@pytest.mark.parametrize("name", [r"5 $\foo$ and $x$", "_old", "$"])
def test_names_are_drawn_as_they_are_written(tmp_path, monkeypatch, name):
    """Dollars are no formulas, which may be faulty, and no name is left out of the legend."""
    drawn: list[Figure] = []
    write = Figure.savefig

    def savefig(figure: Figure, *place: object, **options: object) -> None:
        drawn.append(figure)
        write(figure, *place, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    assert draw_runs({name: _usual(tmp_path / "run")}, tmp_path / "both.png").is_file()
    for axes in drawn[0].axes:
        (text,) = axes.get_legend().get_texts()
        assert not is_math_text(text.get_text()) and text.get_text().replace(r"\$", "$").strip() == name


def test_characters_that_the_own_font_lacks_come_from_others_that_are_there(tmp_path, monkeypatch):
    """A sign that matplotlib's DejaVu Sans lacks and its STIX has stands for the names of other scripts."""
    run = _usual(tmp_path / "run")

    def picture(name: str, *fonts: str) -> np.ndarray:
        monkeypatch.setattr(style, "FURTHER_FONTS", ("a font that nobody has", *fonts))
        with rc_context():
            return images.imread(draw_runs({name: run}, tmp_path / "picture.png"))

    with pytest.warns(UserWarning, match="missing from font"):
        box = picture("\u20e4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not np.array_equal(picture("\u20e4", "STIXGeneral"), box)
    np.testing.assert_array_equal(picture("run", "STIXGeneral"), picture("run"))


@pytest.mark.parametrize("text", [None, "", "a,b\n1,2\n"])
def test_a_folder_without_a_table_is_refused(tmp_path, text):
    if text is not None:
        _metrics(tmp_path, text)
    with pytest.raises(DataError, match="metrics.csv"):
        draw_curves(tmp_path)
    assert not (tmp_path / "curves.png").exists()


# Figures


def _figures(**dice: float):
    return {name: {"S": {"dice": value, "hd95_mm": 10 * (1 - value)}} for name, value in dice.items()}


def test_the_verdict_names_whichever_is_ahead():
    cases = {"one": _figures(a=0.8, b=0.7), "two": _figures(a=0.6, b=0.64)}
    text = verdict(cases, ["a", "b"], "S")
    assert "a is ahead by 3.0 points" in text and "1 of 2" in text
    assert "b is ahead" in verdict({"one": _figures(a=0.1, b=0.2)}, ["a", "b"], "S")
    assert "Neither is ahead" in verdict({"one": _figures(a=0.2, b=0.2)}, ["a", "b"], "S")


def test_tables_end_with_means_and_mark_the_best():
    cases = {"one": _figures(a=0.8, b=0.7), "two": _figures(a=0.6, b=0.64)}
    table = rows(cases, ["a", "b"], "S")
    assert table[0] == [("one", ""), ("0.800", "best"), ("0.700", ""), ("2.0", "best"), ("3.0", "")]
    assert table[-1][0] == ("Mean over two cases", "")
    assert [cell for cell, _ in table[-1][1:]] == ["0.700", "0.670", "3.0", "3.3"]


# The page


def test_the_page_shows_every_case_and_every_file_exists(study, report):
    text = report.read_text(encoding="utf-8")
    page = _Page(report)
    cases = load_cohort(study / "cohort" / "test.csv").cases
    for case in cases:
        assert case.id in text
    assert page.tags.count("img") == len(cases) + 1
    for address in page.addresses:
        assert not re.match(r"[a-z]+:|/", address)
        assert (report.parent / unquote(address)).is_file()


def test_cases_whose_names_leave_nothing_for_a_file_name_keep_their_own_pictures(study, tmp_path):
    """Names of another script, and long ones that are alike at the beginning: each figure shows its own case."""
    cohort = load_cohort(study / "cohort" / "test.csv")
    for names in (("\u738b", "\u674e"), ("p" * 41 + "1", "p" * 41 + "2")):
        cases = tuple(dataclasses.replace(case, id=name) for case, name in zip(cohort.cases, names))
        for case, old in zip(cases, cohort.cases):
            shutil.copy(study / "good" / "test" / f"{old.id}.seg.nrrd", study / "good" / "test" / f"{case.id}.seg.nrrd")
        save_cohort(dataclasses.replace(cohort, cases=cases), study / "cohort" / "renamed.json")
        run = ReportedRun("Good", study / "good", study / "good" / "test")
        section = Section("Names", (run,), "", study / "cohort" / "renamed.json")
        page = _Page(write_report(Description("Names", (section,), ""), tmp_path / names[0]))
        pictures = [tmp_path / names[0] / unquote(a) for a in page.addresses if a.endswith(".png")]
        assert len(set(pictures)) == 3  # the curves, too
        assert len({picture.read_bytes() for picture in pictures}) == 3


def test_the_page_needs_nothing_from_outside_and_escapes_all_names(report):
    text = report.read_text(encoding="utf-8")
    assert "script" not in _Page(report).tags
    assert "http" not in text
    assert "&lt;script&gt;" in text
    assert "mean over two" in text.lower()


def test_a_model_on_another_drive_is_linked_by_its_whole_path(study, tmp_path, monkeypatch):
    """Windows has no relative path from one drive to another."""

    def no_way(path: object, start: object) -> str:
        raise ValueError(f"path is on mount 'D:', start on mount 'C:' ({path}, {start})")

    model = tmp_path / "runs & more" / "model.caml"
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "relpath", no_way)
        markup = link(model, tmp_path / "report" / "index.html", "model")
    (address,) = re.findall('href="([^"]*)"', markup)
    assert address == html.escape(model.as_uri()) and address.startswith("file://")
    markup = link(model, tmp_path / "report" / "index.html", "model")
    assert 'href="../runs%20%26%20more/model.caml"' in markup


def test_figures_are_those_of_the_metrics(study, report):
    figures = json.loads((report.parent / "report.json").read_text())["sections"][0]
    assert f"{NAUGHTY} is ahead" in figures["verdicts"][0]
    for case in load_cohort(study / "cohort" / "test.csv").cases:
        reference = read_labels(case.label)
        prediction = read_labels(study / "bad" / "test" / f"{case.id}.nii.gz")
        expected = case_metrics(prediction.array, reference.array, reference.grid.spacing, SEGMENTS)
        assert figures["cases"][case.id]["Bad"]["Left atrium"] == pytest.approx(expected["Left atrium"])


def test_means_that_hold_cases_without_the_segment_are_told_with_that(study, tmp_path):
    """Neither has it: a Dice of 1 and a distance of 0. One alone has it: the image's diagonal."""
    first, second = load_cohort(study / "cohort" / "test.csv").cases
    found = read_labels(first.label)
    nothing = tmp_path / "nothing.seg.nrrd"
    write_labels(nothing, np.zeros_like(found.array), found.grid, SEGMENTS)
    cases = [f"{first.id},{first.images[0]},{nothing}", f"{second.id},{second.images[0]},{second.label}"]
    (tmp_path / "cases.csv").write_text("\n".join(["id,image,label", *cases]) + "\n", encoding="utf-8")
    shutil.copytree(study / "good" / "test", tmp_path / "good")
    shutil.copy(nothing, tmp_path / "good" / f"{first.id}.seg.nrrd")
    runs = (
        ReportedRun("Bad", study / "bad", study / "bad" / "test"),
        ReportedRun("Good", study / "good", tmp_path / "good"),
    )
    page = write_report(Description("T", (Section("S", runs, "", tmp_path / "cases.csv"),)), tmp_path / "report")
    section = json.loads((page.parent / "report.json").read_text())["sections"][0]
    other = section["cases"][second.id]["Good"]["Left atrium"]["dice"]
    said = [text for text in section["verdicts"] if "case(s)" in text]
    assert said == [
        "Bad: Left atrium: the prediction alone has it in 1 case(s); their distances are the image's diagonal.",
        "Good: Left atrium: in 1 of 2 case(s) neither reference nor segmentation has it, which counts as a Dice of 1; "
        f"mean Dice of the other 1: {other:.3f}.",
    ]
    assert all(html.escape(text) in page.read_text(encoding="utf-8") for text in said)


def test_a_missing_segmentation_is_named(study, tmp_path, caml):
    code, _, err = caml(
        "report", study / "bad", "-o", tmp_path, "--cases", study / "cohort" / "test.csv", "--predictions", tmp_path
    )
    assert code == DataError.exit_code
    assert "atrium_002" in err and "caml predict" in err


def test_one_run_gets_its_report_within_itself(study, caml):
    code, _, _ = caml("report", study / "good", "--progress", "none")
    assert code == 0
    assert _Page(study / "good" / "report" / "index.html").tags.count("img") == 1
    assert (study / "good" / "curves.png").is_file()


def test_options_that_do_not_fit_are_refused(study, tmp_path, caml):
    for arguments in (
        (),
        (study / "good", study / "bad"),
        (study / "good", "-o", tmp_path, "--cases", study / "cohort" / "test.csv"),
        (study / "good", "-o", tmp_path, "--description", tmp_path / "x.json"),
    ):
        assert caml("report", *arguments)[0] == UsageError.exit_code


def test_a_description_may_begin_as_editors_on_windows_have_it(tmp_path):
    path = tmp_path / "REPORT.json"
    path.write_text('{"title": "Sites", "sections": []}', encoding="utf-8-sig")
    assert read_description(path) == Description("Sites", ())


# Overlays


def test_how_a_scan_is_stored_does_not_change_its_picture(tmp_path):
    """The same scan with axes permuted and reversed in the file: the same slices, hung the same way."""
    phantom = make_atrium(4, 0)
    guess = ndimage.binary_dilation(phantom.label).astype(np.uint8)
    straight = Grid(phantom.grid.size, phantom.grid.spacing)
    x, y, z = straight.size
    dx, dy, dz = straight.spacing
    turned = Grid((z, x, y), (dz, dx, dy), (0.0, (y - 1) * dy, 0.0), (0, 1, 0, 0, 0, -1, 1, 0, 0))
    pictures = []
    for name, grid in (("straight", straight), ("turned", turned)):
        folder = tmp_path / name
        for kind, array in (("image", phantom.image), ("label", phantom.label), ("guess", guess)):
            stored = array if name == "straight" else array.transpose(2, 0, 1)[:, :, ::-1]
            write_image(folder / kind / "case.nrrd", np.ascontiguousarray(stored), grid)
        case = Case("case", (folder / "image" / "case.nrrd",), folder / "label" / "case.nrrd", "validation")
        assert read_volume(case.images[0]).grid.size == tuple(grid.size)
        compared = compare(case, {"guess": folder / "guess"}, SEGMENTS)
        pictures.append(images.imread(draw_case(compared, tmp_path / f"{name}.png")))
    np.testing.assert_array_equal(*pictures)


def test_an_empty_segmentation_can_be_shown(tmp_path):
    phantom = make_atrium(4, 1)
    write_image(tmp_path / "image.nrrd", phantom.image, phantom.grid)
    write_labels(tmp_path / "label.seg.nrrd", phantom.label, phantom.grid, SEGMENTS)
    write_labels(tmp_path / "none" / "case.seg.nrrd", np.zeros_like(phantom.label), phantom.grid, SEGMENTS)
    case = Case("case", (tmp_path / "image.nrrd",), tmp_path / "label.seg.nrrd", "validation")
    compared = compare(case, {"none": tmp_path / "none"}, SEGMENTS)
    assert compared.figures["none"]["Left atrium"]["dice"] == 0
    assert draw_case(compared, tmp_path / "case.png").is_file()
