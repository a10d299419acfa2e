"""Phantoms are reproducible, anatomically plausible, not solved by a threshold, and make cohorts that load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from caml_core.config import GENERIC_TERMINOLOGY
from caml_core.data.cohort import load_cohort
from caml_core.data.io import grid_difference, grid_of, read_case, read_image
from caml_core.data.labels import is_segmentation, labels_on_grid, match_segments, read_labels
from caml_core.errors import UsageError
from caml_core.phantom.atrium import make_atrium
from caml_core.phantom.cohort import KINDS, CohortShape, write_cohort
from caml_core.phantom.coronary import make_coronary
from caml_core.phantom.phantom import Phantom
from caml_core.phantom.shapes import Tube, ellipsoid, paint, smooth_union
from caml_core.phantom.space import random_space

#: Plausible shares of the labelled structure in the field of view, and its volume in mL.
PLAUSIBLE = {"atrium": ((0.04, 0.25), (20, 150)), "coronary": ((0.003, 0.04), (0.2, 4))}


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def phantoms(kind) -> list[Phantom]:
    return [KINDS[kind](5, index, "small") for index in range(4)]


def _best_threshold_dice(phantom: Phantom) -> float:
    """The best that two thresholds chosen with the truth at hand can do."""
    truth = phantom.label > 0
    levels = np.percentile(phantom.image, np.arange(2, 100, 2))
    best = 0.0
    for low in levels:
        for high in (*levels[levels > low], np.inf):
            guess = (phantom.image >= low) & (phantom.image <= high)
            best = max(best, 2 * np.count_nonzero(guess & truth) / (np.count_nonzero(guess) + np.count_nonzero(truth)))
    return best


def test_same_arguments_give_the_same_voxels_and_others_do_not(kind):
    first, again = KINDS[kind](3, 1, "small"), KINDS[kind](3, 1, "small")
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.grid == again.grid
    for seed, index in ((3, 2), (4, 1)):
        other = KINDS[kind](seed, index, "small")
        assert other.grid != first.grid
        assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


def test_case_does_not_depend_on_the_cases_before_it(kind, phantoms):
    np.testing.assert_array_equal(KINDS[kind](5, 3, "small").image, phantoms[3].image)


def test_structure_has_a_plausible_share_and_volume(kind, phantoms):
    (least, most), (smallest, largest) = PLAUSIBLE[kind]
    for phantom in phantoms:
        assert set(np.unique(phantom.label)) == {0, 1}
        assert least < phantom.label.mean() < most
        assert smallest < phantom.label.sum() * phantom.grid.voxel_ml < largest


def test_atrium_with_veins_and_appendage_is_one_piece():
    for index in range(4):
        _, pieces = ndimage.label(make_atrium(11, index).label)
        assert pieces == 1


def test_coronary_tree_is_thin():
    """No voxel of the lumen is farther than 3.5 mm from its border, and most are within 1.5 mm."""
    for index in range(3):
        phantom = make_coronary(11, index)
        depth = ndimage.distance_transform_edt(phantom.label, sampling=phantom.grid.spacing)
        assert depth.max() < 3.5
        assert np.mean(depth[phantom.label > 0] < 1.5) > 0.7


def test_full_size_shows_the_same_anatomy_finer():
    small, full = make_atrium(2, 0, "small"), make_atrium(2, 0, "full")
    assert min(small.grid.spacing) > 1.2 * max(full.grid.spacing)
    assert full.image.size > 5 * small.image.size
    assert 20 < full.label.sum() * full.grid.voxel_ml < 150


def test_thresholds_alone_fail_because_neighbours_are_as_bright(kind, phantoms):
    assert max(map(_best_threshold_dice, phantoms)) < 0.75


def test_neighbours_share_the_structure_s_intensities(kind, phantoms):
    """Between the quartiles of the inside, which hold half of it, there are many voxels outside as well."""
    for phantom in phantoms:
        inside = phantom.image[phantom.label > 0]
        low, high = np.percentile(inside, (25, 75))
        outside = phantom.image[phantom.label == 0]
        assert np.count_nonzero((outside >= low) & (outside <= high)) > 0.25 * inside.size


def test_scanner_values(phantoms, kind):
    for phantom in phantoms:
        if kind == "atrium":
            assert phantom.image.dtype == np.uint8
            assert 30 < phantom.image[phantom.label > 0].mean() < 220
        else:
            assert phantom.image.dtype == np.int16
            assert 180 < phantom.image[phantom.label > 0].mean() < 480
            assert phantom.image.min() >= -1024


def test_contrast_differs_between_cases():
    means = [float(p.image[p.label > 0].mean()) for p in (make_atrium(1, i) for i in range(6))]
    assert max(means) > 1.3 * min(means)


def test_grids_are_valid_oblique_and_varied(phantoms):
    for phantom in phantoms:
        direction = np.reshape(phantom.grid.direction, (3, 3))
        np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-6)
        assert all(0.3 < s < 2.5 for s in phantom.grid.spacing)
        assert phantom.image.shape == phantom.label.shape == tuple(phantom.grid.size)
        assert 0 < np.abs(np.abs(direction) - np.eye(3)).max() < 0.2
    assert len({p.grid.spacing for p in phantoms}) == len(phantoms)


def test_segments_carry_snomed_codes(phantoms, kind):
    (segment,) = phantoms[0].segments
    assert segment.terminology.count("~") == GENERIC_TERMINOLOGY.count("~")
    assert {"atrium": "SCT^82471001^", "coronary": "SCT^41801008^"}[kind] in segment.terminology


def test_points_and_windows_agree_with_the_grid():
    rng = np.random.default_rng(0)
    space = random_space(rng, (20, 16, 12), (1.0, 1.2, 2.0), (3.0, 4.0, 5.0), 1.1, 10, 2)
    points = space.points()
    low, high = np.array([-2.0, 0.0, 0.0]), np.array([6.0, 7.0, 9.0])
    inside = np.all((points >= low[:, None, None, None]) & (points <= high[:, None, None, None]), axis=0)
    window = space.window(low, high)
    assert window is not None
    assert inside[window].sum() == inside.sum() > 0
    assert space.window(low + 500, high + 500) is None


def test_ellipsoid_and_tube_distances_on_a_sphere_and_a_cylinder():
    points = np.array([[0.0, 3.0, 7.0], [0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    np.testing.assert_allclose(ellipsoid(points, np.zeros(3), np.full(3, 5.0))[1:], [-2, 2], atol=1e-5)
    tube = Tube(np.array([[-50.0, 0, 0], [50.0, 0, 0]]), np.array([2.0, 2.0]))
    np.testing.assert_allclose(tube.distance_at(np.array([[0.0], [3.0], [4.0]])), [3.0], atol=1e-5)


def test_painting_mixes_only_near_the_border():
    image = np.zeros(5, dtype=np.float32)
    paint(image, np.array([-3.0, -0.25, 0.0, 0.25, 3.0], dtype=np.float32), 100.0, 1.0)
    np.testing.assert_allclose(image, [100, 75, 50, 25, 0])


def test_smooth_union_holds_both_bodies():
    a, b = np.array([-1.0, 4.0, 0.5]), np.array([3.0, -2.0, 0.5])
    union = smooth_union(a, b, 2.0)
    assert np.all(union <= np.minimum(a, b) + 1e-6)


def test_written_cohort_loads_with_roles_labels_and_grids(kind, tmp_path: Path):
    path = write_cohort(tmp_path / "c", kind, CohortShape(6, 2, 1, 2), seed=9)
    cohort = load_cohort(path)
    assert [c.role for c in cohort.cases] == ["labeled"] * 2 + ["unlabeled"] * 3 + ["validation"]
    assert load_cohort(tmp_path / "c") == cohort
    assert all((c.label is None) == (c.role == "unlabeled") for c in cohort.cases)
    test = load_cohort(tmp_path / "c" / "test.csv")
    assert len(test.cases) == 2
    assert not {c.id for c in test.cases} & {c.id for c in cohort.cases}
    segments = {}
    for index, case in enumerate((*cohort.cases, *test.cases)):
        phantom = KINDS[kind](9, index, "small")
        (volume,) = read_case(case)
        np.testing.assert_array_equal(volume.array, phantom.image)
        assert grid_difference(volume.grid, phantom.grid, 0.01) == ""
        if case.label:
            found = read_labels(case.label, case.id)
            own = grid_of(read_image(case.images[0]))
            np.testing.assert_array_equal(labels_on_grid(found, own, case.label), phantom.label)
            stored = own.right_handed() if is_segmentation(case.label) else own
            assert grid_difference(found.grid, stored, 0.01) == ""
            segments[case.id] = found.segments
    assert match_segments(segments) == phantom.segments


def test_labels_of_unlabelled_cases_are_nowhere(tmp_path: Path):
    write_cohort(tmp_path / "c", "atrium", CohortShape(4, 1, 1), seed=1)
    assert sorted(p.name.split(".")[0] for p in (tmp_path / "c" / "labels").iterdir()) == ["atrium_001", "atrium_004"]


def test_small_cases_are_small_enough_to_register(kind, tmp_path: Path):
    write_cohort(tmp_path / "c", kind, CohortShape(3, 3, 0), seed=2)
    for image in (tmp_path / "c" / "images").iterdir():
        label = next((tmp_path / "c" / "labels").glob(image.name.split(".")[0] + ".*"))
        assert image.stat().st_size + label.stat().st_size < 300_000


def test_a_folder_with_a_cohort_is_not_overwritten(tmp_path: Path):
    path = write_cohort(tmp_path / "c", "atrium", CohortShape(1, 1, 0))
    before = path.read_bytes()
    with pytest.raises(UsageError, match="choose another folder"):
        write_cohort(tmp_path / "c", "coronary", CohortShape(1, 1, 0))
    assert path.read_bytes() == before


@pytest.mark.parametrize("numbers", [(0, 0, 0, 0), (3, 3, 1, 0), (3, -1, 1, 0)])
def test_impossible_numbers_of_cases_are_refused(numbers):
    with pytest.raises(UsageError):
        CohortShape(*numbers)
