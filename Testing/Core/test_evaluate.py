"""``caml evaluate`` from files to files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_predict import GRID, SEGMENTS, rows_of, write_scan

from caml_core.config import Segment
from caml_core.data.grid import Grid
from caml_core.data.labels import write_labels
from caml_core.metrics import case_metrics


def write_pair(folder, case, shift, grid=GRID):
    """A reference of two segments, and a prediction shifted by some voxels."""
    reference = np.zeros(grid.size, np.uint8)
    reference[6:14, 6:14, 5:12], reference[16:20, 6:10, 5:9] = 1, 2
    write_labels(folder / "references" / f"{case}_label.nii.gz", reference, grid, SEGMENTS)
    prediction = np.roll(reference, shift, axis=0)
    write_labels(folder / "predictions" / f"{case}.seg.nrrd", prediction, grid, SEGMENTS)
    return prediction, reference


def test_folders_are_matched_by_case_and_figures_are_those_of_metrics(caml, tmp_path):
    pairs = {case: write_pair(tmp_path, case, shift) for case, shift in (("p1", 0), ("p2", 2))}
    write_scan(tmp_path / "references" / "p1_image.nii.gz")
    (tmp_path / "predictions" / "predictions.csv").write_text("case\n")
    out = tmp_path / "table.json"
    code, stdout, err = caml(
        "evaluate", tmp_path / "predictions", tmp_path / "references", "-o", out, "--progress", "none"
    )
    assert code == 0, err
    document = json.loads(out.read_text())
    for case, (prediction, reference) in pairs.items():
        expected = case_metrics(prediction, reference, GRID.spacing, SEGMENTS)
        for name, metrics in expected.items():
            assert document["cases"][case][name] == pytest.approx(metrics)
    values = [document["cases"][case]["aorta"]["dice"] for case in pairs]
    assert document["summary"]["aorta"]["dice"]["mean"] == pytest.approx(np.mean(values))
    assert document["summary"]["aorta"]["dice"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "left atrium" in stdout and "mean of 2" in stdout


def test_the_table_can_be_written_as_csv(caml, tmp_path):
    write_pair(tmp_path, "p1", 1)
    out = tmp_path / "table.csv"
    files = (tmp_path / "predictions" / "p1.seg.nrrd", tmp_path / "references" / "p1_label.nii.gz")
    assert caml("evaluate", *files, "-o", out, "--progress", "none", "--voxels")[0] == 0
    rows = rows_of(out)
    assert [row["case"] for row in rows] == ["p1", "p1", "mean", "mean", "std", "std"]
    assert {"hd95_mm", "hd95_voxel", "hd95_pooled_voxel", "assd_mm", "asd_voxel", "missed"} <= set(rows[0])
    code, _, err = caml("evaluate", *files, "-o", tmp_path / "table.xlsx")
    assert code == 2 and ".csv or .json" in err


def test_a_missed_segment_is_counted_and_told(caml, tmp_path):
    write_pair(tmp_path, "p1", 0)
    empty = np.zeros(GRID.size, np.uint8)
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", empty, GRID, SEGMENTS)
    code, stdout, _ = caml("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "none")
    assert code == 0
    assert stdout.count("has none of it") == 2


def test_a_class_absent_from_one_plain_pair_counts_as_found(caml, tmp_path):
    both = np.zeros(GRID.size, np.uint8)
    both[2:6, 2:6, 2:6], both[10:14, 2:6, 2:6] = 1, 2
    one = np.where(both == 1, both, 0).astype(np.uint8)
    for case, labels in (("p1", both), ("p2", one)):
        for folder in ("predictions", "references"):
            write_labels(tmp_path / folder / f"{case}.nii.gz", labels, GRID, ())
    out = tmp_path / "table.json"
    assert caml("evaluate", tmp_path / "predictions", tmp_path / "references", "-o", out, "--progress", "none")[0] == 0
    document = json.loads(out.read_text())
    assert document["cases"]["p2"]["segment_2"]["dice"] == 1.0
    assert document["cases"]["p2"]["segment_2"]["hd95_mm"] == 0.0


def test_a_cropped_segmentation_is_put_back_in_place(caml, tmp_path):
    """Slicer saves a segmentation cropped to its segments; the reference's whole image is the grid."""
    prediction, _ = write_pair(tmp_path, "p1", 0)
    step = np.reshape(GRID.direction, (3, 3)) @ (np.array([4, 4, 3]) * GRID.spacing)
    cropped = prediction[4:22, 4:16, 3:14]
    grid = Grid(cropped.shape, GRID.spacing, tuple(np.asarray(GRID.origin) + step), GRID.direction)
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", cropped, grid, SEGMENTS)
    out = tmp_path / "table.json"
    code, _, err = caml("evaluate", tmp_path / "predictions", tmp_path / "references", "-o", out, "--progress", "none")
    assert code == 0, err
    assert json.loads(out.read_text())["cases"]["p1"]["aorta"]["dice"] == 1.0


