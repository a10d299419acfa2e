"""Cases of a project that are folders of DICOM slices, looked for where they have moved to."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from test_io import dicom_series

from caml_core.project.cases import ProjectCase
from caml_core.project.headers import read_header
from caml_core.project.project import Project


def a_series(project, folder):
    """A case of three slices, whose size is known, and that has moved to ``archive``."""
    dicom_series(folder / "data" / "p1" / "CT", (0.0, 1.0, 2.0))
    size = read_header(folder / "data" / "p1" / "CT")[0]
    assert size[2] == 3
    project.add(ProjectCase("p1", (folder / "data" / "p1" / "CT",), size=size))
    shutil.move(folder / "data" / "p1", folder / "archive" / "p9")
    return folder / "archive" / "p9" / "CT"


@pytest.mark.parametrize("change", ["gained", "lost"])
def test_a_series_whose_folder_gained_or_lost_a_file_that_is_no_slice_is_found(tmp_path, change):
    project = Project(tmp_path / "project")
    series = a_series(project, tmp_path)
    if change == "gained":
        (series / "README").write_text("of the archive")
    else:
        project.update("p1", size=(*project.cases["p1"].size[:2], 4))
    assert project.relocate(tmp_path / "archive") == 1
    assert project.cases["p1"].images == (series,)


def test_a_series_of_other_slices_stays_missing(tmp_path):
    project = Project(tmp_path / "project")
    a_series(project, tmp_path)
    columns, *more = project.cases["p1"].size
    project.update("p1", size=(columns + 1, *more))
    assert project.relocate(tmp_path / "archive") == 0


def test_a_series_that_cannot_be_listed_for_the_moment_is_found_by_its_name(tmp_path, monkeypatch):
    project = Project(tmp_path / "project")
    series, scandir = a_series(project, tmp_path), os.scandir

    def gone(path):
        if Path(path) == series:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", gone)
    assert read_header(series) is None
    assert project.relocate(tmp_path / "archive") == 1
