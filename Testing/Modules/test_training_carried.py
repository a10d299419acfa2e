"""What a saved scene carries of its project: its own cases, and no other patient."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import SlicerHost
from training_tools import add_scan, message, roles, write_folder

from caml_core.project.project import Project


def saved(tmp_path: Path, kind: str) -> str:
    """The scene as it lies on the disk."""
    import slicer

    path = tmp_path / "handed on" / f"scene.{kind}"
    path.parent.mkdir(exist_ok=True)
    assert slicer.util.saveScene(str(path))
    if kind == "mrml":
        return path.read_text()
    with zipfile.ZipFile(path) as bundle:
        return " ".join([*bundle.namelist(), *(bundle.read(n).decode() for n in bundle.namelist() if ".mrml" in n)])


def list_a_cohort(panel, tmp_path: Path) -> None:
    """Five cases of an archive, the second of them loaded, and one scan of the scene; all is saved in the folder."""
    panel.logic.addFolder(write_folder(tmp_path / "archive", 5))
    panel.logic.setRole(["case-03"], "excluded")
    panel.logic.cohort.load("case-01")
    add_scan(7, "of the scene")
    panel.update()
    panel.logic.save()
    assert len(roles(panel)) == 6


@pytest.mark.parametrize("kind", ["mrml", "mrb"])
def test_a_scene_names_no_case_but_its_own(training, tmp_path, kind):
    list_a_cohort(training, tmp_path)
    text = saved(tmp_path, kind)
    assert "case-01" in text and "of the scene" in text
    assert not [case for case in roles(training) if case not in ("case-01", "of the scene") and case in text]


def test_a_case_whose_volume_went_is_not_named_any_more(training, tmp_path, wait_for):
    import slicer

    list_a_cohort(training, tmp_path)
    training.logic.cohort.ensureFile("of the scene")
    slicer.mrmlScene.RemoveNode(training.logic.cohort.volumeNode("of the scene"))
    wait_for(lambda: "of the scene" not in training.logic.getParameterNode().cohort, 5)
    assert "of the scene" not in saved(tmp_path, "mrml") and "of the scene" in roles(training)


def test_a_scene_of_before_names_them_until_its_project_is_opened(training, tmp_path):
    import slicer

    list_a_cohort(training, tmp_path)
    before = roles(training)
    SlicerHost.leave("CAMLTraining")
    training.logic.getParameterNode().cohort = training.logic.project.write()
    assert "case-04" in saved(tmp_path, "mrb")
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "handed on" / "scene.mrb"))
    SlicerHost.enter("CAMLTraining")
    assert roles(training) == before, "the folder has all of them"
    assert "case-04" not in saved(tmp_path, "mrb")


def test_without_its_folder_a_scene_says_how_many_cases_it_does_not_know(training, tmp_path):
    import slicer

    list_a_cohort(training, tmp_path)
    before = roles(training)
    saved(tmp_path, "mrb")
    slicer.mrmlScene.Clear()
    shutil.move(tmp_path / "project", tmp_path / "moved")
    for _again in range(2):  # it knows as much when it was saved without them
        slicer.util.loadScene(str(tmp_path / "handed on" / "scene.mrb"))
        training.update()
        assert roles(training) == {"case-01": "unlabeled", "of the scene": "unlabeled"}
        assert "is not there" in message(training) and "4 others" in message(training)
        saved(tmp_path, "mrb")
        slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "handed on" / "scene.mrb"))
    training.ui.projectDirectoryButton.directory = str(tmp_path / "moved")
    assert roles(training) == before, "all are back with their folder"
    assert len(Project.open(tmp_path / "moved").cases) == 6


def test_a_project_that_no_folder_has_is_in_the_scene_as_a_whole(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "archive", 3))
    training.update()
    assert not training.logic.project.is_kept
    listed = json.loads(training.logic.getParameterNode().cohort)
    assert [case["id"] for case in listed["cases"]] == ["case-00", "case-01", "case-02"] and "others" not in listed


#: A folder that no system but the sender's knows.
THEIRS = "/data/atria" if os.name == "nt" else "D:\\studies\\atria"


def receive(panel, tmp_path: Path) -> Path:
    """Load a scene of a colleague with another operating system, whose project did not come along."""
    import slicer

    add_scan(0)
    panel.update()
    panel.logic.setRole(["Scan 00"], "excluded")
    assert slicer.util.saveScene(str(tmp_path / "theirs.mrml"))
    slicer.mrmlScene.Clear()
    text = (tmp_path / "theirs.mrml").read_text()
    assert str(tmp_path / "project") in text
    shutil.rmtree(tmp_path / "project")
    (tmp_path / "sent").mkdir()
    for file in tmp_path.glob("*.nrrd"):
        shutil.copy(file, tmp_path / "sent")
    scene = tmp_path / "sent" / "theirs.mrml"
    scene.write_text(text.replace(str(tmp_path / "project"), THEIRS))
    slicer.util.loadScene(str(scene))
    panel.update()
    return scene


def test_a_scene_from_another_system_puts_its_project_into_a_folder_of_this_one(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    receive(training, tmp_path)
    folder = training.logic.project.folder
    assert folder.parent == tmp_path / "home" / "CAML Training" and not folder.exists()
    assert roles(training) == {"Scan 00": "excluded"}
    assert THEIRS in message(training) and str(folder) in message(training)
    SlicerHost.leave("CAMLTraining")
    SlicerHost.enter("CAMLTraining")
    add_scan(5)
    training.update()
    assert roles(training) == {"Scan 00": "excluded", "Scan 05": "unlabeled"}
    assert training.logic.project.folder == folder
    assert training.logic.getParameterNode().projectFolder == THEIRS, "until it is kept here it is found there alone"
    training.logic.save()
    training.update()
    assert training.logic.getParameterNode().projectFolder == str(folder) and training.logic.project.is_kept


def test_the_project_of_a_scene_from_another_system_may_be_put_elsewhere(training, tmp_path):
    receive(training, tmp_path)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "mine")
    assert roles(training) == {"Scan 00": "excluded"} and training.logic.project.is_kept
    assert training.logic.getParameterNode().projectFolder == str(tmp_path / "mine")
