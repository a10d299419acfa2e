"""The way between grids: exact where nothing is resampled, true in patient space where something is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caml_core.config import Geometry
from caml_core.data.geometry import Grid, NetworkGrid
from caml_core.errors import UsageError

PATCH = (16, 16, 16)
ORIENTATIONS = [
    (permutation, signs)
    for permutation in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(degrees: float) -> np.ndarray:
    """A turn about an axis that is no coordinate axis."""
    x, y, z = np.array([1.0, 2.0, 2.0]) / 3.0
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def a_grid(permutation=(0, 1, 2), signs=(1, 1, 1), degrees=0.0, size=(17, 22, 13), spacing=(1.0, 0.7, 2.1)) -> Grid:
    """A grid whose axis i runs along patient axis ``permutation[i]``, then turned."""
    axes = np.zeros((3, 3))
    for axis, (patient, sign) in enumerate(zip(permutation, signs)):
        axes[patient, axis] = sign
    return Grid(size, spacing, (12.0, -40.0, 7.5), tuple((rotation(degrees) @ axes).ravel()))


def positions(grid: Grid, index: np.ndarray) -> np.ndarray:
    """Patient positions [..., 3] of voxel indices [..., 3]."""
    return np.asarray(grid.origin) + (index * grid.spacing) @ np.reshape(grid.direction, (3, 3)).T


def voxels(size) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).astype(float)


def network_positions(way: NetworkGrid) -> np.ndarray:
    """Patient positions of the network's voxels, from edges that both grids share."""
    oriented = (voxels(way.size) + 0.5) * np.divide(way.oriented_size, way.size) - 0.5
    source = np.empty_like(oriented)
    for axis, (origin, flip) in enumerate(zip(way.permutation, way.flips)):
        column = oriented[..., axis]
        source[..., origin] = way.oriented_size[axis] - 1 - column if flip else column
    return positions(way.source, source)


@pytest.mark.parametrize("degrees", [0.0, 14.0])
@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
def test_every_axis_order_is_brought_to_the_patients_axes_and_back(permutation, signs, degrees):
    grid = a_grid(permutation, signs, degrees)
    way = NetworkGrid.of(grid, Geometry((1.5, 1.5, 1.5), PATCH))
    array = np.random.default_rng(0).integers(0, 255, grid.size)
    oriented = way.orient(array)
    assert oriented.shape == way.oriented_size
    assert np.shares_memory(oriented, array)
    assert np.array_equal(way.unorient(oriented), array)
    where = positions(grid, voxels(grid.size))
    for axis in range(3):  # in LPS every oriented axis runs towards larger coordinates
        assert (np.diff(way.orient(where[..., axis]), axis=axis) > 0).all()


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SLA", "IPR"])
def test_other_orientations_than_lps_name_the_side_an_axis_points_to(orientation):
    grid = a_grid((2, 0, 1), (-1, 1, -1), 10.0)
    way = NetworkGrid.of(grid, Geometry((1.5, 1.5, 1.5), PATCH, orientation))
    where = positions(grid, voxels(grid.size))
    for axis, letter in enumerate(orientation):
        patient, sign = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
        assert (sign * np.diff(way.orient(where[..., patient]), axis=axis) > 0).all()


def test_an_orientation_that_is_none_is_refused():
    with pytest.raises(UsageError, match="LPS"):
        Geometry((1.0, 1.0, 1.0), PATCH, "LLS")


@pytest.mark.parametrize("target", [(1.5, 1.5, 1.5), (0.5, 2.0, 0.9), (2.9, 2.9, 2.9)])
@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS[::7])
def test_a_ramp_in_patient_space_stays_that_ramp(permutation, signs, target):
    grid = a_grid(permutation, signs, 9.0)
    slope = np.array([0.3, -1.1, 0.7])
    way = NetworkGrid.of(grid, Geometry(target, PATCH))
    resampled = way.image_to_network((positions(grid, voxels(grid.size)) @ slope).astype(np.float32))
    expected = network_positions(way) @ slope
    inner = tuple(slice(3, -3) if n > 8 else slice(2, -2) for n in way.size)  # the filter is cut off at the edges
    # A triangle sampled at few voxels has its centre of mass a little beside its tip: a twentieth of a voxel at most.
    most = 0.05 * np.abs(np.reshape(grid.direction, (3, 3)).T @ slope * grid.spacing).sum()
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled[inner], expected[inner], atol=most)


