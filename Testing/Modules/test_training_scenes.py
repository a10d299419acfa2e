"""Scenes that are saved and loaded: what is told from files, the project that is found again, and what stays behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SlicerHost
from training_tools import (
    SEGMENT,
    add_scan,
    ball,
    case_of,
    finish_round,
    message,
    predict,
    roles,
    scan,
    write_folder,
    write_two_channels,
)

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import write_labels

# Bundles


def save_bundle(panel, tmp_path: Path, again: bool) -> None:
    """Save the scene as a bundle; ``again``: load it in the scene's place."""
    import slicer

    panel.logic.save()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    if again:
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    panel.update()


def images(panel) -> dict[str, tuple[Path, ...]]:
    """Case -> files of its scan."""
    return {case.id: case.images for case in panel.logic.project.cases.values()}


def show_two_channels(panel, tmp_path: Path) -> None:
    """A cohort of two cases with two channels each; both channels of the first are in the scene, one of them twice."""
    import slicer

    folder = write_two_channels(tmp_path / "two channels")
    panel.logic.addFolder(folder)
    for channel in ("p0_0001", "p0_0000", "p0_0000"):
        slicer.util.loadVolume(str(folder / f"{channel}.nrrd"))
        panel.update()


@pytest.mark.parametrize("loaded", [False, True], ids=["saved", "loaded"])
def test_a_bundle_makes_no_cases_of_further_channels(training, tmp_path, loaded):
    import slicer

    show_two_channels(training, tmp_path)
    before = images(training)
    assert list(before) == ["p0", "p1"]
    save_bundle(training, tmp_path, loaded)
    assert images(training) == before
    training.logic.cohort.ready()
    assert images(training) == before
    slicer.mrmlScene.RemoveNode(training.logic.cohort.volumeNode("p0"))
    training.update()
    assert images(training) == before and training.logic.cohort.volumeNode("p0") is not None


@pytest.mark.parametrize("loaded", [False, True], ids=["saved", "loaded"])
def test_a_bundle_copies_no_scan_that_lies_in_a_file(training, tmp_path, loaded):
    import slicer

    slicer.util.loadVolume(str(write_folder(tmp_path / "scans", 1) / "case-00.nii.gz"))
    training.update()
    before = images(training)
    assert before == {"case-00": (tmp_path / "scans" / "case-00.nii.gz",)}
    save_bundle(training, tmp_path, loaded)
    training.logic.cohort.ready()
    assert images(training) == before
    assert not (training.logic.project.folder / "volumes").exists()


@pytest.mark.parametrize("change", ["voxels", "place"])
@pytest.mark.parametrize("loaded", [False, True], ids=["saved", "loaded"])
def test_a_bundle_does_not_hide_that_a_scan_was_changed(training, tmp_path, loaded, change):
    """Saving renews the time at which a volume counts as stored, whatever its own file holds."""
    import slicer

    volume = slicer.util.loadVolume(str(write_folder(tmp_path / "scans", 1) / "case-00.nii.gz"))
    training.update()
    if change == "voxels":
        slicer.util.updateVolumeFromArray(volume, scan(5))
    else:
        volume.SetOrigin(10, 20, 30.3)
    save_bundle(training, tmp_path, loaded)
    training.logic.cohort.ready()
    (path,) = case_of(training, "case-00").images
    assert path.parent == training.logic.project.folder / "volumes"
    written = read_volume(path)
    expected = scan(5 if change == "voxels" else 0).transpose(2, 1, 0)
    assert np.array_equal(written.array, expected)
    if change == "place":
        assert written.grid.origin == pytest.approx((-10, -20, 30.3))


def test_a_volume_loaded_before_its_folder_is_added_is_known_by_its_file_after_a_bundle(training, tmp_path):
    import slicer

    folder = write_folder(tmp_path / "scans", 2)
    slicer.util.loadVolume(str(folder / "case-00.nii.gz"))
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    training.logic.addFolder(folder)
    training.update()
    assert list(roles(training)) == ["case-00", "case-01"]


