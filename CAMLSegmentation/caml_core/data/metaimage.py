"""What ITK does not say of MetaImage: that compressed voxels are damaged. It takes what it could unpack for the whole.

The header's keys are those of MetaIO's documentation.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO

SUFFIXES = (".mha", ".mhd")
_LOCAL = "local"
_LONGEST_HEADER = 1 << 20
_BLOCK = 1 << 20
#: zlib's own format or gzip's, whichever it is.
_EITHER = 47


def check_compressed(path: Path) -> None:
    """Unpack the compressed voxels of a file once, in pieces; others, and what is no MetaImage, are left to ITK.

    Raises zlib.error where they are damaged, EOFError where they end too early or the header does not say how long
    they are, which ITK has to know of voxels in the header's own file; OSError where the file cannot be read.
    """
    with path.open("rb") as file:
        header, start = _header(file)
        if header.get("compresseddata", "").lower() != "true":
            return
        length = int(size) if (size := header.get("compresseddatasize", "")).isdecimal() else 0
        name = header.get("elementdatafile", "")
        if name.lower() == _LOCAL:
            if not length:
                msg = "the header does not say how long the compressed voxels are"
                raise EOFError(msg)
            file.seek(start)
            _unpack(file, length)
            return
    data = path.parent / name
    if data.is_file():  # else a list of files, or none, of which ITK tells
        with data.open("rb") as file:
            _unpack(file, length or data.stat().st_size)


def _header(file: IO[bytes]) -> tuple[dict[str, str], int]:
    """The entries of the header, keys in small letters, and where the voxels begin if they follow it."""
    entries: dict[str, str] = {}
    while file.tell() < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
        key, _, value = line.decode("latin-1").partition("=")
        entries[key.strip().lower()] = value.strip()
        if key.strip().lower() == "elementdatafile":
            return entries, file.tell()
    return {}, 0


def _unpack(file: IO[bytes], length: int) -> None:
    unpacker, left = zlib.decompressobj(_EITHER), length
    while not unpacker.eof and left > 0 and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        while block and not unpacker.eof:
            unpacker.decompress(block, _BLOCK)
            block = unpacker.unconsumed_tail
    if not unpacker.eof:
        msg = "the compressed voxels end too early"
        raise EOFError(msg)