def test_figures_of_left_handed_scans_do_not_depend_on_how_their_labels_are_stored(caml, tmp_path):
    """Segmentations are stored right-handed, plain label maps on their scan's own grid."""
    assert GRID.is_left_handed
    prediction, reference = write_pair(tmp_path / "made", "p1", 2)
    found = {}
    for ours in ("seg.nrrd", "nii.gz"):
        for theirs in ("seg.nrrd", "nii.gz"):
            folder = tmp_path / f"{ours}-{theirs}"
            write_labels(folder / "predictions" / f"p1.{ours}", prediction, GRID, SEGMENTS)
            write_labels(folder / "references" / f"p1.{theirs}", reference, GRID, SEGMENTS)
            document, _shown = evaluated(caml, folder)
            found[ours, theirs] = list(document["cases"]["p1"].values())
    expected = list(case_metrics(prediction, reference, GRID.spacing, SEGMENTS).values())
    for figures in found.values():
        assert figures == [pytest.approx(metrics) for metrics in expected]


def test_what_cannot_be_compared_is_refused(caml, tmp_path):
    write_pair(tmp_path, "p1", 0)
    other = Grid((26, 24, 21), *[getattr(GRID, n) for n in ("spacing", "origin", "direction")])
    write_labels(
        tmp_path / "predictions" / "p1.seg.nrrd", np.ones((5, 5, 5), np.uint8), Grid((5, 5, 5), (9.0,) * 3), ()
    )
    code, _, err = caml("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "none")
    assert code == 3 and "p1" in err
    write_labels(tmp_path / "more" / "p9.nii.gz", np.ones(other.size, np.uint8), other, ())
    code, _, err = caml("evaluate", tmp_path / "more", tmp_path / "references", "--progress", "none")
    assert code == 3 and "no reference for p9" in err
    code, _, err = caml("evaluate", tmp_path / "nowhere", tmp_path / "references", "--progress", "none")
    assert code == 3 and "does not exist" in err


def evaluated(caml, tmp_path, references="references"):
    """Run the command; return the whole table and what was shown."""
    out = tmp_path / "table.json"
    code, shown, err = caml(
        "evaluate", tmp_path / "predictions", tmp_path / references, "-o", out, "--progress", "none"
    )
    assert code == 0, err
    return json.loads(out.read_text()), shown


def a_map(*boxes):
    """Labels with a box of each (value, first voxel along x)."""
    labels = np.zeros(GRID.size, np.uint8)
    for value, first in boxes:
        labels[first : first + 5, 4:9, 4:9] = value
    return labels


def test_cases_that_raise_a_mean_because_both_are_empty_are_told(caml, tmp_path):
    for number in range(10):
        reference = a_map((1, 2), (2, 10)) if number == 0 else a_map((1, 2))
        write_labels(tmp_path / "references" / f"p{number}.nii.gz", reference, GRID, ())
        write_labels(tmp_path / "predictions" / f"p{number}.nii.gz", a_map((1, 2)), GRID, ())
    document, shown = evaluated(caml, tmp_path)
    assert document["summary"]["segment_2"]["dice"]["mean"] == pytest.approx(0.9)
    (line,) = [line for line in shown.splitlines() if "neither reference nor segmentation" in line]
    assert line.startswith("segment_2: in 9 of 10 case(s)") and line.endswith("mean Dice of the other 1: 0.000.")


def test_nothing_is_told_of_segments_that_one_of_both_has(caml, tmp_path):
    write_pair(tmp_path, "p1", 3)
    assert "neither" not in evaluated(caml, tmp_path)[1]


def write_list(tmp_path, references, **values):
    """A list of cases whose plain references have the classes' values."""
    cases = []
    for case, labels in references.items():
        write_scan(tmp_path / "references" / f"{case}.nii.gz")
        write_labels(tmp_path / "references" / f"{case}_label.nii.gz", labels, GRID, ())
        cases.append({"id": case, "image": f"{case}.nii.gz", "label": f"{case}_label.nii.gz", "role": "labeled"})
    segments = [{"name": name, "label": value} for name, value in values.items()]
    document = {"segments": segments, "cases": cases}
    (tmp_path / "references" / "cohort.json").write_text(json.dumps(document))


@pytest.mark.parametrize("form", ["named", "by the model", "by the list"])
def test_the_classes_that_a_list_declares_are_those_of_the_predictions(caml, tmp_path, form):
    write_list(tmp_path, {"p1": a_map((1, 2), (6, 10)), "p2": a_map((1, 2))}, spleen=1, liver=6, kidney=7)
    value = 6 if form == "by the list" else 2
    ending = "seg.nrrd" if form == "named" else "nii.gz"
    segments = (Segment("spleen", 1), Segment("liver", 2))
    for case, boxes in (("p1", [(1, 2), (value, 10)]), ("p2", [(1, 2)])):
        write_labels(tmp_path / "predictions" / f"{case}.{ending}", a_map(*boxes), GRID, segments)
    document, _ = evaluated(caml, tmp_path, "references/cohort.json")
    for row in document["cases"].values():
        assert {name: metrics["dice"] for name, metrics in row.items()} == {"spleen": 1.0, "liver": 1.0}


def test_plain_values_that_can_be_read_in_two_ways_are_refused(caml, tmp_path):
    write_list(tmp_path, {"p1": a_map((2, 2), (3, 10))}, spleen=2, liver=3)
    write_labels(tmp_path / "predictions" / "p1.nii.gz", a_map((2, 2)), GRID, ())
    command = ("evaluate", tmp_path / "predictions", tmp_path / "references" / "cohort.json", "--progress", "none")
    code, _, err = caml(*command)
    assert code == 3 and "p1" in err and "save the prediction as .seg.nrrd" in err
    write_labels(tmp_path / "predictions" / "p1.nii.gz", a_map((9, 2)), GRID, ())
    code, _, err = caml(*command)
    assert code == 3 and "label values [9]" in err


def test_a_folder_of_several_formats_is_evaluated_whole(caml, tmp_path):
    for case in ("p1", "p2", "p3"):
        write_pair(tmp_path, case, 0)
    for case in ("p2", "p3"):
        found = tmp_path / "predictions" / f"{case}.seg.nrrd"
        found.unlink()
        write_labels(found.with_name(f"{case}.nii.gz"), a_map((1, 2)), GRID, ())
    write_labels(tmp_path / "references" / "p1.nii.gz", a_map((3, 2)), GRID, ())  # the image, by its name
    for case in ("p2", "p3"):
        write_labels(tmp_path / "references" / f"{case}_label.nii.gz", a_map((1, 2)), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert list(document["cases"]) == ["p1", "p2", "p3"]
    assert document["cases"]["p1"]["left atrium"]["dice"] == 1.0
