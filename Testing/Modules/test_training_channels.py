"""Cohorts of several channels: all of a case are seen where it is drawn, and lists for the engine name them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from stand_ins import save_stand_in, write_series
from test_training_predictions import worker  # noqa: F401
from training_tools import (
    ball,
    cell,
    draw,
    finish_round,
    message,
    roles,
    scan,
    write_folder,
    write_two_channels,
)

from caml_core.data.cohort import load_cohort

PAIR = ("T1", "FLAIR")


@pytest.fixture
def scans(tmp_path):
    """Two cases of two channels; a list beside them says what these are."""
    folder = write_two_channels(tmp_path / "two channels")
    write_list(folder, PAIR)
    return folder


@pytest.fixture
def pairs(training, scans):
    """The panel with these cases."""
    training.logic.addFolder(scans)
    training.logic.cohort.setSegments(["ball"])
    training.update()
    return training


def write_list(folder, titles) -> None:
    rows = [f"{case},{case}_0000.nrrd,{case}_0001.nrrd" for case in ("p0", "p1")]
    header = "id,image ({}),image2 ({})".format(*titles)
    (folder / "cases.csv").write_text("\n".join((header, *rows)))


def offered(panel) -> list[str]:
    """What the page offers to show; it does so where there is a choice."""
    combo = panel.ui.channelComboBox
    texts = [combo.itemText(index) for index in range(combo.count)]
    assert [part.isHidden() for part in (combo, panel.ui.channelLabel)] == [not texts] * 2
    return texts


def choose(panel, title: str) -> None:
    panel.ui.channelComboBox.currentIndex = offered(panel).index(title)


def shown():
    """The volume in all slice views."""
    import slicer

    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    (identity,) = {view.GetBackgroundVolumeID() for view in views}
    return slicer.mrmlScene.GetNodeByID(identity) if identity else None


def voxels(node) -> np.ndarray:
    import slicer

    return slicer.util.arrayFromVolume(node)


def volumes() -> list[str]:
    """The names of the scene's volumes."""
    import slicer

    return sorted(node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))


def settle(panel, wait_for) -> None:
    """What came to the scene has been looked at."""
    wait_for(lambda: not panel._timer.isActive())


# What the slices show


def test_the_slices_show_any_channel_and_nothing_else_changes(pairs, wait_for):
    pairs.openCase("p0")
    assert offered(pairs) == list(PAIR) and pairs.ui.channelComboBox.currentText == "T1"
    editor = pairs.edit.editor
    own, node = editor.sourceVolumeNode(), editor.segmentationNode()
    draw(node, own, ball(0))
    role = node.GetReferenceImageGeometryReferenceRole()
    assert shown() is own and np.array_equal(voxels(own), scan(0))
    for title, seed in (("FLAIR", 5), ("T1", 0)):
        choose(pairs, title)
        settle(pairs, wait_for)
        assert np.array_equal(voxels(shown()), scan(seed))
        assert editor.sourceVolumeNode() is own and editor.segmentationNode() is node
        assert node.GetNodeReference(role) is own and pairs.edit.case == "p0"
    assert list(roles(pairs)) == ["p0", "p1"] and volumes() == ["p0", "p0 FLAIR"]
    choose(pairs, "FLAIR")
    pairs.ui.acceptNextButton.click()
    assert roles(pairs)["p0"] == "labeled" and load_cohort(pairs.logic.project.file).cases[0].images[1:]


def test_channels_without_names_have_numbers_and_one_alone_is_no_choice(training, tmp_path):
    training.logic.addFolder(write_two_channels(tmp_path / "two channels"))
    training.openCase("p0")
    assert offered(training) == ["Channel 1", "Channel 2"]
    training.ui.backButton.click()
    training.logic.openProject(tmp_path / "of one channel")
    training.logic.addFolder(write_folder(tmp_path / "scans", 1))
    training.openCase("case-00")
    assert offered(training) == [] and np.array_equal(voxels(shown()), scan(0))


