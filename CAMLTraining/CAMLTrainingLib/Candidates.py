"""Which segmentation of the scene is meant where the label of a case is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import slicer
from CAMLSegmentationLib import SceneVolumes, SegmentationResult
from slicer.i18n import tr as _

from caml_core.errors import DataError

from . import CaseExchange, TakenLabels
from .CaseExchange import ACCEPTED, PREDICTION

if TYPE_CHECKING:
    from .Cohort import Cohort


def marked(cohort: Cohort, case: str) -> list[Any]:
    """Return the segmentations that bear the mark of a case; more than one where it was cloned. Predictions do not."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node.GetAttribute(PREDICTION) is None and cohort.owns(node, case)]


def ownNode(cohort: Cohort, case: str) -> Any:
    """Return what a hand drew for a case: what bears its mark, else the newest that was drawn on its volume.

    One that is empty counts only where nothing was drawn in the others.
    """
    if found := marked(cohort, case):
        return _firstFilled(found)
    volumeNode, onVolume = cohort.volumeNode(case), []
    if volumeNode is None:
        return None
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        ofModel = node.GetAttribute(PREDICTION) is not None or node.GetAttribute(SegmentationResult.MODEL) is not None
        if not ofModel and SegmentationResult.sourceOf(node) is volumeNode and not cohort.caseOf(node):
            onVolume.insert(0, node)
    return _firstFilled(onVolume) if onVolume else None


def segmentationNode(cohort: Cohort, case: str) -> Any:
    """Return the segmentation that is taken as the label of a case: what a hand drew, or the one that it corrected.

    What a model made counts where a hand has changed it, the case has no label, and nothing was drawn for it. What was
    opened once and left without a stroke counts for nothing beside a label, or a label file.
    """
    own, found = ownNode(cohort, case), corrected(cohort, case)
    if len(found) == 1 and (own is None or hasNothingOfAHand(own)):
        return found[0]
    return None if own is not None and isSuperseded(cohort, case, own) else own


def isSuperseded(cohort: Cohort, case: str, node: Any) -> bool:
    """Whether a case has a label, or a label file, beside a segmentation that was opened and left without a stroke."""
    known = cohort.project.cases.get(case)
    label = known.label if known is not None else None
    return label is not None and TakenLabels.isUntouched(node) and os.path.exists(label)


def corrected(cohort: Cohort, case: str) -> list[Any]:
    """Return predictions of a case and results of CAML Segmentation on its volume that a hand has changed.

    None where the case has a label, or a label file: those a user compares with what models make.
    """
    known, volumeNode = cohort.project.cases.get(case), cohort.volumeNode(case)
    if known is None or known.label is not None or volumeNode is None:
        return []
    return [node for node in _ofModels(cohort, case, volumeNode) if _isCorrected(node)]


def names(cohort: Cohort) -> dict[str, str]:
    """Return case -> name of its segmentation in the scene; one pass, where a search a case would take its time."""
    volumes = {node.GetID(): case for node in SceneVolumes.sceneVolumes() if (case := cohort.caseOf(node))}
    found: dict[str, list[Any]] = {}
    drawn: dict[str, list[Any]] = {}
    changed: dict[str, list[Any]] = {}
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        case, isPrediction = cohort.caseOf(node), node.GetAttribute(PREDICTION) is not None
        on = volumes.get(node.GetNodeReferenceID(role) or "", "")
        if case and not isPrediction:
            found.setdefault(case, []).append(node)
        elif on and not isPrediction and node.GetAttribute(SegmentationResult.MODEL) is None:
            drawn.setdefault(on, []).insert(0, node)
        elif on and case in ("", on) and cohort.project.cases[on].label is None and _isCorrected(node):
            changed.setdefault(on, []).append(node)
    chosen = {case: nodes[0] for case, nodes in changed.items() if len(nodes) == 1}
    for case, nodes in {**drawn, **found}.items():
        own = _firstFilled(nodes)
        if not (isSuperseded(cohort, case, own) or (case in chosen and hasNothingOfAHand(own))):
            chosen[case] = own
    return {case: node.GetName() for case, node in chosen.items()}


