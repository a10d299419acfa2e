"""One case as the network sees it: what is computed of it, and the files that hold it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..config import ChannelIntensity, Geometry, Segment
from .case import Case, Role
from .geometry import NetworkGrid
from .intensity import normalize
from .io import read_case
from .labels import conform, read_case_labels

#: The file that describes an entry and makes it complete.
ENTRY = "entry.json"
_LOCATIONS_PER_CLASS = 10_000


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as the network sees it; all arrays are read-only maps of files.

    ``image`` float16 [C, x, y, z]; ``label`` uint8 [x, y, z] or None (also where an unlabelled case has a label file);
    ``locations`` int32 [n, 4], rows of (class, x, y, z): at most 10,000 random voxels of each foreground class;
    ``digest``: SHA-256 of the source files. Sent to another process, it opens the files again there.
    """

    id: str
    role: Role
    image: np.ndarray
    label: np.ndarray | None
    locations: np.ndarray
    digest: str
    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return open_entry, (self.folder, self.id, self.role)


def write_arrays(
    folder: Path,
    case: Case,
    geometry: Geometry,
    channels: Sequence[ChannelIntensity],
    segments: Sequence[Segment],
    declared: Sequence[Segment],
    make_room: Callable[[int, str], None],
) -> None:
    """Prepare a case and write its arrays into ``folder``; ``make_room(bytes, case id)`` is called before."""
    volumes = read_case(case, len(channels))
    way = NetworkGrid.of(volumes[0].grid, geometry)
    needed = 2 * len(channels) * int(np.prod(way.size))
    label = _label_of(case, way, segments, declared)
    if label is None:
        make_room(needed, case.id)
    else:
        locations = _sample_locations(label, len(segments))
        make_room(needed + label.nbytes + locations.nbytes, case.id)
        with _array_file(folder / "label.npy", np.uint8, label.shape) as file:
            for plane in label:
                file.write(plane.tobytes())
        with _array_file(folder / "locations.npy", np.int32, locations.shape) as file:
            file.write(locations.tobytes())
    with _array_file(folder / "image.npy", np.float16, (len(channels), *way.size)) as file:
        for volume, channel in zip(volumes, channels):
            image = normalize(way.image_to_network(volume.array), channel)
            # Beyond float16's range is an outlier in any case.
            for plane in image:
                file.write(np.clip(plane, -60000, 60000).astype(np.float16).tobytes())


def _label_of(
    case: Case, way: NetworkGrid, segments: Sequence[Segment], declared: Sequence[Segment]
) -> np.ndarray | None:
    if case.label is None or not uses_label(case):
        return None
    label_map = read_case_labels(case, way.source, declared)
    array = conform(label_map.array, label_map.segments, segments, f"Case {case.id}: {case.label.name}")
    return way.labels_to_network(array, len(segments) + 1)


def _sample_locations(label: np.ndarray, classes: int) -> np.ndarray:
    """Return rows (class, x, y, z) of random voxels, the same for the same label."""
    generator = np.random.Generator(np.random.PCG64(0))
    rows = []
    for value in range(1, classes + 1):
        found = np.flatnonzero(label == value)
        if found.size > _LOCATIONS_PER_CLASS:
            found = np.sort(generator.choice(found, _LOCATIONS_PER_CLASS, replace=False))
        where = np.stack([np.full(found.size, value), *np.unravel_index(found, label.shape)], axis=1)
        rows.append(where.astype(np.int32))
    return np.concatenate(rows) if rows else np.zeros((0, 4), np.int32)


def open_entry(folder: Path, case_id: str, role: Role) -> PreparedCase:
    """Map an entry's arrays; raises OSError, ValueError or KeyError where it is missing or damaged."""
    description = json.loads((folder / ENTRY).read_text(encoding="ascii"))
    for name, size in description["sizes"].items():
        if (folder / name).stat().st_size != size:
            msg = f"{name} must have {size} bytes"
            raise ValueError(msg)
    labelled = "label.npy" in description["sizes"]
    return PreparedCase(
        id=case_id,
        role=role,
        image=np.load(folder / "image.npy", mmap_mode="r"),
        label=np.load(folder / "label.npy", mmap_mode="r") if labelled else None,
        # Small: read, since an array without rows cannot be mapped.
        locations=np.load(folder / "locations.npy") if labelled else np.zeros((0, 4), np.int32),
        digest=description["digest"],
        folder=folder,
    )


def write_file(path: Path, content: bytes) -> None:
    """Write a small file down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def uses_label(case: Case) -> bool:
    """Whether the case's label may be looked at: an unlabelled case's never is, even if a file is listed."""
    return case.role in ("labeled", "validation") and case.label is not None


@contextmanager
def _array_file(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[IO[bytes]]:
    """Yield a .npy file to write the array's bytes to. Mapped memory would end the process where the disk is full."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(int(n) for n in shape)}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())
