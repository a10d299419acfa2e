"""Folders of archives: what lies in them is asked once, and not slice by slice."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from test_cohort import summary, touch
from test_io import dicom_series

from caml_core.data.cohort import load_cohort
from caml_core.data.listing import list_folder
from caml_core.project.headers import read_header
from caml_core.project.relocation import find_moved

MARKED = bytes(128) + b"DICM"


@pytest.fixture
def asked(monkeypatch) -> Counter[str]:
    """How often the system was asked about single files ("stat"), and for the names in each folder."""
    count: Counter[str] = Counter()

    def counting(name: str) -> None:
        known = getattr(os, name)

        def call(path=".", *rest, **named):
            count["stat" if name.endswith("stat") else str(path)] += 1
            return known(path, *rest, **named)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "lstat", "scandir", "listdir"):
        counting(name)
    return count


def an_archive(folder: Path, slices: int, patients: int = 3) -> Path:
    for patient in range(patients):
        names = [f"P{patient}/STUDY/SER/IM{i:04d}{'' if patient else '.dcm'}" for i in range(slices)]
        touch(folder, *names, content=MARKED)
    return folder


def test_an_archive_is_looked_through_without_asking_for_each_slice(tmp_path, asked):
    few, many = an_archive(tmp_path / "few", 4), an_archive(tmp_path / "many", 300)
    stats = []
    for archive in (few, many):
        asked.clear()
        cases = load_cohort(archive).cases
        assert [case.images for case in cases] == [(archive / f"P{i}" / "STUDY" / "SER",) for i in range(3)]
        stats.append(asked.pop("stat"))
        assert set(asked.values()) == {1}, "a folder is listed once"
        assert len(asked) == 1 + 3 * 3
    assert stats[1] <= stats[0]  # the first time modules may be imported


def test_a_header_is_found_without_asking_for_each_slice(tmp_path, asked):
    stats = []
    for count in (4, 60):
        folder = tmp_path / str(count)
        dicom_series(folder, [2.0 * i for i in range(count)])
        touch(folder, "DICOMDIR", "_notes.txt", ".hidden", "a_label.nrrd")
        asked.clear()
        size, _ = read_header(folder)
        assert size[2] == count
        stats.append(asked["stat"])
    assert stats[1] <= stats[0]  # the first time modules may be imported


def test_a_file_is_looked_for_without_asking_for_each_other_one(tmp_path, asked):
    stats = []
    for count in (4, 300):
        archive = an_archive(tmp_path / str(count), count)
        touch(archive, "P1/scan.nrrd", "P2/other.nrrd")
        asked.clear()
        lost = [Path("/gone/P1/scan.nrrd"), Path("/gone/P2/STUDY/SER"), Path("/gone/absent.nrrd")]
        assert find_moved(lost, archive) == {
            lost[0]: archive / "P1" / "scan.nrrd",
            lost[1]: archive / "P2" / "STUDY" / "SER",
        }
        stats.append(asked["stat"])
    assert stats[1] <= stats[0]  # the first time modules may be imported


def test_links_count_as_what_they_lead_to(tmp_path):
    touch(tmp_path, "here/scan.nrrd", "there/b.nrrd", ".hidden", "_left")
    here = tmp_path / "here"
    (here / "a.nrrd").symlink_to(tmp_path / "there" / "b.nrrd")
    (here / "folder").symlink_to(tmp_path / "there")
    (here / "dead.nrrd").symlink_to(tmp_path / "nothing")
    (here / "loop").symlink_to(here / "loop")
    found = list_folder(here)
    assert found.names == ("a.nrrd", "dead.nrrd", "folder", "loop", "scan.nrrd")
    assert (found.folders, found.files) == (("folder",), ("a.nrrd", "scan.nrrd"))
    assert set(summary(load_cohort(here))) == {"a", "folder", "scan"}
    assert list_folder(tmp_path).names == ("here", "there")


def test_a_folder_that_lets_itself_be_listed_and_not_entered_is_left_out(an_open_folder, a_plain_user):
    touch(an_open_folder, "good.nrrd", "x/scan.nrrd")
    (an_open_folder / "x").chmod(0o444)
    notes: list[str] = []
    try:
        with a_plain_user():
            assert [case.id for case in load_cohort(an_open_folder, notes).cases] == ["good"]
    finally:
        (an_open_folder / "x").chmod(0o755)
    assert notes == ["Sub-folders that cannot be read were left out (1): x."]
