"""Several sequences of a patient in a folder: what becomes a case, and what is said where none does; real folders."""

from __future__ import annotations

import pytest
from test_cohort import DICOM, touch

from caml_core.data.cohort import load_cohort
from caml_core.errors import DataError


def test_patients_who_lack_a_sequence_are_left_out_and_named(tmp_path):
    for patient, channels in (("p1", 3), ("p2", 3), ("p3", 2), ("p4", 3)):
        touch(tmp_path, *(f"{patient}_{channel:04d}.nii.gz" for channel in range(channels)))
    notes: list[str] = []
    assert [case.id for case in load_cohort(tmp_path, notes).cases] == ["p1", "p2", "p4"]
    assert notes == ["Cases that have not 3 image(s), as most have, were left out (1): p3."]
    with pytest.raises(DataError, match="p3"):  # a list must be right, and so must what nobody hears notes of
        load_cohort(tmp_path)


def test_a_patient_of_several_series_is_told(tmp_path):
    for series in ("p1/study/T1", "p1/study/T2", "p2/study/T1"):
        touch(tmp_path, f"{series}/1.dcm", content=DICOM)
    notes: list[str] = []
    assert len(load_cohort(tmp_path, notes).cases) == 3
    (note,) = notes
    assert note.startswith("Of sub-folders with several DICOM series each series is a case (1): p1.")
    load_cohort(tmp_path)  # and hinders nothing


def test_the_real_cohorts_load(shared_folder):
    atria = load_cohort(shared_folder / "la2018")
    assert len(atria.cases) == 80
    assert atria.cases[0].id == "06SR5RBREL16DQ6M8LWS"
    assert all(c.role == "labeled" for c in atria.cases)
    assert len(load_cohort(shared_folder / "hippocampus").with_role("labeled")) == 160
    assert len(load_cohort(shared_folder / "vessels").with_role("labeled")) == 32
    assert load_cohort(shared_folder / "odd" / "dicom-mr").cases[0].images == (shared_folder / "odd" / "dicom-mr",)
