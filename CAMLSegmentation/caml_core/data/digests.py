"""What files a case has, and the digest of what is in them. The cache's entries are named after it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..errors import DataError
from .case import Case
from .files import raise_too_many
from .memos import Memos
from .preparation import uses_label

#: Headers whose voxels may lie in other files, the names that these usually have, and how NRRD and MetaImage name them.
_BESIDE = {
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz", ".raw.bz2", ".gz"),
    ".hdr": (".img", ".img.gz"),
    ".mha": (),
    ".nrrd": (),
}
_DATA_FILE = re.compile(r"\s*(?:data ?file\s*:|ElementDataFile\s*=)\s*(?=\S)(.*)", re.IGNORECASE)
_LIST = re.compile(r"LIST\b", re.IGNORECASE)
#: Bytes; beyond it are voxels, in a file that is no header alone. An empty line ends the header of an NRRD.
_LONGEST_HEADER = 1 << 20
#: Raised when memos hold something else.
_MEMO = "digests 1"
_DIGEST_BYTES = 32


def case_digest(case: Case, memos: Memos) -> str:
    """Return the SHA-256 of the digests of all files of a case; its label counts where it may be used.

    A scan none of whose files has changed since is not read again: one memo a scan, however many slices it has.
    Raises DataError where a file cannot be read, OSError and ResourceError where a memo cannot be written.
    """
    label = (case.label,) if case.label and uses_label(case) else ()
    whole = hashlib.sha256()
    for path in (*case.images, *label):
        whole.update(_digests(path, case.id, memos))
    return whole.hexdigest()


def source_stamps(path: Path, case_id: str) -> list[str]:
    """Return what tells that all files of a scan or a label are still those that were read.

    Raises DataError where one cannot be reached, OSError where a folder cannot be listed.
    """
    return [_stamp(file, case_id) for file in _files(path)]


def _digests(path: Path, case_id: str, memos: Memos) -> bytes:
    """The digests of all files of a scan or a label, one after the other."""
    files = _files(path)
    key = "\n".join([_MEMO, *(_stamp(file, case_id) for file in files)])
    known = memos.read(key)
    if known is not None and len(known) == _DIGEST_BYTES * len(files):
        return known
    digests = b"".join(_sha256(file, case_id) for file in files)
    memos.write(key, digests)
    return digests


def _stamp(path: Path, case_id: str) -> str:
    """What tells that a file is still the one that was read."""
    try:
        state = path.stat()
    except OSError as error:
        raise_too_many(error)
        raise DataError(f"Case {case_id}: {path} cannot be read ({error.strerror}).", case_id) from error
    return f"{path.absolute()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ctime_ns}|{state.st_ino}"


def _files(path: Path) -> list[Path]:
    if os.path.isdir(path):  # Path's raises where a network drive is gone
        return sorted(p for p in path.rglob("*") if p.is_file())
    header = path.with_suffix(".hdr") if path.suffix.lower() == ".img" else path
    if header.suffix.lower() not in _BESIDE:
        return [path]
    usual = [path.with_suffix(s) for s in _BESIDE[header.suffix.lower()]]
    named = [path.parent / name for name in _named_in(header)]
    return [path, *(p for p in dict.fromkeys([header, *named, *usual]) if p != path and p.is_file())]


def _named_in(header: Path) -> list[str]:
    """The files in which the header of an NRRD or a MetaImage says its voxels are."""
    try:
        with header.open("rb") as file:
            is_nrrd = file.read(4) == b"NRRD"
            file.seek(0)
            while file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
                if found := _DATA_FILE.match(line.decode("utf-8", "replace")):
                    value = found[1].strip()
                    rest = file.read(_LONGEST_HEADER) if _LIST.match(value) else None
                    return _numbered(value) if rest is None else _lines(rest)
                if is_nrrd and not line.strip():
                    break
    except OSError as error:
        raise_too_many(error)  # anything else is told by whoever reads the image
    return []


def _lines(text: bytes) -> list[str]:
    return [line.strip() for line in text.decode("utf-8", "replace").splitlines()]


def _numbered(value: str) -> list[str]:
    """A name, or those of a pattern such as "slice%03d.raw 1 20 1": first number, last number, step."""
    pattern, *numbers = value.split()
    try:
        first, last, step = (int(n) for n in numbers[:3])
        return [pattern % n for n in range(first, last + 1, step)] if "%" in pattern else [value]
    except (TypeError, ValueError):
        return [value]


def _sha256(path: Path, case_id: str) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise_too_many(error)
        raise DataError(f"Case {case_id}: {path} cannot be read ({error.strerror}).", case_id) from error
    return digest.digest()
