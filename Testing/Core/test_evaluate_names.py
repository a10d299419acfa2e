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
from caml_core.data.grid import Grid
from caml_core.data.labels import write_labels
from caml_core.data.placement import joined, place
from caml_core.data.segments import plain_name
from caml_core.metrics import case_metrics
from caml_core.report.cases import ComparedCase, compare, reference_segments, with_one_structure

#: First voxels of the boxes of a map's values.
FIRST = (2, 9, 16)


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


def write_plain(folder, end="", **cases):
    """Label maps without names, by case: (value, first voxel) of each box."""
    for case, boxes in cases.items():
        write_labels(folder / f"{case}{end}.nii.gz", a_map(*boxes), GRID, ())


def dice_of(document, case="p1"):
    return {name: row["dice"] for name, row in document["cases"][case].items()}


@pytest.mark.parametrize("ending", ["seg.nrrd", "nii.gz"])
@pytest.mark.parametrize("values", [(255,), (2, 3), (1, 2, 4), (1, 2)])
def test_perfect_predictions_of_renumbered_classes_are_perfect(caml, tmp_path, values, ending):
    """By the names that a segmentation has, or by what a list declares; of a single structure anyway."""
    cases = {"p1": values, "p2": values[:1]}
    write_references(tmp_path / "references", values, cases)
    for case, present in cases.items():
        model_writes(tmp_path / "predictions" / f"{case}.{ending}", values, present)
    declares = ending == "nii.gz" and len(values) > 1
    if declares:
        listed = [{"id": c, "image": f"{c}.nii.gz", "label": f"{c}_label.nii.gz", "role": "labeled"} for c in cases]
        segments = [{"name": plain_name(value), "label": value} for value in values]
        (tmp_path / "references" / "cohort.json").write_text(json.dumps({"segments": segments, "cases": listed}))
    document, shown = evaluated(caml, tmp_path, "references/cohort.json" if declares else "references")
    dice = {name: row["dice"] for case in document["cases"].values() for name, row in case.items()}
    assert dice == {plain_name(value): 1.0 for value in values}
    told = [note for note in document["notes"] if "taken for" in note]
    numbers = tuple(range(1, len(values) + 1))
    assert bool(told) == (ending == "nii.gz" and values != numbers)
    if told:
        ours, theirs = (", ".join(map(str, those)) for those in (numbers, values))
        were = "value 1 of the predictions was" if len(values) == 1 else f"values {ours} of the predictions were"
        assert told == [f"The {were} taken for {theirs} of the references."] and told[0] in shown


@pytest.mark.parametrize(
    ("references", "predictions", "dice"),
    [
        # Class 3 called 2, where references happen to lack class 2.
        (((1, 2), (3, 9)), ((1, 2), (2, 9)), {"segment_1": 1.0, "segment_2": 0.0, "segment_3": 0.0}),
        (((2, 2), (3, 9)), ((1, 16), (2, 2), (3, 9)), {"segment_1": 0.0, "segment_2": 1.0, "segment_3": 1.0}),
        (((2, 2),), ((1, 16), (2, 2)), {"segment_1": 0.0, "segment_2": 1.0}),
        (((2, 2), (3, 9)), ((2, 2),), {"segment_2": 1.0, "segment_3": 0.0}),
        (((1, 2), (3, 9)), ((2, 9),), {"segment_1": 0.0, "segment_2": 0.0, "segment_3": 0.0}),
    ],
)
def test_values_are_compared_as_they_are_where_references_lack_a_class(caml, tmp_path, references, predictions, dice):
    write_plain(tmp_path / "references", "_label", p1=references)
    write_plain(tmp_path / "predictions", p1=predictions)
    document, _ = evaluated(caml, tmp_path)
    assert dice_of(document) == dice
    referred, predicted = ({value for value, _ in boxes} for boxes in (references, predictions))
    maybe_renumbered = bool(referred - predicted) and bool(predicted - referred)
    assert ["numbered anew" in note for note in document["notes"]] == [True] * maybe_renumbered


def test_a_single_value_in_one_case_is_no_single_structure(caml, tmp_path):
    """p1's prediction has 1 alone, and p2's says that there are two: a mask's value is not to be guessed."""
    write_plain(tmp_path / "references", "_label", p1=((2, 9),), p2=((2, 9),))
    write_plain(tmp_path / "predictions", p1=((1, 2),), p2=((1, 2), (2, 9)))
    document, _ = evaluated(caml, tmp_path)
    assert dice_of(document) == {"segment_1": 0.0, "segment_2": 0.0}
    assert dice_of(document, "p2") == {"segment_1": 0.0, "segment_2": 1.0}


