"""One case after the other in the editor, and a cohort that comes back as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from training_tools import (
    SEGMENT,
    add_scan,
    ball,
    cell,
    draw,
    message,
    predict,
    roles,
    select,
    write_folder,
)

from caml_core.data.io import read_volume

# Editing


def test_one_case_takes_two_clicks_besides_the_drawing(training):
    for seed in range(3):
        add_scan(seed)
    training.ui.segmentsLineEdit.text = "ball, handle"
    training.cohort._onSegments()
    select(training, ["Scan 00"])
    training.ui.editButton.click()
    assert training.ui.pagesStackedWidget.currentIndex == 1
    node, volume = training.edit.editor.segmentationNode(), training.edit.editor.sourceVolumeNode()
    assert volume.GetName() == "Scan 00"
    names = [node.GetSegmentation().GetNthSegment(i).GetName() for i in range(2)]
    assert names == ["ball", "handle"]
    draw(node, volume, ball(0), 0)
    training.ui.acceptNextButton.click()
    assert "handle is empty" in training.ui.editMessageLabel.text, "a forgotten segment keeps the case open"
    node.GetSegmentation().RemoveSegment(node.GetSegmentation().GetNthSegmentID(1))
    training.ui.acceptNextButton.click()
    assert roles(training)["Scan 00"] == "labeled"
    assert training.edit.case == "Scan 01"
    assert training.edit.editor.sourceVolumeNode().GetName() == "Scan 01"


@pytest.mark.parametrize("answer, role", [(True, "labeled"), (False, "validation")])
def test_a_held_out_case_is_learnt_from_only_where_the_user_says_so(training, monkeypatch, answer, role):
    import slicer

    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: asked.append(text) or answer)
    volumes = [add_scan(seed) for seed in range(2)]
    training.ui.segmentsLineEdit.text = "ball"
    training.cohort._onSegments()
    for seed, volume in enumerate(volumes):
        training.openCase(f"Scan 0{seed}")
        draw(training.edit.editor.segmentationNode(), volume, ball(seed), 0)
        (training.ui.acceptValidationButton if seed == 0 else training.ui.acceptNextButton).click()
    assert roles(training) == {"Scan 00": "validation", "Scan 01": "labeled"} and not asked
    training.openCase("Scan 00")
    node = training.edit.editor.segmentationNode()
    draw(node, volumes[0], ball(1), 0)
    training.ui.acceptNextButton.click()
    assert len(asked) == 1 and "Scan 00 was kept aside" in asked[0]
    assert roles(training) == {"Scan 00": role, "Scan 01": "labeled"}
    known = training.logic.project.cases["Scan 00"]
    assert known.status == "accepted" and (read_volume(known.label).array > 0).sum() == ball(1).sum()


def test_a_segmentation_of_surfaces_alone_is_not_taken_for_empty(training):
    import slicer
    import vtk

    volume = add_scan(0)
    training.update()
    predict(training, "Scan 00", ball(0))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "imported")
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    source = vtk.vtkSphereSource()
    source.SetRadius(8.0)
    source.Update()
    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    node.GetSegmentation().SetSourceRepresentationName(surface)
    segment = slicer.vtkSegment()
    segment.SetName(SEGMENT)
    segment.AddRepresentation(surface, source.GetOutput())
    node.GetSegmentation().AddSegment(segment)
    training.logic.cohort.assign("Scan 00", node)
    training.openCase("Scan 00")
    assert slicer.mrmlScene.GetNodeByID(node.GetID()) is node
    assert training.logic.cohort.segmentationNode("Scan 00") is node
    training.ui.backButton.click()
    assert cell(training, "Scan 00", "Status") == "edited"


def test_back_keeps_what_was_drawn(training):
    add_scan(0)
    training.ui.segmentsLineEdit.text = "ball"
    training.cohort._onSegments()
    training.openCase("Scan 00")
    node = training.edit.editor.segmentationNode()
    draw(node, training.edit.editor.sourceVolumeNode(), ball(0))
    training.ui.backButton.click()
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert cell(training, "Scan 00", "Status") == "edited"
    training.openCase("Scan 00")
    assert training.edit.editor.segmentationNode() is node


def test_back_lets_go_of_the_patient(training):
    add_scan(0)
    training.update()
    training.openCase("Scan 00")
    kept = training.edit.editor.mrmlSegmentEditorNode()
    assert kept.GetSourceVolumeNode() is not None and kept.GetSegmentationNode() is not None
    training.ui.backButton.click()
    assert kept.GetSourceVolumeNode() is None and kept.GetSegmentationNode() is None


def test_colours_and_terminology_of_the_cohort_are_in_a_new_segmentation(training, stand_in):
    from stand_ins import SEGMENTS

    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([s.name for s in SEGMENTS], SEGMENTS)
    training.openCase("Scan 00")
    from CAMLTrainingLib.CaseExchange import segmentsOf

    found = segmentsOf(training.edit.editor.segmentationNode())
    assert [(s.name, s.terminology) for s in found] == [(s.name, s.terminology) for s in SEGMENTS]
    assert [s.color for s in found] == [pytest.approx(s.color) for s in SEGMENTS]


def test_next_goes_through_all_and_then_back(training):
    for seed in range(3):
        add_scan(seed)
    training.update()
    training.openCase("Scan 01")
    seen = [training.edit.case]
    training.ui.nextButton.click()
    seen.append(training.edit.case)
    training.ui.nextButton.click()
    seen.append(training.edit.case)
    assert seen == ["Scan 01", "Scan 02", "Scan 00"]


def test_a_case_whose_scan_is_gone_says_so(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 1))
    training.update()
    (tmp_path / "scans" / "case-00.nii.gz").unlink()
    training.openCase("case-00")
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert "case-00 is not there" in message(training)


def test_a_label_file_opens_for_correction_as_it_is(training, tmp_path):
    import slicer

    training.logic.addFolder(write_folder(tmp_path / "scans", 1, labels=1))
    training.logic.cohort.setSegments(["ball"])
    training.update()
    training.openCase("case-00")
    node, volume = training.edit.editor.segmentationNode(), training.edit.editor.sourceVolumeNode()
    there = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume)
    assert np.array_equal(there > 0, ball(0))
    assert node.GetSegmentation().GetNthSegment(0).GetName() == "ball"


# Coming back


def test_the_scene_brings_cohort_roles_and_split_back(training, a_cohort, tmp_path):
    import slicer

    names = a_cohort(labeled=2, unlabeled=1, validation=1)
    before = roles(training)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    training.update()
    assert not roles(training)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert roles(training) == before
    assert training.logic.cohort.volumeNode(names[0]) is not None
    assert training.logic.cohort.segmentationNode(names[0]) is not None


def test_without_its_folder_the_scene_still_knows(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=1)
    before = roles(training)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    shutil.rmtree(tmp_path / "project")
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert roles(training) == before
    assert "the cohort comes from the scene" in message(training)


def test_a_scan_that_was_never_written_may_come_back_after_its_project(training, tmp_path):
    import slicer

    add_scan(0, "LA 0")
    add_scan(1, "LA 1")
    training.update()
    select(training, ["LA 1"])
    training.ui.excludeButton.click()
    expected = {"LA 0": "unlabeled", "LA 1": "excluded"}
    slicer.mrmlScene.Clear()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    assert roles(training) == expected
    add_scan(1, "LA 1")
    training.update()
    assert roles(training) == expected
    assert training.logic.cohort.volumeNode("LA 1") is not None
    select(training, ["LA 0"])
    training.ui.editButton.click()
    assert "load it again" in message(training)


def test_a_folder_chosen_after_work_began_says_where_the_work_is(training, a_cohort, tmp_path):
    a_cohort(labeled=2, unlabeled=1)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "empty")
    assert set(roles(training).values()) == {"unlabeled"}
    assert str(tmp_path / "empty") in message(training) and str(tmp_path / "project") in message(training)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    assert list(roles(training).values()).count("labeled") == 2


def test_the_folder_alone_brings_everything_back_in_a_fresh_process(training, a_cohort, caml_environment):
    a_cohort(labeled=2, unlabeled=1, validation=1)
    code = (
        "import sys; from pathlib import Path\n"
        "from caml_core.project.project import Project\n"
        "p = Project.open(Path(sys.argv[1]))\n"
        "print({c.id: c.role for c in p.cases.values()}, p.missing(), [s.name for s in p.segments])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(training.logic.project.folder)],
        env=caml_environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == f"{roles(training)} () ['{SEGMENT}']"


def test_another_project_does_not_mix_with_the_first(training, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=0, validation=1)
    slicer.mrmlScene.Clear()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    assert not roles(training)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    assert list(roles(training).values()) == ["labeled", "labeled", "validation"]


def test_a_project_of_a_newer_version_is_left_alone(training, tmp_path):
    folder = tmp_path / "newer"
    folder.mkdir()
    (folder / "cohort.json").write_text(json.dumps({"format": 99, "cases": []}))
    training.ui.projectDirectoryButton.directory = str(folder)
    assert "newer version" in message(training)
    assert training.logic.project.folder == tmp_path / "project"
    assert json.loads((folder / "cohort.json").read_text())["format"] == 99


def test_a_folder_that_cannot_be_written_is_said_and_roles_stay_known(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2))
    training.update()
    training.logic.project.folder = tmp_path / "scans" / "case-00.nii.gz" / "project"
    select(training, ["case-01"])
    training.ui.excludeButton.click()
    assert "Cannot write" in message(training)
    assert roles(training)["case-01"] == "excluded"


def test_an_unwritten_scan_removed_while_it_is_edited(training, wait_for):
    import slicer

    add_scan(0)
    training.update()
    training.openCase("Scan 00")
    slicer.mrmlScene.RemoveNode(training.logic.cohort.volumeNode("Scan 00"))
    training.ui.acceptNextButton.click()
    assert "Scan 00 is neither in the scene nor in a file" in training.ui.editMessageLabel.text
    wait_for(lambda: training.ui.pagesStackedWidget.currentIndex == 0)
    assert "removed from the scene" in message(training)


def test_what_a_script_chooses_is_shown(training):
    training._parameterNode.budget = "overnight"
    training._parameterNode.ranking = "random"
    assert training.ui.budgetComboBox.currentText.startswith("Overnight")
    assert training.ui.rankingComboBox.currentText == "At random"


def test_sentences_do_not_outlive_their_scene(training):
    import slicer

    slicer.mrmlScene.RemoveNode(add_scan(0))
    add_scan(1, "LA")
    add_scan(2, "LA")
    training.update()
    assert message(training)
    slicer.mrmlScene.Clear()
    training.update()
    assert not message(training)


def test_closing_the_scene_while_a_case_is_open(training):
    import slicer

    add_scan(0)
    training.update()
    training.openCase("Scan 00")
    slicer.mrmlScene.Clear()
    assert training.ui.pagesStackedWidget.currentIndex == 0
    assert training.edit.editor.segmentationNode() is None
