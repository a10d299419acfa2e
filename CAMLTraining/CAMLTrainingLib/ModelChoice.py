"""The models that a training can start from, and the place where those go that it made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from CAMLSegmentationLib import Models
from CAMLSegmentationLib.Parameters import storedDevice
from slicer.i18n import tr as _

from caml_core.cache_location import user_models_folder
from caml_core.case_names import digest_of
from caml_core.errors import CamlError, DataError
from caml_core.model_file import learned_cases, read_card
from caml_core.project.history import Round
from caml_core.project.project import Project
from caml_core.rounds import listing

#: One for all: it reads only files that changed.
_library: list[Any] = []


def library() -> Any:
    """Return the models at hand."""
    if not _library or _library[0].user != user_models_folder():
        _library[:] = [Models.library()]
    return _library[0]


def modelChoices() -> list[tuple[str, Path]]:
    """Return (title, file) of the models that a training can start from; models of one name are told apart by file."""
    return [(title, path) for title, _name, path in _choices()]


def titleOf(path: Path) -> str:
    """Return the title of a model file, empty for one that is not among the models."""
    return next((title for title, file in modelChoices() if file == path), "")


def startOf(node: Any) -> Path | None:
    """Return the file of the model that parameters name; None for a start from scratch, DataError for one that is gone.

    Titles change as models of the same name come and go: the file's own name, which is kept beside the title, counts
    first, then the title, then the model's name where one model alone has it.
    """
    title, stem = node.startModel, node.startModelFile
    if not title:
        return None
    choices = _choices()
    for found in (
        [p for _title, name, p in choices if p.stem == stem and title in _titles(name, p)],
        [p for known, _name, p in choices if known == title],
        [p for _title, name, p in choices if title in (*_titles(name, p), f"{name} ({stem})")],
    ):
        if len(found) == 1:
            return found[0]
    gone = _("The model {name} is not among the models any more; choose another start.")
    raise DataError(gone.format(name=title))


def setStart(node: Any, title: str) -> None:
    """Name a model in parameters, by its title and its file; an empty title: start from scratch."""
    found = next((path for known, path in modelChoices() if known == title), None)
    node.startModel, node.startModelFile = title, found.stem if found is not None else ""


def settleStart(node: Any) -> str:
    """Name the model that parameters mean as it is titled now; where it is gone, start from scratch and say so."""
    before = node.startModel
    try:
        path = startOf(node)
    except DataError:
        setStart(node, "")
        node.startChosenFor = ""
        return _(
            "The model {name}, which the training was to start from, is not among the models any more: it starts from "
            "scratch now. Choose another start, or open the model in CAML Segmentation again."
        ).format(name=before)
    setStart(node, titleOf(path) if path is not None else "")
    return ""


def _choices() -> list[tuple[str, str, Path]]:
    """(title, name, file) of the models that a training can start from."""
    entries = [entry for entry in library().entries() if entry.card is not None]
    names = Counter(entry.name for entry in entries)
    return [(_titles(e.name, e.path)[names[e.name] > 1], e.name, e.path) for e in entries]


def _titles(name: str, path: Path) -> tuple[str, str]:
    """The titles of a model: where no other has its name, and where one has."""
    return name, f"{name} ({path.stem})"


def learnedBy(model: Path | None, cases: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``cases`` that a model has learnt from; none where it cannot be read, which training will say.

    By name alone: whether another scan bears it now is found by the engine, which reads scans.
    """
    try:
        known = set(learned_cases(read_card(model).info)) if model is not None else set()
    except CamlError:
        return ()
    return tuple(case for case in cases if digest_of(case) in known)


def standing(project: Project, rounds: Sequence[Round]) -> str:
    """Return what the choice of a start is about: the project, and its newest round that has learnt something."""
    return f"{project.id}:{max((found.number for found in rounds if found.finished), default=0)}"


def wasListed(found: Round) -> bool:
    """Whether a panel had a round's model among this computer's models before; the user may have removed it since."""
    return listing.was_listed(found.folder, library())


def wasPut(found: Round) -> bool:
    """Whether a training has put its model among this computer's models by itself."""
    return listing.was_put(found.folder, library())


def noteListed(found: Round) -> None:
    """Remember that a round's model is among this computer's models."""
    listing.note_listed(found.folder, library())


def libraryCopy(found: Round, project: Path) -> Path:
    """Put a round's model into the user's models, where it is not among them, and return the file; raise CamlError."""
    return listing.copied(found.model, listing.title_of(project, found.number), library())


def device() -> str:
    """Return the device chosen on this computer."""
    return storedDevice()
