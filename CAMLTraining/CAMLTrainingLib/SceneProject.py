"""The project of a scene: how the scene names it, and where it lies now. Either may have been moved, or both together.

Nothing tells that a scene is about to be saved, so what it says of its own folder may be that of an earlier one. Its
project is known by its id wherever it lies.

Scenes are handed on, one patient's to the colleague who asked for it. So a scene names the cases that it shows itself,
and no other patient of the cohort; only a project that is kept in no folder has its whole list there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from caml_core.data.files import absolute, relative_to
from caml_core.locking import is_locked
from caml_core.project.project import FILE, Project

from . import Parameters
from .Cohort import Cohort, defaultFolder
from .TrainingTexts import counted

if TYPE_CHECKING:
    from .Parameters import CAMLTrainingParameterNode


@dataclass(frozen=True)
class Named:
    """What a scene says of its project, read while the scene's own folder was ``root``.

    folder: the project's folder. beside: the same as seen from the scene's. cohort: its list as JSON, with the cases of
    the scene.
    """

    folder: str
    beside: str
    cohort: str
    root: Path | None

    @property
    def id(self) -> str:
        """The project's id; empty where the scene does not know it."""
        return _idIn(self.cohort)


def named(node: CAMLTrainingParameterNode) -> Named:
    """Return what the scene says."""
    return Named(node.projectFolder, node.projectBeside, node.cohort, root())


def note(node: CAMLTrainingParameterNode, cohort: Cohort) -> None:
    """Let the scene name a project, with the cases of the scene.

    A folder of another system stays named until the project is kept in one of this: there alone it can be found.
    """
    at, project = root(), cohort.project
    listed = project.write(cohort.casesInScene() if project.is_kept else None)
    if cohort.sentFrom and not project.is_kept:
        told = (cohort.sentFrom, node.projectBeside, listed)
    else:
        told = (str(project.folder), relative_to(project.folder, at) if at is not None else "", listed)
    if told != (node.projectFolder, node.projectBeside, node.cohort):
        node.projectFolder, node.projectBeside, node.cohort = told


def remembered(told: Named) -> Cohort:
    """Return what a scene remembers of a project that is not found, and say so; raise DataError where it is damaged."""
    folder = Path(told.folder)
    isOurs = folder.is_absolute()  # a path of another system would be taken for one below the working folder
    cohort = Cohort(Project(folder if isOurs else defaultFolder()))
    if told.cohort:
        cohort.project.read(told.cohort, _("The scene"))
    if not isOurs:
        cohort.sentFrom = told.folder
        text = _(
            "The scene comes from another system, where its project is in {named}; the cohort comes from the scene. It "
            "will be kept in {folder}, unless you choose another project folder."
        )
        cohort.notes.append(text.format(named=told.folder, folder=cohort.project.folder))
    elif Project.exists(folder):
        text = _(
            "In {folder} there is another project than the scene's; the cohort comes from the scene. Choose an empty "
            "project folder for it, or the one that it was moved to."
        )
        cohort.notes.append(text.format(folder=folder))
    elif cohort.project.others or any(case.images for case in cohort.project.cases.values()):
        text = _("The project folder {folder} is not there; the cohort comes from the scene.")
        cohort.notes.append(text.format(folder=folder))
    if others := cohort.project.others:
        folder = _("back once the project's folder is chosen, wherever it lies now.")
        what = counted(
            others,
            _("The scene knows its own cases alone; {count} other of the project is not listed, and is"),
            _("The scene knows its own cases alone; {count} others of the project are not listed, and are"),
        )
        cohort.notes.append(f"{what} {folder}")
    return cohort


def left(project: Project, lock: str) -> tuple[str, ...]:
    """Say where the last project is, as a scene that names none does not bring it back; ``lock``: a training's file."""
    folder = Parameters.lastProject()
    if folder is None or folder == project.folder or not Project.exists(folder):
        return ()
    text = _("Your last project is in {folder}; choose it as project folder to go on with it.").format(folder=folder)
    return (text, _("A training is at work there.")) if is_locked(folder / lock) else (text,)


def notOpened(told: Named, project: Project) -> tuple[str, ...]:
    """Say that the project of a scene that was added was not opened; nothing where it names none, or the open one."""
    if not told.folder or told.id == project.id:
        return ()
    text = _(
        "The project of the scene that was added was not opened: there is none in {named}. Its scans are listed in the "
        "open project {folder}; for the roles that they had, close the scene and load that one alone."
    )
    return (text.format(named=told.folder, folder=project.folder),)


def names(told: Named, cohort: Cohort) -> bool:
    """Whether a scene names this very project, in this place."""
    project = cohort.project
    return told.folder in (str(project.folder), cohort.sentFrom or None) and told.id in ("", project.id)


def root() -> Path | None:
    """Return the folder of the scene's own file; while a bundle is read, the one that it is unpacked in."""
    folder = Path(slicer.mrmlScene.GetRootDirectory() or "")
    return folder if folder.is_absolute() else None


def find(told: Named) -> Path | None:
    """Return the folder in which a scene's project lies, None where it is not found.

    Beside the scene's own file it is looked for first: copied with its scene, it belongs to the copy. A folder that
    holds another project by now is none.
    """
    at = root()
    if at is not None and told.beside and _mayBe(at / told.beside, told.id):
        return absolute(at / told.beside)
    if at is not None and told.id:
        for folder in _guesses(told.folder, at):
            if _idOf(folder) == told.id:
                return folder
    return Path(told.folder) if told.folder and _mayBe(Path(told.folder), told.id) else None


def _guesses(folder: str, at: Path) -> Iterator[Path]:
    """Where a project may lie that was moved with its scene: the end of its old path, below a folder of the scene.

    Nearest to the scene first; the path may be one of another system.
    """
    parts = [part for part in re.split(r"[\\/]", folder) if part and not part.endswith(":")]
    for base in (at, *at.parents[:-1]):
        for first in range(len(parts)):
            yield base.joinpath(*parts[first:])


def _mayBe(folder: Path, identity: str) -> bool:
    """Whether a folder holds a project, and none that is known to be another one; early ones have no id."""
    return Project.exists(folder) and (not identity or _idOf(folder) in ("", identity))


def _idOf(folder: Path) -> str:
    try:
        return _idIn((folder / FILE).read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return ""


def _idIn(text: str) -> str:
    try:
        content = json.loads(text)
    except ValueError:
        return ""
    return str(content.get("id") or "") if isinstance(content, dict) else ""
