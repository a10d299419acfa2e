"""Segments of the cohort: renamed, turned around, and label files whose values are not 1, 2, ..."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from training_tools import (
    SEGMENT,
    accept,
    add_scan,
    add_segmentation,
    ball,
    case_of,
    cell,
    draw,
    message,
    predict,
    roles,
    write_folder,
)

from caml_core.data.cohort import load_cohort
from caml_core.data.fingerprint import fingerprint
from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels


def list_segments(panel, text: str) -> None:
    """Type the cohort's segments."""
    panel.ui.segmentsLineEdit.text = text
    panel.cohort._onSegments()


def give_values(folder: Path, *values: int) -> None:
    """Change the label files of ``folder``, in order: each has one value of its own."""
    for path, value in zip(sorted(folder.glob("*_label*")), values, strict=True):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * value, str(path))


def segment_of(panel, case: str) -> dict[str, int]:
    """Name -> voxels of what the engine reads in the label of a case."""
    cohort = load_cohort(panel.logic.project.file)
    found = next(c for c in cohort.cases if c.id == case)
    labels = read_case_labels(found, read_volume(found.images[0]).grid, cohort.segments)
    return {s.name: int(np.count_nonzero(labels.array == s.label)) for s in labels.segments}


@pytest.fixture
def masks(training, tmp_path):
    """``masks(*values)``: cases with a label file each, of one value."""

    def make(*values: int) -> list[str]:
        folder = write_folder(tmp_path / "scans", len(values), labels=len(values))
        give_values(folder, *values)
        new = training.logic.addFolder(folder)
        training.update()
        return list(new)

    return make


@pytest.mark.parametrize("name", ["", "left atrium"], ids=["nameless", "named before"])
def test_masks_of_0_and_255_are_labels(training, masks, name):
    cases = masks(255, 255)
    if name:
        list_segments(training, name)
    accept(training, *cases)
    assert set(roles(training).values()) == {"labeled"}, message(training)
    expected = name or "segment_255"
    assert [segment_of(training, case) for case in cases] == [
        {expected: int(ball(seed).sum())} for seed in range(len(cases))
    ]
    cohort = load_cohort(training.logic.project.file)
    assert [s.name for s in fingerprint(cohort).segments] == [expected]
    assert training.ui.segmentsLineEdit.text == f"{expected} = 255"


def test_another_value_is_another_structure_until_the_user_names_it(training, masks):
    first, second = masks(2, 1)
    accept(training, first, second)
    assert roles(training) == {first: "labeled", second: "unlabeled"}
    assert "label value 1" in message(training)
    list_segments(training, "left atrium = 2, aorta = 1")
    accept(training, second)
    assert [segment_of(training, case) for case in (first, second)] == [
        {"left atrium": int(ball(0).sum())},
        {"aorta": int(ball(1).sum())},
    ]
    assert cell(training, first, "Segments") == "left atrium"


def test_a_mask_of_another_value_is_refused_once_the_value_is_settled(training, masks):
    first, second = masks(1, 255)
    list_segments(training, "left atrium")
    accept(training, first, second)
    assert roles(training) == {first: "labeled", second: "unlabeled"}
    assert "label value 255" in message(training)


def test_turned_around_segments_stay_what_they_are(training, masks):
    first, second = masks(1, 2)
    list_segments(training, "left atrium, aorta")
    accept(training, first, second)
    list_segments(training, "aorta, left atrium")
    assert [list(segment_of(training, case)) for case in (first, second)] == [["left atrium"], ["aorta"]]


def test_a_segment_is_renamed_in_scene_and_labels(training):
    import slicer

    drawn = [add_segmentation(add_scan(seed, f"LA {seed}"), ball(seed)) for seed in range(2)]
    training.update()
    accept(training, "LA 0", "LA 1")
    before = case_of(training, "LA 0").label
    list_segments(training, "left atrium")
    assert [segment_of(training, f"LA {seed}") for seed in range(2)] == [
        {"left atrium": int(ball(seed).sum())} for seed in range(2)
    ]
    assert [node.GetSegmentation().GetNthSegment(0).GetName() for node in drawn] == ["left atrium"] * 2
    assert before.is_file() and before != case_of(training, "LA 0").label
    accept(training, "LA 0")  # nothing is left to be said of names
    assert not message(training)
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == drawn


