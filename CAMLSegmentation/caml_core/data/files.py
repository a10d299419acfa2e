"""Files: writing without leaving half of one, the errors of disks, what names and DICOM's mark tell of a file.

Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..errors import DiskFullError, ResourceError

Result = TypeVar("Result")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: A scanner for viruses, a program that copies folders to a server or a table's window hold a file for a while, and
#: Windows then refuses to replace it; no other system does.
_TRIES = 21 if os.name == "nt" else 1
_PAUSE = 0.1
#: How temporary names begin.
_PART = ".part-"
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Characters of a path on Windows, unless an administrator has allowed more, and those that a temporary name adds.
_LONGEST_ON_WINDOWS, _PART_NAME = 259, 24
#: What the system says where this process, or all together, hold as many files open as may be.
TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
#: What files of label maps end with, the longer ending before the one that it ends with.
LABEL_SUFFIXES = (".seg.nrrd", ".seg.nhdr", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_VOLUMES = (*LABEL_SUFFIXES, ".dcm", ".hdr")
#: What follows a case's name in that of its label map.
LABEL_ENDS = ("_label", "-label", "_labels", "-labels", "_seg", "-seg", "_segmentation", "-segmentation", "_mask")

#: How the maps are called that predictions leave beside their labels: X_disagreement.nrrd beside X.seg.nrrd.
MAP_ENDS = ("_disagreement", "_probability")


def disk_error(error: OSError, path: Path) -> ResourceError:
    """Return the sentence for an OSError met while writing ``path``."""
    if error.errno in _FULL:
        full = "Your quota on the disk" if error.errno == errno.EDQUOT else "The disk"
        return DiskFullError(f"{full} is full: cannot write {path}; free some space or choose another folder.")
    if error.errno in _FORBIDDEN:
        free = "close the program that has it open, or " if os.path.isfile(path) else ""
        return ResourceError(f"No permission to write {path}; {free}choose a folder that you may write to.")
    if os.name == "nt" and error.errno == errno.ENOENT and len(str(path)) + _PART_NAME > _LONGEST_ON_WINDOWS:
        return ResourceError(
            f"Cannot write {path}: its {len(str(path))} characters are more than Windows takes; choose a folder nearer "
            "to the root of the drive, or shorter names of cases."
        )
    reason = error.strerror or str(error)
    return ResourceError(f"Cannot write {path} ({reason}); check the folder and the disk.")


def as_argument(path: Path) -> str:
    """Return ``path`` as it is entered in a command line: in quotes where it has blanks and the like."""
    text = str(path)
    if os.name == "nt":
        return f'"{text}"' if " " in text else text
    return shlex.quote(text)


def name_fault(path: Path) -> str:
    """Return a sentence where ``path`` is not in UTF-8, as names from old archives may be on Linux; else "".

    SimpleITK ends the whole process, and so Slicer, over such a name.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return f"The name of {shown} is not in UTF-8, and images of such names cannot be read or written; rename it."
    return ""


def raise_too_many(error: Exception) -> None:
    """Raise the error again where it says that no more files may be open: of the file at hand it tells nothing."""
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        raise error


def make_folder(path: Path) -> Path:
    """Make the folder ``path`` and its parents; raise ResourceError where that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path) from error
    return path


def check_writable(folder: Path) -> None:
    """Write and remove a file in ``folder``; raise ResourceError where that cannot be done.

    Not by ``tempfile``: on Windows Python up to 3.12 takes a refusal for a name that is taken, and goes on for hours.
    """
    probe = folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        raise disk_error(error, folder) from error
    remove_quietly(probe)


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
    temporary = path.with_name(f"{_PART}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        yield temporary
        flush_to_disk(temporary)
        replace_when_free(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        remove_quietly(temporary)


def unfinished(path: Path) -> list[Path]:
    """Return the temporary files that processes which write ``path``, or were killed while they did, have beside it."""
    mark = re.compile(rf"{re.escape(_PART)}\d+-[0-9a-f]{{8}}-{re.escape(path.name)}")
    try:
        return [path.with_name(name) for name in os.listdir(path.parent) if mark.fullmatch(name)]
    except OSError:
        return []


def when_free(action: Callable[[], Result], tries: int = _TRIES, pause: float = _PAUSE) -> Result:
    """Do what another program's hold on a file may forbid for an instant; ``pause`` is in seconds.

    Raises OSError, PermissionError only after ``tries`` attempts.
    """
    for _ in range(tries - 1):
        try:
            return action()
        except PermissionError:
            time.sleep(pause)
    return action()


def replace_when_free(source: Path, target: Path, tries: int = _TRIES, pause: float = _PAUSE) -> None:
    """Rename ``source`` to ``target``, waiting as ``when_free`` does."""
    when_free(lambda: os.replace(source, target), tries, pause)


def flush_to_disk(path: Path) -> None:
    """Wait until the file's bytes are on the disk, so that a rename never outlives its content."""
    with when_free(lambda: path.open("rb+")) as file:
        os.fsync(file.fileno())


def remove(path: Path) -> None:
    """Remove a file if it is there, waiting as ``when_free`` does; raise ResourceError where that cannot be done."""
    try:
        when_free(lambda: path.unlink(missing_ok=True))
    except OSError as error:
        raise disk_error(error, path) from error


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


def volume_stem(path: Path) -> str | None:
    """Return the name without the suffix of a volume; None for other files."""
    name, lower = path.name, path.name.lower()
    if not lower.endswith(_VOLUMES):  # most slices of archives have no suffix at all
        return None
    return next((name[: -len(s)] for s in _VOLUMES if lower.endswith(s) and len(name) > len(s)), None)


def mapped_name(path: Path) -> str | None:
    """Return the stem of the labels beside which a prediction leaves a map of this name; None for other files."""
    stem = volume_stem(path) or ""
    end = next((e for e in MAP_ENDS if stem.lower().endswith(e)), None)
    return stem[: -len(end)] if end else None


def labelled_name(path: Path) -> str | None:
    """Return what is labelled by a file that its name calls a label, X for ``X_label.nrrd``; None for other files."""
    stem = volume_stem(path)
    if stem is None:
        return None
    end = next((e for e in LABEL_ENDS if stem.lower().endswith(e)), None)
    return stem[: -len(end)] if end else (stem if is_segmentation(path) else None)