def test_a_copy_of_a_further_channel_made_in_the_scene_is_a_case(training, tmp_path):
    import slicer

    show_two_channels(training, tmp_path)
    extra = next(n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName() == "p0_0000")
    copy = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, extra, "smoothed")
    training.update()
    assert list(roles(training)) == ["p0", "p1", "smoothed"]
    save_bundle(training, tmp_path, again=False)
    assert training.logic.cohort.volumeNode("smoothed") is copy


def test_a_scan_of_the_scene_alone_is_still_written_after_a_bundle(training, tmp_path):
    add_scan(3, "LA")
    training.update()
    save_bundle(training, tmp_path, again=True)
    training.logic.cohort.ready()
    (path,) = case_of(training, "LA").images
    assert np.array_equal(read_volume(path).array, scan(3).transpose(2, 1, 0))


# Scene and project in another place


def save_study(panel, scene: Path, project: str) -> dict[str, str]:
    """Save a scene, and its project in the folder ``project`` as seen from it, in a session that began elsewhere.

    Both are left in another module, with the scene closed. Returns the roles.
    """
    import slicer

    scene.parent.mkdir(parents=True)
    slicer.mrmlScene.SetRootDirectory(slicer.app.defaultScenePath)  # as Slicer does when it starts
    panel.logic.openProject(scene.parent / project)
    for seed in range(2):
        add_scan(seed)
    panel.update()
    panel.logic.setRole(["Scan 01"], "excluded")
    found = roles(panel)
    assert found == {"Scan 00": "unlabeled", "Scan 01": "excluded"}
    assert slicer.util.saveScene(str(scene))
    slicer.mrmlScene.Clear()
    return found


@pytest.mark.parametrize("moved", ["moved", "copied"])
@pytest.mark.parametrize("entered", [True, False], ids=["in the module", "in another module"])
@pytest.mark.parametrize("project", ["project", "../projects/atria"], ids=["below", "beside"])
@pytest.mark.parametrize("kind", ["mrml", "mrb"])
def test_scene_and_project_may_go_elsewhere_together(training, tmp_path, wait_for, kind, project, entered, moved):
    import slicer

    before = save_study(training, tmp_path / "data" / "scenes" / f"scene.{kind}", project)
    if not entered:
        SlicerHost.leave("CAMLTraining")
    there = tmp_path / "stick"
    (shutil.move if moved == "moved" else shutil.copytree)(tmp_path / "data", there)
    slicer.util.loadScene(str(there / "scenes" / f"scene.{kind}"))
    if not entered:
        SlicerHost.enter("CAMLTraining")
    folder = (there / "scenes" / project).resolve()
    wait_for(lambda: training.logic.project.folder == folder, 5)
    assert roles(training) == before
    assert "is not there" not in message(training)
    assert training.logic.getParameterNode().projectFolder == str(folder)
    training.logic.save()
    assert (tmp_path / "data").exists() == (moved == "copied"), "nothing is written where the project was"


def test_a_scene_moved_alone_finds_its_project(training, tmp_path, wait_for):
    import slicer

    before = save_study(training, tmp_path / "data" / "scene.mrb", "project")
    (tmp_path / "stick").mkdir()
    shutil.move(tmp_path / "data" / "scene.mrb", tmp_path / "stick")
    slicer.util.loadScene(str(tmp_path / "stick" / "scene.mrb"))
    training.update()
    assert training.logic.project.folder == tmp_path / "data" / "project" and roles(training) == before


@pytest.mark.parametrize("where", ["beside the scene", "in the old place"])
def test_another_project_is_not_taken_for_the_scenes(training, tmp_path, where):
    import slicer

    from caml_core.project.cases import ProjectCase
    from caml_core.project.project import Project

    before = save_study(training, tmp_path / "data" / "scene.mrml", "project")
    slicer.util.loadScene(str(tmp_path / "data" / "scene.mrml"))
    assert training.logic.getParameterNode().projectBeside == "project"
    slicer.util.saveScene(str(tmp_path / "data" / "scene.mrml"))
    slicer.mrmlScene.Clear()
    there = tmp_path / ("stick" if where == "beside the scene" else "data")
    shutil.rmtree(tmp_path / "data" / "project")
    other = Project(there / "project")
    other.add(ProjectCase("of somebody else", (tmp_path / "somebody.nrrd",)))
    other.save()
    if where == "beside the scene":
        shutil.move(tmp_path / "data" / "scene.mrml", there)
    slicer.util.loadScene(str(there / "scene.mrml"))
    training.update()
    assert roles(training) == before, "the cohort comes from the scene"
    assert list(Project.open(there / "project").cases) == ["of somebody else"]
    if where == "in the old place":
        assert "another project" in message(training)
        training.ui.projectDirectoryButton.directory = str(tmp_path / "new")
        training.logic.save()
        assert roles(training) == before and list(Project.open(tmp_path / "new").cases) == list(before)


