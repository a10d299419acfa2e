"""Which segmentation of the scene a case's label was made of, and in which state."""

from __future__ import annotations

from typing import Any

from CAMLSegmentationLib import SegmentationResult

from caml_core.project.project import Project

from .CaseExchange import ACCEPTED, OPENED, TAKEN, WRITTEN


def remember(node: Any, project: Project, case: str, state: str) -> None:
    """Note that the label of a case is this segmentation in this state."""
    node.SetAttribute(ACCEPTED, state)
    node.SetAttribute(TAKEN, labelOf(project, case))


def isLabel(node: Any, project: Project, case: str, state: str) -> bool:
    """Whether a segmentation in ``state`` is what the label of a case holds.

    Another one may have been taken since, the scene may be older than the label, or the node another project's.
    """
    return isAlike(node.GetAttribute(ACCEPTED), state) and node.GetAttribute(TAKEN) == labelOf(project, case) != ""


def beganAs(node: Any, project: Project, case: str, state: str) -> str:
    """Return how the label began that a segmentation in ``state`` is, or would be: as ``Case.label_began`` has it."""
    before = project.cases[case].label_began
    if isLabel(node, project, case, state):
        return before
    if node.GetAttribute(WRITTEN) is None and node.GetAttribute(SegmentationResult.MODEL) is None:
        fromLabel = node.GetAttribute(TAKEN) == labelOf(project, case) != ""
        return "correction" if before and fromLabel else ""
    made = (node.GetAttribute(OPENED), node.GetAttribute(SegmentationResult.STATE))
    return "prediction" if any(isAlike(known, state) for known in made) else "correction"


def isUntouched(node: Any) -> bool:
    """Whether a segmentation is as it was handed to a hand, which has not drawn in it, nor taken it as label."""
    opened = node.GetAttribute(OPENED)
    if opened is None or node.GetAttribute(ACCEPTED) is not None:
        return False
    return isAlike(opened, SegmentationResult.lastFingerprint(node))


def isAlike(before: str | None, state: str) -> bool:
    """Whether two fingerprints, of which the first may not be there, are of the same drawing."""
    return before is not None and filled(before) == filled(state)


def filled(state: str) -> list[str]:
    """What a fingerprint says of segments that are not empty: one that comes or goes empty corrects nothing."""
    return [segment for segment in state.split(";") if segment and not segment.endswith("=empty")]


def renamed(node: Any, project: Project, case: str, before: str) -> None:
    """Follow a label that was written anew with other names; ``before``: what ``labelOf`` said then."""
    if before and node.GetAttribute(TAKEN) == before:
        node.SetAttribute(TAKEN, labelOf(project, case))


def labelOf(project: Project, case: str) -> str:
    """Return what tells the present label of a case from others; empty where it has none."""
    known = project.cases.get(case)
    return f"{project.id}/{known.label.name}" if known is not None and known.label is not None else ""
