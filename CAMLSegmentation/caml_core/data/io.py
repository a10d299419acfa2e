"""Reading and writing volumes through SimpleITK, with one plain sentence for each way in which a file can be wrong."""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import DataError, ResourceError, UsageError
from . import dicom, metaimage, nifti
from .case import Case
from .files import disk_error, has_dicom_mark, name_fault, replacing
from .grid import Grid

#: What can be written: one file a volume, so that it appears whole or not at all.
WRITABLE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
#: Names of volumes in single files, as SimpleITK tells formats apart by name.
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img", ".dcm")


@dataclass(frozen=True, eq=False)
class Volume:
    """``array`` [X, Y, Z] of uint8, int16 or float32 in the file's own axis order, and where its voxels lie.

    Integers stay integers: a large CT then takes half the memory of float32.
    """

    array: np.ndarray
    grid: Grid


def read_volume(path: Path, case_id: str | None = None) -> Volume:
    """Read a 3-D scalar volume from a NIfTI, NRRD, MetaImage or DICOM file, or from the folder of a DICOM series.

    Raises DataError where the file is missing, unreadable, not one 3-D scalar volume, has a grid without
    right angles or without voxel size, NaN or infinite voxels, or the same value everywhere.
    """
    who = describe(path, case_id)
    with naming(case_id):
        array, grid = _to_array(read_image(path, case_id), who)
        _check_voxels(array, who)
    return Volume(array, grid)


def read_case(case: Case, channels: int | None = None) -> tuple[Volume, ...]:
    """Read all channels of a case; raise DataError where they do not share one grid or are not ``channels``."""
    if channels is not None and len(case.images) != channels:
        raise DataError(f"Case {case.id} has {len(case.images)} image(s); expected {channels}.", case.id)
    volumes = tuple(read_volume(path, case.id) for path in case.images)
    for path, volume in zip(case.images[1:], volumes[1:]):
        difference = grid_difference(volume.grid, volumes[0].grid)
        if difference:
            raise DataError(
                f"Case {case.id}: images {case.images[0].name} and {path.name} lie on different grids "
                f"({difference}); register and resample the channels onto one grid first.",
                case.id,
            )
    return volumes


def write_image(path: Path, array: np.ndarray, grid: Grid, metadata: dict[str, str] | None = None) -> None:
    """Write ``array`` [X, Y, Z] on ``grid``, compressed, under a temporary name first; formats go by the suffix.

    Raises UsageError for formats that are not one file, and ResourceError where the disk is full, the folder cannot be
    written, or the name is not in UTF-8.
    """
    if fault := name_fault(path):
        raise ResourceError(fault)
    if not path.name.lower().endswith(WRITABLE_SUFFIXES):
        raise UsageError(f"Cannot write {path.name}; its name must end in one of {', '.join(WRITABLE_SUFFIXES)}.")
    if array.shape != tuple(grid.size):
        msg = f"array must have the grid's shape {grid.size}, got {array.shape}"
        raise ValueError(msg)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    for key, value in (metadata or {}).items():
        image.SetMetaData(key, value)
    with replacing(path) as temporary:
        _write(image, temporary, path)


def read_image(path: Path, case_id: str | None = None) -> sitk.Image:
    """Read what :func:`read_volume` and the label reader share: an image of 3 dimensions and a valid grid."""
    who = describe(path, case_id)
    with naming(case_id), _quiet():
        try:
            image = _read_any(path, who)
        except (OSError, EOFError, zlib.error) as error:  # gzip raises all three for a torn file
            raise DataError(f"{who} cannot be read ({error}); the file is damaged or cut off.") from error
        except RuntimeError as error:
            raise _explain(error, who) from error
        image = _three_dimensional(image, who)
        _check_grid(image, who)
    return image


