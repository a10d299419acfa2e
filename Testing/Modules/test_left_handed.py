"""Scans of left-handed files, whose slices Slicer reverses as it loads them, are as any others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import vtk
from CAMLSegmentationLib import SharedGrid, VolumeExchange
from test_training_moved import move, opened
from training_tools import AXES, accept, add_scan, ball, case_of, draw, message, predict, roles, scan, write_folder
from vtk.util.numpy_support import vtk_to_numpy

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels, write_scalar
from caml_core.errors import DataError

CASE = "case-00"
handed = pytest.mark.parametrize("axes", AXES.values(), ids=AXES)


def a_folder(panel, tmp_path: Path, axes, labels: int = 0) -> Path:
    """The cohort has a folder with one scan; return the scan's file."""
    folder = write_folder(tmp_path / "scans", 1, labels=labels, axes=axes)
    panel.logic.addFolder(folder)
    panel.logic.cohort.setSegments(["ball"])
    panel.update()
    return folder / f"{CASE}.nii.gz"


def in_file_order(voxels: np.ndarray, axes) -> np.ndarray:
    """Voxels [k, j, i] of a file as its volume in the scene has them, and the other way round."""
    return voxels[::-1] if np.linalg.det(np.reshape(axes, (3, 3))) < 0 else voxels


def shown(node, volume) -> np.ndarray:
    """Where the first segment lies on a volume: bool [k, j, i]."""
    import slicer

    identity = node.GetSegmentation().GetNthSegmentID(0)
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, identity, volume) > 0


@handed
def test_slicer_loads_what_these_tests_are_about(training, tmp_path, axes):
    import slicer

    a_folder(training, tmp_path, axes)
    volume = training.logic.cohort.load(CASE)
    assert np.array_equal(slicer.util.arrayFromVolume(volume), in_file_order(scan(0), axes))


# Scan and file


@handed
def test_a_scan_that_counts_as_modified_keeps_its_file_and_its_prediction(training, tmp_path, axes):
    """Saving the scene as .mrb marks all volumes as modified."""
    path = a_folder(training, tmp_path, axes)
    predict(training, CASE, ball(0))
    volume = training.logic.cohort.load(CASE)
    volume.GetImageData().Modified()
    assert volume.GetModifiedSinceRead()
    training.logic.cohort.ready()
    known = case_of(training, CASE)
    assert known.images == (path,) and known.prediction is not None and known.status == "predicted"
    assert known.uncertainty is not None
    volume.GetImageData().GetPointData().GetScalars().SetTuple1(7, 1)
    volume.GetImageData().Modified()
    training.logic.cohort.ready()
    assert case_of(training, CASE).images != (path,), "it is another scan now"


@handed
def test_a_listed_scan_that_is_dragged_in_and_counts_as_modified_is_its_case(training, tmp_path, axes):
    import slicer

    path = a_folder(training, tmp_path, axes)
    volume = slicer.util.loadVolume(str(path))
    volume.GetImageData().Modified()
    training.update()
    assert list(roles(training)) == [CASE], message(training)
    assert training.logic.cohort.volumeNode(CASE) is volume


@handed
def test_a_scan_of_an_older_scene_is_known_by_its_file(training, tmp_path, axes):
    """Its mark says no more than the case."""
    import slicer

    path = a_folder(training, tmp_path, axes)
    volume = slicer.util.loadVolume(str(path))
    volume.SetAttribute(training.logic.cohort.attribute, CASE)
    volume.GetImageData().Modified()
    assert training.logic.cohort.load(CASE) is volume
    assert list(roles(training)) == [CASE]


@handed
def test_a_label_that_is_taken_again_as_it_is_is_not_written_again(training, tmp_path, axes):
    path = a_folder(training, tmp_path, axes)
    volume, node = opened(training)
    draw(node, volume, ball(5))
    accept(training, CASE)
    label = case_of(training, CASE).label
    accept(training, CASE)
    assert case_of(training, CASE).label == label and case_of(training, CASE).images == (path,)
    training.logic.cohort.ready()


#: To the patient's left, and with left and right exchanged.
PLACES = {"shifted": np.array([[1, 0, 0, 3.0], [0, 1, 0, 0.4], [0, 0, 1, 0]]), "mirrored": np.diag([-1.0, 1, 1, 0])[:3]}


@handed
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("whose", ["drawn here", "of others"])
def test_a_label_goes_along_with_its_scans_voxels_wherever_these_were_moved(training, tmp_path, axes, place, whose):
    import slicer

    a_folder(training, tmp_path, axes, labels=int(whose == "of others"))
    volume, node = opened(training)
    expected = in_file_order(ball(0), axes)
    if whose == "drawn here":
        draw(node, volume, expected)
        accept(training, CASE)
    slicer.mrmlScene.RemoveNode(node)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(np.vstack([place, [0, 0, 0, 1.0]])))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    volume.HardenTransform()
    volume, node = opened(training)
    assert np.array_equal(shown(node, volume), expected)


# Maps


def a_prediction(panel, path: Path, kind=np.uint8) -> np.ndarray:
    """A prediction on the last slices of a scan's file, and its map; return where, bool [k, j, i] of the file."""
    mask = np.zeros(scan(0).shape, bool)
    mask[15:18, 8:13, 5:15] = True
    predict(panel, CASE, mask)
    disagreement = (mask * (50 + 10 * np.arange(20))[:, None, None] / 2.5).astype(kind)
    target = panel.logic.project.folder / "predictions" / f"{CASE}_disagreement.nrrd"
    write_scalar(target, disagreement.transpose(2, 1, 0), read_volume(path).grid)
    return mask


