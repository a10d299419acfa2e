"""Size, spacing and place of a scan from its header alone. Cheap enough for hundreds of cases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.files import name_fault

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..data.grid import Grid

Header = tuple[tuple[int, ...], tuple[float, ...]]


def read_header(path: Path) -> Header | None:
    """Return (voxels, mm) along the file's own axes; None where the header cannot be read.

    Of a DICOM folder the first slice is taken, and the number of its files is the number of slices.
    """
    first, slices, is_folder = path, 0, os.path.isdir(path)
    if is_folder:
        names = _slices(path)
        if not names:
            return None
        first, slices = path / names[0], len(names)
    reader = _information(first)
    if reader is None:
        return None if is_folder else _of_nifti_2(path)
    size, spacing = tuple(reader.GetSize())[:3], tuple(round(s, 4) for s in reader.GetSpacing())[:3]
    return ((*size[:2], slices), spacing) if slices else (size, spacing)


def read_grid(path: Path) -> Grid | None:
    """Return the grid of a 3-D file; None where the header cannot be read."""
    from ..data.io import grid_of

    reader = _information(path)
    return None if reader is None or reader.GetDimension() != 3 else grid_of(reader)


def _slices(folder: Path) -> tuple[str, ...]:
    """The files of a DICOM folder; none where it cannot be listed, as on a drive that is gone."""
    from ..data.listing import list_folder

    try:
        return list_folder(folder).slices
    except OSError:
        return ()


def _of_nifti_2(path: Path) -> Header | None:
    """The header of the version of NIfTI that ITK does not read."""
    from ..data import nifti

    try:
        header = nifti.read_header(path) if nifti.is_nifti(path) else None
    except (OSError, EOFError):
        return None
    if header is None or header.version != 2 or header.dim[0] < 3:
        return None
    return header.dim[1:4], tuple(round(s, 4) for s in header.pixdim[1:4])


def _information(path: Path) -> sitk.ImageFileReader | None:
    """A reader that has read the header of a file alone."""
    import SimpleITK as sitk

    if name_fault(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warnings)
    return reader
