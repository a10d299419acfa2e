"""Size and spacing of a scan from its header alone. Cheap enough for hundreds of cases."""

from __future__ import annotations

from pathlib import Path

Header = tuple[tuple[int, ...], tuple[float, ...]]


def read_header(path: Path) -> Header | None:
    """Return (voxels, mm) along the file's own axes; None where the header cannot be read.

    Of a DICOM folder the first readable slice is taken, and the number of its files is the number of slices.
    """
    import SimpleITK as sitk

    from ..data.files import labels_of_series, visible

    first, slices = path, 0
    if path.is_dir():
        labels = set(labels_of_series(path))
        files = [p for p in visible(path) if p.is_file() and p not in labels]
        if not files:
            return None
        first, slices = files[0], len(files)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(first))
    warnings = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warnings)
    size, spacing = tuple(reader.GetSize())[:3], tuple(round(s, 4) for s in reader.GetSpacing())[:3]
    return ((*size[:2], slices), spacing) if slices else (size, spacing)
