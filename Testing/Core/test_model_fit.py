"""Warnings for volumes that a model was not made for, and none for those like the ones it learned from."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from caml_core import model_fit
from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.data.io import read_volume
from caml_core.model_file import ModelInfo
from caml_core.model_fit import VolumeFacts
from caml_core.phantom.atrium import make_atrium
from caml_core.phantom.coronary import make_coronary
from caml_core.published import published_spec

MR = ChannelIntensity()
CT = ChannelIntensity("window", -150.0, 600.0, 100.0, 150.0, "image", "CT")


def spec_of(*channels, spacing=(0.625,) * 3, patch=(112, 112, 80), orientation="LPS"):
    network = NetworkConfig(in_channels=len(channels))
    return ModelSpec(Geometry(spacing, patch, orientation), network, channels, (Segment("x", 1),))


def trained_on(size_mm, spacing):
    return ModelInfo("model", provenance={"training_volumes": {"size_mm": list(size_mm), "spacing": list(spacing)}})


ATRIA = (spec_of(MR), trained_on((144.0, 92.0, 55.0), (0.625,) * 3))
ATRIUM = VolumeFacts((230, 150, 88), (0.625,) * 3, (1, 0, 0, 0, 1, 0, 0, 0, 1), "MR", 0, 120)
VESSELS = (spec_of(CT, spacing=(0.7, 0.7, 0.8)), trained_on((180.0, 180.0, 120.0), (0.35, 0.35, 0.5)))
CTA = VolumeFacts((512, 512, 240), (0.35, 0.35, 0.5), None, "CT", -1024, 2500)
UNKNOWN = ModelInfo("model")


def facts_of(volume, modality=""):
    grid = volume.grid
    array = volume.array if hasattr(volume, "array") else volume.image
    return VolumeFacts(grid.size, grid.spacing, grid.direction, modality, float(array.min()), float(array.max()))


def only(facts, spec, info):
    """The one sentence that there must be: what was found, what was expected, what to do."""
    (sentence,) = model_fit.warnings([facts], spec, info)
    assert sentence.endswith(".") and "\n" not in sentence and sentence.isascii() and sentence.count(". ") == 0
    assert " and " in sentence and any(word in sentence for word in ("choose", "limit", "check"))
    return sentence


# What fits


@pytest.mark.parametrize(("facts", "model"), [(ATRIUM, ATRIA), (CTA, VESSELS)])
def test_a_volume_like_those_of_the_training_brings_no_warning(facts, model):
    spec, info = model
    for modality in (facts.modality, ""):
        for known in (info, UNKNOWN, ModelInfo("m", provenance={"training_volumes": {"size_mm": None}})):
            assert model_fit.warnings([replace(facts, modality=modality)], spec, known) == ()


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize(("make", "channel"), [(make_atrium, MR), (make_coronary, CT)])
def test_phantoms_fit_a_model_of_phantoms(make, channel, index):
    first, phantom = make(1, 0), make(1, index)
    grid = first.grid
    extent = [n * s for n, s in zip(grid.size, grid.spacing)]
    spec = spec_of(channel, spacing=grid.spacing, patch=tuple(-(-n // 16) * 16 for n in grid.size))
    for info in (UNKNOWN, trained_on(extent, grid.spacing)):
        assert model_fit.warnings([facts_of(phantom)], spec, info) == ()


def test_real_atria_fit_the_published_model(shared_folder):
    paths = sorted((shared_folder / "la2018").glob("*_image.nii.gz"))[:6]
    assert paths
    for path in paths:
        assert model_fit.warnings([facts_of(read_volume(path))], published_spec(), UNKNOWN) == ()


def test_real_ct_does_not_fit_it(shared_folder):
    found = model_fit.warnings(
        [facts_of(read_volume(shared_folder / "cta" / "example_ct.nii.gz"))], published_spec(), UNKNOWN
    )
    assert "Hounsfield" in found[0] and any("3 mm long" in sentence for sentence in found[1:])


@pytest.mark.parametrize("slices", [1.0, 1.5, 3.0])
def test_usual_differences_of_spacing_bring_no_warning(slices):
    facts = VolumeFacts((320, 320, 100), (1.0, 1.0, slices), None, "CT", -1000, 1500)
    spec = spec_of(CT, spacing=(1.0, 1.0, 1.5), patch=(96, 96, 64))
    assert model_fit.warnings([facts], spec, trained_on((320.0, 320.0, 150.0), (1.0, 1.0, 1.5))) == ()


# What does not


@pytest.mark.parametrize(("given", "needed"), [(0, 1), (2, 1), (1, 2)])
def test_the_number_of_channels(given, needed):
    (sentence,) = model_fit.warnings([ATRIUM] * given, spec_of(*[MR] * needed), UNKNOWN)
    assert f"choose {needed}" in sentence


@pytest.mark.parametrize(
    ("code", "channel", "words"),
    [
        ("CT", "MR", "a CT scan by its DICOM header"),
        ("ct", "LGE-MRI", "trained on an MRI scan"),
        ("MR", "CTA", "trained on a CT scan"),
        ("PT", "CT", "a PET scan"),
        ("US", "MR", "an ultrasound scan"),
    ],
)
def test_the_modality_of_the_header(code, channel, words):
    facts = replace(ATRIUM, modality=code, lowest=None, highest=None)
    assert words in only(facts, spec_of(replace(MR, modality=channel)), UNKNOWN)


@pytest.mark.parametrize(("code", "channel"), [("CT", "CTA"), ("MR", "MRA"), ("OT", "CT"), ("", "CT"), ("CT", "T2")])
def test_names_of_one_modality_and_unknown_ones_agree(code, channel):
    facts = replace(CTA, modality=code)
    spec, info = VESSELS
    assert model_fit.warnings([facts], replace(spec, channels=(replace(CT, modality=channel),)), info) == ()


@pytest.mark.parametrize("limits", [(0, 255), (0, 4095), (-3, 5.5), (-20, 300)])
def test_intensities_that_are_no_hounsfield_units(limits):
    facts = replace(CTA, modality="", lowest=limits[0], highest=limits[1])
    assert "Hounsfield" in only(facts, *VESSELS)


def test_hounsfield_units_for_an_mri_model():
    facts = replace(ATRIUM, modality="", lowest=-1024, highest=1800)
    assert "like a CT" in only(facts, *ATRIA)
    assert model_fit.warnings([replace(facts, modality="MR")], *ATRIA) == ()
    assert model_fit.warnings([replace(facts, highest=21000)], *ATRIA) == ()


def test_an_empty_volume():
    assert "same value (0) everywhere" in model_fit.warnings([replace(ATRIUM, highest=0)], *ATRIA)[0]


@pytest.mark.parametrize("spacing", [(0.625, 0.625, 5.0), (0.625, 0.625, 3.5), (2.0, 0.625, 0.625)])
def test_coarse_voxels(spacing):
    size = tuple(round(n * 0.625 / s) for n, s in zip(ATRIUM.size, spacing))
    sentence = only(replace(ATRIUM, size=size, spacing=spacing), *ATRIA)
    assert f"{max(spacing):g} mm long" in sentence and "0.625 mm" in sentence


def test_coarse_voxels_that_the_model_learned_from_are_fine():
    facts = VolumeFacts((256, 256, 30), (1.0, 1.0, 5.0), None, "MR", 0, 900)
    spec = spec_of(MR, spacing=(1.0, 1.0, 1.0), patch=(96, 96, 96))
    assert "5 mm long" in only(facts, spec, UNKNOWN)
    assert model_fit.warnings([facts], spec, trained_on((256.0, 256.0, 150.0), (1.0, 1.0, 5.0))) == ()


def test_a_small_field_of_view():
    sentence = only(replace(ATRIUM, size=(230, 150, 30)), *ATRIA)
    assert "spans 18.8 mm from head to foot" in sentence and "about 50 mm" in sentence


def test_a_small_field_of_view_is_measured_by_the_training_where_patches_are_larger():
    facts = VolumeFacts((37, 52, 30), (1.0, 1.0, 1.0), None, "MR", 0, 900)
    spec = spec_of(MR, spacing=(1.0, 1.0, 1.0), patch=(48, 64, 64))
    assert "spans 30 mm" in only(facts, spec, UNKNOWN)
    assert model_fit.warnings([facts], spec, trained_on((36.0, 50.0, 35.0), (1.0, 1.0, 1.0))) == ()


def test_a_large_field_of_view():
    sentence = only(replace(ATRIUM, size=(230, 150, 700)), *ATRIA)
    assert "spans 438 mm from head to foot" in sentence and "55 mm" in sentence and "limit it to a region" in sentence
    assert model_fit.warnings([replace(ATRIUM, size=(230, 150, 700))], ATRIA[0], UNKNOWN) == ()


@pytest.mark.parametrize("slices", [1, 7])
def test_a_few_slices_are_no_volume(slices):
    assert f"only {slices} slice" in only(replace(ATRIUM, size=(230, 150, slices)), *ATRIA)


def test_axes_are_the_patients():
    """The same scan, stored with its axes in any order and direction, brings the same warning."""
    size, spacing = np.array([230, 150, 30]), np.array([0.625, 0.625, 0.6])
    expected = only(VolumeFacts(tuple(size), tuple(spacing), None, "MR", 0, 9), *ATRIA)
    for order in itertools.permutations(range(3)):
        direction = np.zeros((3, 3))
        direction[list(order), range(3)] = (-1, 1, -1)
        facts = VolumeFacts(tuple(size[list(order)]), tuple(spacing[list(order)]), tuple(direction.ravel()), "MR", 0, 9)
        assert only(facts, *ATRIA) == expected


def test_a_models_own_orientation_counts():
    spec = spec_of(MR, spacing=(3.0, 0.6, 0.6), patch=(16, 80, 80), orientation="SPL")
    facts = VolumeFacts((100, 100, 20), (0.6, 0.6, 3.0), None, "MR", 0, 9)
    assert model_fit.warnings([facts], spec, UNKNOWN) == ()


def test_channels_are_named():
    facts = [ATRIUM, replace(ATRIUM, modality="CT")]
    (sentence,) = model_fit.warnings(facts, spec_of(MR, MR), UNKNOWN)
    assert sentence.startswith("The volume of channel 2 is a CT scan")


@pytest.mark.parametrize(
    "wrong", [None, 3, "x", [], {"size_mm": "big"}, {"size_mm": [1, 2]}, {"size_mm": [0, -1, "a"]}]
)
def test_a_strange_provenance_is_no_fault(wrong):
    info = ModelInfo("m", provenance={"training_volumes": wrong})
    assert model_fit.warnings([ATRIUM], ATRIA[0], info) == ()


def test_nothing_but_the_standard_library_is_loaded(caml_environment):
    code = "import sys, caml_core.model_fit; assert not {'torch', 'numpy', 'SimpleITK'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=caml_environment, timeout=60)
