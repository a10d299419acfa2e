"""From the scene to files and back: every voxel in its place, whatever the grid, the transform or the region."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import SimpleITK as sitk
from stand_ins import OBLIQUE, ijk_to_ras, noise

from caml_core.errors import CamlError, DataError, ResourceError

GRIDS = {
    "straight": ijk_to_ras(),
    "anisotropic": ijk_to_ras(spacing=(0.4, 0.5, 6.0)),
    "oblique": ijk_to_ras(axes=OBLIQUE),
    "sagittal": ijk_to_ras(axes=np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])),
    "left-handed": ijk_to_ras(axes=np.diag([-1.0, -1.0, -1.0])),
}


@pytest.fixture
def exchange(a_scene):
    from CAMLSegmentationLib import VolumeExchange

    return VolumeExchange


def ras_matrix_of(path):
    """The voxel-to-RAS matrix that an independent reader finds in a file."""
    image = sitk.ReadImage(str(path))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix


def a_transform(matrix):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def a_rotation(degrees=30.0, scale=(1.0, 1.0, 1.0), shift=(5.0, -7.0, 3.0)):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, :3] *= scale
    matrix[:3, 3] = shift
    return matrix


def labels_like(path, labels_path, seed=1):
    """Write random labels on the grid of a written volume; return them as [k, j, i]."""
    image = sitk.ReadImage(str(path))
    labels = np.random.default_rng(seed).integers(0, 3, image.GetSize()[::-1]).astype(np.uint8)
    result = sitk.GetImageFromArray(labels)
    result.CopyInformation(image)
    sitk.WriteImage(result, str(labels_path), True)
    return labels


def place(volume_node, ijk):
    """Where a voxel lies in the world, by the nodes' own matrices."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    own = slicer.util.arrayFromVTKMatrix(matrix)
    if volume_node.GetParentTransformNode():
        volume_node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
        own = slicer.util.arrayFromVTKMatrix(matrix) @ own
    return (own @ [*ijk, 1.0])[:3]


@pytest.fixture(params=["a Slicer", "slicer-core"])
def where_the_kit_is(request, monkeypatch):
    """vtkTeem as a Slicer has it, a module of its own, and as slicer-core has it, in slicer alone."""
    import slicer
    import vtkTeem

    if request.param == "slicer-core":
        for name in ("vtkTeemNRRDReader", "vtkTeemNRRDWriter"):
            monkeypatch.setattr(slicer, name, getattr(vtkTeem, name), raising=False)
        monkeypatch.setitem(sys.modules, "vtkTeem", None)


@pytest.mark.usefixtures("where_the_kit_is")
def test_volumes_go_out_and_labels_come_back_wherever_the_kit_for_nrrd_is(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["oblique"])
    frame = exchange.frameOf(node)
    exchange.writeVolume(node, tmp_path / "scan.nrrd", frame)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.nrrd"))), noise())
    labels = labels_like(tmp_path / "scan.nrrd", tmp_path / "labels.nrrd")
    back = exchange.readLabels(tmp_path / "labels.nrrd", node, frame)
    assert np.array_equal(exchange.labelsOf(back), labels)


@pytest.mark.parametrize("kind", GRIDS)
def test_a_written_volume_has_its_voxels_and_its_place(exchange, a_volume, tmp_path, kind):
    node = a_volume("scan", noise(), GRIDS[kind])
    exchange.writeVolume(node, tmp_path / "scan.nrrd", exchange.frameOf(node))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.nrrd"))), noise())
    assert np.allclose(ras_matrix_of(tmp_path / "scan.nrrd"), GRIDS[kind], atol=1e-9)


@pytest.mark.parametrize("kind", GRIDS)
def test_labels_come_back_voxel_by_voxel(exchange, a_volume, tmp_path, kind):
    node = a_volume("scan", noise(), GRIDS[kind])
    frame = exchange.frameOf(node)
    exchange.writeVolume(node, tmp_path / "scan.nrrd", frame)
    expected = labels_like(tmp_path / "scan.nrrd", tmp_path / "labels.nrrd")
    labels = exchange.readLabels(tmp_path / "labels.nrrd", node, frame)
    assert np.array_equal(exchange.labelsOf(labels), expected)
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    labels.GetImageToWorldMatrix(matrix)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(matrix), GRIDS[kind], atol=1e-9)


def test_a_rigid_transform_is_part_of_where_the_patient_lies(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["oblique"])
    node.SetAndObserveTransformNodeID(a_transform(a_rotation()).GetID())
    exchange.writeVolume(node, tmp_path / "scan.nrrd", exchange.frameOf(node))
    assert np.allclose(ras_matrix_of(tmp_path / "scan.nrrd"), a_rotation() @ GRIDS["oblique"], atol=1e-9)


