"""Left atria as another site might scan them, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from another_site import CROPPING, MARGIN, SPACING, changed, rescanned

from caml_core.anatomy import LEFT_ATRIUM
from caml_core.data.case import Case
from caml_core.data.grid import Grid
from caml_core.data.io import read_volume, write_image
from caml_core.data.labels import read_labels, write_labels

GRID = Grid((96, 80, 60), (0.625, 0.625, 0.625), (10.0, -20.0, 5.0))


def a_scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright ellipsoid (off centre) in a dark field with some noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.arange(n, dtype=float) for n in GRID.size), indexing="ij")
    middle, radii = (rng.uniform(0.4, 0.6, 3) * GRID.size, (24.0, 20.0, 15.0))
    mask = sum(((x - m) / r) ** 2 for x, m, r in zip(axes, middle, radii)) < 1
    return np.clip(40 + 180 * mask + rng.normal(0, 4, GRID.size), 0, 255).astype(np.uint8), mask


def centre_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    return np.asarray(grid.origin) + np.argwhere(mask).mean(0) * np.asarray(grid.spacing)


@pytest.mark.parametrize("seed", range(4))
def test_the_structure_stays_whole_and_where_it_was(seed):
    image, mask = a_scan(seed)
    array, found, grid = changed(image, mask, GRID, np.random.default_rng(seed))
    assert array.shape == found.shape == grid.size and array.dtype == np.int16
    # The voxels are the site's, up to what a whole number of them makes of the field.
    assert grid.spacing == SPACING
    ratio = found.sum() * np.prod(SPACING) / (mask.sum() * np.prod(GRID.spacing))
    assert ratio == pytest.approx(1, abs=0.06)
    assert np.abs(centre_mm(found, grid) - centre_mm(mask, GRID)).max() < 0.5 * max(SPACING)
    kept = np.asarray(grid.size) * SPACING / (np.asarray(GRID.size) * GRID.spacing)
    assert (kept <= 1.05).all() and (kept >= 1 - 2 * CROPPING - 0.1).all()


def test_a_structure_at_the_edge_is_not_cut():
    image, mask = a_scan(0)
    mask[:] = False
    mask[1:9, 70:79, 2:58] = True
    _, found, grid = changed(image, mask, GRID, np.random.default_rng(1))
    assert found.sum() * np.prod(SPACING) == pytest.approx(mask.sum() * np.prod(GRID.spacing), rel=0.15)
    assert grid.size[2] * SPACING[2] >= (58 + MARGIN - 2) * 0.625 - SPACING[2]


def test_the_contrast_is_another():
    """Blood stood far above tissue; at the other site it hardly does, and the noise is higher."""
    image, mask = a_scan(3)
    array, found, _ = changed(image, mask, GRID, np.random.default_rng(3))
    before = (image[mask].mean() - image[~mask].mean()) / image[mask].std()
    after = (array[found].mean() - array[~found].mean()) / array[found].std()
    assert before > 10 and after < before / 3


def test_files_are_written_once_and_are_the_same_every_time(tmp_path):
    image, mask = a_scan(5)
    write_image(tmp_path / "c_image.nii.gz", image, GRID)
    write_labels(tmp_path / "c_label.nii.gz", mask, GRID, (LEFT_ATRIUM,))
    case = Case("c", (tmp_path / "c_image.nii.gz",), tmp_path / "c_label.nii.gz", "labeled")
    first, second = (rescanned(case, tmp_path / name) for name in ("one", "two"))
    assert first.role == "labeled" and first.images != case.images
    arrays = [read_volume(one.images[0]) for one in (first, second)]
    assert np.array_equal(arrays[0].array, arrays[1].array)
    assert arrays[0].grid.spacing == pytest.approx(SPACING)
    assert np.array_equal(read_labels(first.label).array, read_labels(second.label).array)
    written = first.images[0].stat().st_mtime_ns
    assert rescanned(case, tmp_path / "one").images[0].stat().st_mtime_ns == written
