"""A file that another program holds for an instant is replaced all the same; what lasts is told in one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from caml_core.data.files import disk_error, replace_when_free, replacing
from caml_core.errors import ResourceError


@pytest.fixture
def held(monkeypatch):
    """``held(n)``: the system refuses the next n renames, as Windows does while a scanner reads the file."""
    replace = os.replace

    def hold(times: int) -> list[Path]:
        refused: list[Path] = []

        def refuse(source, target):
            if len(refused) < times:
                refused.append(Path(target))
                raise PermissionError(errno.EACCES, "Access is denied")
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        return refused

    return hold


@pytest.mark.parametrize(("times", "tries", "arrives"), [(0, 1, True), (2, 3, True), (3, 3, False), (1, 1, False)])
def test_as_many_tries_are_made_as_are_wanted(tmp_path, held, times, tries, arrives):
    source, target = tmp_path / "new", tmp_path / "table.csv"
    source.write_text("new")
    target.write_text("old")
    refused = held(times)
    if arrives:
        replace_when_free(source, target, tries, pause=0.0)
    else:
        with pytest.raises(PermissionError):
            replace_when_free(source, target, tries, pause=0.0)
    assert refused == [target] * min(times, tries)
    assert target.read_text() == ("new" if arrives else "old")
    assert source.exists() != arrives


def test_an_error_that_waiting_does_not_mend_is_raised_at_once(tmp_path, held):
    (tmp_path / "target").mkdir()
    (tmp_path / "source").write_text("x")
    with pytest.raises(IsADirectoryError):
        replace_when_free(tmp_path / "source", tmp_path / "target", tries=10**9, pause=0.0)


def test_a_file_that_stays_held_is_left_as_it_was_and_named(tmp_path, held):
    target = tmp_path / "table.csv"
    target.write_text("old")
    held(10**9)
    with pytest.raises(ResourceError, match=r"table\.csv; close the program that has it open"):
        with replacing(target) as temporary:
            temporary.write_text("new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def test_of_a_file_that_is_not_there_no_program_is_blamed(tmp_path):
    error = disk_error(PermissionError(errno.EACCES, "no"), tmp_path / "new.csv")
    assert str(error) == f"No permission to write {tmp_path / 'new.csv'}; choose a folder that you may write to."


def test_what_is_full_and_what_is_too_long_is_said(monkeypatch, tmp_path):
    assert "Your quota" in str(disk_error(OSError(errno.EDQUOT, "quota"), tmp_path))
    lost = OSError(errno.ENOENT, "No such file or directory")
    long, short = (Path("C:/") / (letter * count) / "label.seg.nrrd" for letter, count in (("x", 250), ("y", 20)))
    assert "characters" not in str(disk_error(lost, long))
    monkeypatch.setattr(os, "name", "nt")
    told = str(disk_error(lost, long))
    assert f"its {len(str(long))} characters are more than Windows takes" in told and "nearer to the root" in told
    assert "characters" not in str(disk_error(lost, short))
