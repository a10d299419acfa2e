"""One project after the other in one Slicer: what the scene has of the one is not taken for the other's."""

from __future__ import annotations

from pathlib import Path

import pytest
import SlicerHost
from training_tools import SMALL, accept, add_scan, case_of, finish_round, message, roles, select, write_folder


@pytest.fixture
def second(training, tmp_path) -> Path:
    """The folder of another project, with one case in a file."""
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    other = CAMLTrainingLogic()
    other.openProject(tmp_path / "second")
    other.addFolder(write_folder(tmp_path / "theirs", 1, first=8))
    other.save()
    other.close()
    return tmp_path / "second"


def test_scans_of_one_project_do_not_become_cases_of_another(training, second, a_cohort, tmp_path):
    names = a_cohort(labeled=2, unlabeled=1)
    before, theirs = roles(training), ["case-08"]
    button, add = training.ui.projectDirectoryButton, training.ui.addFromSceneButton
    assert add.isHidden()
    button.directory = str(second)
    assert list(roles(training)) == theirs
    assert "left out (3)" in message(training) and add.text in message(training) and not add.isHidden()
    add_scan(7, "new")
    training.update()
    assert list(roles(training)) == [*theirs, "new"], "what comes while the project is open is its own"
    button.directory = str(tmp_path / "project")
    assert roles(training) == before and "left out (1)" in message(training)
    button.directory = str(second)
    assert list(roles(training)) == [*theirs, "new"]
    add.click()
    assert list(roles(training)) == [*theirs, "new", *names] and add.isHidden()
    assert not message(training)
    button.directory = str(tmp_path / "project")
    assert roles(training) == before


def test_scans_left_out_stay_out_of_a_scene_that_is_opened_again(training, second, a_cohort, tmp_path):
    import slicer

    a_cohort(labeled=2, unlabeled=0)
    training.ui.projectDirectoryButton.directory = str(second)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    training.update()
    assert training.logic.project.folder == second and list(roles(training)) == ["case-08"]
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 2
    assert not training.ui.addFromSceneButton.isHidden()


def test_a_scene_that_is_added_and_names_another_project_leaves_them_out_too(training, second, a_cohort, tmp_path):
    import slicer

    training.ui.projectDirectoryButton.directory = str(second)
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    a_cohort(labeled=2, unlabeled=0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))  # beside what is there
    training.update()
    assert training.logic.project.folder == second and list(roles(training)) == ["case-08"]
    assert "left out (2)" in message(training)


@pytest.fixture
def unsaved(training, tmp_path) -> Path:
    """A scene with one patient, whose project was never saved."""
    import slicer

    slicer.mrmlScene.Clear()
    add_scan(7, "theirs")
    training.update()
    assert list(roles(training)) == ["theirs"] and not training.logic.project.is_kept
    assert slicer.util.saveScene(str(tmp_path / "unsaved.mrb"))
    slicer.mrmlScene.Clear()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    return tmp_path / "unsaved.mrb"


@pytest.mark.parametrize("entered", [True, False], ids=["in the module", "in another module"])
def test_a_scene_that_is_added_closes_no_project_for_one_that_was_never_saved(training, unsaved, a_cohort, entered):
    import slicer

    a_cohort(labeled=2, unlabeled=1)
    before, folder = roles(training), training.logic.project.folder
    if not entered:
        SlicerHost.leave("CAMLTraining")
    slicer.util.loadScene(str(unsaved))
    if not entered:
        SlicerHost.enter("CAMLTraining")
    SlicerHost.wait_for(lambda: not training._timer.isActive(), 5)
    training.update()
    assert training.logic.project.folder == folder
    assert roles(training) == {**before, "theirs": "unlabeled"}
    assert "was not opened" in message(training) and str(folder) in message(training)
    training.logic.save()
    assert training.logic.getParameterNode().projectFolder == str(folder)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(unsaved))
    training.update()
    assert list(roles(training)) == ["theirs"] and training.logic.project.folder != folder


def test_a_scan_left_out_is_the_case_whose_file_is_added(training, second, a_cohort, tmp_path):
    import slicer

    folder = write_folder(tmp_path / "scans", 2)
    for path in sorted(folder.iterdir()):
        slicer.util.loadVolume(str(path))
    training.update()
    training.logic.save()
    training.ui.projectDirectoryButton.directory = str(second)
    assert list(roles(training)) == ["case-08"]
    training.logic.addFolder(folder)
    training.update()
    assert list(roles(training)) == ["case-08", "case-00", "case-01"]
    assert training.logic.cohort.volumeNode("case-01") is not None
    assert training.ui.addFromSceneButton.isHidden()


def test_scans_that_no_project_has_kept_go_to_the_one_that_is_opened(training, second):
    add_scan(0, "mine")
    training.update()
    assert list(roles(training)) == ["mine"] and not training.logic.project.file.exists()
    training.ui.projectDirectoryButton.directory = str(second)
    assert list(roles(training)) == ["case-08", "mine"] and training.ui.addFromSceneButton.isHidden()