def test_a_transform_and_the_same_one_hardened_give_the_same_file(exchange, a_volume, tmp_path):
    for name in ("parent", "hardened"):
        node = a_volume(name, noise(), GRIDS["anisotropic"])
        node.SetAndObserveTransformNodeID(a_transform(a_rotation(scale=(1.2, 1.2, 1.2))).GetID())
        if name == "hardened":
            node.HardenTransform()
        exchange.writeVolume(node, tmp_path / f"{name}.nrrd", exchange.frameOf(node))
    assert np.allclose(ras_matrix_of(tmp_path / "parent.nrrd"), ras_matrix_of(tmp_path / "hardened.nrrd"), atol=1e-6)


def test_a_shearing_transform_leaves_the_scanners_geometry(exchange, a_volume, tmp_path):
    import slicer
    import vtk

    shear = np.eye(4)
    shear[0, 1] = 0.4
    node = a_volume("scan", noise(), GRIDS["straight"])
    node.SetAndObserveTransformNodeID(a_transform(shear).GetID())
    exchange.writeVolume(node, tmp_path / "scan.nrrd", exchange.frameOf(node))
    assert np.allclose(ras_matrix_of(tmp_path / "scan.nrrd"), GRIDS["straight"], atol=1e-9)
    grid = exchange.gridOf(node)
    labels = exchange.orientedLabels(np.ones(grid.size, np.uint8), grid, node)
    back = vtk.vtkMatrix4x4()
    labels.GetImageToWorldMatrix(back)
    assert np.allclose(slicer.util.arrayFromVTKMatrix(back), GRIDS["straight"], atol=1e-9), "and they come back there"


#: Kinds of numbers of a volume, with the values that make them hard to write.
NUMBERS = {
    "SIGNED_CHAR": (-128, 127),
    "UNSIGNED_CHAR": (0, 255),
    "UNSIGNED_SHORT": (0, 65535),
    "LONG": (-1024, 3071),
    "UNSIGNED_LONG": (0, 70000),
    "LONG_LONG": (-(2**31), 2**31 - 1),
    "UNSIGNED_LONG_LONG": (0, 2**32 + 1),
    "ID_TYPE": (-1, 2**40 + 1),
    "FLOAT": (-0.5, 0.25),
    "DOUBLE": (-0.1, 1e100),
}


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("kind", NUMBERS)
def test_volumes_of_all_kinds_of_numbers_can_be_written(exchange, a_volume, tmp_path, kind, part):
    import vtk

    node, image = a_volume("scan", noise((5, 4, 3)), GRIDS["oblique"]), vtk.vtkImageData()
    image.SetDimensions(5, 4, 3)
    image.AllocateScalars(getattr(vtk, f"VTK_{kind}"), 1)
    voxels = exchange.labelsOf(image)
    voxels[...] = np.resize(np.array([*NUMBERS[kind], 1, 7], voxels.dtype), voxels.shape)
    node.SetAndObserveImageData(image)
    before = voxels.copy()
    frame = exchange.Frame((1, 4, 0, 3, 1, 2)) if part else exchange.frameOf(node)
    exchange.writeVolume(node, tmp_path / "scan.nrrd", frame)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "scan.nrrd")))
    expected = before[1:, :, 1:] if part else before
    assert written.shape == expected.shape and [int(v) for v in written.flat] == [int(v) for v in expected.flat]
    assert np.array_equal(written.astype(before.dtype), expected)
    matrix = GRIDS["oblique"].copy()
    matrix[:, 3] = matrix @ [1, 0, 1, 1] if part else matrix[:, 3]
    assert np.allclose(ras_matrix_of(tmp_path / "scan.nrrd"), matrix, atol=1e-9)
    assert node.GetImageData() is image and image.GetScalarType() == getattr(vtk, f"VTK_{kind}")
    assert np.array_equal(exchange.voxelsOf(node), before)


def test_writing_does_not_change_the_volume(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["oblique"])
    before, extent = exchange.voxelsOf(node).copy(), node.GetImageData().GetExtent()
    exchange.writeVolume(node, tmp_path / "scan.nrrd", exchange.frameOf(node))
    assert np.array_equal(exchange.voxelsOf(node), before)
    assert node.GetImageData().GetExtent() == extent and node.GetImageData().GetSpacing() == (1.0, 1.0, 1.0)


def a_region(center, size, matrix=None):
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "region")
    node.SetSize(*size)
    if matrix is None:
        node.SetCenter(*center)
    else:
        node.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


