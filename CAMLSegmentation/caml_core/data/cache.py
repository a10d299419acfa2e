"""Prepared cases on disk: resampled, normalised, memory-mapped, so that RAM does not grow with the cohort.

An entry's name is a hash of its source files' contents and of every setting that shapes it. It is written under
another name and appears by one rename; two processes that prepare one case at once both succeed. The least recently
used entries are removed beyond the limit, never one that a living process uses; where the file system keeps no locks,
never one that this process uses. What is in use may exceed the limit as far as the disk has room.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from ..config import ChannelIntensity, Geometry, Segment
from ..errors import DiskFullError, ResourceError
from ..serialization import to_json
from .case import Case
from .digests import case_digest
from .files import TOO_MANY_FILES, disk_error, make_folder, raise_too_many, remove_quietly, when_free
from .memos import memos_of
from .preparation import ENTRY, PreparedCase, open_entry, uses_label, write_arrays, write_file

__all__ = ["CaseCache", "PreparedCase"]

try:
    import fcntl
except ImportError:  # Windows does not let files be removed that are in use, which serves the same end
    fcntl = None  # type: ignore[assignment]
try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

#: Raised with every change of what is stored, so that entries of older versions are not taken.
_FORMAT = 1
#: Half-written entries of processes that were killed are removed after a day.
_ABANDONED_SECONDS = 86_400
#: What POSIX says of a lock that is held, and network drives of one on a file that may only be read; any other error
#: means that the file system keeps none.
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EBADF}
#: What this process uses, which alone is known where there are no locks.
_IN_USE: weakref.WeakSet[PreparedCase] = weakref.WeakSet()
#: Open files to ask for, up to three a case: far more than any cohort needs, and the most that macOS grants.
_OPEN_FILES = (65_536, 10_240)
_ELSEWHERE = "CAML_CACHE_DIR, set before the program starts, names another folder for prepared scans."
#: Bytes of the disk that entries beyond the limit leave free, for checkpoints, models and everybody else.
_SPARE_BYTES = 10**9
#: Where older versions kept a memo for each file, and how many of these are removed at a time: there may be millions.
_OLD_MEMOS, _OLD_MEMOS_AT_ONCE = "digests", 20_000
#: Windows moves no folder in which a scanner for viruses looks at a file, and it looks at all that are new.
_FOLDER_TRIES = 201 if os.name == "nt" else 1


class CaseCache:
    """Prepared cases in ``folder``, together with memos at most ``limit_bytes`` on disk unless more are in use.

    An entry is in use, and safe from removal, as long as its :class:`PreparedCase` lives.
    """

    def __init__(self, folder: Path, limit_bytes: int = 20 * 10**9) -> None:
        self.folder = make_folder(Path(folder))
        self.limit_bytes = limit_bytes
        self.memos = memos_of(self.folder)
        _allow_many_files()
        self.memos.tidy()
        _remove_some(self.folder / _OLD_MEMOS)
        for leftover in self.folder.glob(".part-*"):
            if time.time() - _modified(leftover) > _ABANDONED_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)

    def prepare(
        self,
        case: Case,
        geometry: Geometry,
        channels: Sequence[ChannelIntensity],
        segments: Sequence[Segment],
        declared: Sequence[Segment] = (),
    ) -> PreparedCase:
        """Return the case as ``geometry``, ``channels`` and ``segments`` want it, from disk where it is there.

        ``declared``: the cohort's own ``segments``, which name the values of plain label maps. The label is read
        for labelled and validation cases only. Raises DataError for bad input and ResourceError for a bad disk.
        """
        try:
            digest = self._digest(case)
            settings = _settings(geometry, channels, segments, declared, uses_label(case))
            entry = self.folder / hashlib.sha256(f"{digest}{settings}".encode()).hexdigest()[:32]
            prepared = self._existing(entry, case)
            if prepared is None:
                self._build(entry, case, digest, geometry, channels, segments, declared)
                prepared = self._existing(entry, case)
        except OSError as error:
            if error.errno in TOO_MANY_FILES:
                raise _too_many_files(case.id) from error
            told = disk_error(error, self.folder)
            if isinstance(told, DiskFullError):
                raise DiskFullError(f"{told} {_ELSEWHERE}") from error
            raise told from error
        if prepared is None:
            raise ResourceError(f"Case {case.id} could not be kept in the cache {self.folder}; check the disk.")
        return prepared

    def size_bytes(self) -> int:
        """Return how much disk all entries take, and the memos."""
        return sum(_folder_size(entry) for entry in self._entries()) + self.memos.size_bytes()

    def _existing(self, entry: Path, case: Case) -> PreparedCase | None:
        lease = _lease(entry)
        if lease is None:
            return None
        try:
            prepared = open_entry(entry, case.id, case.role)
        except (OSError, ValueError, KeyError) as error:
            lease.close()
            raise_too_many(error)
            self._remove(entry)  # damaged, by a crash of the machine perhaps: made anew
            return None
        try:
            os.utime(entry / ENTRY)  # used just now: removed last
        except OSError:  # of another user, who may have it open: as good as one's own
            pass
        weakref.finalize(prepared, lease.close)
        _IN_USE.add(prepared)
        return prepared

    def _build(
        self,
        entry: Path,
        case: Case,
        digest: str,
        geometry: Geometry,
        channels: Sequence[ChannelIntensity],
        segments: Sequence[Segment],
        declared: Sequence[Segment],
    ) -> None:
        temporary = self.folder / f".part-{os.getpid()}-{secrets.token_hex(4)}"
        temporary.mkdir()
        try:
            write_arrays(temporary, case, geometry, channels, segments, declared, self._make_room)
            sizes = {p.name: p.stat().st_size for p in temporary.iterdir()}
            description = {"format": _FORMAT, "case": case.id, "digest": digest, "sizes": sizes}
            write_file(temporary / ENTRY, json.dumps(description).encode("ascii"))
            when_free(lambda: _move_in(temporary, entry), _FOLDER_TRIES)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _make_room(self, needed: int, case_id: str) -> None:
        """Remove the entries used longest ago until ``needed`` more bytes fit, or only those in use are left."""
        entries = sorted(self._entries(), key=_last_use)
        total = sum(_folder_size(e) for e in entries) + self.memos.size_bytes() + needed
        for entry in entries:
            if total <= self.limit_bytes:
                return
            size = _folder_size(entry)
            if self._remove(entry):
                total -= size
        if total > self.limit_bytes and needed + _SPARE_BYTES > (free := shutil.disk_usage(self.folder).free):
            raise ResourceError(
                f"Case {case_id} needs {needed / 1e9:.3g} GB in the cache {self.folder} beside the cases in use, and "
                f"its disk has {free / 1e9:.3g} GB free, of which {_SPARE_BYTES / 1e9:.3g} GB must stay free; free "
                f"space on that disk, or exclude some cases. {_ELSEWHERE}"
            )

    def _remove(self, entry: Path) -> bool:
        """Remove an entry unless it is in use; return whether it went."""
        lock = None if any(prepared.folder == entry for prepared in tuple(_IN_USE)) else _exclusive(entry)
        if lock is None:
            return False
        gone = self.folder / f".part-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            os.rename(entry, gone)  # at once, so that nobody opens half of it
        except OSError:
            return False
        finally:
            lock.close()
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _entries(self) -> list[Path]:
        return [p for p in self.folder.iterdir() if len(p.name) == 32 and (p / ENTRY).is_file()]

    def _digest(self, case: Case) -> str:
        """Return the SHA-256 of the case's files; a file that has not changed since is not read again."""
        return case_digest(case, self.memos)


