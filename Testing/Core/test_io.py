"""Reading volumes: what is right is read right, what is wrong is refused in one plain sentence that names the case."""

from __future__ import annotations

import gzip
import resource
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from caml_core.data.case import Case
from caml_core.data.geometry import Grid
from caml_core.data.io import corners, read_case, read_volume, write_image
from caml_core.errors import DataError, ResourceError, UsageError

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
A_GRID = Grid((7, 6, 5), (0.5, 0.75, 2.5), (-12.0, 30.5, 7.25), OBLIQUE)


def a_volume(shape=(7, 6, 5), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def refused(path: Path, *words: str) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(path, "case7")
    message = str(caught.value)
    assert caught.value.case_id == "case7"
    assert "case7" in message
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_written_reads_back_with_its_grid(tmp_path, suffix, dtype):
    path = tmp_path / f"scan{suffix}"
    write_image(path, a_volume(dtype=dtype), A_GRID)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    volume = read_volume(path)
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, a_volume(dtype=dtype))
    np.testing.assert_allclose(corners(volume.grid), corners(A_GRID), atol=1e-4)


def a_file_of_itk(path: Path) -> None:
    image = sitk.GetImageFromArray(a_volume().T.copy())
    image.SetSpacing(A_GRID.spacing)
    image.SetOrigin(A_GRID.origin)
    image.SetDirection(A_GRID.direction)
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_header_beside_its_data_is_read_and_not_written(tmp_path, suffix):
    a_file_of_itk(tmp_path / f"scan{suffix}")
    volume = read_volume(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(volume.array, a_volume())
    np.testing.assert_allclose(corners(volume.grid), corners(A_GRID), atol=1e-4)
    with pytest.raises(UsageError, match="nii.gz"):
        write_image(tmp_path / f"out{suffix}", a_volume(), A_GRID)


@pytest.mark.parametrize(
    ("stored", "read"), [(np.uint16, np.int16), (np.int32, np.int16), (np.float64, np.float32), (np.uint32, np.int16)]
)
def test_other_number_types_become_a_small_one_without_loss(tmp_path, stored, read):
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(a_volume(dtype=stored).T.copy()), str(path))
    volume = read_volume(path)
    assert volume.array.dtype == read
    np.testing.assert_array_equal(volume.array, a_volume())


def test_large_unsigned_values_become_float(tmp_path):
    path = tmp_path / "scan.nrrd"
    array = a_volume(dtype=np.uint16) + np.uint16(60000)
    sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(path))
    np.testing.assert_array_equal(read_volume(path).array, array.astype(np.float32))


