"""The models at hand: those that come with the extension, and the user's own. Standard library only.

A model is one file, so the library is a folder: no index can disagree with it, and a file that a user copies there by
hand is simply found.
"""

from __future__ import annotations

import filecmp
import itertools
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .cache_location import user_models_folder
from .data.files import make_folder, replacing
from .errors import CamlError, ModelFileError, ResourceError, UsageError
from .model_file import ModelCard, read_card

SUFFIX = ".caml"
#: File in the user's folder.
_IDENTITY = ".identity"


@dataclass(frozen=True)
class Entry:
    """One model file. ``card`` is None where the file cannot be used, and ``fault`` is the sentence that says why."""

    card: ModelCard | None
    path: Path
    bundled: bool
    fault: str = ""

    @property
    def name(self) -> str:
        """What a person calls the model: its card's name, else the file's."""
        return (self.card.info.name.strip() if self.card else "") or self.path.stem


class ModelLibrary:
    """Models in the ``bundled`` folders, which are never written to, and in the ``user`` folder.

    user: None for the place that ``user_models_folder`` names. None of the folders has to exist.
    """

    def __init__(self, bundled: Sequence[Path] = (), user: Path | None = None) -> None:
        self.bundled = tuple(Path(folder) for folder in bundled)
        self.user = Path(user) if user is not None else user_models_folder()
        self._read: dict[Path, tuple[tuple[int, int], Entry]] = {}

    def entries(self) -> tuple[Entry, ...]:
        """Return all models by name, unusable files included; only files that changed since the last call are read."""
        found = [*self._folders(), *self._files()]
        self._read = {entry.path: self._read[entry.path] for entry in found if entry.path in self._read}
        return tuple(sorted(found, key=lambda entry: (entry.name.casefold(), not entry.bundled, str(entry.path))))

    def entry(self, path: Path) -> Entry:
        """Return what is known of one file, in the library or not; a file that cannot be used has a fault."""
        path = Path(path)
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size)
        except (OSError, ValueError):
            state = (-1, -1)
        known = self._read.get(path)
        if known is None or known[0] != state:
            known = self._read[path] = (state, self._entry(path))
        return known[1]

    def find(self, source: Path) -> Path | None:
        """Return the model of the library that has the same content as a file; None where there is none."""
        source = Path(source)
        try:
            size = source.stat().st_size
        except OSError:
            return None
        alike = (entry.path for entry in self.entries() if entry.card is not None and entry.card.size == size)
        return next((path for path in alike if _same_content(source, path)), None)

    def identity(self) -> str:
        """Return what tells the user's folder from those of other users and computers; made when first asked for.

        Raises ResourceError where it cannot be written.
        """
        file = self.user / _IDENTITY
        try:
            known = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            known = ""
        if not known:
            known = uuid.uuid4().hex[:12]
            with replacing(file) as temporary:
                temporary.write_text(known + "\n", encoding="utf-8")
        return known

    def add(self, source: Path, name: str = "") -> Path:
        """Copy a model file into the user's folder and return where it lies; a model that is there is left alone.

        name: what to call the copy, without ending; empty: as the file. Raises ModelFileError for a file that is no
        model, ResourceError where it cannot be written.
        """
        source = Path(source)
        read_card(source)
        if any(_is_in(source, folder) for folder in (self.user, *self.bundled)):
            return source
        make_folder(self.user)
        for target in _free_names(self.user, f"{name}{SUFFIX}" if name else source.name):
            if not target.exists():
                return _copy(source, target)
            if target.is_file() and _same_content(source, target):
                return target
        raise AssertionError("there is always another name")

    def export(self, path: Path, destination: Path) -> Path:
        """Copy a model to ``destination``, a file or a folder, for another machine; return the file.

        An older file of that name is replaced. Raises ModelFileError for a file that is no model, UsageError where
        it would replace itself, ResourceError where it cannot be written.
        """
        path, destination = Path(path), Path(destination)
        read_card(path)
        target = destination / path.name if destination.is_dir() else destination
        if target.suffix.lower() != SUFFIX:
            target = target.with_name(target.name + SUFFIX)
        if target.exists() and target.samefile(path):
            raise UsageError(f"{target} is the model itself; choose another file or folder to copy it to.")
        return _copy(path, target)

    def remove(self, path: Path) -> None:
        """Delete a model of the user's folder; raise UsageError for any other, ResourceError where it cannot be."""
        path = Path(path)
        if not _is_in(path, self.user):
            reason = "comes with the extension" if self._is_bundled(path) else f"does not lie in {self.user}"
            raise UsageError(f"The model {path.name} {reason} and is not removed; only your own models can be.")
        try:
            path.unlink()
        except FileNotFoundError as error:
            raise ModelFileError(f"There is no model file {path}; it was removed already.") from error
        except OSError as error:
            message = f"The model file {path} cannot be removed ({error.strerror or error}); close what uses it."
            raise ResourceError(message) from error

    @staticmethod
    def search(entries: Iterable[Entry], text: str) -> tuple[Entry, ...]:
        """Return the entries in which every word of ``text`` occurs, in capitals or not, in their order.

        Looked at: name, anatomy, modality, names of the segments, description and the file's name.
        """
        words = text.casefold().split()
        return tuple(entry for entry in entries if all(word in _searched(entry) for word in words))

    def _files(self) -> Iterator[Entry]:
        for folder in (*self.bundled, self.user):
            for path in _listed(folder):
                if path.suffix.lower() == SUFFIX and not path.name.startswith("."):
                    yield self.entry(path)

    def _folders(self) -> Iterator[Entry]:
        """An entry with a fault for a folder that is there and cannot be looked into."""
        for folder in (*self.bundled, self.user):
            try:
                next(folder.iterdir(), None)
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = error.strerror or error
                fault = f"The folder of models {folder} cannot be read ({reason}); check its permissions."
                yield Entry(None, folder, folder != self.user, fault)

    def _entry(self, path: Path) -> Entry:
        bundled = self._is_bundled(path)
        try:
            return Entry(read_card(path), path, bundled)
        except CamlError as error:
            return Entry(None, path, bundled, str(error))
        except OSError as error:  # removed or locked between two looks
            return Entry(None, path, bundled, f"The model file {path} cannot be read ({error.strerror or error}).")

    def _is_bundled(self, path: Path) -> bool:
        return any(_is_in(path, folder) for folder in self.bundled)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_in(path: Path, folder: Path) -> bool:
    return path.resolve().parent == folder.resolve()


def _free_names(folder: Path, file: str) -> Iterator[Path]:
    """NAME.caml, "NAME (2).caml", ... A leading dot would hide the model."""
    name = file[: -len(SUFFIX)] if file.lower().endswith(SUFFIX) else file
    name = name.lstrip(". ") or "model"
    yield folder / f"{name}{SUFFIX}"
    for number in itertools.count(2):
        yield folder / f"{name} ({number}){SUFFIX}"


def _same_content(a: Path, b: Path) -> bool:
    try:
        return filecmp.cmp(a, b, shallow=False)
    except OSError:
        return False


def _copy(source: Path, target: Path) -> Path:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _searched(entry: Entry) -> str:
    parts = [entry.name, entry.path.name]
    if entry.card is not None:
        info, spec = entry.card.info, entry.card.spec
        parts += [info.anatomy, info.modality, info.description]
        parts += [*(channel.called for channel in spec.channels), *(segment.name for segment in spec.segments)]
    return "\n".join(parts).casefold()