def test_a_new_scene_says_where_the_last_project_is(training, a_cohort):
    import slicer

    from caml_core.locking import FileLock

    a_cohort(labeled=2, unlabeled=1)
    folder, lock = training.logic.project.folder, training.logic.lock
    slicer.mrmlScene.Clear()
    assert not roles(training) and f"Your last project is in {folder}" in message(training)
    assert "at work" not in message(training)
    with FileLock(lock, ""):
        slicer.mrmlScene.Clear()
        assert "A training is at work there." in message(training)
    training.ui.projectDirectoryButton.directory = str(folder)
    assert len(roles(training)) == 3 and not message(training)
    slicer.mrmlScene.Clear()
    (folder / "cohort.json").unlink()
    slicer.mrmlScene.Clear()
    assert not message(training), "a project that is gone is not spoken of"


def test_cases_that_are_removed_stay_off_the_list_until_the_user_says_so(training, a_cohort, tmp_path, monkeypatch):
    import slicer

    asked: list[str] = []
    names = a_cohort(labeled=2, unlabeled=1)
    training.logic.addFolder(write_folder(tmp_path / "more", 2, first=5))
    training.update()
    select(training, [])
    assert not training.ui.removeButton.enabled
    select(training, [names[0], "case-05"])
    label, scan = case_of(training, names[0]).label, case_of(training, "case-05").images[0]
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: asked.append(text))
    training.ui.removeButton.click()
    assert len(roles(training)) == 5 and asked[0].startswith("1 of these cases has a label")
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text: True)
    training.ui.removeButton.click()
    assert list(roles(training)) == [*names[1:], "case-06"]
    assert "2 cases were taken off the list" in message(training)
    assert label.is_file() and scan.is_file() and str(label.parent) in message(training)
    training.update()
    training.logic.openProject(training.logic.project.folder)
    training.update()
    assert list(roles(training)) == [*names[1:], "case-06"]
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 3, "the scene keeps what it has"
    training.ui.addFromSceneButton.click()
    assert roles(training)[names[0]] == "unlabeled"
    accept(training, names[0])
    assert roles(training)[names[0]] == "labeled", "what was drawn on it is there"


def test_what_was_removed_from_one_project_is_no_case_of_the_next(training, second, a_cohort):
    names = a_cohort(labeled=2, unlabeled=1)
    select(training, names[2:])
    training.ui.removeButton.click()
    training.ui.projectDirectoryButton.directory = str(second)
    assert list(roles(training)) == ["case-08"] and "left out (3)" in message(training)


def test_no_case_is_removed_while_something_knows_it_by_name(training, a_cohort, wait_for, monkeypatch):
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, training.logic.getParameterNode().budget, ("--iterations", "12", *SMALL))
    names = a_cohort(labeled=2, unlabeled=1)
    select(training, names[:1])
    assert training.ui.removeButton.enabled
    training.ui.checkButton.click()
    training.update()
    assert training.logic.checking and not training.ui.removeButton.enabled
    wait_for(lambda: not training.logic.checking, 120)
    training.update()
    assert training.ui.removeButton.enabled


@pytest.mark.parametrize("meanwhile", ["another module", "another scene"])
def test_practice_goes_on_while_another_module_is_open(the_training_module, wait_for, tmp_path, monkeypatch, meanwhile):
    import slicer

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    training = the_training_module.panel
    training.logic.recall()
    training.update()
    folder = training.logic.project.folder
    assert not folder.exists()
    training.ui.practiceButton.click()
    SlicerHost.leave("CAMLTraining")
    if meanwhile == "another scene":
        slicer.mrmlScene.Clear()
    SlicerHost.enter("CAMLTraining")
    assert training.logic.project.folder == folder and not training.ui.practiceButton.enabled
    wait_for(lambda: not training.cohort.practising, 300)
    assert training.logic.project.folder == folder and len(roles(training)) == 14, message(training)
    SlicerHost.leave("CAMLTraining")
    SlicerHost.enter("CAMLTraining")
    assert training.logic.project.folder == folder and len(roles(training)) == 14


def test_practice_for_a_project_that_was_left_says_where_its_scans_are(training, wait_for, tmp_path):
    training.ui.practiceButton.click()
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    assert not training.ui.practiceButton.enabled
    wait_for(lambda: not training.cohort.practising, 300)
    assert not roles(training) and str(tmp_path / "project" / "practice") in message(training)
    assert training.ui.practiceButton.enabled


@pytest.mark.parametrize("entered", [True, False], ids=["in the module", "in another module"])
def test_the_next_patient_begins_without_the_rounds_of_the_last_project(training, a_cohort, stand_in, entered):
    import slicer

    ui = training.ui
    a_cohort(labeled=1, unlabeled=1)
    finish_round(training, 1, stand_in, caml=0.8)
    assert ui.startModelComboBox.currentText != "From scratch" and ui.historyTableWidget.rowCount == 1
    assert ui.predictButton.enabled
    ui.predictLabel.text = "Scan 01: said of the last project"
    if not entered:
        SlicerHost.leave("CAMLTraining")
    slicer.mrmlScene.Clear()
    if not entered:
        SlicerHost.enter("CAMLTraining")
    add_scan(7, "next patient")
    training.update()
    assert list(roles(training)) == ["next patient"]
    assert not training.logic.rounds() and training.logic.latestModel() is None
    assert ui.historyTableWidget.rowCount == 0 and ui.roundComboBox.count == 0
    assert "no result yet" in ui.resultTextBrowser.plainText
    assert ui.startModelComboBox.currentText == "From scratch"
    assert not training.logic.getParameterNode().startModel and not training.logic.getParameterNode().startChosenFor
    assert not ui.predictButton.enabled and not ui.predictLabel.text