def nifti_1(path: Path, array: np.ndarray, affine: np.ndarray, pixdim=(1.0, 1.0, 1.0), order="<"):
    """A NIfTI-1 written field by field, so that any header can be made."""
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    struct.pack_into(order + "8h", header, 40, array.ndim, *array.shape, *[1] * (7 - array.ndim))
    struct.pack_into(order + "2h", header, 70, 4, 16)
    struct.pack_into(order + "8f", header, 76, 1, *pixdim, *[1] * 4)
    struct.pack_into(order + "3f", header, 108, 352, 1, 0)
    struct.pack_into(order + "b", header, 123, 2)
    struct.pack_into(order + "2h", header, 252, 0, 1)
    struct.pack_into(order + "12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + array.astype(order + "i2").tobytes(order="F"))


def nifti_2(path: Path, array: np.ndarray, affine: np.ndarray, pixdim, order="<", compressed=False):
    header = bytearray(544)
    struct.pack_into(order + "i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into(order + "2h", header, 12, 4, 16)
    struct.pack_into(order + "8q", header, 16, array.ndim, *array.shape, *[1] * (7 - array.ndim))
    struct.pack_into(order + "8d", header, 104, 1, *pixdim, *[1] * 4)
    struct.pack_into(order + "q", header, 168, 544)
    struct.pack_into(order + "2d", header, 176, 2.0, -5.0)
    struct.pack_into(order + "2i", header, 344, 0, 1)
    struct.pack_into(order + "12d", header, 400, *affine[:3].ravel())
    struct.pack_into(order + "i", header, 500, 2)
    raw = bytes(header) + array.astype(order + "i2").tobytes(order="F")
    path.write_bytes(gzip.compress(raw) if compressed else raw)


def an_affine(shear: float = 0.0) -> np.ndarray:
    """RAS steps of 0.5 x 0.75 x 2.5 mm: x to the left, y to the back."""
    return np.array([[-0.5, 0, 0, 12.0], [0, -0.75, shear * 2.5, -30.5], [0, 0, 2.5, 7.25]])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_nifti_2_reads_like_nifti_1_in_either_byte_order(tmp_path, order, compressed):
    path = tmp_path / ("scan.nii.gz" if compressed else "scan.nii")
    nifti_2(path, a_volume(), an_affine(), (0.5, 0.75, 2.5), order, compressed)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.array, a_volume() * 2.0 - 5.0)
    np.testing.assert_allclose(volume.grid.spacing, (0.5, 0.75, 2.5))
    np.testing.assert_allclose(volume.grid.origin, (-12.0, 30.5, 7.25))
    np.testing.assert_allclose(volume.grid.direction, np.eye(3).ravel(), atol=1e-6)


def test_a_big_endian_nifti_reads_like_a_little_endian_one(tmp_path):
    for order in "<>":
        nifti_1(tmp_path / f"{ord(order)}.nii", a_volume(), an_affine(), (0.5, 0.75, 2.5), order)
    a, b = (read_volume(tmp_path / f"{ord(order)}.nii") for order in "<>")
    np.testing.assert_array_equal(a.array, b.array)
    assert a.grid == b.grid
    np.testing.assert_allclose(a.grid.spacing, (0.5, 0.75, 2.5))


def test_a_sheared_nifti_is_refused_and_a_hardly_sheared_one_is_read(tmp_path):
    nifti_1(tmp_path / "bad.nii", a_volume((40, 40, 40)), an_affine(0.2), (0.5, 0.75, 2.5))
    refused(tmp_path / "bad.nii", "sheared")
    nifti_2(tmp_path / "bad2.nii", a_volume((40, 40, 40)), an_affine(0.2), (0.5, 0.75, 2.5))
    refused(tmp_path / "bad2.nii", "sheared")
    nifti_1(tmp_path / "rounded.nii", a_volume((40, 40, 40)), an_affine(1e-5), (0.5, 0.75, 2.5))
    read_volume(tmp_path / "rounded.nii")


def test_a_sheared_nrrd_is_refused(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 30 30 30\n"
        "space directions: (1,0,0) (0,1,0) (0,0.3,1)\nkinds: domain domain domain\nendian: little\n"
        "encoding: raw\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + a_volume((30, 30, 30)).tobytes())
    refused(tmp_path / "scan.nrrd", "sheared")


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_a_nifti_without_voxel_size_is_refused(tmp_path, bad):
    nifti_1(tmp_path / "scan.nii", a_volume(), an_affine(), (0.5, bad, 2.5))
    refused(tmp_path / "scan.nii", "spacing")


@pytest.mark.parametrize("spacing", ["0 1 1", "1 0 1"])
def test_a_metaimage_without_voxel_size_is_refused(tmp_path, spacing):
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nDimSize = 7 6 5\n"
        f"ElementSpacing = {spacing}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "scan.mha").write_bytes(header.encode() + a_volume().tobytes())
    refused(tmp_path / "scan.mha", "spacing")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nowhere.nii.gz", "does not exist")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_file_cut_off_is_refused(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    noise = np.random.default_rng(0).integers(0, 1000, (40, 40, 40)).astype(np.int16)
    write_image(path, noise, Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "damaged")


def test_a_damaged_compressed_file_is_refused(tmp_path):
    path = tmp_path / "scan.nii.gz"
    write_image(
        path, np.random.default_rng(0).integers(0, 1000, (40, 40, 40)).astype(np.int16), Grid((40,) * 3, (1.0,) * 3)
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    refused(path, "damaged")


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), -1e30, 1e30])
def test_a_header_that_points_nowhere_is_refused(tmp_path, offset):
    nifti_1(tmp_path / "scan.nii", a_volume(), an_affine(), (0.5, 0.75, 2.5))
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    struct.pack_into("<f", content, 108, offset)
    (tmp_path / "scan.nii").write_bytes(content)
    refused(tmp_path / "scan.nii", "damaged")
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(content))
    refused(tmp_path / "scan.nii.gz", "damaged")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".dcm", ".txt"])
@pytest.mark.parametrize("content", [b"", b"this is not an image\n" * 50])
def test_a_file_that_is_no_image_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(content)
    refused(path)


