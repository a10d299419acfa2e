"""Grey values: each modality is recognised and brought to one range."""

from __future__ import annotations

import numpy as np
import pytest

from caml_core.config import ChannelIntensity
from caml_core.data.intensity import foreground, looks_like_ct, normalize, sample_voxels
from caml_core.data.io import read_volume

PAPER = ChannelIntensity(lower=0.0, upper=100.0, region="image")
MR = ChannelIntensity()
CT = ChannelIntensity("window", -150.0, 350.0, 50.0, 80.0, "image", "CT")


def an_mr(seed: int = 0, air: float = 0.5) -> np.ndarray:
    """Tissue of mean 400 beside a share of air, with a few very bright voxels."""
    generator = np.random.default_rng(seed)
    image = np.where(generator.random((40, 40, 40)) < air, np.abs(generator.normal(0, 8, (40,) * 3)), 0)
    tissue = image == 0
    image[tissue] = generator.normal(400, 60, int(tissue.sum()))
    image[0, 0, :20] = 30000
    return image.astype(np.float32)


def test_the_paper_scales_by_mean_and_deviation_of_the_whole_image():
    image = an_mr()
    expected = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    np.testing.assert_allclose(normalize(image, PAPER), expected, rtol=1e-4, atol=1e-5)


def test_tissue_comes_to_the_same_range_however_much_air_there_is():
    medians = [np.median(normalize(an_mr(air=air), MR)[an_mr(air=air) > 150]) for air in (0.05, 0.5, 0.9)]
    assert np.ptp(medians) < 0.1
    assert abs(np.mean(medians)) < 0.1


def test_the_unit_of_an_mr_does_not_matter():
    image = an_mr()
    np.testing.assert_allclose(normalize(image * 37.5, MR), normalize(image, MR), atol=1e-3)


def test_very_bright_voxels_are_clipped_by_percentiles_and_kept_by_the_paper():
    assert normalize(an_mr(), MR).max() < 5
    assert normalize(an_mr(), PAPER).max() > 10


def test_a_ct_window_is_the_cohorts_own():
    image = np.array([[[-1000, -150, 50, 130, 350, 3000]]], np.int16)
    np.testing.assert_allclose(normalize(image, CT), [[[-2.5, -2.5, 0, 1, 3.75, 3.75]]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float16])
@pytest.mark.parametrize("channel", [PAPER, MR, CT])
def test_the_input_stays_as_it_was_and_the_result_is_finite(dtype, channel):
    image = (np.arange(1000).reshape(10, 10, 10) % 251).astype(dtype)
    before = image.copy()
    result = normalize(image, channel)
    np.testing.assert_array_equal(image, before)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, normalize(image.astype(np.float32), channel), rtol=1e-4, atol=1e-5)


def test_memory_layout_does_not_matter():
    image = an_mr()
    np.testing.assert_allclose(normalize(np.asfortranarray(image), MR), normalize(image, MR), atol=1e-5)


def test_a_constant_image_becomes_zero():
    assert not normalize(np.full((4, 4, 4), 7, np.int16), MR).any()


def test_foreground_leaves_air_out_and_keeps_tissue():
    image = an_mr().ravel()
    kept = foreground(image)
    assert kept.min() > 30
    assert abs(kept.size / np.count_nonzero(image > 150) - 1) < 0.01


def a_masked_organ(side: int, surroundings: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A cube of tissue, of a given side, in a field of 100 voxels along each axis that holds one value; and where."""
    image, inside = np.full((100, 100, 100), surroundings, np.float32), (slice(40, 40 + side),) * 3
    image[inside] += np.random.default_rng(0).normal(500, 100, (side,) * 3).clip(1)
    return image, image > surroundings


@pytest.mark.parametrize("side", [8, 12, 16, 20, 21, 40])
@pytest.mark.parametrize("surroundings", [0.0, -1000.0])
def test_a_masked_organ_keeps_its_contrast_however_little_of_the_field_it_fills(side, surroundings):
    image, tissue = a_masked_organ(side, surroundings)
    result = normalize(image, MR)
    kept = result[tissue]
    assert np.mean(kept == kept.max()) < 0.02 and np.mean(kept == kept.min()) < 0.02
    assert abs(kept.mean()) < 0.1 and abs(kept.std() - 1) < 0.1
    assert result[~tissue].max() <= kept.min()


def test_a_few_bright_voxels_are_no_masked_organ():
    image = np.zeros((40, 40, 40), np.float32)
    image[0, 0, :20] = 1000
    assert foreground(image.ravel()).size == image.size


def test_where_the_lowest_value_is_rare_all_voxels_count():
    image = np.random.default_rng(0).normal(100, 5, 64_000)
    image[:400] = 1e6  # metal: too few to be the foreground, and all else is tissue
    assert foreground(image).size == image.size


def test_samples_are_bounded_and_spread():
    ramp = np.broadcast_to(np.arange(100.0)[:, None, None], (100, 90, 80))
    values = sample_voxels(ramp, 5000)
    assert values.size <= 5000
    assert abs(values.mean() - 49.5) < 5
    assert sample_voxels(ramp, 10**6).size == ramp.size


def test_hounsfield_units_are_recognised():
    generator = np.random.default_rng(0)
    chest = generator.choice([-1000, -850, -90, 40, 60, 300], 10000) + generator.normal(0, 15, 10000)
    assert looks_like_ct(np.rint(chest).astype(np.int16))
    assert looks_like_ct(np.rint(chest).astype(np.float32))
    assert not looks_like_ct((chest - chest.min()).astype(np.int16))  # an MR, for all one can know
    assert not looks_like_ct(an_mr().ravel())
    assert not looks_like_ct(generator.normal(0, 1, 10000))  # already normalised


def test_real_scans_are_recognised(shared_folder):
    expected = {
        "cta/example_ct.nii.gz": True,
        "cta/aorta/ct_cropped.nii.gz": True,
        "vessels/vessel_001_image.nii.gz": True,
        "la2018/06SR5RBREL16DQ6M8LWS_image.nii.gz": False,
        "hippocampus/images/hippocampus_003.nii.gz": False,
        "odd/FLAIR.nrrd": False,
        "odd/mha.mha": False,
        "odd/anatomical.nii": False,
    }
    found = {name: looks_like_ct(sample_voxels(read_volume(shared_folder / name).array)) for name in expected}
    assert found == expected
