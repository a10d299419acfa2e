"""What lies beside scans and labels in folders that are read: maps of predictions, and voxels beside a header."""

from __future__ import annotations

import pytest
from test_cohort import DICOM, summary, touch

from caml_core.data.cohort import load_cohort

NOTE = "Maps that predictions left beside their labels were left out ({}): {}."


def test_maps_beside_labels_are_no_scans(tmp_path):
    touch(tmp_path, "p1.nii.gz", "p1.seg.nrrd", "p1_disagreement.nrrd", "p1_probability.nrrd", "p2.nrrd")
    touch(tmp_path, "p3_image.mha", "p3_label.nii.gz", "p3_label_disagreement.nii.gz")
    notes: list[str] = []
    expected = {
        "p1": (("p1.nii.gz",), "p1.seg.nrrd", "labeled"),
        "p2": (("p2.nrrd",), None, "unlabeled"),
        "p3": (("p3_image.mha",), "p3_label.nii.gz", "labeled"),
    }
    assert summary(load_cohort(tmp_path, notes)) == expected == summary(load_cohort(tmp_path))
    named = "p1_disagreement.nrrd, p1_probability.nrrd, p3_label_disagreement.nii.gz"
    assert notes == [NOTE.format(3, named)]


@pytest.mark.parametrize("scan", ["p1/scan.nrrd", "p1/IM1"])
def test_a_patients_folder_with_a_map_is_that_of_its_scan(tmp_path, scan):
    touch(tmp_path, scan, content=DICOM)
    touch(tmp_path, "p1/scan.seg.nrrd")
    bare = load_cohort(tmp_path).cases
    touch(tmp_path, "p1/scan_disagreement.nrrd")
    notes: list[str] = []
    assert load_cohort(tmp_path, notes).cases == bare and len(bare) == 1
    assert notes == [NOTE.format(1, "scan_disagreement.nrrd")]


def test_a_sub_folder_of_results_is_no_case(tmp_path):
    touch(tmp_path, "p1.nrrd", "results/p1.seg.nrrd", "results/p1_disagreement.nrrd")
    assert summary(load_cohort(tmp_path)) == {"p1": (("p1.nrrd",), None, "unlabeled")}


def test_a_scan_of_that_name_without_such_labels_is_one(tmp_path):
    touch(tmp_path, "model_disagreement.nrrd", "x_probability.nii.gz", "y.seg.nrrd", "y.nrrd")
    assert [case.id for case in load_cohort(tmp_path).cases] == ["model_disagreement", "x_probability", "y"]


def test_a_segmentation_whose_voxels_lie_beside_its_header_is_the_label_of_its_scan(tmp_path):
    touch(tmp_path, "p1.nrrd", "p1.seg.nhdr", "p1.seg.raw.gz")
    assert summary(load_cohort(tmp_path)) == {"p1": (("p1.nrrd",), "p1.seg.nhdr", "labeled")}