def take(cohort: Cohort, case: str, node: Any) -> Any:
    """Mark a segmentation as that of a case, in place of others that bore its mark, and return it.

    A prediction that a hand has corrected is that hand's work from now on.
    """
    if node.GetAttribute(PREDICTION) is not None:
        node.RemoveAttribute(PREDICTION)
        node.SetName(_("{case} corrected").format(case=case))
    elif cohort.owns(node, case):
        return node
    for other in marked(cohort, case):
        if other is not node:
            cohort.release(other)
    return cohort.mark(node, case)


def hint(cohort: Cohort, case: str) -> str:
    """Say which segmentations of the scene could be chosen for a case that has none; empty, or with a space before."""
    volumeNode = cohort.volumeNode(case)
    if volumeNode is None:
        return ""
    found, made = corrected(cohort, case), _ofModels(cohort, case, volumeNode)
    loose = [node for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if _isLoose(cohort, node)]
    texts = []
    if found:
        texts.append(
            _("Of what models made for it {names} were changed by hand: choose one under Segmentation below the table.")
        )
    elif made:
        texts.append(
            _(
                "In what a model made for it nothing was changed by hand ({names}): correct it, or choose it under "
                "Segmentation below the table."
            )
        )
    lists = [found or made] if texts else []
    if loose:
        texts.append(
            _(
                "Segmentations of no scan in the scene: {names}. If one of them is this case's, choose it under "
                "Segmentation below the table."
            )
        )
        lists.append(loose)
    return "".join(f" {text.format(names=_some(nodes))}" for text, nodes in zip(texts, lists))


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


def _ofModels(cohort: Cohort, case: str, volumeNode: Any) -> list[Any]:
    """The predictions of a case, and the results of CAML Segmentation on its volume that are no case's."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if node.GetAttribute(PREDICTION) is not None:
            isOurs = cohort.owns(node, case)
        else:
            isResult = node.GetAttribute(SegmentationResult.MODEL) is not None and not cohort.caseOf(node)
            isOurs = isResult and SegmentationResult.sourceOf(node) is volumeNode
        if isOurs:
            found.append(node)
    return found


def _isCorrected(node: Any) -> bool:
    """Whether a hand has changed what a model made, and left something of it."""
    made = node.GetAttribute(SegmentationResult.STATE)
    if made is None or not node.GetSegmentation().GetNumberOfSegments():
        return False
    now = TakenLabels.filled(SegmentationResult.lastFingerprint(node))
    return bool(now) and now != TakenLabels.filled(made)


def hasNothingOfAHand(node: Any) -> bool:
    """Whether a segmentation is empty, or was opened for a hand and never drawn in, and is no label."""
    if node.GetAttribute(ACCEPTED) is not None:
        return False
    return SegmentationResult.isEmpty(node) or TakenLabels.isUntouched(node)


def _firstFilled(nodes: Sequence[Any]) -> Any:
    """The first of some segmentations that is not empty, the first of all where all are."""
    return nodes[0] if len(nodes) == 1 else next((n for n in nodes if not SegmentationResult.isEmpty(n)), nodes[0])


def _isLoose(cohort: Cohort, node: Any) -> bool:
    """Whether a segmentation holds something and belongs to no scan, as one that was loaded from its file."""
    ofModel = node.GetAttribute(PREDICTION) is not None or node.GetAttribute(SegmentationResult.MODEL) is not None
    if ofModel or cohort.caseOf(node) or not node.GetSegmentation().GetNumberOfSegments():
        return False
    source = SegmentationResult.sourceOf(node)
    return source is None or not cohort.caseOf(source)


def _some(nodes: Sequence[Any]) -> str:
    names = [node.GetName() for node in nodes]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
