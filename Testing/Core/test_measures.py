"""Surfaces agree with geometry, whatever the voxels' shape, and parts are counted over corners."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from caml_core.config import Segment
from caml_core.inference import measures
from caml_core.inference.measures import measure

SEGMENTS = (Segment("one", 1), Segment("two", 2))
SPACINGS = [(1.0, 1.0, 1.0), (0.6, 0.6, 0.6), (0.5, 0.5, 1.5), (0.8, 1.0, 2.0)]
ELONGATED = [(0.5, 0.5, 0.8), (0.7, 0.7, 1.5), (0.7, 0.7, 3.0), (0.5, 0.5, 2.5), (0.7, 0.7, 5.0), (0.7, 5.0, 0.7)]


def places(reach, spacing, rotation=None):
    """Positions [X, Y, Z, 3] in mm around the middle, turned where asked."""
    axes = [(np.arange(2 * int(reach / s) + 3) - int(reach / s) - 0.7) * s for s in spacing]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return grid if rotation is None else grid @ rotation.as_matrix()


def surface(mask, spacing):
    return measure(mask.astype(np.uint8), spacing, SEGMENTS).surface_mm2["one"]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("radius", [8.0, 20.0])
def test_a_balls_surface(spacing, radius):
    mask = (places(radius, spacing) ** 2).sum(-1) <= radius**2
    assert surface(mask, spacing) == pytest.approx(4 * np.pi * radius**2, rel=0.04)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("spacing", [(0.8, 0.8, 0.8), *ELONGATED])
def test_a_tubes_surface_along_an_axis_of_the_volume(spacing, axis):
    radius = 10.0
    at = places(52, spacing)
    across = [other for other in range(3) if other != axis]
    mask = ((at[..., across] ** 2).sum(-1) <= radius**2) & (np.abs(at[..., axis]) <= 50)
    length = np.count_nonzero(mask.any(tuple(across))) * spacing[axis]
    expected = 2 * np.pi * radius * (length + radius)
    assert surface(mask, spacing) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), *ELONGATED])
def test_an_ellipsoids_surface(spacing):
    axes = np.array([30.0, 25.0, 45.0])
    mask = ((places(46, spacing) / axes) ** 2).sum(-1) <= 1
    products = (axes * np.roll(axes, 1)) ** 1.6075
    expected = 4 * np.pi * products.mean() ** (1 / 1.6075)  # Thomsen's formula, exact to 1 %
    assert surface(mask, spacing) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.5), (0.7, 0.7, 3.0), (0.7, 0.7, 5.0)])
def test_a_vessel_of_less_than_a_slice_is_not_thinned_out(spacing, seed):
    radius, half = 2.0, 20.0
    at = places(23, spacing, Rotation.random(random_state=seed))
    mask = (at[..., 0] ** 2 + at[..., 1] ** 2 <= radius**2) & (np.abs(at[..., 2]) <= half)
    expected = 2 * np.pi * radius * (2 * half + radius)
    assert surface(mask, spacing) == pytest.approx(expected, rel=0.08)


def test_a_line_in_a_large_volume_is_not_lost(monkeypatch):
    monkeypatch.setattr(measures, "_MOST_VOXELS", 1_000)
    line = np.zeros((60, 60, 60), bool)
    line[tuple(np.arange(60) for _ in range(3))] = True
    assert surface(line, (0.5, 0.5, 0.8)) > 0


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.8), (0.5, 0.5, 2.5)])
def test_a_large_structure_is_measured_more_coarsely_and_as_large(spacing, monkeypatch):
    radius = 25.0
    ball = (places(radius, spacing) ** 2).sum(-1) <= radius**2
    monkeypatch.setattr(measures, "_MOST_VOXELS", 20_000)
    for first in range(3):  # its end at every place within a larger voxel
        part = np.pad(ball, ((first, 0),) * 3)
        part[0, 0, 0] = first > 0
        assert surface(part, spacing) == pytest.approx(4 * np.pi * radius**2, rel=0.06)
    assert measures._with_cubes(measures._padded(ball, spacing)).GetNumberOfPixels() < 30_000


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_oblique_boxs_surface(spacing, seed):
    half = np.array([15.0, 12.0, 9.0])
    mask = (np.abs(places(22, spacing, Rotation.random(random_state=seed))) <= half).all(-1)
    expected = 8 * (half[0] * half[1] + half[1] * half[2] + half[0] * half[2])
    assert surface(mask, spacing) == pytest.approx(expected, rel=0.04 if len(set(spacing)) == 1 else 0.1)


@pytest.mark.parametrize(("spacing", "share"), [((1.0, 1.0, 1.0), 0.9), ((0.5, 0.5, 1.5), 0.85)])
def test_faces_along_the_axes_are_underestimated_by_no_more_than_documented(spacing, share):
    half = np.array([15.0, 12.0, 9.0])
    mask = (np.abs(places(22, spacing)) <= half).all(-1)
    sides = [np.ptp(np.flatnonzero(mask.any(axis=other))) + 1 for other in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (n * s for n, s in zip(sides, spacing))
    assert share - 0.02 < surface(mask, spacing) / (2 * (x * y + y * z + x * z)) < 1.02


@pytest.mark.parametrize("seed", range(3))
def test_a_thin_tubes_surface(seed):
    radius, half = 1.0, 20.0
    at = places(23, (0.5, 0.5, 0.5), Rotation.random(random_state=seed))
    mask = (at[..., 0] ** 2 + at[..., 1] ** 2 <= radius**2) & (np.abs(at[..., 2]) <= half)
    expected = 2 * np.pi * radius * (2 * half + radius)
    assert surface(mask, (0.5, 0.5, 0.5)) == pytest.approx(expected, rel=0.06)


def test_a_structure_at_the_volumes_edge_is_closed_there():
    radius, spacing = 15.0, (1.0, 1.0, 1.0)
    ball = (places(radius, spacing) ** 2).sum(-1) <= radius**2
    middle = ball.shape[0] // 2
    half = ball[middle:]
    expected = 3 * np.pi * radius**2  # half a sphere and the disk of the cut
    assert surface(half, spacing) == pytest.approx(expected, rel=0.06)
    assert surface(half, spacing) == surface(np.pad(half, 3), spacing)


def test_parts_are_counted_over_corners_and_segments_apart():
    labels = np.zeros((40, 30, 20), np.uint8, order="F")
    at = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), -1)
    for center in ((8, 8, 8), (30, 20, 10)):
        labels[((at - center) ** 2).sum(-1) <= 25] = 1
    for i in range(6):
        labels[18 + i, 2 + i, 3 + i] = 2
    before = labels.copy()
    found = measure(labels, (1.0, 1.0, 1.0), SEGMENTS)
    assert found.components == {"one": 2, "two": 1}
    assert np.array_equal(labels, before)
    noise = (np.random.default_rng(0).random((20, 21, 22)) < 0.1).astype(np.uint8)
    count = ndimage.label(noise, np.ones((3, 3, 3)))[1]
    assert measure(noise, (1.0, 2.0, 3.0), SEGMENTS).components == {"one": count, "two": 0}


def test_an_absent_segment_has_nothing():
    found = measure(np.zeros((5, 6, 7), np.uint8), (1.0, 1.0, 1.0), SEGMENTS)
    assert found.surface_mm2 == {"one": 0.0, "two": 0.0} and found.components == {"one": 0, "two": 0}


def test_one_voxel_has_a_surface():
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[4, 5, 6] = 1
    found = measure(labels, (1.0, 1.0, 1.0), SEGMENTS)
    assert 2 < found.surface_mm2["one"] < 6 and found.components["one"] == 1
