"""The container of a model file: a zip of exactly two known members, read with suspicion and written in one go.

Standard library only. Every fault is a ModelFileError or a ResourceError of one plain sentence.
"""

from __future__ import annotations

import errno
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .data.files import replace_when_free
from .errors import ModelFileError, ResourceError

DOCUMENT, WEIGHTS = "model.json", "weights.safetensors"
MAX_DOCUMENT = 8 * 1024**2
MAX_WEIGHTS = 2 * 1024**3
#: Weights hardly shrink and a card shrinks tenfold; what grows more than this was made to fill the memory.
MAX_RATIO = 100
_DIRECTORY_ROOM = 1024**2
#: What zipfile raises for content that is torn, altered or of a kind unknown to it.
FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip of a model file; its two members are there and their declared sizes are sane."""
    _check_file(path)
    try:
        archive = zipfile.ZipFile(path)
    except PermissionError as error:
        raise _forbidden(path) from error
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read ({error.strerror or error}).") from error
    except FAULTS as error:
        raise _cut_or_foreign(path) from error
    with archive:
        _check_sizes(path, archive)
        yield archive


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder; expected a CAML model file (MODEL.caml).")
        size = path.stat().st_size
    except PermissionError as error:
        raise _forbidden(path) from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"There is no model file {path}; check the path.") from error
    if not path.is_file():
        raise ModelFileError(f"{path} is not a regular file; expected a CAML model file (MODEL.caml).")
    if size == 0:
        raise ModelFileError(f"The model file {path} is empty; copy or download it again.")
    if size > MAX_WEIGHTS + MAX_DOCUMENT + _DIRECTORY_ROOM:
        raise ModelFileError(f"{path} is larger than any CAML model ({size / 1e9:.1f} GB); it is not opened.")


def check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse a zip that holds anything but the two members, once each.

    Apart from ``opened``, so that a newer format, which may hold more, is recognised by its description first.
    """
    names = [member.filename for member in archive.infolist()]
    if sorted(names) != sorted((DOCUMENT, WEIGHTS)):
        extra = next((name for name in names if name not in (DOCUMENT, WEIGHTS)), f"{names[0]} twice")
        raise ModelFileError(f"{path} holds more than a CAML model does ({extra!a:.80}); it is not opened.")


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    if DOCUMENT not in names or WEIGHTS not in names:
        raise foreign(path)
    for name, limit in ((DOCUMENT, MAX_DOCUMENT), (WEIGHTS, MAX_WEIGHTS)):
        member = archive.getinfo(name)
        grows = member.file_size > MAX_RATIO * max(member.compress_size, 1)
        if member.file_size > limit or grows:
            raise ModelFileError(f"{name} in {path} is larger than in any CAML model; it is not opened.")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ModelFileError(f"{path} is packed in a way that CAML does not use; it is not opened.")


def read_member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Return the bytes of a member; no more is read than the directory declares, and that is at most ``limit``."""
    declared = archive.getinfo(name).file_size
    if declared > limit:
        raise ModelFileError(f"{name} in {path} is larger than the network that it describes; it is not opened.")
    try:
        with archive.open(name) as member:
            content = member.read(declared + 1)
    except OSError as error:
        raise ModelFileError(f"The model file {path} cannot be read ({error.strerror or error}).") from error
    except FAULTS as error:
        raise damaged(path) from error
    if len(content) != declared:
        raise damaged(path)
    return content


def write_members(path: Path, members: Mapping[str, bytes], packed: bool = False) -> None:
    """Write the zip under a temporary name in the same folder, then rename it; raise ResourceError.

    packed: deflate the members.
    """
    if path.is_dir():
        raise ResourceError(f"{path} is a folder; name a file to write the model to, such as MODEL.caml.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as archive:
                for name, content in members.items():
                    archive.writestr(_member(name), content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
            stream.flush()
            os.fsync(stream.fileno())
        replace_when_free(temporary, path)
    except OSError as error:
        raise ResourceError(_write_fault(path, error)) from error
    finally:
        _remove(temporary)


def _member(name: str) -> zipfile.ZipInfo:
    """A member without the time and the system, so that equal models are equal files."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system = 3
    member.external_attr = 0o644 << 16
    return member


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        pass  # the folder itself has gone or is read-only: the error that is under way says so


def _write_fault(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"There is no room on the disk for the model file {path}; free some space and try again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"The model file {path} may not be written; choose a folder in which you may write."
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"The folder {path.parent} of the model file does not exist; create it or choose another."
    return f"The model file {path} cannot be written ({error.strerror or error})."


def _forbidden(path: Path) -> ModelFileError:
    return ModelFileError(f"The model file {path} may not be read; ask its owner for the permission to read it.")


def damaged(path: Path) -> ModelFileError:
    """The error of content that cannot be what was written."""
    return ModelFileError(f"The model file {path} is damaged; copy or download it again.")


def foreign(path: Path) -> ModelFileError:
    """The error of a file that something else made."""
    return ModelFileError(
        f"{path} is not a CAML model file; expected a file made by CAML (a published .pth is brought in with "
        "'caml import-checkpoint')."
    )


def _cut_or_foreign(path: Path) -> ModelFileError:
    with open(path, "rb") as stream:
        begins_as_zip = stream.read(4) == b"PK\x03\x04"
    if begins_as_zip:
        return ModelFileError(f"The model file {path} is cut short; copy or download it again.")
    return foreign(path)
