"""A case in the Segment Editor: volume and segmentation set, shown in the slice views. No widget is known here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import slicer
from CAMLSegmentationLib import SegmentationResult
from slicer.i18n import tr as _

from caml_core.errors import DataError

from . import Candidates, CaseExchange, CaseImages, Predictions, TakenLabels
from .CaseExchange import ACCEPTED, OPENED, WRITTEN
from .Cohort import Cohort


def openCase(cohort: Cohort, case: str) -> tuple[Any, Any]:
    """Return (volume node, segmentation node) of a case, ready to be drawn in; raise CamlError where it cannot be.

    The segmentation is the one in the scene (``Candidates.segmentationNode``), else the accepted label or the label
    file, else a copy of the prediction, else a new one with the cohort's segments. A copy that no hand has touched
    gives way to a newer prediction, and goes where the scan was replaced since: the prediction is of another one
    (``Predictions.outdatedWords``). All its channels are loaded, and the slices show the volume that is drawn on.
    """
    if case not in cohort.project.cases:
        raise DataError(_("There is no case {case} any more; choose another.").format(case=case))
    CaseImages.loadAll(cohort, case)
    volumeNode, known = cohort.volumeNode(case), cohort.project.cases[case]
    node = cohort.segmentationNode(case)
    hasLabel = known.label is not None and os.path.exists(known.label)
    isReplaced = bool(Predictions.outdatedWords(known))
    hasPrediction = known.prediction is not None and os.path.isfile(known.prediction) and not isReplaced
    outdated = (hasPrediction or isReplaced) and not hasLabel and node is not None
    outdated = outdated and _isOldCopy(node, known.prediction if hasPrediction else None)
    if node is not None and (outdated or (hasLabel or hasPrediction) and SegmentationResult.isEmpty(node)):
        SegmentationResult.remove(node)  # opened once and left without a stroke
        node = None
    if node is None:
        for left in [n for n in Candidates.marked(cohort, case) if Candidates.isSuperseded(cohort, case, n)]:
            SegmentationResult.remove(left)
    if node is None and hasLabel:
        node = cohort.loadLabel(case, known.label, volumeNode)
        if known.status == "accepted":
            TakenLabels.remember(node, cohort.project, case, SegmentationResult.fingerprint(node))
    elif node is None and hasPrediction:
        node = Predictions.correction(cohort, case)
        node.SetAttribute(OPENED, SegmentationResult.fingerprint(node))
    elif node is None:
        node = CaseExchange.newSegmentation(volumeNode, case, cohort.project.segments)
        node.SetAttribute(OPENED, SegmentationResult.fingerprint(node))
    Candidates.take(cohort, case, node)
    CaseExchange.addSegments(node, cohort.project.segments)
    show(cohort, case, volumeNode, node)
    return volumeNode, node


def show(cohort: Cohort, case: str, volumeNode: Any, segmentationNode: Any) -> None:
    """Show a case in the slice views with this segmentation alone."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if display is not None and cohort.caseOf(node):
            display.SetVisibility(node is segmentationNode)
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=volumeNode, foreground=None, fit=True)


def channels(cohort: Cohort, case: str) -> tuple[list[str], int]:
    """Return what the channels of an open case are called, and which of them, from 0, is the volume that is drawn on.

    No names where there is one alone.
    """
    found, volumeNode = CaseImages.inScene(cohort, case), cohort.volumeNode(case)
    titles = CaseImages.titles(cohort.project, cohort.project.cases[case])
    own = next((index for index, node in found.items() if node is volumeNode), 0)
    return (titles if len(titles) > 1 else []), own


def showChannel(cohort: Cohort, case: str, index: int) -> None:
    """Let the slices show another channel of an open case, where they are; whatever is drawn, or drawn on, stays.

    One that was removed from the scene since is loaded again; DataError where that cannot be.
    """
    node = CaseImages.loadAll(cohort, case)[index]
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=node)


def nextCases(cohort: Cohort, after: str, ranked: list[str]) -> list[str]:
    """Return the cases without a label in the order in which they come: by rank where there is one, then as listed.

    They begin after the case ``after`` and go round.
    """
    waiting = {c.id for c in cohort.project.with_role("unlabeled") if c.id != after}
    order = [*ranked, *(case for case in cohort.project.cases if case not in ranked)]
    place = order.index(after) + 1 if after in order else 0
    return [case for case in (*order[place:], *order[:place]) if case in waiting]


def _isOldCopy(node: Any, prediction: Path | None) -> bool:
    """Whether a segmentation is as it was copied from a prediction that is not the case's any more; None: none is."""
    isPresent = prediction is not None and node.GetAttribute(WRITTEN) == CaseExchange.writtenAt(prediction)
    if isPresent or node.GetAttribute(ACCEPTED) is not None:
        return False
    return TakenLabels.isAlike(node.GetAttribute(OPENED), SegmentationResult.fingerprint(node))