def test_a_project_that_another_system_named_is_found_beside_its_scene(training, tmp_path):
    import slicer

    before = save_study(training, tmp_path / "data" / "scene.mrml", "project")
    text = (tmp_path / "data" / "scene.mrml").read_text()
    assert text.count(str(tmp_path / "data" / "project"))
    moved = text.replace(str(tmp_path / "data" / "project"), "D:\\studies\\atria\\project")
    (tmp_path / "data" / "scene.mrml").write_text(moved)
    slicer.util.loadScene(str(tmp_path / "data" / "scene.mrml"))
    training.update()
    assert training.logic.project.folder == tmp_path / "data" / "project" and roles(training) == before


def test_a_scene_saved_after_its_project_was_opened_keeps_the_project(training, tmp_path, wait_for):
    """Saving changes the scene's folder, too; a copy that lies there is not the open project."""
    import slicer

    save_study(training, tmp_path / "data" / "scene.mrml", "project")
    slicer.util.loadScene(str(tmp_path / "data" / "scene.mrml"))
    training.update()
    SlicerHost.wait_for(lambda: not training._timer.isActive(), 5)
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    assert slicer.util.saveScene(str(tmp_path / "backup" / "scene.mrml"))
    add_scan(7)
    wait_for(lambda: "Scan 07" in roles(training), 5)
    SlicerHost.leave("CAMLTraining")
    SlicerHost.enter("CAMLTraining")
    assert training.logic.project.folder == tmp_path / "data" / "project"


# What is left in a scene


def count(class_name: str) -> int:
    """How many nodes of a class the scene has."""
    import slicer

    return slicer.mrmlScene.GetNumberOfNodesByClass(class_name)


def displays_match() -> bool:
    """Whether each segmentation of the scene has its display, and there are no others."""
    return count("vtkMRMLSegmentationDisplayNode") == count("vtkMRMLSegmentationNode")


def test_previews_that_follow_each_other_leave_nothing_behind(training, stand_in):
    add_scan(0)
    training.update()
    training.logic.save()
    finish_round(training, 1, stand_in)
    training._parameterNode.previewCase = "Scan 00"
    training.logic.cohort.ensureFile("Scan 00")
    grid = read_volume(case_of(training, "Scan 00").images[0]).grid
    for shift in range(3):
        voxels = np.roll(ball(0), shift, 0).astype(np.uint8).transpose(2, 1, 0)
        write_labels(training.logic.round.folder / "preview.seg.nrrd", voxels, grid, [Segment(SEGMENT, 1)])
        training.train.preview.show("Scan 00")
        assert count("vtkMRMLSegmentationNode") == 1 and displays_match()


def test_a_prediction_that_gives_way_to_a_newer_one_leaves_nothing_behind(training):
    from CAMLTrainingLib.Predictions import showPrediction

    add_scan(0)
    training.update()
    training.logic.save()
    for shift in range(3):
        predict(training, "Scan 00", np.roll(ball(0), shift, 0))
        showPrediction(training.logic.cohort, "Scan 00", "Model")
        assert count("vtkMRMLSegmentationNode") == 1 and displays_match()


def test_a_drawing_that_gives_way_to_a_prediction_leaves_nothing_behind(training):
    add_scan(0)
    training.update()
    training.logic.cohort.setSegments([SEGMENT])
    training.openCase("Scan 00")
    training.edit.leave()
    training.logic.save()
    predict(training, "Scan 00", ball(0))
    training.openCase("Scan 00")
    assert count("vtkMRMLSegmentationNode") == 1 and displays_match()
