"""The digest of a case is exact, is not made twice, and what is remembered of it stays small and is not for ever."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from caml_core.data import digests
from caml_core.data.cache import CaseCache
from caml_core.data.case import Case
from caml_core.data.memos import Memos

WEEK = 7 * 86_400


@pytest.fixture
def a_series(tmp_path) -> Path:
    folder = tmp_path / "series"
    (folder / "more").mkdir(parents=True)
    for number in range(50):
        (folder / ("more" if number % 2 else "") / f"IM{number:03d}.dcm").write_bytes(os.urandom(200))
    return folder


@pytest.fixture
def a_cache(tmp_path) -> CaseCache:
    return CaseCache(tmp_path / "cache")


@pytest.fixture
def files_read(monkeypatch) -> list[str]:
    """The names of the files whose content was looked at."""
    read, known = [], digests._sha256

    def sha256(path: Path, case_id: str) -> bytes:
        read.append(path.name)
        return known(path, case_id)

    monkeypatch.setattr(digests, "_sha256", sha256)
    return read


def memos(cache: CaseCache) -> list[Path]:
    return sorted(cache.memos.folder.iterdir())


def test_a_series_has_one_memo_that_nobody_waits_for_and_that_counts(a_series, a_cache, monkeypatch):
    waited = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (waited.append(file), fsync(file)))
    a_cache._digest(Case("a", (a_series,)))
    assert not waited
    (memo,) = memos(a_cache)
    assert a_cache.size_bytes() == memo.stat().st_size > 0
    assert memo.stat().st_size <= 32 * 51


def test_the_digest_is_that_of_older_versions_so_that_their_entries_are_found(a_series, a_cache, tmp_path):
    (tmp_path / "label.nrrd").write_bytes(b"label")
    files = [*sorted(p for p in a_series.rglob("*") if p.is_file()), tmp_path / "label.nrrd"]
    whole = b"".join(hashlib.sha256(p.read_bytes()).digest() for p in files)
    case = Case("a", (a_series,), tmp_path / "label.nrrd", "labeled")
    for _again in range(2):
        assert a_cache._digest(case) == hashlib.sha256(whole).hexdigest()


def test_what_has_not_changed_is_not_read_again(a_series, tmp_path, files_read):
    label = tmp_path / "label.nrrd"
    label.write_bytes(b"label")
    case = Case("a", (a_series,), label, "labeled")
    first = CaseCache(tmp_path / "cache")._digest(case)
    assert len(files_read) == 51
    assert CaseCache(tmp_path / "cache")._digest(case) == first  # as a round that is resumed
    assert len(files_read) == 51
    label.write_bytes(b"another")
    assert CaseCache(tmp_path / "cache")._digest(case) != first
    assert files_read[51:] == ["label.nrrd"]


def test_every_change_of_a_slice_is_noticed(a_series, a_cache):
    one, case = a_series / "IM010.dcm", Case("a", (a_series,))
    seen = {a_cache._digest(case)}
    state = one.stat()
    one.write_bytes(b"x" * state.st_size)
    os.utime(one, ns=(state.st_atime_ns, state.st_mtime_ns))  # of the same size and, it says, as old
    seen.add(a_cache._digest(case))
    one.rename(a_series / "IM999.dcm")
    seen.add(a_cache._digest(case))
    (a_series / "IM999.dcm").unlink()
    seen.add(a_cache._digest(case))
    assert len(seen) == 4


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: bytes(len(b)), lambda b: b + b"0" * 32, lambda b: b""])
def test_a_damaged_memo_is_made_anew(a_series, a_cache, damage):
    case = Case("a", (a_series,))
    first = a_cache._digest(case)
    (memo,) = memos(a_cache)
    whole = memo.read_bytes()
    memo.write_bytes(damage(whole))
    assert a_cache._digest(case) == first
    assert memo.read_bytes() == whole


def test_memos_that_are_not_used_for_weeks_go_and_so_do_those_of_older_versions(a_cache, tmp_path):
    folder = a_cache.memos.folder
    for key, weeks in (("old", 7), ("used", 7), ("new", 1)):
        a_cache.memos.write(key, key.encode())
        then = time.time() - weeks * WEEK
        os.utime(max(folder.iterdir(), key=lambda p: p.stat().st_mtime), (then, then))
    assert a_cache.memos.read("used") == b"used"
    then = time.time() - WEEK
    (folder / ".part-1-2").write_bytes(b"half of")
    os.utime(folder / ".part-1-2", (then, then))
    older = a_cache.folder / "digests"
    older.mkdir()
    (older / ("0" * 32)).write_text("0" * 64)
    again = CaseCache(a_cache.folder)
    assert [again.memos.read(key) for key in ("old", "used", "new")] == [None, b"used", b"new"]
    assert len(memos(again)) == 2 and not any(older.iterdir())
    CaseCache(a_cache.folder)
    assert not older.exists()


def test_memos_keep_bytes_under_any_key(tmp_path):
    kept = Memos(tmp_path / "memos")
    assert kept.read("a") is None and kept.size_bytes() == 0
    kept.tidy()
    for key in ("a", "\u738b", "\udcff, a name that is no text"):
        kept.write(key, key.encode("utf-8", "replace"))
        assert kept.read(key) == key.encode("utf-8", "replace")
    assert not list(kept.folder.glob(".part-*"))
