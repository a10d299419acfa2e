"""What lies in a folder, asked of the system once: archives have a thousand slices a folder, and network drives.

Standard library only.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .files import has_dicom_mark, labelled_name, mapped_name, volume_stem

#: The table of contents on a DICOM medium, which bears DICOM's mark and is no slice.
_CONTENTS = "DICOMDIR"
#: What is said of a link that leads nowhere; anything else is a fault of the folder or the disk.
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP}
#: Folders that are remembered at a time: those of a patient, not those of an archive.
_REMEMBERED = 64
_SLICES_LOOKED_AT = 5


@dataclass(frozen=True)
class Listing:
    """The names in ``folder``, in order, without hidden ones and those that begin with an underscore.

    ``folders`` and ``files`` are those that are one; links count as what they lead to.
    """

    folder: Path
    names: tuple[str, ...]
    folders: tuple[str, ...]
    files: tuple[str, ...]

    @functools.cached_property
    def labels(self) -> tuple[Path, ...]:
        """The labels among the slices of a folder; a slice is none, whatever its name says."""
        return tuple(p for p in map(self.folder.joinpath, self._volumes) if labelled_name(p) is not None)

    @functools.cached_property
    def maps(self) -> tuple[Path, ...]:
        """What predictions left beside the labels, and is no scan."""
        stems = {volume_stem(label) for label in self.labels}
        named = ((path, mapped_name(path)) for path in map(self.folder.joinpath, self._volumes))
        return tuple(path for path, name in named if name is not None and name in stems)

    @functools.cached_property
    def slices(self) -> tuple[str, ...]:
        """What of the files would be slices, if it is a series: all but labels, their maps, and the medium's table of
        contents.
        """
        others = {path.name for path in (*self.labels, *self.maps)}
        return tuple(name for name in self.files if name.upper() != _CONTENTS and name not in others)

    @functools.cached_property
    def is_series(self) -> bool:
        """Whether the first few slices bear DICOM's mark, and no volume but labels and maps lies beside them.

        Raises OSError where they cannot be read.
        """
        if len(self._volumes) != len(self.labels) + len(self.maps):
            return False
        return any(has_dicom_mark(self.folder / name) for name in self.slices[:_SLICES_LOOKED_AT])

    @functools.cached_property
    def _volumes(self) -> tuple[str, ...]:
        """The files that their names call volumes, and not slices."""
        return tuple(n for n in self.files if not n.lower().endswith(".dcm") and volume_stem(Path(n)) is not None)


Look = Callable[[Path], Listing]


def list_folder(folder: Path) -> Listing:
    """List a folder; raises OSError where it cannot be read, or its files cannot be reached.

    Whether an entry is a file is known from the listing itself; asking for each costs a network drive a second for a
    thousand slices.
    """
    with os.scandir(folder) as found:
        entries = [e for e in found if not e.name.startswith((".", "_"))]
    entries.sort(key=lambda entry: os.path.normcase(entry.name))
    if entries:  # a folder may let itself be listed and not entered
        _is(lambda: bool(entries[0].stat(follow_symlinks=False)))
    return Listing(
        folder,
        tuple(e.name for e in entries),
        tuple(e.name for e in entries if _is(e.is_dir)),
        tuple(e.name for e in entries if _is(e.is_file)),
    )


def remembering() -> Look:
    """Return a ``list_folder`` that remembers the last folders, for one walk: what changes meanwhile is not noticed."""
    return functools.lru_cache(_REMEMBERED)(list_folder)


def _is(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError as error:
        if error.errno in _NOWHERE:
            return False
        raise
