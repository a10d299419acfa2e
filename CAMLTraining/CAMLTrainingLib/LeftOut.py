"""Scans of the scene that belong to another project: they stay out of the one that is opened until the user says so.

A new project begins with all that the scene has; this is about projects that are opened with cases of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import slicer
from CAMLSegmentationLib.SceneVolumes import sceneVolumes
from slicer.i18n import tr as _

from caml_core.project.project import Project

from . import CaseExchange
from .CaseExchange import CASE, EXTRA, LEFT_OUT
from .TrainingTexts import counted

if TYPE_CHECKING:
    from .Cohort import Cohort


def leaveOut(cohort: Cohort, before: Project) -> None:
    """Leave out what other projects have in the scene, and say so; ``before``: the project that was open until now.

    Where that one was never kept anywhere, it merely listed what the user has loaded, and nobody would miss it there.
    """
    project = cohort.project
    if before.folder == project.folder or not Project.exists(project.folder) or not _isKept(before):
        return
    for node in sceneVolumes():
        if _isOthers(node, project) and not _isListed(node, project):
            node.SetAttribute(_attribute(project), before.id)
    if count := len(leftOut(project)):
        cohort.notes.append(
            _(
                "Scans in the scene that belong to another project are left out ({count}). To add them to this one, "
                "press Add Scans of the Scene."
            ).format(count=count)
        )


def isLeftOut(node: Any, project: Project) -> bool:
    """Whether a volume is left out of a project; not where its file was added to the project since."""
    return node.GetAttribute(_attribute(project)) is not None and not _isListed(node, project)


def leftOut(project: Project) -> list[Any]:
    """Return the volumes of the scene that are left out of a project."""
    return [node for node in sceneVolumes() if isLeftOut(node, project)]


def takeOff(cohort: Cohort, cases: Iterable[str]) -> None:
    """Take cases off the list; no file is deleted. What the scene has of them stays, and is left out as another's."""
    project, chosen = cohort.project, set(cases)
    for node in sceneVolumes():
        if cohort.caseOf(node) in chosen or node.GetAttribute(f"{EXTRA}.{project.id}") in chosen:
            cohort.release(node)
            node.RemoveAttribute(f"{EXTRA}.{project.id}")
            node.SetAttribute(_attribute(project), project.id)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if cohort.caseOf(node) in chosen:
            cohort.release(node)
    labels = [case for case in chosen if project.cases[case].has_own_label]
    project.remove(chosen)
    text = counted(
        len(chosen),
        _("{count} case was taken off the list; its files are where they were."),
        _("{count} cases were taken off the list; their files are where they were."),
    )
    if labels:
        text += _(" Labels that were drawn for them are in {folder}.").format(folder=project.folder / "labels")
    cohort.notes.append(text)


def letIn(project: Project) -> None:
    """Leave nothing out any more."""
    for node in leftOut(project):
        node.RemoveAttribute(_attribute(project))


def _attribute(project: Project) -> str:
    return f"{LEFT_OUT}.{project.id}"


def _isKept(project: Project) -> bool:
    """Whether a project is in its folder or, where that is out of reach, has roles that only the scene remembers."""
    return Project.exists(project.folder) or any(case.role != "unlabeled" for case in project.cases.values())


def _isOthers(node: Any, project: Project) -> bool:
    marks = [n for n in node.GetAttributeNames() if n.startswith((f"{CASE}.", f"{EXTRA}.", f"{LEFT_OUT}."))]
    return bool(marks) and not any(name.endswith(f".{project.id}") for name in marks)


def _isListed(node: Any, project: Project) -> bool:
    path = CaseExchange.fileOf(node)
    return path is not None and any(path in case.images for case in project.cases.values())
