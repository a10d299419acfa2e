"""``caml evaluate``: which file is whose, what values mean without names, and what reading lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from test_evaluate import a_map, evaluated
from test_predict import GRID, write_scan

from caml_core.config import Segment
from caml_core.data.cohort import load_cohort
from caml_core.data.labels import write_labels
from caml_core.data.segments import plain_name
from caml_core.report.cases import compare, reference_segments

#: First voxels of the boxes of a map's values.
FIRST = (2, 9, 16)
AMBIGUOUS = "save the prediction as .seg.nrrd"


def model_writes(path, values, present):
    """What a model writes that was trained on plain maps of ``values`` and finds ``present``."""
    segments = [Segment(plain_name(value), label) for label, value in enumerate(values, 1)]
    boxes = [(values.index(value) + 1, FIRST[values.index(value)]) for value in present]
    write_labels(path, a_map(*boxes), GRID, segments)


def write_references(folder, values, cases):
    for case, present in cases.items():
        write_scan(folder / f"{case}.nii.gz")
        boxes = [(value, FIRST[values.index(value)]) for value in present]
        write_labels(folder / f"{case}_label.nii.gz", a_map(*boxes), GRID, ())


@pytest.mark.parametrize("ending", ["seg.nrrd", "nii.gz"])
@pytest.mark.parametrize("values", [(255,), (2, 3), (1, 2, 4), (1, 2)])
def test_perfect_predictions_of_renumbered_classes_are_perfect(caml, tmp_path, values, ending):
    cases = {"p1": values, "p2": values[:1]}
    write_references(tmp_path / "references", values, cases)
    for case, present in cases.items():
        model_writes(tmp_path / "predictions" / f"{case}.{ending}", values, present)
    document, _ = evaluated(caml, tmp_path)
    dice = {name: row["dice"] for case in document["cases"].values() for name, row in case.items()}
    assert dice == {plain_name(value): 1.0 for value in values}


def test_values_that_may_mean_two_things_give_no_figure(caml, tmp_path):
    """2 alone may be the references' 2, or the second class of a model that was trained on 2 and 3."""
    write_references(tmp_path / "references", (2, 3), {"p1": (2, 3)})
    write_labels(tmp_path / "predictions" / "p1.nii.gz", a_map((2, FIRST[0])), GRID, ())
    code, _, err = caml("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "none")
    assert code == 3 and AMBIGUOUS in err


def test_plain_predictions_with_the_references_values_stay_as_they_are(caml, tmp_path):
    cases = {"p1": (2, 3), "p2": (2,)}
    write_references(tmp_path / "references", (2, 3), cases)
    for case, present in cases.items():
        boxes = [(value, FIRST[(2, 3).index(value)]) for value in present]
        write_labels(tmp_path / "predictions" / f"{case}.nii.gz", a_map(*boxes), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert all(row["dice"] == 1.0 for case in document["cases"].values() for row in case.values())
    assert document["cases"]["p2"]["segment_2"]["prediction_ml"] > 0


def test_a_name_in_the_prediction_still_meets_a_value_in_the_reference(caml, tmp_path):
    write_references(tmp_path / "references", (1, 2), {"p1": (1, 2)})
    segments = (Segment("spleen", 1), Segment("liver", 2))
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", a_map((1, FIRST[0]), (2, FIRST[1])), GRID, segments)
    document, _ = evaluated(caml, tmp_path)
    assert {name: row["dice"] for name, row in document["cases"]["p1"].items()} == {"spleen": 1.0, "liver": 1.0}


@pytest.mark.parametrize("value", [1, 7, 255])
def test_a_single_named_structure_is_that_of_a_mask_of_any_value(caml, tmp_path, value):
    write_references(tmp_path / "references", (value,), {"p1": (value,)})
    atrium = (Segment("Left atrium", 1),)
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", a_map((1, FIRST[0])), GRID, atrium)
    document, _ = evaluated(caml, tmp_path)
    assert {name: row["dice"] for name, row in document["cases"]["p1"].items()} == {"Left atrium": 1.0}


@pytest.mark.parametrize("ending", ["seg.nrrd", "nii.gz"])
@pytest.mark.parametrize("values", [(255,), (2, 3)])
def test_a_report_reads_values_alike(tmp_path, values, ending):
    write_references(tmp_path / "cohort", values, {"p1": values, "p2": values})
    model_writes(tmp_path / "predictions" / f"p1.{ending}", values, values)
    cohort = load_cohort(tmp_path / "cohort")
    segments = reference_segments(cohort)
    found = compare(cohort.cases[0], {"CAML": tmp_path / "predictions"}, segments, cohort.segments)
    assert {name: row["dice"] for name, row in found.figures["CAML"].items()} == {plain_name(v): 1.0 for v in values}


# Names of files


def test_a_case_with_the_number_0000_is_no_image(caml, tmp_path):
    for number in range(3):
        box = a_map((1, FIRST[0])) if number else np.zeros(GRID.size, np.uint8)
        write_labels(tmp_path / "predictions" / f"LA_000{number}.seg.nrrd", box, GRID, (Segment("segment_1", 1),))
        write_labels(tmp_path / "references" / f"LA_000{number}.nii.gz", a_map((1, FIRST[0])), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert list(document["cases"]) == ["LA_0000", "LA_0001", "LA_0002"]
    assert document["summary"]["segment_1"]["dice"]["mean"] == pytest.approx(2 / 3)


def test_a_prediction_called_after_its_image_file_finds_its_reference(caml, tmp_path):
    segment = (Segment("segment_1", 1),)
    write_labels(tmp_path / "predictions" / "P0_image.seg.nrrd", a_map((1, 2)), GRID, segment)
    write_labels(tmp_path / "predictions" / "P1.seg.nrrd", a_map((1, 2)), GRID, segment)
    for case in ("P0", "P1"):
        write_scan(tmp_path / "references" / f"{case}_image.nii.gz")
        write_labels(tmp_path / "references" / f"{case}_label.nii.gz", a_map((1, 2)), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert sorted(document["cases"]) == ["P0", "P1"]


def test_a_list_with_the_number_0000_meets_the_prediction_of_that_name(caml, tmp_path):
    write_references(tmp_path / "references", (1,), {"LA": (1,)})
    rows = "id,image,label,role\nLA_0000,LA.nii.gz,LA_label.nii.gz,labeled\n"
    (tmp_path / "references" / "list.csv").write_text(rows)
    model_writes(tmp_path / "predictions" / "LA_0000.seg.nrrd", (1,), (1,))
    document, _ = evaluated(caml, tmp_path, "references/list.csv")
    assert list(document["cases"]) == ["LA_0000"]


def test_a_channel_beside_its_label_is_left_out(caml, tmp_path):
    write_scan(tmp_path / "references" / "X_0000.nii.gz")
    write_scan(tmp_path / "references" / "X_0001.nii.gz")
    write_labels(tmp_path / "references" / "X.nii.gz", a_map((1, 2)), GRID, ())
    write_labels(tmp_path / "predictions" / "X.nii.gz", a_map((1, 2)), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert document["cases"]["X"]["segment_1"]["dice"] == 1.0 and len(document["cases"]) == 1


# What reading loses


def test_overlaps_that_cost_a_segment_its_voxels_are_told(caml, tmp_path):
    whole, part = a_map((1, 2)), np.zeros(GRID.size, np.uint8)
    part[3:5, 5:7, 5:7] = 1
    layers = sitk.GetImageFromArray(np.stack([whole.T, part.T], axis=-1), isVector=True)
    layers.SetSpacing(GRID.spacing)
    layers.SetOrigin(GRID.origin)
    layers.SetDirection(GRID.direction)
    for index, name in enumerate(("heart", "atrium")):
        layers.SetMetaData(f"Segment{index}_ID", name)
        layers.SetMetaData(f"Segment{index}_Name", name)
        layers.SetMetaData(f"Segment{index}_Layer", str(index))
        layers.SetMetaData(f"Segment{index}_LabelValue", "1")
    (tmp_path / "references").mkdir()
    sitk.WriteImage(layers, str(tmp_path / "references" / "p1.seg.nrrd"))
    segments = (Segment("heart", 1), Segment("atrium", 2))
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", whole, GRID, segments)
    document, shown = evaluated(caml, tmp_path)
    assert document["cases"]["p1"]["heart"]["dice"] < 1.0
    told = "8 voxels lie in several segments"
    assert told in shown and any(told in note for note in document["notes"])
    command = ("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "json")
    events = [json.loads(line) for line in caml(*command)[1].splitlines() if line.startswith("{")]
    assert any(told in event.get("message", "") for event in events if event["event"] == "warning")
