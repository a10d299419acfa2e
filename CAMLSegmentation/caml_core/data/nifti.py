"""What ITK does not say or read of NIfTI: the affine as written, zero spacing, and version 2 of the format.

Fields and offsets are those of nifti1.h and nifti2.h (NIfTI Data Format Working Group).
"""

from __future__ import annotations

import gzip
import math
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
    """The fields of either version that decide about geometry. ``affine`` [3, 4] is the sform (RAS), if coded.

    ``version`` 0 is Analyze, the ancestor without orientation. ``end``: where the voxels end in the uncompressed
    data, which lies in a file of its own (.img) where ``separate``.
    """

    version: int
    order: str  # "<" or ">"
    dim: tuple[int, ...]
    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    affine: np.ndarray
    end: int
    separate: bool


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
            version = 1 if raw[344:347] in (b"n+1", b"ni1") else 0
            places = (("8h", 40), ("8f", 76), ("2h", 252), ("12f", 280), ("h", 72), ("f", 108))
            return _parse(raw, order, version, raw[344:346] != b"n+", places)
        if size == _SIZE_2 and len(raw) == _SIZE_2:
            places = (("8q", 16), ("8d", 104), ("2i", 344), ("12d", 400), ("h", 14), ("q", 168))
            return _parse(raw, order, 2, raw[4:6] != b"n+", places)
    return None


def is_complete(path: Path, header: NiftiHeader) -> bool:
    """Whether all voxels are there and, where compressed, undamaged; ITK fills what is missing with nothing said.

    Raises OSError, EOFError or zlib.error for damaged compressed data.
    """
    if header.separate:
        stem = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
        names = (Path(stem).stem + end for end in (".img", ".img.gz", ".IMG"))
        found = next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)
        if found is None:
            return False
        path = found
    with _open(path) as file:
        if not isinstance(file, gzip.GzipFile):
            return file.seek(0, 2) >= header.end
        size = 0
        while block := file.read(1 << 20):
            size += len(block)
    return size >= header.end


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


def _parse(raw: bytes, order: str, version: int, separate: bool, places: tuple[tuple[str, int], ...]) -> NiftiHeader:
    dim, pixdim, codes, rows, bits, offset = (struct.unpack_from(order + code, raw, where) for code, where in places)
    voxels = math.prod(max(n, 1) for n in dim[1 : max(dim[0], 0) + 1])
    return NiftiHeader(
        version=version,
        order=order,
        dim=dim,
        pixdim=pixdim,
        qform_code=codes[0],
        sform_code=codes[1],
        affine=np.array(rows, dtype=float).reshape(3, 4),
        end=int(offset[0]) + voxels * bits[0] // 8,
        separate=separate,
    )


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]
