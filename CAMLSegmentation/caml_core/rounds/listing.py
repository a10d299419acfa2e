"""A round's model among the models of this computer: put there once, by the panel or by the training itself.

Standard library only. The marks lie in the round's folder and go by the identity of the list (``ModelLibrary``):
another computer has a list of its own, and a model that the user has removed does not come back by itself.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ResourceError
from ..model_library import ModelLibrary
from .round_folder import RoundFolder

#: The lists that a panel has found the model in, or put it into. An empty file is of a version that did not tell them
#: apart.
_LISTED = "in-models"
#: The lists that the training itself has put the model into; the panel may not know of it yet.
_PUT = "put-into-models"


def title_of(project: Path, number: int) -> str:
    """Return what the file of a round's model is called in the list: in rounds all are model.caml."""
    return f"{project.name} round {number}"


def was_listed(folder: Path, library: ModelLibrary) -> bool:
    """Whether a panel had the model of a round in this list before; the user may have removed it since."""
    known = _marks(folder / _LISTED)
    return known is not None and (not known or _identity(library) in known)


def note_listed(folder: Path, library: ModelLibrary) -> None:
    """Remember that a panel has the model of a round in this list."""
    _mark(folder / _LISTED, library)


def was_put(folder: Path, library: ModelLibrary) -> bool:
    """Whether the training has put its model into this list; the user may have removed it since."""
    return _identity(library) in (_marks(folder / _PUT) or ())


def copied(model: Path, title: str, library: ModelLibrary) -> Path:
    """Return the file of a model in the list, put there as ``title`` where it is not in it.

    Raises ModelFileError where it is no model, ResourceError where the list cannot be written.
    """
    found = library.find(model)
    return found if found is not None else library.add(model, title)


def put_into_models(folder: Path, title: str, library: ModelLibrary) -> None:
    """Put the model of a round that has a result into the list, where it never was before. Raises as ``copied``."""
    files = RoundFolder(folder)
    if files.read_result() is None or not os.path.isfile(files.model):
        return
    if was_listed(folder, library) or was_put(folder, library):
        return
    copied(files.model, title, library)
    _mark(folder / _PUT, library)


def _mark(path: Path, library: ModelLibrary) -> None:
    known, identity = _marks(path) or [], _identity(library)
    if not identity or identity in known:
        return
    try:
        path.write_text("".join(f"{line}\n" for line in (*known, identity)), encoding="utf-8")
    except OSError:
        pass  # a folder that is read-only now: the model is listed all the same


def _marks(path: Path) -> list[str] | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None


def _identity(library: ModelLibrary) -> str:
    """Empty where the folder of models cannot be written."""
    try:
        return library.identity()
    except ResourceError:
        return ""
