"""What ITK does not say of DICOM files: where each frame of an enhanced one lies, and whether one is there to its end.

An enhanced file holds all slices of a scan as frames, and describes them in functional groups, one for all frames and
one for each (DICOM PS3.3, C.7.6.16). Only these are looked at, and no pixel; data elements are laid out as in PS3.5,
chapter 7, in the little-endian transfer syntaxes that are in use.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Numbers = tuple[float, ...]

_SHARED, _PER_FRAME, _FRAMES = 0x52009229, 0x52009230, 0x00280008
_PLANE_POSITION, _PLANE_ORIENTATION, _MEASURES, _TRANSFORMATION = 0x00209113, 0x00209116, 0x00289110, 0x00289145
_POSITION, _ORIENTATION, _SPACING = 0x00200032, 0x00200037, 0x00280030
_INTERCEPT, _SLOPE = 0x00281052, 0x00281053
_SEQUENCES = {_SHARED, _PER_FRAME, _PLANE_POSITION, _PLANE_ORIENTATION, _MEASURES, _TRANSFORMATION}
_VALUES = {_FRAMES, _POSITION, _ORIENTATION, _SPACING, _INTERCEPT, _SLOPE}

_SYNTAX, _IMPLICIT, _NOT_WALKED = 0x00020010, b"1.2.840.10008.1.2", (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
#: Kinds of values with a length of four bytes; the others have one of two.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
#: Sequences within sequences; no scanner nests deeper, and a damaged file must not end the process.
_DEEPEST = 16


@dataclass(frozen=True)
class Frames:
    """One entry a frame, in the file's order; what a frame does not say is empty.

    ``positions`` (3, mm) and ``orientations`` (6: along a row, along a column) are in patient space (LPS),
    ``spacings`` (mm) between rows and between columns, ``scales`` (slope, intercept) from stored to real values.
    """

    positions: tuple[Numbers, ...]
    orientations: tuple[Numbers, ...]
    spacings: tuple[Numbers, ...]
    scales: tuple[Numbers, ...]


def read_frames(path: Path) -> Frames | None:
    """Return the frames of an enhanced file; None for all other files, and where the header cannot be walked."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _header(data)
    except (OSError, ValueError, struct.error):
        return None
    groups, shared = found.get(_PER_FRAME, []), found.get(_SHARED, [])
    if len(groups) < 2 or _numbers(found.get(_FRAMES)) != (len(groups),):
        return None

    def each(sequence: int, *values: int) -> tuple[Numbers, ...]:
        macros = ((group.get(sequence) or (shared[0].get(sequence) if shared else None) or [{}])[0] for group in groups)
        return tuple(tuple(n for value in values for n in _numbers(macro.get(value))) for macro in macros)

    frames = Frames(
        each(_PLANE_POSITION, _POSITION),
        each(_PLANE_ORIENTATION, _ORIENTATION),
        each(_MEASURES, _SPACING),
        each(_TRANSFORMATION, _SLOPE, _INTERCEPT),
    )
    return frames if any(frames.positions) else None


def is_cut_off(path: Path) -> bool:
    """Whether a file bears DICOM's mark and ends within a data element; false, too, where it cannot be walked."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _begun(data)
            if found is not None:
                found[0].pass_over(len(data), found[1])
    except (_CutOffError, struct.error):
        return True
    except (OSError, ValueError):
        return False
    return False


def _header(data: mmap.mmap) -> dict[int, Any]:
    found = _begun(data)
    return {} if found is None else found[0].data_set(len(data), found[1])


def _begun(data: mmap.mmap) -> tuple[_Walk, bool] | None:
    """A walk at the first element behind the file's own header, and whether kinds are implicit; None for others."""
    if data[128:132] != b"DICM":
        return None
    walk = _Walk(data, 132)
    syntax = b""
    while data[walk.at : walk.at + 2] == b"\x02\x00":
        tag, _, length = walk.next(implicit=False)
        if tag == _SYNTAX:
            syntax = data[walk.at : walk.at + length].strip(b"\0 ")
        walk.go_to(walk.at + length, len(data))
    return None if syntax in _NOT_WALKED else (walk, syntax == _IMPLICIT)


