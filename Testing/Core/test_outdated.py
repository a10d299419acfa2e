"""A prediction is outdated once a file of its scan is newer, and where nothing can be known it is not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from caml_core.project.cases import ProjectCase
from caml_core.project.outdated import is_outdated


def written(path: Path, ago: float) -> Path:
    """A file that was written some seconds ago; its content is nobody's business."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"." * 128 + b"DICM")
    os.utime(path, (time.time() - ago,) * 2)
    return path


@pytest.fixture
def prediction(tmp_path) -> Path:
    """One that was made a minute ago."""
    return written(tmp_path / "predictions" / "p07.seg.nrrd", 60)


@pytest.mark.parametrize(("ago", "expected"), [(90, False), (30, True), (-3600, False)], ids=["old", "new", "to come"])
def test_a_file_tells_by_its_time(tmp_path, prediction, ago, expected):
    scan = written(tmp_path / "p07.nii.gz", ago)
    assert is_outdated(ProjectCase("p07", (scan,), prediction=prediction)) == expected
    other = written(tmp_path / "p07_t2.nii.gz", 90)
    assert is_outdated(ProjectCase("p07", (other, scan), prediction=prediction)) == expected


@pytest.mark.parametrize(("ago", "expected"), [(90, False), (30, True)], ids=["old", "new"])
def test_a_series_tells_by_its_slices_and_not_by_what_lies_beside_them(tmp_path, prediction, ago, expected):
    for number in range(9):
        written(tmp_path / "p07" / f"{number:03d}.dcm", ago)
    written(tmp_path / "p07" / ".DS_Store", 1)  # browsing a folder changes its own time, too
    assert is_outdated(ProjectCase("p07", (tmp_path / "p07",), prediction=prediction)) == expected


def test_nothing_is_outdated_where_nothing_can_be_known(tmp_path, prediction):
    scan = written(tmp_path / "p07.nii.gz", 30)
    assert not is_outdated(ProjectCase("p07", (scan,)))
    assert not is_outdated(ProjectCase("p07", (scan,), prediction=tmp_path / "gone.seg.nrrd"))
    assert not is_outdated(ProjectCase("p07", (tmp_path / "gone.nii.gz",), prediction=prediction))
    assert not is_outdated(ProjectCase("p07", (), prediction=prediction))
    (tmp_path / "empty").mkdir()
    assert not is_outdated(ProjectCase("p07", (tmp_path / "empty",), prediction=prediction))
