"""Which files of a folder make up one DICOM volume, and whether they do. Reading itself is SimpleITK's."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import DataError
from .case import some_names
from .dicom_frames import Frames, is_cut_off, read_frames
from .files import name_fault
from .listing import list_folder
from .nifti import shear

_FRAMES, _SERIES, _POSITION, _ORIENTATION = "0028|0008", "0008|103e", "0020|0032", "0020|0037"
_SPACING, _INTERCEPT, _SLOPE = "0028|0030", "0028|1052", "0028|1053"
_GDCM = "GDCMImageIO"


@dataclass(frozen=True)
class Series:
    """One series: its files in the order of the slices, how many slices they hold, and whether they have a spacing.

    ``torn``: names of files beside them that are empty or cut off, of which GDCM says nothing at all.
    """

    uid: str
    description: str
    files: tuple[str, ...]
    slices: int
    spaced: bool
    torn: tuple[str, ...] = ()


def find_series(folder: Path) -> tuple[Series, ...]:
    """Return the image series in ``folder``, or in its sub-folders where it holds none itself."""
    found = _series_of(folder)
    if not found:
        for sub in sorted(p for p in folder.iterdir() if p.is_dir()):
            found += find_series(sub)
    return found


def choose_series(folder: Path, who: str) -> Series:
    """Return the only series with more than one slice; raise DataError where there is none, or several.

    Where files beside it are torn, that is one, too: they may be its last slices, which nothing else would tell.
    """
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
    if torn := volumes[0].torn:
        raise DataError(
            f"{who} holds {len(torn)} DICOM file(s) that are empty or cut off ({some_names(torn)}), and slices may be "
            "missing; copy the folder again, or remove them if they do not belong to the scan."
        )
    return volumes[0]


def read_series(series: Series, who: str) -> sitk.Image:
    """Return the volume of a series; raise DataError where slices are missing, doubled, shifted or of unknown size."""
    if len(series.files) == 1:
        return read_file(Path(series.files[0]), who)
    if not series.spaced:
        raise _no_spacing(who)
    headers = [_header(path) for path in series.files]
    _check_positions(headers, who)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(series.files)
    reader.SetImageIO(_GDCM)
    if len({(h.GetPixelIDValue(), _value(h, _SLOPE), _value(h, _INTERCEPT)) for h in headers}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat32)  # else all have the first one's type, and are rounded or cut to it
    return reader.Execute()


def read_file(path: Path, who: str) -> sitk.Image:
    """Return the volume of one DICOM file.

    Raises DataError where it is a single slice, whose thickness SimpleITK would make up, where it states no voxels'
    size, and where its frames are no volume.
    """
    header = _header(str(path))
    if math.prod(header.GetSize()[2:]) == 1:
        raise DataError(f"{who} is a single DICOM slice; expected a volume, so name the folder of its series.")
    frames = read_frames(path)
    if frames is None or header.GetSize()[2:] != (len(frames.positions),):
        if not _states_spacing(header):
            raise _no_spacing(who)
        return sitk.ReadImage(str(path), imageIO=_GDCM)
    spacing, direction = _grid_of_frames(frames, header.GetSize()[:2], who)
    image = sitk.ReadImage(str(path), imageIO=_GDCM)
    image.SetSpacing(spacing)
    image.SetOrigin(frames.positions[0])
    image.SetDirection(direction)
    return image


def _no_spacing(who: str) -> DataError:
    return DataError(f"{who} does not say how large its voxels are; export the DICOM series again with its geometry.")


def _states_spacing(header: sitk.ImageFileReader) -> bool:
    """An enhanced file keeps its spacing in sequences that SimpleITK does not show; where they are missing, GDCM
    falls back to a unit grid at the origin, which no scanner produces. Any other file states it, or has none.
    """
    unit = header.GetSpacing() == (1.0,) * header.GetDimension()
    elsewhere = any(header.GetOrigin()) and bool(_value(header, _FRAMES))
    return header.HasMetaDataKey(_SPACING) or not unit or elsewhere


def _series_of(folder: Path) -> tuple[Series, ...]:
    found: list[Series] = []
    reader, place = sitk.ImageSeriesReader, str(folder)
    listed = {uid: tuple(reader.GetGDCMSeriesFileNames(place, uid)) for uid in reader.GetGDCMSeriesIDs(place)}
    torn = _torn(folder, {Path(file).name for files in listed.values() for file in files}) if listed else ()
    for uid, files in listed.items():
        if fault := next(filter(None, (name_fault(Path(file)) for file in files)), ""):
            raise DataError(fault)
        try:
            header = _header(files[0])
        except RuntimeError:  # a report, a presentation state: DICOM without an image
            continue
        frames = _value(header, _FRAMES)
        each = int(frames) if frames.isdigit() else 1
        slices = len(files) * each
        found.append(Series(uid, _value(header, _SERIES), files, slices, _states_spacing(header), torn))
    return tuple(found)


def _torn(folder: Path, known: Collection[str]) -> tuple[str, ...]:
    """The files of a folder, beyond those that GDCM knows, that were DICOM: it leaves out what it cannot read."""
    others = (name for name in list_folder(folder).slices if name not in known)
    return tuple(name for name in others if _is_torn(folder / name))


def _is_torn(path: Path) -> bool:
    empty = path.suffix.lower() == ".dcm" and path.stat().st_size == 0
    return empty or is_cut_off(path)


def _check_positions(headers: list[sitk.ImageFileReader], who: str) -> None:
    positions = [_numbers(_value(h, _POSITION)) for h in headers]
    orientations = [_numbers(_value(h, _ORIENTATION)) for h in headers]
    spacings = [h.GetSpacing()[:2] for h in headers]
    if len({h.GetSize()[:2] for h in headers}) > 1 or _differ(spacings):
        raise _different(who, "folder")
    _check_stack(positions, orientations, spacings[0], headers[0].GetSize()[:2], who, "folder")


def _check_stack(
    positions: Sequence[tuple[float, ...]],
    orientations: Sequence[tuple[float, ...]],
    spacing: tuple[float, ...],
    size: tuple[int, ...],
    who: str,
    place: str,
) -> np.ndarray:
    """Return how far along their common normal the slices lie [n], mm; raise DataError where they are no volume.

    ``spacing`` and ``size`` are those within a slice; ``place``, a folder or a file, is what should hold one volume.
    """
    if any(len(p) != 3 for p in positions) or any(len(o) != 6 for o in orientations):
        raise DataError(f"{who} has DICOM slices without a position; expected a series of one scan.")
    if np.ptp(orientations, axis=0).max() > 1e-3:
        raise _different(who, place)
    row, column = np.array(orientations[0][:3]), np.array(orientations[0][3:])
    heights = np.array(positions) @ np.cross(row, column)
    steps = np.diff(np.array(positions)[np.argsort(heights, kind="stable")], axis=0)
    gaps = np.diff(np.sort(heights))
    typical = float(np.median(gaps))
    if gaps.min() < 0.1 * max(typical, 1e-3):
        raise DataError(
            f"{who} has several DICOM slices at one position (phases or echoes); keep one volume a {place}."
        )
    if np.abs(gaps - typical).max() > 0.25 * typical:
        raise DataError(
            f"{who} has unevenly spaced DICOM slices ({gaps.min():.2f} to {gaps.max():.2f} mm apart); "
            "slices are missing, so export the series again."
        )
    columns = np.stack([row * spacing[0], column * spacing[1], steps.mean(axis=0)], axis=1)
    if shear(columns, (*size, len(positions))) > 1.0:
        raise DataError(
            f"{who} has slices that shift sideways (a tilted gantry); resample it to a straight volume first."
        )
    return heights


def _grid_of_frames(
    frames: Frames, size: tuple[int, ...], who: str
) -> tuple[tuple[float, float, float], tuple[float, ...]]:
    """Return spacing and direction as the frames state them, of ``size`` voxels each; raise DataError where they are
    no volume in the order of its slices.
    """
    if any(len(s) != 2 for s in frames.spacings):
        raise _no_spacing(who)
    if _differ(frames.spacings):
        raise _different(who, "file")
    if len(set(frames.scales)) > 1:
        raise DataError(
            f"{who} has DICOM slices whose values are scaled differently, which cannot be read from one file; "
            "export it with a file for each slice."
        )
    between_rows, between_columns = frames.spacings[0]
    spacing = (between_columns, between_rows)
    heights = _check_stack(frames.positions, frames.orientations, spacing, size, who, "file")
    steps = np.diff(heights)
    if np.any(steps > 0) and np.any(steps < 0):
        raise DataError(
            f"{who} has DICOM slices that are not in the order of their positions; export it with a file for each "
            "slice."
        )
    row, column = np.array(frames.orientations[0][:3]), np.array(frames.orientations[0][3:])
    normal = np.cross(row, column) * np.sign(steps[0])
    direction = np.stack([row, column, normal], axis=1)
    return (*spacing, float(np.abs(steps).mean())), tuple(direction.ravel().tolist())


def _differ(spacings: Sequence[tuple[float, ...]]) -> bool:
    """Whether slices' spacings (mm) within the slice are not the same."""
    return bool(np.ptp(spacings, axis=0).max() > 1e-3 * min(spacings[0]))


def _different(who: str, place: str) -> DataError:
    return DataError(f"{who} has DICOM slices of different size or direction; keep one series a {place}.")


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
