"""Volumes in two files, a header and its voxels: the same is read, and refused, whichever of both is named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from test_io import a_file_of_itk, a_volume, refused

from caml_core.data.io import read_volume

ENDS = (".hdr", ".img")


@pytest.mark.parametrize("end", ENDS)
def test_a_pair_of_header_and_voxels_is_read_and_analyze_is_refused(tmp_path, end):
    a_file_of_itk(tmp_path / "scan.hdr")
    np.testing.assert_array_equal(read_volume(tmp_path / f"scan{end}").array, a_volume())
    header = bytearray((tmp_path / "scan.hdr").read_bytes())
    (tmp_path / "scan.img").write_bytes((tmp_path / "scan.img").read_bytes()[:-20])
    refused(tmp_path / f"scan{end}", "cut off")
    header[344:348] = bytes(4)
    (tmp_path / "scan.hdr").write_bytes(header)
    refused(tmp_path / f"scan{end}", "Analyze")


@pytest.mark.parametrize("end", ENDS)
def test_voxels_of_a_pair_that_are_no_numbers_are_refused(tmp_path, end):
    values = a_volume(dtype=np.float32)
    values[1, 2, 3] = np.nan
    sitk.WriteImage(sitk.GetImageFromArray(values.T.copy()), str(tmp_path / "scan.hdr"))
    refused(tmp_path / f"scan{end}", "1 NaN or infinite voxels")


def test_a_compressed_pair_has_its_header_beside_it(tmp_path):
    a_file_of_itk(tmp_path / "scan.hdr")
    header = bytearray((tmp_path / "scan.hdr").read_bytes())
    header[344:348] = bytes(4)
    for name in ("scan.hdr", "scan.img"):
        content = bytes(header) if name == "scan.hdr" else (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        (tmp_path / name).unlink()
    refused(tmp_path / "scan.img.gz", "Analyze")
