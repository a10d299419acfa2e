"""Files that ITK reads without a word, and not as they are: damaged MetaImages, series with torn or unlike slices."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_io import dicom_series, refused

from caml_core.data.dicom_frames import is_cut_off
from caml_core.data.io import read_volume
from caml_core.data.labels import read_labels
from caml_core.errors import DataError

SMOOTH = np.indices((30, 30, 30)).sum(0).astype(np.int16)


def a_compressed(path: Path, array: np.ndarray = SMOOTH) -> Path:
    """A compressed MetaImage; returns the file that holds its voxels."""
    sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(path), True)
    return path if path.suffix == ".mha" else path.with_suffix(".zraw")


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_a_compressed_metaimage_is_read_whole_or_not_at_all(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    voxels = a_compressed(path)
    np.testing.assert_array_equal(read_volume(path).array, SMOOTH)
    whole = voxels.read_bytes()
    for share in (0.5, 0.7, 0.999):
        damaged = bytearray(whole)
        damaged[int(len(whole) * share)] ^= 255
        voxels.write_bytes(damaged)
        refused(path, "damaged")
    for missing in (1, 200):
        voxels.write_bytes(whole[:-missing])
        refused(path, "damaged")


def test_labels_of_a_damaged_metaimage_are_refused(tmp_path):
    path = a_compressed(tmp_path / "label.mha", (np.random.default_rng(0).random((30, 30, 30)) < 0.3).astype(np.uint8))
    assert read_labels(path).array.any()
    content = bytearray(path.read_bytes())
    content[-100] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_labels(path)


def test_compressed_voxels_of_unknown_length_are_refused_where_they_follow_the_header(tmp_path):
    """ITK looks for them from the file's first byte on, and unpacks nothing; in a file of their own it finds them."""
    for path in (tmp_path / "scan.mha", tmp_path / "scan.mhd"):
        a_compressed(path)
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"CompressedDataSize")))
    refused(tmp_path / "scan.mha", "how long")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mhd").array, SMOOTH)


@pytest.mark.parametrize("which", [0, 2, 4])
@pytest.mark.parametrize("left", [0, 200, 500, -1])
def test_a_torn_slice_of_a_series_is_told_wherever_it_is(tmp_path, which, left):
    """A copy that was broken off ends in one: without it the volume would only be shorter."""
    dicom_series(tmp_path / "s", [0.0, 2.0, 4.0, 6.0, 8.0])
    torn = sorted((tmp_path / "s").iterdir())[which]
    assert not is_cut_off(torn)
    torn.write_bytes(torn.read_bytes()[:left])
    refused(tmp_path / "s", "1 DICOM file(s)", "cut off", torn.name)
    torn.unlink()
    if which != 2:
        assert read_volume(tmp_path / "s").array.shape == (10, 12, 4)


def written_again(path: Path, array: np.ndarray, spacing=(0.5, 0.75), compressor="") -> None:
    """Put other pixels [y, x] into a slice of ``dicom_series``."""
    before, plane, writer = sitk.ReadImage(str(path)), sitk.GetImageFromArray(array), sitk.ImageFileWriter()
    for key in before.GetMetaDataKeys():
        if key[:4] in ("0008", "0020"):
            plane.SetMetaData(key, before.GetMetaData(key))
    plane.SetMetaData("0028|0030", f"{spacing[1]}\\{spacing[0]}")
    plane.SetSpacing(spacing)
    writer.KeepOriginalImageUIDOn()
    if compressor:
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
    writer.SetFileName(str(path))
    writer.Execute(plane)


def test_a_torn_slice_of_compressed_pixels_is_told(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 2.0, 4.0])
    last = sorted((tmp_path / "s").iterdir())[-1]
    noise = np.random.default_rng(0).integers(0, 500, (12, 10)).astype(np.int16)
    written_again(last, noise, compressor="JPEG2000")
    assert read_volume(tmp_path / "s").array.shape == (10, 12, 3) and not is_cut_off(last)
    last.write_bytes(last.read_bytes()[:-60])
    refused(tmp_path / "s", "cut off", last.name)


@pytest.mark.parametrize("which", [0, 2])
def test_slices_of_different_numbers_keep_their_values(tmp_path, which):
    """ITK gives all slices the first one's type, in which 60,000 was -5,536."""
    dicom_series(tmp_path / "s", [0.0, 2.0, 4.0])
    path = sorted((tmp_path / "s").iterdir())[which]
    written_again(path, np.full((12, 10), 60_000, np.uint16))
    array = read_volume(tmp_path / "s").array
    assert array[..., which].min() == array[..., which].max() == 60_000
    assert array[0, 0, 1] == 100


def test_slices_of_different_pixels_are_no_volume(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 2.0, 4.0])
    written_again(sorted((tmp_path / "s").iterdir())[1], np.zeros((12, 10), np.int16), (1.0, 1.5))
    refused(tmp_path / "s", "different size")


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    long = kind in (b"OB", b"SQ")
    length = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind + length + value


def a_report(path: Path) -> None:
    """A sound DICOM file without an image, which GDCM lists no more than one that it cannot read."""
    start = element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    item = element(0x40, 0xA160, b"LO", b"no finding")
    sequence = struct.pack("<HH", 0x40, 0xA730) + b"SQ" + struct.pack("<HI", 0, 0xFFFFFFFF)
    sequence += struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.88.11") + element(8, 0x60, b"CS", b"SR")
    path.write_bytes(bytes(128) + b"DICM" + start + data + sequence)


def test_what_is_no_slice_and_sound_does_not_matter(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 2.0, 4.0])
    a_report(tmp_path / "s" / "report.dcm")
    shutil.copy(tmp_path / "s" / "report.dcm", tmp_path / "s" / "DICOMDIR")
    (tmp_path / "s" / "notes.txt").write_bytes(b"")
    (tmp_path / "s" / "._1.2.3-000.dcm").write_bytes(b"")
    assert read_volume(tmp_path / "s").array.shape == (10, 12, 3)
    report = tmp_path / "s" / "report.dcm"
    report.write_bytes(report.read_bytes()[:-10])
    assert is_cut_off(report)
