"""Left atria in wider fields of view, whose surroundings are synthesised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from surroundings import BLEND, WALL, Scan, embedded, surroundings, without_structure
from wide_fields import WITHIN, read_scan, wide_copy

from caml_core.anatomy import LEFT_ATRIUM
from caml_core.data.case import Case
from caml_core.data.grid import Grid
from caml_core.data.io import write_image
from caml_core.data.labels import write_labels


def an_atrium(seed: int, shape: tuple[int, int, int] = (40, 36, 20)) -> Scan:
    """Bright ellipsoid in darker tissue with noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    mask = sum((x / r) ** 2 for x, r in zip(axes, (0.5, 0.4, 0.6))) < 1
    image = np.clip(60 + 90 * mask + rng.normal(0, 5, shape), 1, 255)
    return Scan(image.astype(np.uint8), mask)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_field_holds_the_atrium_as_it_is_and_once(seed):
    scan, donor = an_atrium(seed), an_atrium(seed + 50, (36, 40, 22))
    wide = embedded(scan, donor, (2.0, 1.7, 1.3), np.random.default_rng(seed))
    assert wide.image.shape == wide.mask.shape == (80, 61, 26) and wide.image.dtype == np.uint8
    assert wide.mask.sum() == scan.mask.sum()
    # Its voxels are its own, in their order: it was moved, and nothing else.
    assert np.array_equal(wide.image[wide.mask], scan.image[scan.mask])
    assert np.array_equal(np.ptp(np.argwhere(wide.mask), axis=0), np.ptp(np.argwhere(scan.mask), axis=0))


def test_fields_differ_by_the_generator_alone():
    scan, donor = an_atrium(1), an_atrium(2)
    first, again, other = (embedded(scan, donor, (2.0, 2.0, 1.5), np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.mask, other.mask)


def test_the_donor_s_atrium_is_filled_with_what_lies_around_it():
    donor = an_atrium(7)
    filled = without_structure(donor, np.random.default_rng(0))
    inside, outside = filled[donor.mask], donor.image[~donor.mask]
    assert abs(float(inside.mean()) - float(outside.mean())) < 3
    assert abs(float(inside.std()) - float(outside.std())) < 2.5
    far = ~ndimage.binary_dilation(donor.mask, iterations=WALL)
    assert np.array_equal(filled[far], donor.image[far])


def test_a_crop_fades_into_its_surroundings():
    """Its own tissue in the middle, the surroundings' at the faces: there is no seam to learn."""
    mask = an_atrium(1, (48, 48, 40)).mask
    scan = Scan(np.where(mask, 150, 60).astype(np.uint8), mask)
    wide = embedded(scan, an_atrium(2, (48, 48, 40)), (2.0, 2.0, 2.0), np.random.default_rng(1))
    start = np.argwhere(wide.mask).min(0) - np.argwhere(mask).min(0)
    assert all(0 < s < n for s, n in zip(start, mask.shape))  # surroundings on all sides
    crop = wide.image[tuple(slice(s, s + n) for s, n in zip(start, mask.shape))]
    own = (crop == scan.image) & ~mask
    middle = (slice(BLEND, -BLEND),) * 3
    assert own[middle][~mask[middle]].all()
    # One voxel from a face, away from the atrium, a sixteenth is the scan's: only chance makes the values equal.
    assert own[0].mean() < 0.2 and own[:, -1].mean() < 0.2 and own[:, :, 0].mean() < 0.2


def test_surroundings_fill_a_field_of_any_size():
    for size in ((80, 72, 30), (20, 90, 22)):
        field = surroundings(an_atrium(2), size, np.random.default_rng(0))
        assert field.shape == size and np.isfinite(field).all() and field.std() > 3


def test_copies_are_written_once_and_are_labelled(tmp_path):
    donors = []
    for number in range(3):
        scan = an_atrium(number)
        grid = Grid(scan.image.shape, (0.625, 0.625, 0.625))
        image, label = tmp_path / f"{number}.nii.gz", tmp_path / f"{number}_label.nii.gz"
        write_image(image, scan.image, grid)
        write_labels(label, scan.mask, grid, (LEFT_ATRIUM,))
        donors.append(Case(f"c{number}", (image,), label, "labeled"))
    copy = wide_copy(donors[0], donors, tmp_path / "wide")
    assert (copy.id, copy.role) == ("wide_c0", "labeled") and copy.label != donors[0].label
    scan, grid = read_scan(copy)
    assert grid.size == scan.image.shape and scan.mask.sum() == an_atrium(0).mask.sum()
    assert all(WITHIN[0] * 0.95 < n / m < WITHIN[1] * 1.05 for n, m in zip(scan.image.shape[:2], (40, 36)))
    before = copy.images[0].stat().st_mtime_ns
    assert wide_copy(donors[0], donors, tmp_path / "wide") == copy
    assert copy.images[0].stat().st_mtime_ns == before
