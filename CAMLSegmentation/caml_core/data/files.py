"""Files: writing without leaving half of one, the errors of disks, DICOM's mark. Standard library only."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def disk_error(error: OSError, path: Path) -> ResourceError:
    """Return the sentence for an OSError met while writing ``path``."""
    if error.errno in _FULL:
        return ResourceError(f"The disk is full: cannot write {path}; free some space or choose another folder.")
    if error.errno in _FORBIDDEN:
        return ResourceError(f"No permission to write {path}; choose a folder that you may write to.")
    reason = error.strerror or str(error)
    return ResourceError(f"Cannot write {path} ({reason}); check the folder and the disk.")


def make_folder(path: Path) -> Path:
    """Make the folder ``path`` and its parents; raise ResourceError where that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def absolute(path: Path) -> Path:
    """Return ``path`` from the root, without following links, so that a cohort of links keeps its names."""
    return Path(os.path.abspath(path))


def relative_to(path: Path, folder: Path) -> str:
    """Return ``path`` as seen from ``folder``, so that both can be moved together; whole on another Windows drive."""
    try:
        return Path(os.path.relpath(absolute(path), absolute(folder))).as_posix()
    except ValueError:
        return absolute(path).as_posix()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` that becomes ``path`` at the end.

    The temporary name keeps all suffixes, by which SimpleITK chooses the format. Where anything fails, the
    temporary file is removed and ``path`` stays as it was. An OSError becomes a ResourceError.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        remove_quietly(temporary)


def flush_to_disk(path: Path) -> None:
    """Wait until the file's bytes are on the disk, so that a rename never outlives its content."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_quietly(path: Path) -> None:
    """Remove a file if it is there; a folder that has become unwritable must not hide the first error."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


def has_dicom_mark(path: Path) -> bool:
    """Whether a file bears DICOM's mark, whatever its name."""
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def is_segmentation(path: Path) -> bool:
    """Whether the name says Slicer segmentation."""
    return path.name.lower().endswith((".seg.nrrd", ".seg.nhdr"))