def test_a_label_that_cannot_be_read_keeps_all_names(training):
    for seed in range(2):
        add_segmentation(add_scan(seed, f"LA {seed}"), ball(seed))
    training.update()
    accept(training, "LA 0", "LA 1")
    labels = [case_of(training, f"LA {seed}").label for seed in range(2)]
    labels[1].write_bytes(b"damaged")
    list_segments(training, "left atrium")
    assert labels[1].name in message(training)
    assert training.ui.segmentsLineEdit.text == SEGMENT
    assert [case_of(training, f"LA {seed}").label for seed in range(2)] == labels


def test_a_segmentation_renamed_after_it_was_taken_is_looked_at_again(training):
    node = add_segmentation(add_scan(0, "LA 0"), ball(0))
    add_segmentation(add_scan(1, "LA 1"), ball(1))
    training.update()
    accept(training, "LA 0", "LA 1")
    node.GetSegmentation().GetNthSegment(0).SetName("atrium")
    accept(training, "LA 0")
    assert "has the segment" in message(training) and "atrium" in message(training)
    list_segments(training, f"{SEGMENT}, atrium")
    accept(training, "LA 0")
    assert list(segment_of(training, "LA 0")) == ["atrium"]
    assert cell(training, "LA 0", "Segments") == "atrium"


def test_a_case_drawn_on_since_its_label_was_taken_is_renamed_as_well(training):
    for seed in range(2):
        add_segmentation(add_scan(seed, f"LA {seed}"), ball(seed))
    training.update()
    accept(training, "LA 0", "LA 1")
    volume, node = training.logic.cohort.volumeNode("LA 0"), training.logic.cohort.segmentationNode("LA 0")
    draw(node, volume, np.roll(ball(0), 1, 0))
    training.logic.cohort.noteEdits("LA 0")
    list_segments(training, "left atrium")
    found = fingerprint(load_cohort(training.logic.project.file))
    assert [s.name for s in found.segments] == ["left atrium"]
    assert {case.status for case in training.logic.project.cases.values()} == {"edited", "accepted"}
    training.logic.cohort.noteEdits("LA 1")
    assert case_of(training, "LA 1").status == "accepted", "a name is no edit"


def nested(case: str, shrunk: int):
    """A scan with a segmentation: a ball inside, and after it one that is larger by so many voxels all around."""
    from scipy.ndimage import binary_dilation, binary_erosion

    volume = add_scan(0, case)
    grow = binary_dilation if shrunk > 0 else binary_erosion
    node = add_segmentation(volume, ball(0), "tumour")
    node.GetSegmentation().AddEmptySegment("", "organ", (0.8, 0.4, 0.2))
    draw(node, volume, grow(ball(0), iterations=abs(shrunk)), 1)
    return node


def test_a_segment_that_a_later_one_covers_wholly_is_refused_by_name(training):
    nested("LA 0", 1)
    training.update()
    accept(training, "LA 0")
    assert roles(training) == {"LA 0": "unlabeled"}
    assert "nothing is left of the segment tumour: organ covers it wholly" in message(training)
    assert "Move tumour below" in message(training)


def test_a_segment_that_loses_most_of_itself_to_a_later_one_is_told(training):
    nested("LA 0", -1)
    training.update()
    accept(training, "LA 0")
    assert roles(training) == {"LA 0": "labeled"}
    found = segment_of(training, "LA 0")
    lost = round(100 * (1 - found["tumour"] / ball(0).sum()))
    assert lost > 50, "what is tested"
    assert f"{found['organ']} voxels lie in two segments" in message(training)
    assert f"{lost} % of tumour went to organ" in message(training)


def test_an_overlap_of_a_few_voxels_stays_one_sentence(training):
    nested("LA 0", -3)
    training.update()
    accept(training, "LA 0")
    assert "lie in two segments" in message(training) and "% of" not in message(training)


# Names of before, in what models have made


