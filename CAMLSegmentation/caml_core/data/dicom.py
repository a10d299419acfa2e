"""Which files of a folder make up one DICOM volume, and whether they do. Reading itself is SimpleITK's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import DataError
from .nifti import shear

_FRAMES, _SERIES, _POSITION, _ORIENTATION = "0028|0008", "0008|103e", "0020|0032", "0020|0037"
_SPACING = "0028|0030"
_GDCM = "GDCMImageIO"


@dataclass(frozen=True)
class Series:
    """One series: its files in the order of the slices, how many slices they hold, and whether they have a spacing."""

    uid: str
    description: str
    files: tuple[str, ...]
    slices: int
    spaced: bool


def find_series(folder: Path) -> tuple[Series, ...]:
    """Return the image series in ``folder``, or in its sub-folders where it holds none itself."""
    found = _series_of(folder)
    if not found:
        for sub in sorted(p for p in folder.iterdir() if p.is_dir()):
            found += find_series(sub)
    return found


def choose_series(folder: Path, who: str) -> Series:
    """Return the only series with more than one slice; raise DataError where there is none, or several."""
    found = find_series(folder)
    if not found:
        raise DataError(
            f"{who} holds no DICOM images; expected the folder of one DICOM series, or give an image file instead."
        )
    volumes = [s for s in found if s.slices > 1]
    if not volumes:
        raise DataError(f"{who} holds only single DICOM slices; expected one series with more than one slice.")
    if len(volumes) > 1:
        listed = ", ".join(f"{s.description or s.uid!r} ({s.slices} slices)" for s in volumes)
        raise DataError(
            f"{who} holds {len(volumes)} DICOM series: {listed}; keep one series a folder and name that folder."
        )
    return volumes[0]


def read_series(series: Series, who: str) -> sitk.Image:
    """Return the volume of a series; raise DataError where slices are missing, doubled or shifted."""
    if len(series.files) == 1:
        return sitk.ReadImage(series.files[0], imageIO=_GDCM)
    _check_positions(series, who)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    reader.SetImageIO(_GDCM)
    return reader.Execute()


def has_spacing(path: Path) -> bool:
    """Whether a DICOM file states its voxels' size where GDCM looks for it."""
    return _states_spacing(_header(str(path)))


def _states_spacing(header: sitk.ImageFileReader) -> bool:
    """An enhanced file keeps its spacing in sequences that SimpleITK does not show; where they are missing, GDCM
    falls back to a unit grid at the origin, which no scanner produces.
    """
    unit = header.GetSpacing() == (1.0,) * header.GetDimension() and not any(header.GetOrigin())
    return header.HasMetaDataKey(_SPACING) or not unit


def _series_of(folder: Path) -> tuple[Series, ...]:
    found = []
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        files = tuple(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
        try:
            header = _header(files[0])
        except RuntimeError:  # a report, a presentation state: DICOM without an image
            continue
        frames = _value(header, _FRAMES)
        each = int(frames) if frames.isdigit() else 1
        found.append(Series(uid, _value(header, _SERIES), files, len(files) * each, _states_spacing(header)))
    return tuple(found)


def _check_positions(series: Series, who: str) -> None:
    headers = [_header(path) for path in series.files]
    positions = [_numbers(_value(h, _POSITION)) for h in headers]
    orientations = [_numbers(_value(h, _ORIENTATION)) for h in headers]
    if any(len(p) != 3 for p in positions) or any(len(o) != 6 for o in orientations):
        raise DataError(f"{who} has DICOM slices without a position; expected a series of one scan.")
    if len({h.GetSize()[:2] for h in headers}) > 1 or np.ptp(orientations, axis=0).max() > 1e-3:
        raise DataError(f"{who} has DICOM slices of different size or direction; keep one series a folder.")
    row, column = np.array(orientations[0][:3]), np.array(orientations[0][3:])
    steps = np.diff(np.array(positions), axis=0)
    gaps = np.abs(steps @ np.cross(row, column))
    typical = float(np.median(gaps))
    if gaps.min() < 0.1 * max(typical, 1e-3):
        raise DataError(f"{who} has several DICOM slices at one position (phases or echoes); keep one volume a folder.")
    if np.abs(gaps - typical).max() > 0.25 * typical:
        raise DataError(
            f"{who} has unevenly spaced DICOM slices ({gaps.min():.2f} to {gaps.max():.2f} mm apart); "
            "slices are missing, so export the series again."
        )
    spacing, size = headers[0].GetSpacing(), headers[0].GetSize()
    columns = np.stack([row * spacing[0], column * spacing[1], steps.mean(axis=0)], axis=1)
    if shear(columns, (*size[:2], len(series.files))) > 1.0:
        raise DataError(
            f"{who} has slices that shift sideways (a tilted gantry); resample it to a straight volume first."
        )


def _header(path: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.SetImageIO(_GDCM)  # else every other format is tried first
    reader.ReadImageInformation()
    return reader


def _value(reader: sitk.ImageFileReader, key: str) -> str:
    return reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else ""


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split("\\"))
    except ValueError:
        return ()
