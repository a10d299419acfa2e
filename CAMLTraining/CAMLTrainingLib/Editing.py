"""A case in the Segment Editor: volume and segmentation set, shown in the slice views. No widget is known here."""

from __future__ import annotations

from typing import Any

import slicer
from CAMLSegmentationLib import SegmentationResult
from slicer.i18n import tr as _

from caml_core.errors import DataError

from . import CaseExchange, Predictions
from .CaseExchange import ACCEPTED, CASE
from .Cohort import Cohort


def openCase(cohort: Cohort, case: str) -> tuple[Any, Any]:
    """Return (volume node, segmentation node) of a case, ready to be drawn in; raise CamlError where it cannot be.

    The segmentation is the one in the scene, else the accepted label or the label file, else a copy of the prediction,
    else a new one with the cohort's segments.
    """
    if case not in cohort.project.cases:
        raise DataError(_("There is no case {case} any more; choose another.").format(case=case))
    volumeNode, known = cohort.load(case), cohort.project.cases[case]
    node = cohort.segmentationNode(case)
    if node is None and known.label is not None and known.label.exists():
        node = CaseExchange.loadLabel(known.label, volumeNode, case, cohort.project.segments)
        if known.status == "accepted":
            node.SetAttribute(ACCEPTED, SegmentationResult.fingerprint(node))
    elif node is None and known.prediction is not None and known.prediction.is_file():
        node = Predictions.correction(cohort, case)
    elif node is None:
        node = CaseExchange.newSegmentation(volumeNode, case, cohort.project.segments)
    node.SetAttribute(CASE, case)
    CaseExchange.addSegments(node, cohort.project.segments)
    show(cohort, case, volumeNode, node)
    return volumeNode, node


def show(cohort: Cohort, case: str, volumeNode: Any, segmentationNode: Any) -> None:
    """Show a case in the slice views with this segmentation alone."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if display is not None and node.GetAttribute(CASE) is not None:
            display.SetVisibility(node is segmentationNode)
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=volumeNode, foreground=None, fit=True)


def nextCase(cohort: Cohort, after: str, ranked: list[str]) -> str:
    """Return the case that comes next: by rank where there is a ranking, else the next one in the list without a label.

    Empty where all are done.
    """
    waiting = [c.id for c in cohort.project.with_role("unlabeled") if c.id != after]
    for case in ranked:
        if case in waiting:
            return case
    order = list(cohort.project.cases)
    later = order[order.index(after) + 1 :] if after in order else order
    return next((case for case in (*later, *order) if case in waiting), "")