def test_the_names_of_a_segmentation_are_not_taken_for_other_values(caml, tmp_path):
    """A model of plain maps calls its classes after their values: its second class may be the references' 3."""
    write_plain(tmp_path / "references", "_label", p1=((1, 2), (2, 9)))
    model_writes(tmp_path / "predictions" / "p1.seg.nrrd", (1, 3), (1, 3))
    document, _ = evaluated(caml, tmp_path)
    assert dice_of(document) == {"segment_1": 1.0, "segment_2": 0.0, "segment_3": 0.0}


def test_masks_with_names_and_without_are_one_structure_of_one_name(caml, tmp_path):
    write_plain(tmp_path / "references", "_label", p1=((255, 2),), p2=((255, 2),), p3=((255, 2),))
    atrium = (Segment("Left atrium", 1),)
    write_labels(tmp_path / "predictions" / "p1.seg.nrrd", a_map((1, 2)), GRID, atrium)
    write_plain(tmp_path / "predictions", p2=((1, 2),), p3=())
    document, _ = evaluated(caml, tmp_path)
    assert [dice_of(document, case) for case in ("p1", "p2", "p3")] == [{"Left atrium": d} for d in (1.0, 1.0, 0.0)]
    assert document["notes"] == ["The value 1 of the predictions was taken for 255 of the references."]


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


def reported(tmp_path) -> ComparedCase:
    """What a report shows of the first case."""
    cohort, folders = load_cohort(tmp_path / "cohort"), {"CAML": tmp_path / "predictions"}
    segments = reference_segments(cohort)
    single = with_one_structure(cohort, folders, segments)
    return compare(cohort.cases[0], folders, segments, cohort.segments, single=single)


@pytest.mark.parametrize(("values", "ending"), [((255,), "seg.nrrd"), ((255,), "nii.gz"), ((2, 3), "seg.nrrd")])
def test_a_report_reads_values_alike(tmp_path, values, ending):
    write_references(tmp_path / "cohort", values, {"p1": values, "p2": values})
    for case in ("p1", "p2"):
        model_writes(tmp_path / "predictions" / f"{case}.{ending}", values, values)
    found = reported(tmp_path)
    assert {name: row["dice"] for name, row in found.figures["CAML"].items()} == {plain_name(v): 1.0 for v in values}
    assert found.notes == (
        ("The value 1 of the predictions was taken for 255 of the references.",) if ending == "nii.gz" else ()
    )


def test_a_report_compares_values_as_they_are_where_references_lack_a_class(tmp_path):
    write_references(tmp_path / "cohort", (1, 3), {"p1": (1, 3)})
    write_plain(tmp_path / "predictions", p1=((1, FIRST[0]), (2, FIRST[1])))
    found = reported(tmp_path)
    assert {name: row["dice"] for name, row in found.figures["CAML"].items()} == {"segment_1": 1.0, "segment_3": 0.0}
    (note,) = found.notes
    assert "value(s) 2, which no reference has" in note


def test_a_report_takes_one_value_for_another_only_where_no_case_has_more(tmp_path):
    write_references(tmp_path / "cohort", (2,), {"p1": (2,), "p2": (2,)})
    write_plain(tmp_path / "predictions", p1=((1, FIRST[0]),), p2=((1, FIRST[1]), (2, FIRST[0])))
    assert reported(tmp_path).figures["CAML"]["segment_2"]["dice"] == 0.0


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


@pytest.mark.parametrize("ending", ["_image", "-image", "_img", "_0000"])
def test_masks_that_are_called_after_their_images_are_compared(caml, tmp_path, ending):
    for folder, boxes in (("predictions", FIRST), ("references", (FIRST[0], FIRST[0]))):
        for case, box in zip(("a", "b"), boxes):
            name = f"{case}{ending}" if case == "a" else case
            write_labels(tmp_path / folder / f"{name}.nii.gz", a_map((1, box)), GRID, ())
    document, _ = evaluated(caml, tmp_path)
    assert len(document["cases"]) == 2 and document["notes"] == []
    assert document["summary"]["segment_1"]["dice"]["mean"] < 1.0


