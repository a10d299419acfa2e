"""What the module must not lose or mix up: projects and scenes, hand edits, cases of one name, unfinished rounds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SlicerHost
from training_tools import (
    SEGMENT,
    add_scan,
    add_segmentation,
    ball,
    draw,
    finish_round,
    message,
    predict,
    roles,
    select,
    write_folder,
)

from caml_core.data.io import read_volume
from caml_core.errors import ResourceError

# Scene and project


def test_a_saved_scene_keeps_its_project_when_the_module_is_opened_for_the_first_time(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=1)
    before = roles(training)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    SlicerHost.unload_module("CAMLTraining")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel = SlicerHost.load_module(Path(SlicerHost._state["paths"]["CAMLTraining"])).panel
    SlicerHost.enter("CAMLTraining")
    assert panel.logic.project.folder == tmp_path / "project"
    assert roles(panel) == before


def test_a_scene_loaded_in_another_module_is_not_given_the_old_project(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=0)
    slicer.util.saveScene(str(tmp_path / "first.mrb"))
    slicer.mrmlScene.Clear()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    add_scan(7, "other")
    training.update()
    SlicerHost.leave("CAMLTraining")
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "first.mrb"))
    training.update()
    SlicerHost.enter("CAMLTraining")
    assert training.logic.project.folder == tmp_path / "project"
    assert set(roles(training).values()) == {"labeled"}


def test_a_scene_loaded_into_this_one_does_not_end_its_memory_of_the_cohort(training, a_cohort, tmp_path):
    import slicer

    another = slicer.vtkMRMLScene()
    another.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    another.SetURL(str(tmp_path / "another.mrml"))
    assert another.Commit()
    names = a_cohort(labeled=2, unlabeled=1)
    slicer.util.loadScene(str(tmp_path / "another.mrml"))
    assert slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLinearTransformNode") is not None
    select(training, names[2:])
    training.ui.excludeButton.click()
    listed = json.loads(training.logic.getParameterNode().cohort)["cases"]
    assert [c["role"] for c in listed] == ["labeled", "labeled", "excluded"]


def test_two_who_change_one_project_do_not_undo_each_other(training, a_cohort):
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    names = a_cohort(labeled=2, unlabeled=0)
    other = CAMLTrainingLogic()
    other.openProject(training.logic.project.folder)
    select(training, names[:1])
    training.ui.excludeButton.click()
    with pytest.raises(ResourceError, match="changed by another Slicer"):
        other.setRole(names[1:], "excluded")
    listed = json.loads(training.logic.project.file.read_text())["cases"]
    assert [c["role"] for c in listed] == ["excluded", "labeled"]
    other.close()


def test_a_project_that_another_slicer_changed_is_opened_again_by_its_folder(training, a_cohort, monkeypatch):
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    first, second = a_cohort(labeled=2, unlabeled=0)
    opened = []
    monkeypatch.setattr(training.logic, "openProject", lambda f, do=training.logic.openProject: opened.append(do(f)))
    button, folder = training.ui.projectDirectoryButton, training.logic.project.folder
    button.directory = str(folder)
    assert not opened, "nothing has changed: what runs must not end"
    other = CAMLTrainingLogic()
    other.openProject(folder)
    other.setRole([first], "excluded")
    (folder / "rounds" / "001").mkdir(parents=True)
    (folder / "rounds" / "001" / "result.json").write_text(json.dumps({"rows": [{"name": "caml", "summary": {}}]}))
    select(training, [second])
    training.ui.unlabeledButton.click()
    assert "open it again" in message(training)
    button.directory = str(folder)
    assert len(opened) == 1 and roles(training) == {first: "excluded", second: "labeled"}
    assert training.ui.historyTableWidget.rowCount == 1, "rounds are read anew, too"
    select(training, [second])
    training.ui.unlabeledButton.click()
    assert not message(training)
    listed = json.loads(training.logic.project.file.read_text())["cases"]
    assert [c["role"] for c in listed] == ["excluded", "unlabeled"]
    other.close()


def test_a_script_and_the_panel_may_share_a_scene(training, tmp_path):
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    for seed, name in enumerate(("LA", "LA", "RA")):
        add_scan(seed, name)
    training.update()
    other = CAMLTrainingLogic()
    other.openProject(tmp_path / "script")
    for _ in range(2):
        training.update()
        other.takeInScene()
        assert list(other.project.cases) == ["LA", "LA-2", "RA"]
        training.update()
        assert list(roles(training)) == ["LA", "LA-2", "RA"]
    other.close()


def test_a_case_of_another_project_with_the_same_name_is_another_case(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "first", 1))
    training.update()
    training.openCase("case-00")
    volume = training.logic.cohort.volumeNode("case-00")
    training.edit.leave()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second project")
    training.logic.addFolder(write_folder(tmp_path / "second", 1))
    training.update()
    found = training.logic.project.cases.values()
    theirs = next(c.id for c in found if c.images and c.images[0].parent == tmp_path / "second")
    assert training.logic.cohort.volumeNode(theirs) is not volume


# Hands


def test_choosing_a_segmentation_is_the_users_doing_alone(training):
    import slicer

    first, second = add_scan(0), add_scan(1)
    one, two = add_segmentation(first, ball(0)), add_segmentation(second, ball(1))
    training.update()
    select(training, ["Scan 00"])
    assert training.ui.caseSegmentationSelector.currentNode() is one
    slicer.mrmlScene.RemoveNode(one)  # the combo box falls to its neighbour
    training.ui.caseSegmentationSelector.setCurrentNode(two)
    training.update()
    assert training.logic.cohort.segmentationNode("Scan 00") is None
    assert training.logic.cohort.segmentationNode("Scan 01") is two


def test_a_prediction_that_was_corrected_in_place_becomes_the_hands_work(training):
    from CAMLTrainingLib.Predictions import showPrediction

    volume = add_scan(0)
    training.update()
    training.logic.save()
    predict(training, "Scan 00", np.roll(ball(0), 2, 0))
    node = showPrediction(training.logic.cohort, "Scan 00", "Model")
    assert showPrediction(training.logic.cohort, "Scan 00") is node, "shown again, it is the same"
    draw(node, volume, ball(0))
    again = showPrediction(training.logic.cohort, "Scan 00")
    assert again is not node
    assert training.logic.cohort.segmentationNode("Scan 00") is node
    assert training.logic.project.cases["Scan 00"].status == "edited"
    assert training.logic.cohort.predictionNode("Scan 00") is again


def test_a_case_opened_once_and_left_empty_still_opens_with_its_prediction(training):
    import slicer

    volume = add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.openCase("Scan 00")
    training.edit.leave()
    training.logic.save()
    predict(training, "Scan 00", ball(0))
    training.openCase("Scan 00")
    node = training.edit.editor.segmentationNode()
    there = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.array_equal(there > 0, ball(0))
    assert node.GetAttribute("CAMLTraining.Prediction") is None


def opened(panel, case: str) -> np.ndarray:
    """What the editor holds of a case, once it is opened."""
    import slicer

    panel.openCase(case)
    node, volume = panel.edit.editor.segmentationNode(), panel.edit.editor.sourceVolumeNode()
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume) > 0


@pytest.mark.parametrize("touched", [False, True], ids=["looked at", "corrected"])
def test_a_newer_prediction_replaces_a_copy_of_the_older_one_unless_a_hand_has_touched_it(training, touched):
    import slicer

    volume = add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.logic.save()
    older, newer, corrected = ball(0), np.roll(ball(0), 2, 0), np.roll(ball(0), 1, 1)
    predict(training, "Scan 00", older)
    assert np.array_equal(opened(training, "Scan 00"), older)
    node = training.edit.editor.segmentationNode()
    if touched:
        draw(node, volume, corrected)
    training.edit.leave()
    predict(training, "Scan 00", newer)
    assert np.array_equal(opened(training, "Scan 00"), corrected if touched else newer)
    node = training.edit.editor.segmentationNode()
    training.edit.leave()
    training.openCase("Scan 00")
    assert training.edit.editor.segmentationNode() is node, "the same prediction is not copied twice"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_prediction_that_was_taken_as_label_as_it_was_stays_the_label(training):
    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.logic.save()
    predict(training, "Scan 00", ball(0))
    training.openCase("Scan 00")
    training.ui.acceptNextButton.click()
    assert roles(training) == {"Scan 00": "labeled"}
    for label in (training.logic.project.folder / "labels").iterdir():
        label.unlink()
    predict(training, "Scan 00", np.roll(ball(0), 2, 0))
    assert np.array_equal(opened(training, "Scan 00"), ball(0))


def test_a_prediction_that_was_only_looked_at_is_no_edit(training):
    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.logic.save()
    predict(training, "Scan 00", ball(0))
    training.openCase("Scan 00")
    training.ui.backButton.click()
    assert training.logic.project.cases["Scan 00"].status == "predicted"


def test_surfaces_are_turned_into_voxels(training):
    node = add_segmentation(add_scan(0), ball(0))
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    node.GetSegmentation().RemoveRepresentation("Binary labelmap")
    training.update()
    select(training, ["Scan 00"])
    training.ui.useAsLabeledButton.click()
    assert roles(training) == {"Scan 00": "labeled"}, message(training)


def test_a_scan_that_was_moved_after_it_was_listed_is_written_as_it_lies(training, tmp_path):
    import slicer

    folder = write_folder(tmp_path / "scans", 1)
    volume = slicer.util.loadVolume(str(folder / "case-00.nii.gz"))
    training.update()
    case = next(iter(roles(training)))
    assert training.logic.project.cases[case].images == (folder / "case-00.nii.gz",)
    volume.SetOrigin(50, 60, 70)
    add_segmentation(volume, ball(0))
    select(training, [case])
    training.ui.useAsLabeledButton.click()
    assert roles(training)[case] == "labeled", message(training)
    (path,) = training.logic.project.cases[case].images
    assert path.parent.name == "volumes"
    assert read_volume(path).grid.origin == pytest.approx((-50, -60, 70))


def test_next_reaches_every_case_of_the_ranking(training):
    for seed in range(4):
        add_scan(seed)
    training.update()
    training.edit.ranked = ["Scan 02", "Scan 00", "Scan 03", "Scan 01"]
    training.edit.open("Scan 02")
    seen = [training.edit.case]
    for _ in range(3):
        training.ui.nextButton.click()
        seen.append(training.edit.case)
    assert seen == ["Scan 02", "Scan 00", "Scan 03", "Scan 01"]


def test_next_passes_over_a_scan_that_cannot_be_read(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 3))
    training.update()
    (tmp_path / "scans" / "case-01.nii.gz").unlink()
    training.openCase("case-00")
    training.ui.nextButton.click()
    assert training.edit.case == "case-02"
    assert "case-01 is not there" in training.ui.editMessageLabel.text


# Rounds


def test_the_split_is_made_once_for_all_rounds(training, a_cohort):
    a_cohort(labeled=6, unlabeled=0)
    training.logic._trainingCohort()
    held = [c for c, r in roles(training).items() if r == "validation"]
    assert len(held) == 1
    assert held[0] in message(training)
    training.logic._trainingCohort()
    assert [c for c, r in roles(training).items() if r == "validation"] == held


def test_a_label_older_than_the_drawing_is_said_before_training(training, a_cohort):
    a_cohort(labeled=2, unlabeled=0)
    cohort = training.logic.cohort
    draw(cohort.segmentationNode("Scan 00"), cohort.volumeNode("Scan 00"), np.roll(ball(0), 1, 0))
    training.logic._trainingCohort()
    assert "Scan 00: edited after the label was taken" in message(training)


def test_only_drawings_that_have_changed_are_looked_at_again(training, a_cohort, monkeypatch):
    from CAMLSegmentationLib import SegmentationResult

    a_cohort(labeled=3, unlabeled=0)
    cohort, looked, digest = training.logic.cohort, [], SegmentationResult._segmentDigest

    def counted(segment):
        looked.append(segment)
        return digest(segment)

    training.logic._trainingCohort()
    monkeypatch.setattr(SegmentationResult, "_segmentDigest", counted)
    training.logic._trainingCohort()
    assert not looked and not message(training)
    draw(cohort.segmentationNode("Scan 00"), cohort.volumeNode("Scan 00"), np.roll(ball(0), 1, 0))
    training.logic._trainingCohort()
    assert len(looked) in (1, 2) and training.logic.project.cases["Scan 00"].status == "edited"
    training.logic._trainingCohort()
    assert len(looked) in (1, 2) and "Scan 00: edited" in training.logic.cohort.notes[-1]


def unfinished(project: Path, number: int, learnt: bool = True) -> Path:
    """The folder of a paused round."""
    folder = project / "rounds" / f"{number:03d}"
    (folder / "caml").mkdir(parents=True)
    (folder / "round.json").write_text("{}")
    lines = (
        '{"event": "started", "command": "round", "pid": 1, "version": "0"}',
        '{"event": "error", "message": "Stopped.", "exit_code": 130}',
    )
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    if learnt:
        (folder / "caml" / "checkpoint.pt").touch()
    return folder


def test_an_unfinished_round_is_found_behind_an_empty_one(training, a_cohort, monkeypatch):
    import slicer

    a_cohort(labeled=2, unlabeled=0)
    project = training.logic.project.folder
    paused = unfinished(project, 1)
    (project / "rounds" / "002").mkdir()
    training.logic.openProject(project)
    training.update()
    assert training.logic.round.folder == paused
    assert training.ui.resumeButton.enabled
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: asked.append(text) or False)
    training.ui.trainButton.click()
    assert "Round 1 is not finished" in asked[0]
    assert not training.logic.checking


def test_a_round_stopped_before_it_learnt_is_given_up(training, a_cohort):
    a_cohort(labeled=2, unlabeled=0)
    project = training.logic.project.folder
    unfinished(project, 1, learnt=False)
    training.logic.openProject(project)
    training.update()
    training.ui.stopButton.click()
    assert "before anything was learnt" in training.ui.statusLabel.text
    assert not training.ui.resumeButton.enabled and not training.ui.stopButton.enabled
    training.logic.openProject(project)
    training.update()
    assert not training.ui.resumeButton.enabled and "Resume" not in training.ui.statusLabel.text
    assert training.logic.round is None


def test_a_round_begun_by_another_slicer_is_followed(training, a_cohort, stand_in):
    a_cohort(labeled=2, unlabeled=0)
    finish_round(training, 1, stand_in, caml=0.8)
    assert training.logic.round.folder.name == "001"
    later = unfinished(training.logic.project.folder, 2)
    training.enter()
    assert training.logic.round.folder == later and training.ui.resumeButton.enabled


def test_what_was_said_of_one_project_is_not_shown_for_the_next(training, a_cohort, tmp_path):
    from CAMLTrainingLib.Preflight import Verdict

    a_cohort(labeled=2, unlabeled=1)
    training.onPreflight(Verdict("fits", "It fits."))
    training.train.log("of the first project")
    assert not training.ui.verdictTextBrowser.isHidden()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    assert training.ui.verdictTextBrowser.isHidden() and not training.ui.logTextEdit.plainText


def test_models_of_one_name_are_told_apart(training, stand_in, models_folder):
    from CAMLTrainingLib.ModelChoice import modelChoices, setStart, startOf, titleOf

    models_folder.mkdir(parents=True, exist_ok=True)
    for name in ("round 1", "round 2"):
        shutil.copy(stand_in, models_folder / f"{name}.caml")
    assert [title for title, _ in modelChoices()] == ["Stand-in (round 1)", "Stand-in (round 2)"]
    path = models_folder / "round 2.caml"
    setStart(training._parameterNode, titleOf(path))
    assert startOf(training._parameterNode) == path


def test_a_preview_case_that_is_gone_does_not_block_training(training, a_cohort):
    a_cohort(labeled=2, unlabeled=1)
    training._parameterNode.previewCase = "somebody"
    assert training.train.settings().previewCase == ""