@pytest.mark.parametrize("transformed", [False, True])
@pytest.mark.parametrize("kind", ["straight", "oblique"])
def test_a_region_cuts_out_the_voxels_inside_it(exchange, a_volume, tmp_path, kind, transformed):
    node = a_volume("scan", noise(), GRIDS[kind])
    if transformed:
        node.SetAndObserveTransformNodeID(a_transform(a_rotation()).GetID())
    region = a_region(place(node, (13, 12, 10)), (9.0, 8.0, 7.0))
    frame = exchange.frameOf(node, region)
    exchange.writeVolume(node, tmp_path / "part.nrrd", frame)
    x0, x1, y0, y1, z0, z1 = frame.extent
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "part.nrrd")))
    assert np.array_equal(written, noise()[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1])
    assert np.allclose((ras_matrix_of(tmp_path / "part.nrrd") @ [0, 0, 0, 1])[:3], place(node, (x0, y0, z0)))
    inside = {
        (i, j, k)
        for k, j, i in np.argwhere(np.ones(noise().shape))
        if np.all(np.abs(place(node, (i, j, k)) - place(node, (13, 12, 10))) <= np.array([4.5, 4.0, 3.5]) + 1e-9)
    }
    assert inside and all(x0 <= i <= x1 and y0 <= j <= y1 and z0 <= k <= z1 for i, j, k in inside)
    turned = exchange.writeRegion(node, region, tmp_path / "region.nrrd", frame)
    assert turned == (kind == "oblique" or transformed) == (tmp_path / "region.nrrd").is_file()
    if turned:
        marked = sitk.ReadImage(str(tmp_path / "region.nrrd"))
        assert np.allclose(ras_matrix_of(tmp_path / "region.nrrd"), ras_matrix_of(tmp_path / "part.nrrd"))
        assert {(i + x0, j + y0, k + z0) for k, j, i in np.argwhere(sitk.GetArrayFromImage(marked))} == inside
    else:
        assert len(inside) == np.prod(frame.size)


def test_a_region_beside_the_volume_is_refused(exchange, a_volume):
    node = a_volume("scan", noise(), GRIDS["straight"])
    with pytest.raises(DataError, match="move the region"):
        exchange.frameOf(node, a_region((500.0, 500.0, 500.0), (5.0, 5.0, 5.0)))


def test_a_map_comes_back_on_the_volumes_grid(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["oblique"])
    region = a_region(place(node, (13, 12, 10)), (9.0, 8.0, 7.0))
    frame = exchange.frameOf(node, region)
    values = np.arange(np.prod(frame.size)).reshape(frame.size[::-1]).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "map.nrrd"))
    found = a_volume("map", np.zeros((2, 2, 2), np.uint8), GRIDS["straight"])
    exchange.readMap(tmp_path / "map.nrrd", node, frame, found)
    assert np.array_equal(exchange.voxelsOf(found), values)
    first = place(found, (0, 0, 0))
    assert np.allclose(first, place(node, (frame.extent[0], frame.extent[2], frame.extent[4])))


def test_a_result_of_another_size_is_refused(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["straight"])
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8)), str(tmp_path / "labels.nrrd"))
    with pytest.raises(DataError, match="changed while"):
        exchange.readLabels(tmp_path / "labels.nrrd", node, exchange.frameOf(node))


def test_a_volume_without_voxels_or_with_colours_is_refused(exchange, a_volume, tmp_path):
    import slicer

    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    assert "no voxels" in exchange.checkVolume(empty)
    assert exchange.checkVolume(a_volume("scan", noise(), GRIDS["straight"])) == ""
    colours = slicer.util.addVolumeFromArray(np.zeros((4, 5, 6, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode")
    assert "3 values a voxel" in exchange.checkVolume(colours)


def test_an_unwritable_folder_leaves_one_sentence_and_no_file(exchange, a_volume, tmp_path):
    node = a_volume("scan", noise(), GRIDS["straight"])
    (tmp_path / "scan.nrrd").mkdir()
    with pytest.raises((CamlError, OSError)):
        exchange.writeVolume(node, tmp_path / "scan.nrrd", exchange.frameOf(node))


def test_a_full_disk_is_said_before_anything_is_written(exchange, a_volume, tmp_path, monkeypatch):
    node = a_volume("scan", noise(), GRIDS["straight"])
    real = exchange.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(exchange.shutil, "disk_usage", lambda path: real._replace(free=1000))
    with pytest.raises(ResourceError, match="disk is full.*free some space"):
        exchange.writeVolume(node, tmp_path / "inputs" / "scan.nrrd", exchange.frameOf(node))
    assert not list(tmp_path.rglob("*.nrrd"))


def test_facts_of_a_volume_are_those_of_the_patient(exchange, a_volume):
    node = a_volume("scan", noise(), GRIDS["anisotropic"])
    facts = exchange.factsOf(node, "MR")
    assert facts.size == (26, 24, 20) and facts.spacing == pytest.approx((0.4, 0.5, 6.0))
    assert facts.direction == pytest.approx((1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert (facts.lowest, facts.highest) == (noise().min(), noise().max())
