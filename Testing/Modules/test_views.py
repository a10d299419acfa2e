"""Views belong to the module that is open: what comes meanwhile in ours does not change what another one shows."""

from __future__ import annotations

import numpy as np
import pytest
import SlicerHost
from panel_tools import apply, finish, results
from stand_ins import ijk_to_ras, noise
from training_tools import SEGMENT, add_scan, ball

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import write_labels


def layers() -> set[tuple[str | None, str | None]]:
    """Background and foreground of all slice views."""
    import slicer

    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {(node.GetBackgroundVolumeID(), node.GetForegroundVolumeID()) for node in nodes}


def fields() -> list[tuple[float, ...]]:
    """The field of view of all slice views."""
    import slicer

    return [node.GetFieldOfView() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")]


def look_at(volume) -> None:
    """What a user of another module looks at, closely."""
    import slicer

    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.SetFieldOfView(11, 12, 1)


@pytest.fixture
def painted(a_volume):
    """A scan that is painted in the Segment Editor."""
    return a_volume("painted", noise(seed=5), ijk_to_ras())


def test_a_segmentation_that_ends_while_another_module_is_open_leaves_its_views(panel, a_scan, painted, wait_for):
    panel.ui.applyButton.click()
    SlicerHost.leave("CAMLSegmentation")
    look_at(painted)
    seen = layers(), fields()
    finish(panel, wait_for)
    assert len(results()) == 1 and (layers(), fields()) == seen
    SlicerHost.enter("CAMLSegmentation")
    assert layers() == {(a_scan.GetID(), None)}, "the user comes back for the result"
    SlicerHost.leave("CAMLSegmentation")
    look_at(painted)
    SlicerHost.enter("CAMLSegmentation")
    assert (layers(), fields()) == seen, "once"


def test_a_result_whose_scene_is_gone_is_not_shown_in_the_next(panel, a_scan, painted, a_volume, wait_for):
    import slicer

    panel.ui.applyButton.click()
    SlicerHost.leave("CAMLSegmentation")
    finish(panel, wait_for)
    slicer.mrmlScene.Clear()
    first, second = (a_volume(f"next {n}", noise(seed=n), ijk_to_ras()) for n in range(2))
    for _n in range(2):
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    look_at(second)
    SlicerHost.enter("CAMLSegmentation")
    assert layers() == {(second.GetID(), None)}


def test_an_overlay_of_a_newer_result_waits_until_the_user_is_back(panel, a_scan, painted, wait_for):
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    panel.ui.overlayCheckBox.click()
    panel._parameterNode.existing = "add"
    panel.ui.applyButton.click()
    SlicerHost.leave("CAMLSegmentation")
    seen = layers()
    finish(panel, wait_for)
    newer = panel._parameterNode.result
    assert len(results()) == 2 and newer is results()[-1] and layers() == seen
    SlicerHost.enter("CAMLSegmentation")
    assert layers() == {(a_scan.GetID(), newer.GetNodeReferenceID(SegmentationResult.DISAGREEMENT))}


@pytest.mark.parametrize("here", [True, False], ids=["here", "in another module"])
def test_scans_loaded_with_their_results_are_shown_to_who_is_here(panel, painted, wait_for, tmp_path, here):
    import slicer

    (tmp_path / "scans").mkdir()
    slicer.util.saveNode(painted, str(tmp_path / "scans" / "p0.nrrd"))
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(tmp_path / "scans")
    ui.loadResultsCheckBox.click()
    look_at(painted)
    seen = layers(), fields()
    ui.applyButton.click()
    if not here:
        SlicerHost.leave("CAMLSegmentation")
    finish(panel, wait_for)
    assert len(results()) == 1 and ((layers(), fields()) == seen) != here


def test_a_script_shows_its_result_whatever_module_is_open(panel, a_scan, a_model, painted):
    SlicerHost.leave("CAMLSegmentation")
    look_at(painted)
    panel.logic.segment(a_scan, a_model)
    assert layers() == {(a_scan.GetID(), None)}


@pytest.fixture
def a_preview(training, tmp_path):
    """``a_preview()``: a training that has just written what its model says of Scan 00."""
    volume = add_scan(0)
    training.update()
    training.logic.cohort.ensureFile("Scan 00")
    training.logic.save()
    folder = training.logic.project.rounds_folder() / "001"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text('{"event": "started", "command": "round", "pid": 1, "version": "0"}\n')
    (folder / "round.json").write_text("{}")
    (folder / "caml").mkdir()
    (folder / "caml" / "checkpoint.pt").touch()
    training.logic.openProject(training.logic.project.folder)
    training._parameterNode.previewCase = "Scan 00"
    grid = read_volume(training.logic.project.cases["Scan 00"].images[0]).grid

    def write():
        write_labels(
            folder / "preview.seg.nrrd", ball(0).astype("uint8").transpose(2, 1, 0), grid, [Segment(SEGMENT, 1)]
        )
        training.train.preview.show("Scan 00")
        return volume

    return write


def test_a_preview_leaves_the_views_of_another_module(training, a_preview):
    other = add_scan(7, "painted")
    SlicerHost.leave("CAMLTraining")
    look_at(other)
    seen = layers(), fields()
    volume = a_preview()
    a_preview()
    assert [node.GetName() for node in results()] == ["Scan 00 - training preview"]
    assert (layers(), fields()) == seen
    SlicerHost.enter("CAMLTraining")
    assert layers() == {(volume.GetID(), None)}
    look_at(other)
    a_preview()
    assert (layers(), fields()) == seen, "views follow the first alone"


def test_a_preview_is_shown_to_who_is_here(training, a_preview):
    look_at(add_scan(7, "another"))
    volume = a_preview()
    assert layers() == {(volume.GetID(), None)}


@pytest.fixture
def two_results(panel, a_volume, wait_for):
    """Two patients, segmented in one run: the views show the first, the panel the result of the second."""
    from CAMLSegmentationLib import SegmentationResult

    volumes = [a_volume(f"LA {n}", noise(seed=n), ijk_to_ras(origin=(40.0 * n, 0.0, 0.0))) for n in range(2)]
    panel._parameterNode.inputKind = "several"
    panel._parameterNode.inputVolumes = volumes
    apply(panel, wait_for)
    assert layers() == {(volumes[0].GetID(), None)} and panel._parameterNode.result is results()[1]
    maps = [node.GetNodeReference(SegmentationResult.DISAGREEMENT) for node in results()]
    return volumes, maps


@pytest.mark.parametrize("button", ["nextStopButton", "overlayCheckBox"])
def test_what_is_uncertain_is_shown_on_its_own_volume(panel, two_results, button):
    volumes, maps = two_results
    getattr(panel.ui, button).click()
    shown = maps[1].GetID() if button == "overlayCheckBox" else None
    assert layers() == {(volumes[1].GetID(), shown)}


def test_choosing_another_result_takes_the_map_to_its_volume(panel, two_results):
    volumes, maps = two_results
    panel.ui.overlayCheckBox.click()
    panel._parameterNode.result = results()[0]
    assert layers() == {(volumes[0].GetID(), maps[0].GetID())}


def test_views_that_show_the_volume_already_keep_what_the_user_looks_at(panel, two_results):
    import slicer

    volumes, maps = two_results
    look_at(volumes[1])
    red = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    red.SetBackgroundVolumeID(volumes[0].GetID())
    closely = [seen[:2] for seen in fields()]
    panel.ui.nextStopButton.click()
    panel.ui.overlayCheckBox.click()
    assert layers() == {(volumes[1].GetID(), maps[1].GetID())}
    assert sum(seen[:2] == old for seen, old in zip(fields(), closely)) == 2, "only Red showed another volume"


def test_a_map_that_arrives_with_a_run_is_not_put_over_the_volume_on_view(panel, two_results, wait_for):
    volumes, maps = two_results
    panel._parameterNode.result = results()[0]
    panel.ui.overlayCheckBox.click()
    apply(panel, wait_for)
    assert panel._parameterNode.result is results()[1] and layers() == {(volumes[0].GetID(), None)}
    SlicerHost.leave("CAMLSegmentation")
    SlicerHost.enter("CAMLSegmentation")
    assert layers() == {(volumes[0].GetID(), None)}
    panel.ui.nextStopButton.click()
    assert layers() == {(volumes[1].GetID(), maps[1].GetID())}


def test_an_overlay_that_a_scene_was_saved_with_can_be_switched_off(panel, a_scan, wait_for, tmp_path):
    import slicer
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    panel.ui.overlayCheckBox.click()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    (result,) = results()
    scan = SegmentationResult.sourceOf(result)
    shown = {(scan.GetID(), result.GetNodeReferenceID(SegmentationResult.DISAGREEMENT))}
    assert layers() == shown and panel.ui.overlayCheckBox.checked
    panel.ui.overlayCheckBox.click()
    assert layers() == {(scan.GetID(), None)}
    panel.ui.overlayCheckBox.click()
    assert layers() == shown


@pytest.fixture
def looked(monkeypatch):
    """Each look at a map for what is uncertain: all its voxels."""
    from CAMLSegmentationLib import Review

    looks, real = [], Review.findStops
    monkeypatch.setattr(Review, "findStops", lambda *nodes: (looks.append(nodes), real(*nodes))[1])
    return looks


def test_a_map_is_looked_at_when_it_comes_and_when_something_has_changed(panel, a_scan, wait_for, looked):
    import slicer
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    assert len(looked) == 1
    apply(panel, wait_for)
    assert len(results()) == 1 and len(looked) == 2, "the same result, made anew"
    looked.pop()
    panel.ui.nextStopButton.click()
    panel.ui.nextStopButton.click()
    place = panel.ui.stopLabel.text
    SlicerHost.leave("CAMLSegmentation")
    SlicerHost.enter("CAMLSegmentation")
    assert len(looked) == 1 and panel.ui.stopLabel.text == place and "number 2" in place

    SlicerHost.leave("CAMLSegmentation")
    (result,) = results()
    drawn = np.zeros(noise().shape, np.uint8)
    drawn[:3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, result, "Segment_1", a_scan)
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
    assert len(looked) == 1 and panel.ui.editedLabel.isHidden()
    SlicerHost.enter("CAMLSegmentation")
    assert len(looked) == 2 and not panel.ui.editedLabel.isHidden()

    SlicerHost.leave("CAMLSegmentation")
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    moved.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(ijk_to_ras()))
    result.GetNodeReference(SegmentationResult.DISAGREEMENT).SetAndObserveTransformNodeID(moved.GetID())
    SlicerHost.enter("CAMLSegmentation")
    assert len(looked) == 3, "what is uncertain lies elsewhere now"


def test_what_another_module_shows_in_3d_is_known_when_the_user_is_back(panel, a_scan, wait_for, looked):
    from CAMLSegmentationLib import SegmentationResult

    apply(panel, wait_for)
    SlicerHost.leave("CAMLSegmentation")
    SegmentationResult.setShown3D(results()[0], True)
    SlicerHost.enter("CAMLSegmentation")
    assert panel.ui.show3DButton.checked and len(looked) == 1