@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS[::5])
def test_nothing_changes_at_equal_spacing(permutation, signs):
    grid = a_grid(permutation, signs, 5.0, spacing=(0.625, 0.625, 0.625))
    way = NetworkGrid.of(grid, Geometry((0.625, 0.625, 0.625), PATCH))
    rng = np.random.default_rng(1)
    image = rng.normal(size=grid.size).astype(np.float32)
    labels = rng.integers(0, 4, grid.size).astype(np.uint8)
    assert np.array_equal(way.image_to_network(image), way.orient(image))
    assert np.array_equal(way.labels_to_network(labels, 4), way.orient(labels))
    block = torch.from_numpy(way.orient(image).copy())[None]
    assert torch.equal(way.upsample_rows(block, 0, 0, way.oriented_size[0]), block)


@pytest.mark.parametrize("size", [(17, 40, 13), (9, 11, 26), (8, 13, 5), (17, 22, 7)])
@pytest.mark.parametrize("layout", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_resampling_is_torchs_antialiased_linear_one(size, layout):
    source = (17, 22, 13)
    grid = Grid(source, (1.0, 1.0, 1.0))
    way = NetworkGrid.of(grid, Geometry(tuple(n / m for n, m in zip(source, size)), PATCH))
    values = np.random.default_rng(2).normal(size=source).astype(np.float32)
    stored = np.ascontiguousarray(values.transpose(layout)).transpose(np.argsort(layout))  # any memory order
    ours = way.image_to_network(stored)
    planes = F.interpolate(torch.from_numpy(values)[None], size=size[1:], mode="bilinear", antialias=True)[0]
    planes = planes.permute(1, 0, 2)[None]
    theirs = F.interpolate(planes, size=(size[0], size[2]), mode="bilinear", antialias=True)[0].permute(1, 0, 2)
    assert way.size == size
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


def test_the_source_is_not_changed_and_read_only_input_will_do():
    grid = a_grid()
    image = np.random.default_rng(0).integers(-1000, 2000, grid.size).astype(np.int16)
    image.setflags(write=False)
    before = image.copy()
    NetworkGrid.of(grid, Geometry((1.5, 1.5, 1.5), PATCH)).image_to_network(image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("target", [0.4, 0.9, 1.7, 40.0])
def test_a_constant_stays_constant_both_ways(target):
    grid = a_grid()
    way = NetworkGrid.of(grid, Geometry((target,) * 3, PATCH))
    down = way.image_to_network(np.full(grid.size, 7.0, np.float32))
    np.testing.assert_allclose(down, 7.0, rtol=1e-6)
    up = way.upsample_rows(torch.from_numpy(down.copy())[None], 0, 0, way.oriented_size[0])
    assert up.shape == (1, *way.oriented_size)
    np.testing.assert_allclose(up.numpy(), 7.0, rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("target", [0.55, 1.6])
def test_slabs_are_the_parts_of_the_whole(axis, target):
    way = NetworkGrid.of(a_grid(), Geometry((target,) * 3, PATCH))
    maps = torch.rand(2, *way.size, generator=torch.Generator().manual_seed(0))
    whole = way.upsample_rows(maps, 0, 0, way.oriented_size[0]).movedim(1 + axis, 1)
    moved = maps.movedim(1 + axis, 1)
    rows = way.oriented_size[axis]
    for start in range(0, rows, 4):
        stop = min(start + 4, rows)
        low, high = way.rows_needed(start, stop, axis)
        part = way.upsample_rows(moved[:, low:high], low, start, stop, axis)
        torch.testing.assert_close(part, whole[:, start:stop], atol=1e-6, rtol=0)
        assert way.rows_complete(high, axis) >= stop
        assert way.rows_complete(high - 1, axis) < stop
    assert way.rows_complete(way.size[axis], axis) == rows


def test_upsampling_is_plain_linear_interpolation():
    grid = Grid((24, 20, 16), (1.0, 1.0, 1.0))
    way = NetworkGrid.of(grid, Geometry((2.0, 2.5, 1.6), PATCH))
    maps = torch.rand(3, *way.size, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(maps[None], size=grid.size, mode="trilinear", align_corners=False)[0]
    torch.testing.assert_close(way.upsample_rows(maps, 0, 0, 24), expected, atol=1e-6, rtol=0)


def _ball(grid: Grid, center_mm, radius_mm: float) -> np.ndarray:
    middle = positions(grid, (np.asarray(grid.size) - 1) / 2)
    return np.linalg.norm(positions(grid, voxels(grid.size)) - middle - center_mm, axis=-1) < radius_mm


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS[::11])
def test_segments_survive_the_way_there_and_back(permutation, signs, degrees):
    grid = a_grid(permutation, signs, degrees, size=(48, 60, 24), spacing=(0.7, 0.6, 1.5))
    labels = np.zeros(grid.size, np.uint8)
    labels[_ball(grid, (0, 0, 0), 11)] = 1
    labels[_ball(grid, (3, 2, 4), 6)] = 2
    way = NetworkGrid.of(grid, Geometry((1.2, 1.2, 1.2), PATCH))
    small = way.labels_to_network(labels, 3)
    voxel, network_voxel = np.prod(grid.spacing), np.prod(way.spacing)
    maps = torch.stack([torch.from_numpy((small == label).astype(np.float32)) for label in range(3)])
    back = way.unorient(way.upsample_rows(maps, 0, 0, way.oriented_size[0]).argmax(0).numpy())
    for label in (1, 2):
        assert (small == label).sum() * network_voxel == pytest.approx((labels == label).sum() * voxel, rel=0.05)
        common = ((back == label) & (labels == label)).sum()
        assert 2 * common / ((back == label).sum() + (labels == label).sum()) > 0.94


def test_thin_structures_do_not_vanish_and_stay_in_one_piece():
    from scipy import ndimage

    grid = Grid((60, 60, 60), (0.5, 0.5, 0.5))
    labels = np.zeros(grid.size, np.uint8)
    labels[10:40, 10:30, 20:50] = 1
    labels[:, 50, 50] = 2  # a vessel of one voxel
    for i in range(40):
        labels[50, i, 5 + i // 3] = 3  # an oblique one
    way = NetworkGrid.of(grid, Geometry((1.25, 1.25, 1.25), PATCH))
    small = way.labels_to_network(labels, 4)
    for label in (1, 2, 3):
        assert ndimage.label(small == label, np.ones((3, 3, 3)))[1] == 1
    assert (small == 2).any(axis=(1, 2)).all()
    # Thick structures get nothing by this: the block lies on network voxels' edges and keeps its volume.
    assert (small == 1).sum() * 1.25**3 == pytest.approx((labels == 1).sum() * 0.5**3)


def test_a_class_stronger_alone_than_the_background_is_not_lost_to_it():
    """Where two segments share a voxel, together more than half, the voxel is foreground."""
    grid = Grid((20, 20, 20), (1.0, 1.0, 1.0))
    labels = np.zeros(grid.size, np.uint8)
    labels[:, 6:10], labels[:, 10:14] = 1, 2
    small = NetworkGrid.of(grid, Geometry((2.0, 2.0, 2.0), PATCH)).labels_to_network(labels, 3)
    assert {1, 2} <= set(np.unique(small)) and (small[:, 3:7] > 0).all()


def test_odd_real_files_agree_in_patient_space(shared_folder):
    """One volume stored in many axis orders: the network sees one and the same array."""
    from caml_core.data.io import read_volume

    folder = shared_folder / "odd" / "nifti_space"
    files = sorted(folder.glob("*.nii.gz")) if folder.is_dir() else []
    if not files:
        pytest.skip("no files of several axis orders")
    seen = []
    for path in files:
        volume = read_volume(path)
        way = NetworkGrid.of(volume.grid, Geometry((4.0, 4.0, 4.0), PATCH))
        seen.append(way.image_to_network(volume.array))
        assert np.array_equal(way.unorient(way.orient(volume.array)), volume.array)
    for other in seen[1:]:
        np.testing.assert_allclose(other, seen[0], atol=1e-3 * float(np.ptp(seen[0])))