def test_the_next_case_and_the_way_back_let_go_of_all_channels(pairs):
    import slicer

    pairs.openCase("p0")
    choose(pairs, "FLAIR")
    pairs.ui.nextButton.click()
    assert pairs.edit.case == "p1" and pairs.ui.channelComboBox.currentText == "FLAIR", "as chosen on the case before"
    assert np.array_equal(voxels(shown()), scan(6))
    choose(pairs, "T1")
    assert np.array_equal(voxels(shown()), scan(1))
    pairs.ui.backButton.click()
    assert offered(pairs) == [] and list(roles(pairs)) == ["p0", "p1"]
    pairs.openCase("p0")
    assert volumes() == ["p0", "p0 FLAIR", "p1", "p1 FLAIR"], "nothing is loaded twice"
    slicer.mrmlScene.Clear()
    assert offered(pairs) == [] and volumes() == []


@pytest.mark.parametrize("fault", ["missing", "damaged"])
@pytest.mark.parametrize("channel", ["p1_0000", "p1_0001"])
def test_a_case_opens_with_all_channels_or_not_at_all(pairs, scans, wait_for, fault, channel):
    import slicer

    pairs.openCase("p0")
    before, where = shown(), slicer.mrmlScene.GetNumberOfNodes()
    path = scans / f"{channel}.nrrd"
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(b"torn")
    assert not pairs.edit.open("p1")
    settle(pairs, wait_for)
    text = pairs.ui.editMessageLabel.text
    assert f"{channel}.nrrd" in text and "p1" in text and "Traceback" not in text
    assert pairs.edit.case == "p0" and shown() is before and pairs.edit.editor.sourceVolumeNode() is before
    assert volumes() == ["p0", "p0 FLAIR"] and slicer.mrmlScene.GetNumberOfNodes() == where
    assert list(roles(pairs)) == ["p0", "p1"] and cell(pairs, "p1", "Segmentation") == ""
    pairs.ui.backButton.click()
    pairs.openCase("p1")
    assert pairs.ui.pagesStackedWidget.currentIndex == 0 and f"{channel}.nrrd" in message(pairs)


def test_a_channel_that_is_in_the_scene_is_not_loaded_again(pairs, scans):
    import slicer

    for name in ("p0_0001", "p0_0000"):
        slicer.util.loadVolume(str(scans / f"{name}.nrrd"))
        pairs.update()
    pairs.openCase("p0")
    own = pairs.edit.editor.sourceVolumeNode()
    assert own.GetName() == "p0_0001" and volumes() == ["p0_0000", "p0_0001"]
    assert shown() is own and pairs.ui.channelComboBox.currentText == "FLAIR", "what is shown is called what it is"
    choose(pairs, "T1")
    assert np.array_equal(voxels(shown()), scan(0)) and pairs.edit.editor.sourceVolumeNode() is own


@pytest.mark.parametrize("seen", [True, False], ids=["opened before", "never opened"])
def test_a_bundle_knows_which_channel_is_which(pairs, scans, tmp_path, seen):
    import slicer

    slicer.util.loadVolume(str(scans / "p0_0001.nrrd"))
    pairs.update()
    if seen:
        pairs.openCase("p0")
        pairs.ui.backButton.click()
    pairs.logic.save()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    pairs.update()
    if seen:  # all of it is in the bundle
        shutil.move(scans, tmp_path / "elsewhere")
    pairs.openCase("p0")
    assert pairs.ui.channelComboBox.currentText == "FLAIR" and np.array_equal(voxels(shown()), scan(5))
    choose(pairs, "T1")
    assert np.array_equal(voxels(shown()), scan(0)) and len(volumes()) == 2


