"""The models that a training can start from, and the place where those go that it made."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from CAMLSegmentationLib import Models
from CAMLSegmentationLib.Parameters import storedDevice
from slicer.i18n import tr as _

from caml_core.cache_location import user_models_folder
from caml_core.data.files import disk_error
from caml_core.errors import DataError
from caml_core.project.history import Round

#: One for all: it reads only files that changed.
_library: list[Any] = []


def library() -> Any:
    """Return the models at hand."""
    if not _library or _library[0].user != user_models_folder():
        _library[:] = [Models.library()]
    return _library[0]


def modelChoices() -> list[tuple[str, Path]]:
    """Return (title, file) of the models that a training can start from; models of one name are told apart by file."""
    entries = [entry for entry in library().entries() if entry.card is not None]
    names = Counter(entry.name for entry in entries)
    return [(f"{e.name} ({e.path.stem})" if names[e.name] > 1 else e.name, e.path) for e in entries]


def titleOf(path: Path) -> str:
    """Return the title of a model file, empty for one that is not among the models."""
    return next((title for title, file in modelChoices() if file == path), "")


def modelNamed(title: str) -> Path | None:
    """Return the file of a model by title; None for an empty title, DataError for an unknown one."""
    if not title:
        return None
    found = next((path for known, path in modelChoices() if known == title), None)
    if found is None:
        gone = _("The model {name} is not among the models any more; choose another start.")
        raise DataError(gone.format(name=title))
    return found


def libraryCopy(found: Round, project: Path) -> Path:
    """Put a round's model into the user's models and return the file; raise CamlError where that cannot be done."""
    # Under a telling name: all rounds call their file model.caml.
    with tempfile.TemporaryDirectory(prefix="caml-") as folder:
        named = Path(folder) / f"{project.name} round {found.number}.caml"
        try:
            shutil.copyfile(found.model, named)
        except OSError as error:
            raise disk_error(error, named) from error
        added: Path = library().add(named)
        return added


def device() -> str:
    """Return the device chosen on this computer."""
    return storedDevice()