@handed
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("moved", ["", "under a transform", "hardened"])
def test_the_map_of_the_disagreement_lies_on_the_prediction(training, tmp_path, axes, kind, moved):
    import slicer
    from CAMLSegmentationLib import Review
    from CAMLTrainingLib.Predictions import disagreementMap, showPrediction

    path = a_folder(training, tmp_path, axes)
    expected = in_file_order(a_prediction(training, path, kind), axes)
    volume = training.logic.cohort.load(CASE)
    if moved:
        move(volume, by=(0.7, 3.0, -0.4), hard=moved == "hardened")
    node = showPrediction(training.logic.cohort, CASE)
    mapNode = disagreementMap(training.logic.cohort, CASE)
    values = slicer.util.arrayFromVolume(mapNode)
    assert values.dtype == kind and SharedGrid.sameGrid([volume, mapNode])
    assert np.array_equal(values > 0, expected) and np.array_equal(shown(node, volume), expected)
    stops = Review.findStops(mapNode)
    assert stops[0].slice in np.flatnonzero(expected.any(axis=(1, 2)))
    fromWorld = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(VolumeExchange.worldMatrix(volume), fromWorld)
    i, j, k = (round(c) for c in fromWorld.MultiplyPoint((*stops[0].position, 1.0))[:3])
    assert expected[k, j, i], "the first place to look at lies in the segment"
    assert disagreementMap(training.logic.cohort, CASE) is mapNode, "shown again, it is the same"


def test_a_map_of_a_scan_that_has_been_cropped_since_stays_in_its_place(training, tmp_path):
    import slicer
    from CAMLTrainingLib.Predictions import disagreementMap

    path = a_folder(training, tmp_path, AXES["left-handed"])
    a_prediction(training, path)
    volume = training.logic.cohort.load(CASE)
    before = disagreementMap(training.logic.cohort, CASE)
    voxels, place = slicer.util.arrayFromVolume(before).copy(), vtk.vtkMatrix4x4()
    before.GetIJKToRASMatrix(place)
    slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume)[:, :-2].copy())
    after = disagreementMap(training.logic.cohort, CASE)
    assert VolumeExchange.gridOf(after).right_handed().size == voxels.shape[::-1]
    corner = np.array(place.MultiplyPoint((0.0, 0.0, 0.0, 1.0)))
    k = voxels.shape[0] - 1  # on the grid of its file
    assert np.allclose(VolumeExchange.worldMatrix(after).MultiplyPoint((0.0, 0.0, k, 1.0)), corner)
    assert np.array_equal(slicer.util.arrayFromVolume(after)[::-1], voxels)


def test_a_damaged_map_is_said_and_leaves_nothing_behind(training, tmp_path):
    import slicer
    from CAMLTrainingLib.Predictions import disagreementMap

    a_prediction(training, a_folder(training, tmp_path, AXES["right-handed"]))
    training.logic.cohort.load(CASE)
    (training.logic.project.folder / "predictions" / f"{CASE}_disagreement.nrrd").write_bytes(b"NRRD0004\ntorn")
    with pytest.raises(DataError, match="disagreement"):
        disagreementMap(training.logic.cohort, CASE)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1


# Surfaces


def enclosed(node) -> float:
    """The volume (mm3) that the surface of the first segment encloses; negative where it is inside out."""
    assert node.CreateClosedSurfaceRepresentation()
    surface = vtk.vtkPolyData()
    node.GetClosedSurfaceRepresentation(node.GetSegmentation().GetNthSegmentID(0), surface)
    triangles = vtk.vtkTriangleFilter()
    triangles.SetInputData(surface)
    triangles.Update()
    points = vtk_to_numpy(triangles.GetOutput().GetPoints().GetData()).astype(float)
    corners = vtk_to_numpy(triangles.GetOutput().GetPolys().GetConnectivityArray()).reshape(-1, 3)
    a, b, c = (points[corner] for corner in corners.T)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@handed
def test_surfaces_are_the_right_way_round(training, tmp_path, axes):
    import slicer
    from CAMLTrainingLib import CaseExchange
    from CAMLTrainingLib.Predictions import showPrediction

    path = a_folder(training, tmp_path, axes, labels=1)
    predict(training, CASE, ball(0))
    nodes = [showPrediction(training.logic.cohort, CASE)]
    nodes.append(slicer.util.loadSegmentation(str(case_of(training, CASE).prediction)))
    volume = training.logic.cohort.volumeNode(CASE)
    plain = path.with_name(f"{CASE}_label.nii.gz")
    nodes.append(CaseExchange.loadLabel(plain, volume, CASE, [Segment("ball", 1)]))
    for node in nodes:
        assert np.array_equal(shown(node, volume), in_file_order(ball(0), axes))
        assert enclosed(node) == pytest.approx(ball(0).sum() * 1.5**3, rel=0.15)


def test_a_left_handed_volume_that_was_made_in_the_scene_is_corrected_like_any_other(training):
    volume = add_scan(0, "LH", axes=np.diag([-1.0, -1.0, -1.0]))
    training.update()
    training.logic.cohort.setSegments(["ball"])
    training.logic.save()
    predict(training, "LH", ball(0))
    volume, node = opened(training, "LH")
    assert np.array_equal(shown(node, volume), ball(0)) and enclosed(node) > 0
    draw(node, volume, ball(5))
    accept(training, "LH")
    training.logic.cohort.ready()
    known = case_of(training, "LH")
    found = read_case_labels(known.as_case, read_volume(known.images[0]).grid)
    assert np.array_equal(found.array > 0, ball(5).transpose(2, 1, 0))