def grid_of(image: sitk.Image | sitk.ImageFileReader) -> Grid:
    """Return the grid of a 3-D SimpleITK image, or of one whose header alone was read."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def grid_difference(a: Grid, b: Grid, tolerance: float = 0.2) -> str:
    """Return in words how two grids differ, or "" where every corner agrees within ``tolerance`` voxels."""
    if tuple(a.size) != tuple(b.size):
        return f"{_times(a.size)} against {_times(b.size)} voxels"
    if np.abs(corners(a) - corners(b)).max() <= tolerance * min(b.spacing):
        return ""
    if not np.allclose(a.spacing, b.spacing, rtol=1e-3):
        return f"spacing {_millimetres(a.spacing)} against {_millimetres(b.spacing)}"
    if not np.allclose(a.direction, b.direction, atol=1e-3):
        return "different axis directions"
    return f"shifted by {np.linalg.norm(np.subtract(a.origin, b.origin)):.2f} mm"


def corners(grid: Grid) -> np.ndarray:
    """Return the patient positions [8, 3] (LPS, mm) of the centres of the corner voxels."""
    ends = [(0, n - 1) for n in grid.size]
    index = np.array([(x, y, z) for x in ends[0] for y in ends[1] for z in ends[2]], dtype=float)
    steps = np.reshape(grid.direction, (3, 3)) * np.asarray(grid.spacing)
    return np.asarray(grid.origin) + index @ steps.T


def describe(path: Path, case_id: str | None) -> str:
    """Return how a sentence about a file begins."""
    return f"Case {case_id}: {path.name}" if case_id else str(path)


@contextmanager
def naming(case_id: str | None) -> Iterator[None]:
    """Give every DataError raised inside the case's id."""
    try:
        yield
    except DataError as error:
        error.case_id = error.case_id or case_id
        raise


def _read_any(path: Path, who: str) -> sitk.Image:
    if fault := name_fault(path):
        raise DataError(fault)
    if path.is_dir():
        return dicom.read_series(dicom.choose_series(path, who), who)
    if not path.exists():
        raise DataError(f"{who} does not exist (looked for {path}); check the path.")
    if path.stat().st_size == 0:
        raise DataError(f"{who} is an empty file; copy it again.")
    if nifti.is_nifti(path):
        return _read_nifti(path, who)
    if path.suffix.lower() in metaimage.SUFFIXES:
        metaimage.check_compressed(path)
    return dicom.read_file(path, who) if has_dicom_mark(path) else sitk.ReadImage(str(path))


def _read_nifti(path: Path, who: str) -> sitk.Image:
    described = nifti.header_file(path)
    header = nifti.read_header(described)
    if header is None:
        return sitk.ReadImage(str(path))  # a file with a wrong name: ITK decides
    if header.version == 0:
        raise DataError(f"{who} is an Analyze file, which does not say left from right; convert it to NIfTI first.")
    bad = nifti.count_bad_voxels(described, header)
    if bad:
        raise _not_finite(who, bad)
    if header.dim[0] >= 3:
        sizes = header.pixdim[1:4]
        if not all(math.isfinite(s) and s != 0 for s in sizes):
            raise _bad_spacing(who, sizes)
        if nifti.is_sheared(header):
            raise _sheared(who)
    if header.version == 1:
        return sitk.ReadImage(str(path))
    with tempfile.TemporaryDirectory(prefix="caml-") as folder:
        converted = Path(folder) / "volume.nii"
        try:
            nifti.convert_version_2(described, converted)
        except ValueError as error:
            raise DataError(f"{who} is a NIfTI-2 file that cannot be read ({error}); save it as NIfTI-1.") from error
        return sitk.ReadImage(str(converted))


def _three_dimensional(image: sitk.Image, who: str) -> sitk.Image:
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        size = list(image.GetSize())
        size[-1] = 0
        image = sitk.Extract(image, size, [0] * len(size))
    if image.GetDimension() == 3:
        return image
    kind = {2: "a single 2-D slice", 4: "four-dimensional"}.get(image.GetDimension(), "not three-dimensional")
    raise DataError(f"{who} is {kind} ({_times(image.GetSize())}); expected one 3-D volume; save a single volume.")