@pytest.fixture
def predicted(training):
    """A case with a prediction under the segment's old name."""
    add_scan(0, "LA 0")
    training.update()
    list_segments(training, SEGMENT)
    predict(training, "LA 0", ball(0))
    return training


def names_of(node) -> list[str]:
    """The names of a segmentation's segments."""
    from CAMLTrainingLib.CaseExchange import segmentNames

    return segmentNames(node)


@pytest.mark.parametrize("reopened", [False, True], ids=["at once", "in a project opened anew"])
def test_a_prediction_of_before_opens_under_the_new_name(predicted, reopened):
    list_segments(predicted, "left atrium")
    if reopened:
        predicted.logic.save()
        predicted.logic.openProject(predicted.logic.project.folder)
        predicted.update()
    predicted.openCase("LA 0")
    assert names_of(predicted.edit.editor.segmentationNode()) == ["left atrium"]
    predicted.ui.acceptNextButton.click()
    assert segment_of(predicted, "LA 0") == {"left atrium": int(ball(0).sum())}


def test_a_prediction_in_the_scene_is_renamed_as_well(predicted):
    from CAMLTrainingLib.Predictions import showPrediction

    node = showPrediction(predicted.logic.cohort, "LA 0", "Model")
    list_segments(predicted, "left atrium")
    assert names_of(node) == ["left atrium"]
    assert showPrediction(predicted.logic.cohort, "LA 0") is node


@pytest.mark.parametrize("from_model", [True, False], ids=["from a model", "from scratch"])
def test_check_and_training_are_told_what_segments_were_called(training, stand_in, monkeypatch, from_model):
    """Once each, and only where there is a model that may know them under their old names."""
    from CAMLTrainingLib.EngineCall import EngineCall
    from CAMLTrainingLib.Preflight import TrainingSettings
    from CAMLTrainingLib.RoundProcess import RoundProcess

    told: list[list[str]] = []
    monkeypatch.setattr(EngineCall, "start", lambda self, arguments, folder: told.append(arguments))
    monkeypatch.setattr(RoundProcess, "start", lambda self, arguments, previewCase: told.append(arguments))
    add_segmentation(add_scan(0, "LA 0"), ball(0))
    training.update()
    accept(training, "LA 0")
    list_segments(training, "atrium")
    list_segments(training, "left atrium")
    settings = TrainingSettings(startModel=stand_in if from_model else None)
    training.logic.startPreflight(settings)
    training.logic.startTraining(settings)
    pairs = [[list(a[i + 1 : i + 3]) for i, word in enumerate(a) if word == "--renamed"] for a in told]
    expected = [[SEGMENT, "left atrium"], ["atrium", "left atrium"]] if from_model else []
    assert pairs == [expected, expected]


def test_a_segment_that_is_added_to_the_cohort_is_no_stroke_of_a_hand(predicted):
    """An untouched copy of a prediction gives way to a newer one, though segments were added to the list since."""
    from CAMLTrainingLib.CaseExchange import drawnOn

    panel = predicted
    panel.openCase("LA 0")
    panel.edit.leave()
    panel.logic.cohort.setSegments([SEGMENT, "scar"])
    panel.openCase("LA 0")
    panel.edit.leave()
    assert case_of(panel, "LA 0").status == "predicted"
    newer = np.roll(ball(0), 2, 0)
    predict(panel, "LA 0", newer)
    panel.openCase("LA 0")
    drawn = drawnOn(panel.edit.editor.segmentationNode(), panel.edit.editor.sourceVolumeNode(), "LA 0")
    assert np.array_equal(drawn.voxels > 0, newer)


def test_two_segments_of_one_name_are_refused_before_they_are_a_label(training):
    volume = add_scan(0)
    node = add_segmentation(volume, ball(0))
    node.GetSegmentation().AddEmptySegment("", SEGMENT.upper(), (0.2, 0.4, 0.8))
    draw(node, volume, np.roll(ball(0), 9, 0) & ~ball(0), 1)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    accept(training, "Scan 00")
    assert "two segments are called ball" in message(training)
    assert roles(training) == {"Scan 00": "unlabeled"}
    assert not (training.logic.project.folder / "labels").exists()