def _allow_many_files() -> None:
    """Let this process open as many files as the system allows it: macOS begins with 256, Linux with 1024."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in _OPEN_FILES:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or most <= soft:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
        except (OSError, ValueError):  # more than this system grants; the old limit stays
            continue


def _too_many_files(case_id: str) -> ResourceError:
    return ResourceError(
        f"Case {case_id} cannot be opened, since as many files are open as the system allows and up to three are "
        "needed for each case; raise that limit (ulimit -n), close other programs, or train on fewer cases."
    )


def _lease(entry: Path) -> IO[bytes] | None:
    """Return the entry's description, open and locked against removal; None where there is no such entry."""
    file = _opened(entry, "rb")
    if file is None:
        return None
    if not _locked(file, exclusive=False):  # being removed this moment
        file.close()
        return None
    return file


def _opened(entry: Path, mode: Literal["rb", "rb+"]) -> IO[bytes] | None:
    try:
        return (entry / ENTRY).open(mode)
    except OSError as error:
        raise_too_many(error)
        return None


def _exclusive(entry: Path) -> IO[bytes] | None:
    """Return the entry's description, locked, or None where anybody else holds it."""
    # Network drives lock for one alone only what may be written; of another user's entry that may not be so.
    file = _opened(entry, "rb+") or _opened(entry, "rb")
    if file is None:
        return None
    if not _locked(file, exclusive=True):
        file.close()
        return None
    if fcntl is None:
        file.close()  # Windows cannot rename a folder with an open file in it
    return file


def _locked(file: IO[bytes], exclusive: bool) -> bool:
    """Lock a file at once; return False where another lock is in the way. Without locks nothing is."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _settings(
    geometry: Geometry,
    channels: Sequence[ChannelIntensity],
    segments: Sequence[Segment],
    declared: Sequence[Segment],
    label: bool,
) -> str:
    """What shapes an entry, as text; the patch's size, the segments' colours and the channels' titles do not."""
    names = [[(s.name, s.label) for s in listed] if label else [] for listed in (segments, declared)]
    intensities = [dataclasses.replace(channel, title="") for channel in channels]
    values = [_FORMAT, geometry.spacing, geometry.orientation, intensities, *names, label]
    return json.dumps(to_json(values), sort_keys=True)


def _move_in(temporary: Path, entry: Path) -> None:
    """Give a whole entry its name; another process may have been faster, with the same content."""
    try:
        os.rename(temporary, entry)
    except OSError:
        if not entry.exists():
            raise


def _remove_some(folder: Path) -> None:
    """Remove files of a folder that is no longer used, and the folder once it is empty."""
    try:
        with os.scandir(folder) as listed:
            found = [entry.path for entry in itertools.islice(listed, _OLD_MEMOS_AT_ONCE)]
        for path in found:
            remove_quietly(Path(path))
        if not found:
            folder.rmdir()
    except OSError:  # not there, or another user's
        pass


def _folder_size(folder: Path) -> int:
    try:
        return sum(p.stat().st_size for p in folder.iterdir())
    except OSError:  # removed by another process meanwhile
        return 0


def _last_use(entry: Path) -> float:
    return _modified(entry / ENTRY)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed by another process meanwhile
        return 0.0
