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
_BLOCK = 1 << 20
_LARGEST = 1 << 44


@dataclass(frozen=True)
class NiftiHeader:
    """The fields of either version that decide about geometry. ``affine`` [3, 4] is the sform (RAS), if coded.

    ``version`` 0 is Analyze, the ancestor without orientation. The voxels are bytes ``start`` .. ``end`` of the
    uncompressed data, which lies in a file of its own (.img) where ``separate``.
    """

    version: int
    order: str  # "<" or ">"
    dim: tuple[int, ...]
    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    affine: np.ndarray
    datatype: int
    start: int
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
            places = (("8h", 40), ("8f", 76), ("2h", 252), ("12f", 280), ("2h", 70), ("f", 108))
            return _parse(raw, order, version, raw[344:346] != b"n+", places)
        if size == _SIZE_2 and len(raw) == _SIZE_2:
            places = (("8q", 16), ("8d", 104), ("2i", 344), ("12d", 400), ("2h", 12), ("q", 168))
            return _parse(raw, order, 2, raw[4:6] != b"n+", places)
    return None


def header_file(path: Path) -> Path:
    """Return the file that holds the header: the .hdr beside a .img, where there is one; else ``path`` itself."""
    if not path.name.lower().endswith((".img", ".img.gz")):
        return path
    return _beside(path, ".hdr") or path


def count_bad_voxels(path: Path, header: NiftiHeader) -> int:
    """Return how many voxels are NaN or infinite; raise EOFError where voxels are missing.

    ITK's reader tells neither: it puts zeros in both places. Damaged compressed data raises OSError, EOFError or
    zlib.error.
    """
    kind = {16: "f4", 64: "f8"}.get(header.datatype)
    bad, position = 0, header.start
    if not 0 <= position < _LARGEST:
        msg = f"the header says that the voxels begin at byte {position}"
        raise EOFError(msg)
    with _open(_data_file(path) if header.separate else path) as file:
        if kind is None and not isinstance(file, gzip.GzipFile):
            position = min(file.seek(0, 2), header.end)
        else:
            file.seek(header.start)
        while position < header.end and (block := file.read(min(_BLOCK, header.end - position))):
            position += len(block)
            if kind:
                values = np.frombuffer(block, header.order + kind, count=len(block) // int(kind[1]))
                bad += int(np.count_nonzero(~np.isfinite(values)))
        while isinstance(file, gzip.GzipFile) and file.read(_BLOCK):
            pass  # to the end, where the check sum is
    if position < header.end:
        msg = f"{header.end - position} bytes are missing"
        raise EOFError(msg)
    return bad


def _data_file(path: Path) -> Path:
    """Return the .img beside a .hdr; raise EOFError where there is none."""
    found = _beside(path, ".img")
    if found is None:
        msg = f"{_pair_name(path)}.img is missing"
        raise EOFError(msg)
    return found


def _beside(path: Path, end: str) -> Path | None:
    """The other file of a pair, compressed or not."""
    names = (path.with_name(_pair_name(path) + suffix) for suffix in (end, f"{end}.gz", end.upper()))
    return next((name for name in names if name.is_file()), None)


def _pair_name(path: Path) -> str:
    return Path(path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name).stem


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
    dim, pixdim, codes, rows, kind, offset = (struct.unpack_from(order + code, raw, where) for code, where in places)
    start = int(offset[0]) if math.isfinite(offset[0]) else -1
    voxels = math.prod(max(n, 1) for n in dim[1 : max(dim[0], 0) + 1])
    return NiftiHeader(
        version=version,
        order=order,
        dim=dim,
        pixdim=pixdim,
        qform_code=codes[0],
        sform_code=codes[1],
        affine=np.array(rows, dtype=float).reshape(3, 4),
        datatype=kind[0],
        start=start,
        end=start + voxels * kind[1] // 8,
        separate=separate,
    )


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]