def test_several_volumes_in_one_file_are_refused_but_a_single_one_is_read(tmp_path):
    four = sitk.JoinSeries([sitk.GetImageFromArray(a_volume().T.copy())] * 3)
    sitk.WriteImage(four, str(tmp_path / "four.nii"))
    refused(tmp_path / "four.nii", "four-dimensional", "7 x 6 x 5 x 3")
    one = sitk.JoinSeries([sitk.GetImageFromArray(a_volume().T.copy())])
    sitk.WriteImage(one, str(tmp_path / "one.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "one.nrrd").array, a_volume())


def test_a_slice_is_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(30, dtype=np.int16).reshape(5, 6)), str(tmp_path / "s.nrrd"))
    refused(tmp_path / "s.nrrd", "2-D")


def test_colours_are_refused(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (5, 6, 7, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(tmp_path / "rgb.nrrd"))
    refused(tmp_path / "rgb.nrrd", "3 values a voxel")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii", ".nii.gz", ".hdr"])
def test_voxels_that_are_no_numbers_are_refused_and_counted(tmp_path, value, dtype, suffix):
    """Also in NIfTI, where ITK's own reader silently puts zeros."""
    array = a_volume(dtype=dtype)
    array[1, 2, 3] = array[4, 4, 4] = value
    sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(tmp_path / f"scan{suffix}"))
    refused(tmp_path / f"scan{suffix}", "2 NaN or infinite voxels")


def test_an_image_of_one_value_is_refused(tmp_path):
    write_image(tmp_path / "scan.nrrd", np.full((7, 6, 5), 3, np.int16), A_GRID)
    refused(tmp_path / "scan.nrrd", "empty")


def test_channels_share_one_grid(tmp_path):
    shifted = Grid(A_GRID.size, A_GRID.spacing, (-12.0, 31.5, 7.25), A_GRID.direction)
    write_image(tmp_path / "a.nrrd", a_volume(), A_GRID)
    write_image(tmp_path / "b.nii.gz", a_volume(), A_GRID)
    write_image(tmp_path / "c.nrrd", a_volume(), shifted)
    good = Case("p1", (tmp_path / "a.nrrd", tmp_path / "b.nii.gz"))
    assert len(read_case(good, 2)) == 2
    with pytest.raises(DataError, match="p1.*different grids.*1.00 mm"):
        read_case(Case("p1", (tmp_path / "a.nrrd", tmp_path / "c.nrrd")))
    with pytest.raises(DataError, match="p1 has 2 image.*expected 1"):
        read_case(good, 1)


# DICOM


