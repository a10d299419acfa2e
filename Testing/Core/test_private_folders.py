"""Prepared scans on a computer of several people: nobody but their user may look at them unless that is wanted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from caml_core.training.session import case_memos, cases_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="folders of a user are nobody else's there")


@pytest.fixture
def a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's own place for caches, of a user whose new files all may read; made by something else already."""
    monkeypatch.delenv("CAML_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("caml_core.cache_location.sys.platform", "linux")
    (tmp_path / "caml").mkdir()
    before = os.umask(0o022)
    yield tmp_path / "caml"
    os.umask(before)


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_prepared_scans_are_kept_for_their_user_alone(a_place: Path) -> None:
    case_memos(None).write("key", b"names, and what was found")
    assert cases_folder(None) == a_place / "cases" and mode(a_place / "cases") == 0o700
    assert len(list((a_place / "cases" / "memos").iterdir())) == 1


def test_permissions_that_somebody_has_chosen_stay(a_place: Path, tmp_path: Path, monkeypatch) -> None:
    (a_place / "cases").mkdir(0o750)
    case_memos(None).write("key", b"")
    assert mode(a_place / "cases") == 0o750
    monkeypatch.setenv("CAML_CACHE_DIR", str(tmp_path / "of the group"))
    case_memos(None).write("key", b"")
    assert mode(tmp_path / "of the group" / "cases") == 0o755
