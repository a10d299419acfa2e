"""Which segmentation of the scene is meant where the label of a case is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from CAMLSegmentationLib import SegmentationResult
from slicer.i18n import tr as _

from caml_core.errors import DataError

from . import CaseExchange, TakenLabels
from .CaseExchange import PREDICTION

if TYPE_CHECKING:
    from .Cohort import Cohort


def marked(cohort: Cohort, case: str) -> list[Any]:
    """Return the segmentations that bear the mark of a case; more than one where it was cloned. Predictions do not."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(PREDICTION) is None and cohort.owns(node, case)]


def ownNode(cohort: Cohort, case: str) -> Any:
    """Return what a hand drew for a case: what bears its mark, else the newest that was drawn on its volume."""
    if found := marked(cohort, case):
        return found[0] if len(found) == 1 else next((n for n in found if not SegmentationResult.isEmpty(n)), found[0])
    volumeNode, onVolume = cohort.volumeNode(case), None
    if volumeNode is None:
        return None
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        ofModel = node.GetAttribute(PREDICTION) is not None or node.GetAttribute(SegmentationResult.MODEL) is not None
        if not ofModel and SegmentationResult.sourceOf(node) is volumeNode and not cohort.caseOf(node):
            onVolume = node
    return onVolume


def checkOne(cohort: Cohort, case: str) -> None:
    """Raise DataError where several segmentations bear the mark of a case and do not hold the same.

    A clone bears the marks of what it was made of, and nobody but the user knows which of them is the draft.
    """
    nodes = marked(cohort, case)
    if len(nodes) < 2:
        return
    filled = [node for node in nodes if not SegmentationResult.isEmpty(node)]
    if len({_content(node) for node in filled}) < 2:
        return
    raise DataError(
        _(
            "Case {case} has {count} segmentations that differ: {names}. Choose the one to take under Segmentation "
            "below the table, or delete the others."
        ).format(case=case, count=len(filled), names=", ".join(node.GetName() for node in filled))
    )


def _content(node: Any) -> tuple[Any, ...]:
    """What two segmentations have in common that would be the same label."""
    names = [name.strip().casefold() for name in CaseExchange.segmentNames(node)]
    return tuple(TakenLabels.filled(SegmentationResult.fingerprint(node))), tuple(names)
