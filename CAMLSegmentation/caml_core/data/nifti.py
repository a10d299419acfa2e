"""What ITK does not say or read of NIfTI: the affine as written, zero spacing, and version 2 of the format.

Fields and offsets are those of nifti1.h and nifti2.h (NIfTI Data Format Working Group).
"""

from __future__ import annotations

import gzip
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

_NAMES = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")
_SIZE_1, _SIZE_2 = 348, 540


@dataclass(frozen=True)
class NiftiHeader:
    """The fields of either version that decide about geometry. ``affine`` [3, 4] is the sform (RAS), if coded."""

    version: int
    order: str  # "<" or ">"
    dim: tuple[int, ...]
    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    affine: np.ndarray


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI."""
    return path.name.lower().endswith(_NAMES)


def read_header(path: Path) -> NiftiHeader | None:
    """Return the header, or None where the file is not a NIfTI of either version."""
    with _open(path) as file:
        raw = file.read(_SIZE_2)
    for order in "<>":
        if len(raw) < _SIZE_1:
            return None
        (size,) = struct.unpack_from(order + "i", raw)
        if size == _SIZE_1:
            return _parse(raw, order, 1, ("8h", 40), ("8f", 76), ("2h", 252), ("12f", 280))
        if size == _SIZE_2 and len(raw) == _SIZE_2:
            return _parse(raw, order, 2, ("8q", 16), ("8d", 104), ("2i", 344), ("12d", 400))
    return None


def is_sheared(header: NiftiHeader) -> bool:
    """Whether the file's patient space needs an affine with shear, which no spacing and direction can say.

    A sheared sform beside a scanner qform is an alignment to a template: the qform is the patient's space then.
    """
    if header.sform_code <= 0 or (header.qform_code == 1 and header.sform_code >= 2):
        return False
    return shear(header.affine[:, :3], header.dim[1:4]) > 1.0


def shear(columns: np.ndarray, size: tuple[int, ...]) -> float:
    """Return by how many voxels the far corner of a grid moves where its skewed axes are taken as orthogonal.

    ``columns`` [3, 3] are the steps between voxels along each axis, in millimetres.
    """
    lengths = np.linalg.norm(columns, axis=0)
    if not np.all(np.isfinite(lengths)) or np.any(lengths <= 0):
        return 0.0
    cosines = np.abs((columns / lengths).T @ (columns / lengths))
    extents = lengths * np.asarray(size)
    moved = [cosines[i, j] * min(extents[i], extents[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    return float(max(moved) / lengths.min())


def convert_version_2(path: Path, target: Path) -> None:
    """Write the NIfTI-2 file ``path`` as the uncompressed NIfTI-1 file ``target`` (ITK reads version 1 only).

    Raises ValueError where version 1 cannot hold it.
    """
    with _open(path) as source, target.open("wb") as out:
        raw = source.read(_SIZE_2)
        order = "<" if struct.unpack_from("<i", raw)[0] == _SIZE_2 else ">"
        header, offset = _version_1_header(raw, order)
        out.write(header)
        source.read(max(offset - _SIZE_2, 0))
        shutil.copyfileobj(source, out, 1 << 20)


def _version_1_header(raw: bytes, order: str) -> tuple[bytes, int]:
    def fields(code: str, offset: int) -> tuple:
        return struct.unpack_from(order + code, raw, offset)

    dim = fields("8q", 16)
    if max(dim) > 32767 or raw[4:7] != b"n+2":
        msg = f"dimensions {dim} do not fit NIfTI-1"
        raise ValueError(msg)
    header = bytearray(_SIZE_1 + 4)

    def put(code: str, offset: int, *values: float) -> None:
        struct.pack_into(order + code, header, offset, *values)

    put("i", 0, _SIZE_1)
    put("8h", 40, *dim)
    put("2h", 70, *fields("2h", 12))  # datatype, bitpix
    put("8f", 76, *fields("8d", 104))  # pixdim
    put("3f", 108, _SIZE_1 + 4, *fields("2d", 176))  # vox_offset, scl_slope, scl_inter
    put("b", 123, fields("i", 500)[0])  # xyzt_units
    put("2h", 252, *fields("2i", 344))  # qform_code, sform_code
    put("18f", 256, *fields("18d", 352))  # quaternion, offset, the three rows of the sform
    header[344:348] = b"n+1\0"
    return bytes(header), int(fields("q", 168)[0])


def _parse(raw: bytes, order: str, version: int, *fields: tuple[str, int]) -> NiftiHeader:
    dim, pixdim, codes, rows = (struct.unpack_from(order + code, raw, offset) for code, offset in fields)
    return NiftiHeader(version, order, dim, pixdim, codes[0], codes[1], np.array(rows, dtype=float).reshape(3, 4))


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]