def test_a_channel_that_was_removed_is_loaded_again_or_said_to_be_gone(pairs, scans):
    import slicer

    pairs.openCase("p0")
    own = shown()
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("p0 FLAIR"))
    choose(pairs, "FLAIR")
    assert np.array_equal(voxels(shown()), scan(5))
    choose(pairs, "T1")
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("p0 FLAIR"))
    (scans / "p0_0001.nrrd").unlink()
    choose(pairs, "FLAIR")
    assert "p0_0001.nrrd" in pairs.ui.editMessageLabel.text
    assert shown() is own and pairs.ui.channelComboBox.currentText == "T1"


def test_a_further_channel_does_not_take_the_place_of_the_volume_that_is_drawn_on(pairs):
    import slicer

    pairs.openCase("p0")
    pairs.ui.backButton.click()
    slicer.mrmlScene.RemoveNode(pairs.logic.cohort.volumeNode("p0"))
    pairs.update()
    assert list(roles(pairs)) == ["p0", "p1"] and volumes() == ["p0 FLAIR"]
    pairs.openCase("p0")
    assert pairs.ui.channelComboBox.currentText == "T1" and np.array_equal(voxels(shown()), scan(0))
    assert volumes() == ["p0", "p0 FLAIR"]


def test_a_series_is_a_further_channel_and_its_copy_a_case(training, tmp_path):
    """Volumes of series come from no file that Slicer knows of."""
    import slicer

    for name in ("t1", "flair"):
        write_series(tmp_path / "scans" / name)
    listed = {"channels": list(PAIR), "cases": [{"id": "p0", "images": ["t1", "flair"]}]}
    (tmp_path / "scans" / "cohort.json").write_text(json.dumps(listed))
    training.logic.addFolder(tmp_path / "scans")
    training.openCase("p0")
    choose(training, "FLAIR")
    further = shown()
    training.update()
    assert further.GetName() == "p0 FLAIR" and list(roles(training)) == ["p0"]
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    copy.Copy(further)  # as Clone does, with all attributes
    copy.SetName("filtered")
    training.update()
    assert list(roles(training)) == ["p0", "filtered"]


# Lists for the engine


def predict_all(panel, worker) -> str:  # noqa: F811
    """Let the newest model segment the cases, as far as a list is written; return what the panel says at the end."""
    panel.ui.predictButton.click()
    worker().finish(130)
    return panel.ui.predictLabel.text


@pytest.mark.parametrize(
    ("model", "words"),
    [(PAIR, ""), (("", ""), ""), (PAIR[::-1], "check which is which"), (("T1", "T2"), "check that they show the same")],
    ids=["the same", "a model without names", "another order", "other names"],
)
def test_the_list_of_a_prediction_names_the_channels(pairs, worker, tmp_path, model, words):  # noqa: F811
    from caml_core.inference.batch import find_cases

    finish_round(pairs, 1, save_stand_in(tmp_path / "model.caml", channels=2, titles=model))
    text, listed = predict_all(pairs, worker), pairs.logic.project.folder / "predictions" / "cases.json"
    assert load_cohort(listed).channels == PAIR
    notes: list[str] = []
    assert [case.id for case in find_cases([listed], 2, (), notes, model)] == ["p0", "p1"]
    assert [words in note for note in notes] == ([True] if words else [])
    assert ("T1, FLAIR" in text and words in text) if words else "channels" not in text
    assert str(listed) not in text


def test_a_list_names_no_channels_of_cases_that_have_others(pairs, worker, tmp_path):  # noqa: F811
    finish_round(pairs, 1, save_stand_in(tmp_path / "model.caml", channels=2, titles=PAIR))
    pairs.logic.addFolder(write_folder(tmp_path / "scans", 1))
    assert pairs.logic.project.titles == PAIR
    text = predict_all(pairs, worker)
    listed = json.loads((pairs.logic.project.folder / "predictions" / "cases.json").read_text())
    assert len(listed["cases"]) == 3 and "channels" not in listed and "The model's channels" not in text
