"""Results that cost much to find again, each a small file beside the cache's entries.

A memo's name is a hash of its key, which must say all that the result depends on. Nobody waits until it is on the disk:
what a crash of the machine leaves of it is told by its checksum and found anew.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from .files import make_folder, raise_too_many, remove_quietly, replace_when_free

#: Seconds after their last use that memos are kept; those of files that were changed are never asked for again.
_KEPT_SECONDS = 42 * 86_400
#: Half-written ones of processes that were killed are removed after a day.
_ABANDONED_SECONDS = 86_400
_CHECKSUM_BYTES = 32
_PART = ".part-"


def memos_of(cache: Path) -> Memos:
    """Return the memos of the cache of prepared cases that is, or will be, in the folder ``cache``."""
    return Memos(cache / "memos")


class Memos:
    """The memos in ``folder``, which need not exist yet. Several processes may use them at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> bytes | None:
        """Return what was written for ``key``, as it was written; None where there is none, or it is damaged."""
        memo = self._path(key)
        try:
            content = memo.read_bytes()
        except OSError as error:
            raise_too_many(error)
            return None
        checksum, content = content[:_CHECKSUM_BYTES], content[_CHECKSUM_BYTES:]
        if checksum != _checksum(key, content):
            return None
        try:
            os.utime(memo)  # used just now: removed last
        except OSError:  # of another user, who keeps it
            pass
        return content

    def write(self, key: str, content: bytes) -> None:
        """Keep ``content``; raises OSError, or ResourceError where the folder cannot be made."""
        make_folder(self.folder)
        temporary = self.folder / f"{_PART}{os.getpid()}-{secrets.token_hex(4)}"
        try:
            temporary.write_bytes(_checksum(key, content) + content)
            replace_when_free(temporary, self._path(key))
        finally:
            remove_quietly(temporary)

    def size_bytes(self) -> int:
        """Return how much disk they take."""
        return sum(state.st_size for _, state in self._all())

    def tidy(self) -> None:
        """Remove those that were not used for weeks, and what killed processes left."""
        now = time.time()
        for path, state in self._all():
            kept = _ABANDONED_SECONDS if path.name.startswith(_PART) else _KEPT_SECONDS
            if now - state.st_mtime > kept:
                remove_quietly(path)

    def _path(self, key: str) -> Path:
        return self.folder / hashlib.sha256(_bytes(key)).hexdigest()[:32]

    def _all(self) -> Iterator[tuple[Path, os.stat_result]]:
        try:
            with os.scandir(self.folder) as listed:
                names = [entry.name for entry in listed]
        except OSError as error:
            raise_too_many(error)
            return
        for name in names:
            path = self.folder / name
            try:
                yield path, path.stat()
            except OSError:  # removed by another process meanwhile
                continue


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(_bytes(key) + b"\0" + content).digest()


def _bytes(key: str) -> bytes:
    """Names of files may have bytes that are no text."""
    return key.encode("utf-8", "surrogateescape")