def _check_grid(image: sitk.Image, who: str) -> None:
    spacing = image.GetSpacing()
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise _bad_spacing(who, spacing)
    direction = np.reshape(image.GetDirection(), (3, 3))
    if not (np.all(np.isfinite(direction)) and np.all(np.isfinite(image.GetOrigin()))):
        raise DataError(f"{who} has a position or direction that is not a number; repair its header.")
    if nifti.shear(direction * np.asarray(spacing), image.GetSize()) > 1.0:
        raise _sheared(who)


def _to_array(image: sitk.Image, who: str) -> tuple[np.ndarray, Grid]:
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise DataError(
            f"{who} has {max(components, 2)} values a voxel (colour, vectors or complex numbers); "
            "expected a grey-value volume; convert it first."
        )
    view = sitk.GetArrayViewFromImage(image)  # it must not outlive its image, so one copy is made of it, and no more
    kept = view.dtype if view.dtype in (np.uint8, np.int16, np.float32) else _compact(view)
    return view.astype(kept).T, grid_of(image)


def _compact(array: np.ndarray) -> type[np.int16] | type[np.float32]:
    """Return int16 for integers that fit it, else float32."""
    if array.dtype.kind in "iu" and array.size and -32768 <= array.min() and array.max() <= 32767:
        return np.int16
    return np.float32


def _check_voxels(array: np.ndarray, who: str) -> None:
    if array.dtype.kind == "f":
        bad = array.size - sum(int(np.count_nonzero(np.isfinite(part))) for part in array.T)
        if bad:
            raise _not_finite(who, bad)
    if array.size == 0 or array.min() == array.max():
        raise DataError(f"{who} is empty: every voxel has the same value; check the export.")


def _write(image: sitk.Image, temporary: Path, path: Path) -> None:
    with _quiet():
        try:
            sitk.WriteImage(image, str(temporary), True)
            # ITK's writers do not all notice a full disk: what was written must read back.
            written = sitk.GetArrayViewFromImage(image)
            again = sitk.ReadImage(str(temporary))
            intact = np.array_equal(sitk.GetArrayViewFromImage(again), written, equal_nan=written.dtype.kind == "f")
        except RuntimeError as error:
            raise _write_error(path, temporary, error) from error
        if not intact:
            raise _write_error(path, temporary, None)


def _write_error(path: Path, temporary: Path, error: RuntimeError | None) -> ResourceError:
    try:  # Python's own attempt tells the reason, which ITK keeps to itself
        with temporary.open("ab") as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as reason:
        return disk_error(reason, path)
    detail = str(error).strip().splitlines()[-1] if error else "the file does not read back"
    return ResourceError(f"Cannot write {path} ({detail}); check the file's name, the folder and the disk.")


def _explain(error: RuntimeError, who: str) -> DataError:
    text = str(error)
    if "orthonormal" in text or "direction" in text.lower():
        return _sheared(who)
    if "spacing" in text.lower():
        return _bad_spacing(who, ())
    if "Unable to determine ImageIO" in text:
        return DataError(f"{who} is in no format that can be read; expected NIfTI, NRRD, MetaImage or DICOM.")
    return DataError(f"{who} cannot be read; the file is damaged or cut off.")


def _sheared(who: str) -> DataError:
    return DataError(f"{who} has a sheared grid (axes not at right angles); resample it to a straight grid first.")


def _not_finite(who: str, count: int) -> DataError:
    return DataError(f"{who} has {count} NaN or infinite voxels; replace them before using the file.")


def _bad_spacing(who: str, sizes: tuple[float, ...]) -> DataError:
    found = f" ({' x '.join(f'{s:g}' for s in sizes)} mm)" if sizes else ""
    return DataError(f"{who} has zero or invalid voxel spacing{found}; repair the spacing in its header.")


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in size)


def _millimetres(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{s:.3g}" for s in spacing) + " mm"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's warnings off stderr: what matters in them is checked here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