class _CutOffError(ValueError):
    """A value, or the mark that ends one, would lie behind the end."""

    def __init__(self) -> None:
        super().__init__("the file is cut off")


class _Walk:
    """Goes through data elements from ``at`` on. Raises ValueError or struct.error where there are none."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def next(self, implicit: bool) -> tuple[int, bytes, int]:
        """Return tag, kind and length of the element, and go on to its value."""
        group, element = struct.unpack_from("<HH", self.data, self.at)
        kind = b"" if implicit or group == 0xFFFE else self.data[self.at + 4 : self.at + 6]
        code, where, size = ("<H", 6, 8) if kind else ("<I", 4, 8)
        if kind in _LONG:
            code, where, size = "<I", 8, 12
        elif kind and not (kind.isalpha() and kind.isupper()):
            msg = f"{kind!r} is no kind of value"
            raise ValueError(msg)
        (length,) = struct.unpack_from(code, self.data, self.at + where)
        self.at += size
        return group << 16 | element, kind, length

    def pass_over(self, end: int, implicit: bool) -> None:
        """Go through all elements until ``end``, pixels as well."""
        while self.at < end:
            _, kind, length = self.next(implicit)
            if length == _UNDEFINED:
                self._items(end, length, None if kind in (b"OB", b"OW") else implicit or kind == b"UN", 0)
            else:
                self.go_to(self.at + length, end)

    def data_set(self, end: int, implicit: bool, depth: int = 0, marked: bool = False) -> dict[int, Any]:
        """Return the values (bytes) and sequences (lists of data sets) of interest until ``end``.

        marked: a mark ends it, and is missing where the file is cut off.
        """
        found: dict[int, Any] = {}
        while self.at < end:
            tag, kind, length = self.next(implicit)
            if tag == _ITEM_END or (tag > _PER_FRAME and depth == 0):
                break
            if kind in (b"OB", b"OW") and length == _UNDEFINED:
                self._items(end, length, None, depth)
            elif tag in _SEQUENCES or length == _UNDEFINED:
                items = self._items(end, length, implicit or kind == b"UN", depth)  # unknown ones are always implicit
                found |= {tag: items} if tag in _SEQUENCES else {}
            else:
                found |= {tag: self.data[self.at : self.at + length]} if tag in _VALUES else {}
                self.go_to(self.at + length, end)
        else:
            if marked:
                raise _CutOffError
        return found

    def _items(self, end: int, length: int, implicit: bool | None, depth: int) -> list[dict[int, Any]]:
        """Return the data sets of a sequence; with ``implicit`` None, its items are bytes and are passed over."""
        if depth >= _DEEPEST:
            msg = "sequences are nested too deep"
            raise ValueError(msg)
        end = end if length == _UNDEFINED else min(end, self.at + length)
        items = []
        while self.at < end:
            tag, _, size = self.next(implicit=True)
            if tag == _SEQUENCE_END:
                break
            if tag != _ITEM:
                msg = f"{tag:08x} is no item"
                raise ValueError(msg)
            stop = end if size == _UNDEFINED else self.at + size
            if implicit is not None:
                items.append(self.data_set(min(stop, end), implicit, depth + 1, size == _UNDEFINED))
            if size != _UNDEFINED:
                self.go_to(stop, end)
        else:
            if length == _UNDEFINED:
                raise _CutOffError
        return items

    def go_to(self, place: int, end: int) -> None:
        """Go on to ``place``, which may be no further than ``end``."""
        if place > end:
            raise _CutOffError
        self.at = place


def _numbers(value: bytes | None) -> Numbers:
    """The numbers of a decimal string; none where one of them is damaged."""
    parts: Sequence[bytes] = (value or b"").strip(b"\0 ").split(b"\\")
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return ()