def dicom_series(folder: Path, positions, *, uid="1.2.3", name="T1", tilt=0.0, start=0):
    """Slices written through SimpleITK at the given positions along z."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for i, z in enumerate(positions):
        plane = sitk.GetImageFromArray((np.arange(12 * 10).reshape(12, 10) + 100 * i).astype(np.int16))
        plane.SetSpacing((0.5, 0.75))
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{uid}.{start + i + 1}",
            "0020|000e": uid,
            "0020|000d": "1.2",
            "0008|103e": name,
            "0020|0013": str(start + i + 1),
            "0020|0032": f"1\\{2 + tilt * z}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0028|0030": "0.75\\0.5",
        }
        for key, value in tags.items():
            plane.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}-{start + i:03d}.dcm"))
        writer.Execute(plane)


def test_a_dicom_series_is_read_in_the_order_of_its_positions(tmp_path):
    dicom_series(tmp_path / "s", [30.0, 10.0, 20.0, 0.0])
    volume = read_volume(tmp_path / "s")
    assert volume.array.shape == (10, 12, 4)
    assert volume.array[0, 0].tolist() == [300, 100, 200, 0]
    np.testing.assert_allclose(volume.grid.spacing, (0.5, 0.75, 10.0))
    np.testing.assert_allclose(volume.grid.origin, (1, 2, 0))


def test_a_dicom_series_in_a_sub_folder_is_found(tmp_path):
    dicom_series(tmp_path / "patient" / "study" / "s", [0.0, 1.0, 2.0])
    assert read_volume(tmp_path / "patient").array.shape == (10, 12, 3)


def test_of_a_localiser_and_one_volume_the_volume_is_read(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 1.0, 2.0])
    dicom_series(tmp_path / "s", [5.0], uid="1.2.4", name="localiser")
    assert read_volume(tmp_path / "s").array.shape == (10, 12, 3)


def test_several_dicom_series_are_refused_by_name(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 1.0, 2.0], name="LGE")
    dicom_series(tmp_path / "s", [0.0, 1.0], uid="1.2.4", name="cine")
    refused(tmp_path / "s", "2 DICOM series", "LGE", "(3 slices)", "cine")


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    refused(tmp_path, "no DICOM")
    dicom_series(tmp_path / "single", [0.0])
    refused(tmp_path / "single", "only single DICOM slices")


def test_one_slice_of_a_dicom_series_is_no_volume(tmp_path):
    dicom_series(tmp_path / "s", [0.0, 2.5, 5.0])
    refused(next((tmp_path / "s").iterdir()), "a single DICOM slice", "name the folder of its series")


def test_missing_and_doubled_dicom_slices_are_refused(tmp_path):
    dicom_series(tmp_path / "gap", [0.0, 1.0, 2.0, 4.0, 5.0])
    refused(tmp_path / "gap", "unevenly spaced", "1.00 to 2.00 mm")
    dicom_series(tmp_path / "phases", [0.0, 1.0, 2.0])
    dicom_series(tmp_path / "phases", [0.0, 1.0, 2.0], start=3)
    refused(tmp_path / "phases")


def test_a_tilted_gantry_is_refused(tmp_path):
    dicom_series(tmp_path / "s", list(range(0, 40, 2)), tilt=0.3)
    refused(tmp_path / "s", "shift sideways")


# Writing


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nrrd", "out.mha", "out.nii"])
def test_a_full_disk_is_one_plain_error_and_leaves_nothing(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 30000, (60, 60, 60)).astype(np.int16)
    (tmp_path / name).write_bytes(b"what was there before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ResourceError) as caught:
            write_image(tmp_path / name, noise, Grid((60, 60, 60), (1.0, 1.0, 1.0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "full" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"what was there before"


def test_a_place_that_cannot_be_written_is_one_plain_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResourceError, match="Cannot write|No permission"):
        write_image(tmp_path / "file" / "out.nrrd", a_volume(), A_GRID)
    with pytest.raises(UsageError, match="Cannot write out.unknown"):
        write_image(tmp_path / "out.unknown", a_volume(), A_GRID)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_folders_on_the_way_are_made(tmp_path):
    write_image(tmp_path / "a" / "b" / "out.nrrd", a_volume(), A_GRID)
    assert (tmp_path / "a" / "b" / "out.nrrd").is_file()


# Real files


def in_patient_space(path: Path) -> sitk.Image:
    volume = read_volume(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.T))
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    return sitk.DICOMOrient(image, "LPS")


def test_every_axis_order_of_one_scan_is_the_same_in_patient_space(shared_folder):
    paths = sorted((shared_folder / "odd" / "nifti_space").glob("*.nii.gz"))
    first = in_patient_space(paths[0])
    assert len(paths) == 24
    for path in paths[1:]:
        other = in_patient_space(path)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(other), sitk.GetArrayFromImage(first))
        np.testing.assert_allclose(other.GetOrigin(), first.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(other.GetDirection(), first.GetDirection(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "corner_ras"),
    [
        ("anatomical.nii", (33, 41, 25), (32, -40, -16)),
        ("reoriented_anat_moved.nii", (21, 26, 22), (-35.2979, -47.9776, -27.5994)),
        ("mha.mha", (64, 64, 37), (108.281, -82.3795, -47.8356)),
        ("FLAIR.nrrd", (124, 160, 140), (-64.8982, -110.431, -27.9255)),
        ("dicom-mr", (256, 256, 20), (110.5, 78.3063, -72.7575)),
    ],
)
def test_odd_but_sound_files_are_read(shared_folder, name, size, corner_ras):
    volume = read_volume(shared_folder / "odd" / name)
    assert volume.array.shape == size
    np.testing.assert_allclose(np.multiply(volume.grid.origin, (-1, -1, 1)), corner_ras, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("shear.nii.gz", "sheared"),
        ("example4d.nii.gz", "four-dimensional"),
        ("example_nifti2.nii.gz", "four-dimensional"),
        ("ct_perfusion.nii.gz", "3 values a voxel"),
        ("emri_small.dcm", "how large its voxels are"),
        ("README.md", "no format"),
    ],
)
def test_files_that_cannot_be_used_are_refused(shared_folder, name, word):
    refused(shared_folder / "odd" / name, word)


def test_a_dicom_file_without_suffix_is_known_by_its_content(shared_folder, tmp_path):
    shutil.copyfile(shared_folder / "odd" / "emri_small.dcm", tmp_path / "IM0001")
    refused(tmp_path / "IM0001", "how large its voxels are")
