"""Locks tell a process that holds them from a file system that has none."""

import errno

import pytest

from caml_core.errors import ResourceError, TrainingError
from caml_core.locking import FileLock, is_locked

fcntl = pytest.importorskip("fcntl", reason="POSIX locks")


def test_a_lock_goes_with_whoever_held_it(tmp_path):
    path = tmp_path / "lock"
    assert not is_locked(path)
    with FileLock(path, "taken"):
        assert is_locked(path)
        with pytest.raises(TrainingError, match="taken"), FileLock(path, "taken"):
            pass
    assert not is_locked(path)


def test_a_file_system_without_locks_is_named_and_not_taken_for_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.touch()

    def none(*_arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    assert not is_locked(path)
    with pytest.raises(ResourceError, match="does not keep locks .*disk of this computer"), FileLock(path, "taken"):
        pass
