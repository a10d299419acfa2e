"""Files whose names are not in UTF-8, as old archives leave them on Linux: SimpleITK ends the process over them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_evaluate import a_map
from test_io import dicom_series
from test_predict import GRID, write_scan

from caml_core.data.cohort import load_cohort
from caml_core.data.files import name_fault
from caml_core.data.labels import write_labels
from caml_core.errors import DataError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
#: Latin-1.
NAME = os.fsdecode(b"M\xfcller")
SENTENCE = "M\\xfcller"


def renamed(path: Path) -> Path:
    """The file or folder with the name in Latin-1, its ending kept."""
    return path.rename(path.with_name(path.name.replace("foreign", NAME)))


def test_names_in_utf_8_are_none():
    assert not name_fault(Path("/data/M\u00fcller \u5de6/\u03ba.nrrd"))
    assert SENTENCE in name_fault(Path("/data") / NAME / "p1.nrrd")


def test_a_folder_is_listed_without_them_or_refused(tmp_path):
    write_scan(tmp_path / "good.nii.gz")
    renamed(write_scan(tmp_path / "foreign.nii.gz"))
    with pytest.raises(DataError) as caught:
        load_cohort(tmp_path)
    assert SENTENCE in str(caught.value) and "rename it" in str(caught.value)
    notes: list[str] = []
    assert [case.id for case in load_cohort(tmp_path, notes).cases] == ["good"]
    (note,) = notes
    assert note.startswith("1 case(s) were left out.") and SENTENCE in note and str(caught.value).isascii()


def test_a_folder_of_nothing_else_is_refused_by_the_name(tmp_path):
    write_scan(tmp_path / "foreign" / "p1.nii.gz")
    renamed(tmp_path / "foreign")
    with pytest.raises(DataError, match="not in UTF-8"):
        load_cohort(tmp_path / NAME, [])


def ended(environment: dict[str, str], code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, which an abort would end alone."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_comparing_such_files_ends_in_a_sentence(tmp_path, caml_environment):
    for folder in ("predictions", "references"):
        write_labels(tmp_path / folder / "foreign.nii.gz", a_map((1, 2)), GRID, ())
        renamed(tmp_path / folder / "foreign.nii.gz")
    words = ("evaluate", tmp_path / "predictions", tmp_path / "references", "--progress", "none")
    done = ended(caml_environment, "from caml_core.cli import main; raise SystemExit(main())", *words)
    assert done.returncode == 3 and SENTENCE in done.stderr and "Traceback" not in done.stderr


READING = """
import sys
from pathlib import Path
from caml_core.data.io import read_volume, write_image
from caml_core.errors import CamlError
from caml_core.project.headers import read_grid, read_header
folder, series = map(Path, sys.argv[1:3])
foreign = next(folder.glob("M*ller.nii.gz"))
assert read_header(foreign) is None and read_grid(foreign) is None
volume = read_volume(folder / "good.nii.gz")
for work in (
    lambda: read_volume(foreign),
    lambda: read_volume(series),
    lambda: write_image(foreign.with_name(f"{foreign.name}.nrrd"), volume.array, volume.grid),
):
    try:
        work()
    except CamlError as error:
        print(type(error).__name__, error)
"""


def test_no_reader_and_no_writer_ends_the_process(tmp_path, caml_environment):
    """Slicer reads headers in its own process: it would go with all that is not saved."""
    write_scan(tmp_path / "good.nii.gz")
    renamed(write_scan(tmp_path / "foreign.nii.gz"))
    dicom_series(tmp_path / "series", (0.0, 1.0, 2.0))
    first = sorted((tmp_path / "series").iterdir())[0]
    first.rename(first.with_name(f"{NAME}.dcm"))
    done = ended(caml_environment, READING, tmp_path, tmp_path / "series")
    assert done.returncode == 0, done.stderr
    kinds = [line.split()[0] for line in done.stdout.splitlines()]
    assert kinds == ["DataError", "DataError", "ResourceError"] and done.stdout.count(SENTENCE) == 3