def test_references_without_a_prediction_are_told(caml, tmp_path):
    for case in ("a", "b", "c"):
        write_labels(tmp_path / "references" / f"{case}.nii.gz", a_map((1, FIRST[0])), GRID, ())
    write_labels(tmp_path / "predictions" / "b.nii.gz", a_map((1, FIRST[0])), GRID, ())
    document, shown = evaluated(caml, tmp_path)
    (note,) = document["notes"]
    assert note.startswith("2 reference(s) have no prediction") and note.endswith("a, c.") and note in shown
    code, out, _ = caml(
        "evaluate", tmp_path / "predictions" / "b.nii.gz", tmp_path / "references", "--progress", "none"
    )
    assert code == 0 and "no prediction" not in out  # one case was asked for


def test_a_case_of_a_list_may_be_called_as_label_maps_are(caml, tmp_path):
    write_references(tmp_path / "references", (1,), {"p1": (1,), "p2": (1,)})
    rows = [f"{case}_seg,{case}.nii.gz,{case}_label.nii.gz,labeled" for case in ("p1", "p2")]
    (tmp_path / "references" / "list.csv").write_text("\n".join(["id,image,label,role", *rows]))
    for case in ("p1", "p2"):
        model_writes(tmp_path / "predictions" / f"{case}_seg.seg.nrrd", (1,), (1,))
    document, _ = evaluated(caml, tmp_path, "references/list.csv")
    assert sorted(document["cases"]) == ["p1_seg", "p2_seg"] and dice_of(document, "p1_seg") == {"segment_1": 1.0}


def test_segmentations_with_a_header_of_their_own_are_compared(caml, tmp_path):
    for folder in ("predictions", "references"):
        model_writes(tmp_path / folder / "p1.seg.nrrd", (1,), (1,))
        whole = tmp_path / folder / "p1.seg.nrrd"
        sitk.WriteImage(sitk.ReadImage(str(whole)), str(whole.with_suffix(".nhdr")))
        whole.unlink()
    document, _ = evaluated(caml, tmp_path)
    assert dice_of(document) == {"segment_1": 1.0}


# Segmentations that Slicer has cropped


def cropped(path, labels, first, end):
    """What of ``labels`` lies between two voxels, as Slicer saves it on request."""
    step = np.reshape(GRID.direction, (3, 3)) @ (np.array(first) * GRID.spacing)
    part = labels[tuple(slice(a, b) for a, b in zip(first, end))]
    grid = Grid(part.shape, GRID.spacing, tuple(np.asarray(GRID.origin) + step), GRID.direction)
    write_labels(path, part, grid, (Segment("atrium", 1),))


def test_two_cropped_segmentations_are_compared_where_they_lie(caml, tmp_path):
    ours, theirs = a_map((1, 3)), a_map((1, 6))
    expected = case_metrics(ours, theirs, GRID.spacing, (Segment("atrium", 1),))["atrium"]
    for folder, labels, first in (("predictions", ours, 3), ("references", theirs, 6)):
        cropped(tmp_path / folder / "p1.seg.nrrd", labels, (first, 4, 4), (first + 5, 9, 9))
    document, _ = evaluated(caml, tmp_path)
    assert 0 < expected["dice"] < 1
    assert document["cases"]["p1"]["atrium"] == pytest.approx(expected)


def test_segmentations_that_have_no_voxel_in_common_are_those_of_two_scans(caml, tmp_path):
    cropped(tmp_path / "predictions" / "p1.seg.nrrd", a_map((1, 2)), (2, 4, 4), (7, 9, 9))
    cropped(tmp_path / "references" / "p1.seg.nrrd", a_map((1, 16)), (16, 4, 4), (21, 9, 9))
    code, _, err = caml("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "none")
    assert code == 3 and "different grids" in err


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_a_joined_grid_has_the_voxels_of_both(axes, signs):
    turned = np.reshape(GRID.direction, (3, 3))[:, axes] * signs
    spacing = tuple(GRID.spacing[axis] for axis in axes)
    origin = np.asarray(GRID.origin) + np.reshape(GRID.direction, (3, 3)) @ (np.array([2, 3, 4]) * GRID.spacing)
    other = Grid((9, 5, 7), spacing, tuple(origin), tuple(turned.ravel()))
    both = joined(GRID, other)
    assert both is not None
    for grid in (GRID, other):
        ones = np.ones(grid.size, np.uint8)
        placed, _ = place(ones, grid, both)
        assert placed is not None and placed.sum() == ones.sum()
        assert joined(both, grid) == both
    assert all(0 <= n - own <= 20 for n, own in zip(both.size, GRID.size))


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
