"""Which segmentation of the scene a case's label was made of, and in which state."""

from __future__ import annotations

from typing import Any

from caml_core.project.project import Project

from .CaseExchange import ACCEPTED, TAKEN


def remember(node: Any, project: Project, case: str, state: str) -> None:
    """Note that the label of a case is this segmentation in this state."""
    node.SetAttribute(ACCEPTED, state)
    node.SetAttribute(TAKEN, labelOf(project, case))


def isLabel(node: Any, project: Project, case: str, state: str) -> bool:
    """Whether a segmentation in ``state`` is what the label of a case holds.

    Another one may have been taken since, the scene may be older than the label, or the node another project's.
    """
    return bool(node.GetAttribute(ACCEPTED) == state and node.GetAttribute(TAKEN) == labelOf(project, case) != "")


def renamed(node: Any, project: Project, case: str, before: str) -> None:
    """Follow a label that was written anew with other names; ``before``: what ``labelOf`` said then."""
    if before and node.GetAttribute(TAKEN) == before:
        node.SetAttribute(TAKEN, labelOf(project, case))


def labelOf(project: Project, case: str) -> str:
    """Return what tells the present label of a case from others; empty where it has none."""
    known = project.cases.get(case)
    return f"{project.id}/{known.label.name}" if known is not None and known.label is not None else ""
