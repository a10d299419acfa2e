"""DICOM files whose slices are frames, and slices that are scaled differently: read right, or refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from caml_core.data.dicom_frames import read_frames
from caml_core.data.io import read_volume
from caml_core.errors import DataError

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
UP = [(1.0, 2.0, 3.0 + 3 * i) for i in range(8)]
LONG = ("OB", "OW", "SQ", "UN")
UNDEFINED = 0xFFFFFFFF


class Writer:
    """Encodes data elements in one of the ways that PS3.5 allows."""

    def __init__(self, syntax: str = EXPLICIT, undefined: bool = False) -> None:
        self.syntax, self.undefined = syntax, undefined

    def element(self, tag: int, kind: str, value: object) -> bytes:
        if kind == "SQ":
            return self.sequence(tag, value)
        content = struct.pack("<H", value) if kind == "US" else value
        if isinstance(content, (list, tuple)):
            content = "\\".join(f"{v:g}" for v in content)
        if isinstance(content, str):
            content = content.encode() + b"\0" * (len(content) % 2) if kind == "UI" else _even(content.encode())
        return self.head(tag, kind, len(content)) + content

    def sequence(self, tag: int, items: list[list[tuple]]) -> bytes:
        content = b""
        for elements in items:
            item = b"".join(self.element(*e) for e in elements)
            length = UNDEFINED if self.undefined else len(item)
            end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) if self.undefined else b""
            content += struct.pack("<HHI", 0xFFFE, 0xE000, length) + item + end
        if self.undefined:
            return self.head(tag, "SQ", UNDEFINED) + content + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return self.head(tag, "SQ", len(content)) + content

    def head(self, tag: int, kind: str, length: int) -> bytes:
        start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if self.syntax == IMPLICIT and tag >> 16 != 2:
            return start + struct.pack("<I", length)
        long = kind in LONG
        return start + kind.encode() + (b"\0\0" + struct.pack("<I", length) if long else struct.pack("<H", length))

    def file(self, path: Path, elements: list[tuple]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        meta = b"".join(
            self.element(*e)
            for e in ((0x00020002, "UI", MR), (0x00020003, "UI", "1.9"), (0x00020010, "UI", self.syntax))
        )
        length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
        body = b"".join(self.element(*e) for e in sorted(elements, key=lambda e: e[0]))
        path.write_bytes(bytes(128) + b"DICM" + length + meta + body)
        return path


def _even(content: bytes) -> bytes:
    return content + b" " * (len(content) % 2)


def basics(kind: str, number: int = 1) -> list[tuple]:
    unsigned = ((0x00280002, 1), (0x00280010, 12), (0x00280011, 14), (0x00280100, 16), (0x00280101, 16))
    return [
        *((tag, "US", value) for tag, value in (*unsigned, (0x00280102, 15), (0x00280103, 0))),
        *((0x00080016, "UI", kind), (0x00080018, "UI", f"1.2.{number}"), (0x00080060, "CS", "MR")),
        *((0x0020000D, "UI", "1.2"), (0x0020000E, "UI", "1.3"), (0x00200013, "IS", str(number))),
        (0x00280004, "CS", "MONOCHROME2"),
    ]


def pixels(values: list[int]) -> tuple:
    planes = np.stack([np.full((12, 14), value, "<u2") for value in values])
    planes[:, 0, 0] = 7
    return (0x7FE00010, "OW", planes.tobytes())


def enhanced(
    path: Path, positions=UP, *, spacing=(0.8, 0.9), orientation=(1, 0, 0, 0, 1, 0), slopes=None, each=False, **encoding
) -> Path:
    """A file with one frame a position; ``each``: spacing and orientation are stated for each frame, not for all."""
    shared = [(0x00209116, "SQ", [[(0x00200037, "DS", orientation)]])]
    if spacing:
        shared.append((0x00289110, "SQ", [[(0x00280030, "DS", spacing), (0x00180088, "DS", (3.0,))]]))
    frames = []
    for i, position in enumerate(positions):
        scale = [(0x00281052, "DS", (0,)), (0x00281053, "DS", (slopes[i] if slopes else 1,))]
        frame = [(0x00209113, "SQ", [[(0x00200032, "DS", position)]]), (0x00289145, "SQ", [scale])]
        frames.append(sorted([*frame, *(shared if each else [])], key=lambda e: e[0]))
    elements = [
        *basics(ENHANCED_MR),
        (0x00280008, "IS", str(len(positions))),
        (0x00091010, "SQ", [[(0x00091011, "LO", "private"), (0x00091012, "SQ", [[(0x00091013, "UN", b"\1\2")]])]]),
        (0x52009229, "SQ", [[] if each else shared]),
        (0x52009230, "SQ", frames),
        pixels(list(range(1, len(positions) + 1))),
    ]
    return Writer(**encoding).file(path, elements)


def test_the_frames_of_a_volume_are_read_where_they_lie(tmp_path):
    """In every encoding, up and down, straight and oblique; the file and its folder are one volume."""
    oblique = [(1.0, 2.0 + 1.8 * i, 3.0 + 2.4 * i) for i in range(8)]
    cases = [
        (UP, (1, 0, 0, 0, 1, 0), (0, 0, 1)),
        (UP[::-1], (1, 0, 0, 0, 1, 0), (0, 0, -1)),
        (oblique, (1, 0, 0, 0, 0.8, -0.6), (0, 0.6, 0.8)),
    ]
    for number, (positions, orientation, along) in enumerate(cases):
        for syntax in (EXPLICIT, IMPLICIT):
            for undefined in (False, True):
                folder = tmp_path / f"{number}-{syntax}-{undefined}"
                path = enhanced(
                    folder / "a.dcm",
                    positions,
                    orientation=orientation,
                    each=undefined,
                    syntax=syntax,
                    undefined=undefined,
                )
                np.testing.assert_allclose(read_frames(path).positions, positions)
                for volume in (read_volume(path), read_volume(folder)):
                    assert volume.array[5, 5].tolist() == list(range(1, 9))
                    np.testing.assert_allclose(volume.grid.spacing, (0.9, 0.8, 3.0))
                    np.testing.assert_allclose(volume.grid.origin, positions[0])
                    np.testing.assert_allclose(np.reshape(volume.grid.direction, (3, 3))[:, 2], along, atol=1e-9)


def test_one_frame_is_no_volume(tmp_path):
    with pytest.raises(DataError, match="a single DICOM slice"):
        read_volume(enhanced(tmp_path / "a.dcm", UP[:1]))


def test_one_millimetre_that_is_stated_is_believed(tmp_path):
    positions = [(0.0, 0.0, float(i)) for i in range(4)]
    volume = read_volume(enhanced(tmp_path / "a.dcm", positions, spacing=(1.0, 1.0)))
    assert volume.grid.spacing == (1.0, 1.0, 1.0)


REFUSED = {
    "one phase after the other": ({"positions": UP + UP}, "several DICOM slices at one position"),
    "phases in turn": ({"positions": [p for p in UP for _ in "ab"]}, "several DICOM slices at one position"),
    "one place": ({"positions": UP[:1] * 8}, "several DICOM slices at one position"),
    "a missing frame": ({"positions": UP[:4] + UP[5:]}, "unevenly spaced DICOM slices .3.00 to 6.00 mm"),
    "another order": ({"positions": UP[::2] + UP[1::2]}, "not in the order of their positions"),
    "a tilted gantry": ({"positions": [(1, 2 + i, 3 + 3 * i) for i in range(8)]}, "shift sideways"),
    "a frame nowhere": ({"positions": UP[:7] + [()]}, "without a position"),
    "scales that differ": ({"slopes": [1, 2, 3, 4, 5, 6, 7, 8]}, "scaled differently"),
    "no size": ({"spacing": None}, "how large its voxels are"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("whole_folder", [False, True])
def test_frames_that_are_no_volume_are_refused(tmp_path, changes, words, whole_folder):
    path = enhanced(tmp_path / "s" / "a.dcm", **changes)
    with pytest.raises(DataError, match=words):
        read_volume(path.parent if whole_folder else path)


def test_frames_of_another_direction_are_refused(tmp_path):
    path = enhanced(tmp_path / "a.dcm", each=True)
    content = path.read_bytes()
    at = content.rindex(b"1\\0\\0\\0\\1\\0")
    path.write_bytes(content[:at] + b"1\\0\\0\\0\\0\\1" + content[at + 11 :])
    with pytest.raises(DataError, match="different size or direction"):
        read_volume(path)


def test_of_a_file_that_cannot_be_walked_nothing_is_said(tmp_path):
    """Cut off, damaged in one byte or nested without end, in any place: no fault, and no frame more than there is."""
    content = enhanced(tmp_path / "a.dcm", UP[:3], undefined=True).read_bytes()
    header = content.index(b"\xe0\x7f\x10\x00")
    path, generator = tmp_path / "b.dcm", np.random.default_rng(0)
    for place in generator.integers(0, header, 400):
        path.write_bytes(content[:place])
        assert read_frames(path) is None
        damaged = bytearray(content)
        damaged[place] = generator.integers(0, 256)
        path.write_bytes(damaged)
        frames = read_frames(path)
        assert frames is None or len(frames.positions) == 3
    deep = Writer(undefined=True).head(0x00091010, "SQ", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    meta = content[: content.index(struct.pack("<HH", 8, 0x16))]
    path.write_bytes(meta + deep * 5000)
    assert read_frames(path) is None
    path.write_bytes(b"")
    assert read_frames(path) is None


def slices(folder: Path, slopes: list[float], values: list[int], sized: bool = True) -> Path:
    """A series of single slices, the first of which would have its values kept as whole numbers."""
    for i, (slope, value) in enumerate(zip(slopes, values)):
        geometry = [(0x00200032, "DS", UP[i]), (0x00200037, "DS", (1, 0, 0, 0, 1, 0))]
        geometry += [(0x00280030, "DS", (0.8, 0.9))] if sized else []
        scale = [(0x00281052, "DS", (-10,)), (0x00281053, "DS", (slope,))]
        Writer().file(
            folder / f"{i}.dcm", [*basics("1.2.840.10008.5.1.4.1.1.128", i + 1), *geometry, *scale, pixels([value])]
        )
    return folder


def test_slices_that_are_scaled_differently_are_read_as_each_says(tmp_path):
    slopes, values = [1.0, 0.5, 0.33, 40.0], [1000, 1001, 1002, 1003]
    volume = read_volume(slices(tmp_path, slopes, values))
    np.testing.assert_allclose(volume.array[5, 5], np.multiply(slopes, values) - 10, rtol=1e-6)


def test_slices_that_are_scaled_alike_stay_whole_numbers(tmp_path):
    volume = read_volume(slices(tmp_path, [1.0] * 4, [1000, 1001, 1002, 1003]))
    assert volume.array.dtype == np.int16 and volume.array[5, 5].tolist() == [990, 991, 992, 993]


def test_slices_of_unknown_size_are_refused_wherever_they_lie(tmp_path):
    with pytest.raises(DataError, match="how large its voxels are"):
        read_volume(slices(tmp_path, [1.0] * 4, [1000, 1001, 1002, 1003], sized=False))
