"""The models that a training can start from, and the place where those go that it made."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from CAMLSegmentationLib import Models
from CAMLSegmentationLib.Parameters import storedDevice
from slicer.i18n import tr as _

from caml_core.errors import DataError
from caml_core.project.history import Round


def modelChoices() -> list[tuple[str, Path]]:
    """Return (name, file) of the models that a training can start from."""
    return [(entry.name, entry.path) for entry in Models.library().entries() if entry.card is not None]


def modelNamed(name: str) -> Path | None:
    """Return the file of a model by name; None for an empty name, DataError for an unknown one."""
    if not name:
        return None
    found = next((path for title, path in modelChoices() if title == name), None)
    if found is None:
        raise DataError(_("The model {name} is not among the models any more; choose another start.").format(name=name))
    return found


def libraryCopy(found: Round, project: Path) -> Path:
    """Put a round's model into the user's models and return the file; raise CamlError where that cannot be done."""
    # Under a telling name: all rounds call their file model.caml.
    with tempfile.TemporaryDirectory(prefix="caml-") as folder:
        named = Path(folder) / f"{project.name} round {found.number}.caml"
        shutil.copyfile(found.model, named)
        return Models.library().add(named)


def device() -> str:
    """Return the device chosen on this computer."""
    return storedDevice()
