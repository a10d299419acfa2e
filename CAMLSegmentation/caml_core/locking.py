"""Locks that the system's kernel keeps: they go with the process that holds them, however it ends.

Standard library only: a panel asks ``is_locked`` before PyTorch is there.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import TracebackType

from .data.files import disk_error, make_folder
from .errors import ResourceError, TrainingError

#: Who asks ``is_locked`` holds a file's lock for an instant; a process that wants to keep it tries again.
_ATTEMPTS = 5
_PAUSE = 0.1
#: What the systems say of a lock that is held: POSIX the first two, Windows the others.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


class FileLock:
    """The exclusive lock of the file ``path``, as a context manager; the file is made and stays.

    ``refusal`` is the sentence of the TrainingError that is raised where another process holds it.
    """

    def __init__(self, path: Path, refusal: str) -> None:
        self.path = Path(path)
        self._refusal = refusal
        self._descriptor: int | None = None

    def __enter__(self) -> FileLock:
        make_folder(self.path.parent)
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, self.path) from error
        for attempt in range(_ATTEMPTS):
            try:
                taken = _take(descriptor)
            except OSError as error:
                os.close(descriptor)
                raise ResourceError(
                    f"The file system of {self.path.parent} does not keep locks ({error.strerror or error}), without "
                    "which two trainings could write over each other; put the folder on a disk of this computer."
                ) from error
            if taken:
                self._descriptor = descriptor
                return self
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE)
        os.close(descriptor)
        raise TrainingError(self._refusal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of ``path``; a file that is not there is not locked."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # network drives lock only what may be written
    except OSError:
        return False
    try:
        return not _take(descriptor)
    except OSError:
        return False  # without locks nobody holds one
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Whether the lock could be taken; raise OSError where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as error:
            return _refused(error)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return _refused(error)
    return True


def _refused(error: OSError) -> bool:
    """False where another process has the lock; any other error is one of the file system."""
    if error.errno in _HELD:
        return False
    raise error
