"""Taking a segmentation, or a label file, as the label of a case: what is checked, and what is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from CAMLSegmentationLib import SegmentationResult
from slicer.i18n import tr as _

from caml_core.config import name_key
from caml_core.errors import CamlError, DataError

from . import Candidates, CaseExchange, ScanFiles, TakenLabels

if TYPE_CHECKING:
    from .Cohort import Cohort


def isPrediction(cohort: Cohort, case: str) -> bool:
    """Whether the label of a case is, or would be, what a model has predicted, in which nothing was changed."""
    known = cohort.project.cases.get(case)
    if known is None:
        return False
    if (node := cohort.segmentationNode(case)) is None:
        return known.label_began == "prediction"
    return TakenLabels.beganAs(node, cohort.project, case, SegmentationResult.fingerprint(node)) == "prediction"


def checkMeasures(cohort: Cohort, case: str) -> None:
    """Raise DataError for a validation case whose label is a prediction in which nothing was changed."""
    if isPrediction(cohort, case):
        raise DataError(
            _(
                "Case {case}: its segmentation is what a model predicted, and nothing was changed in it. A model that "
                "is measured by its own prediction scores 100 %: correct it first, or keep another case aside."
            ).format(case=case)
        )


def acceptFile(cohort: Cohort, case: str, role: str) -> tuple[str, ...]:
    """Take the label file of a case as its label, as ``Cohort.useAsLabeled`` does."""
    known = cohort.project.cases[case]
    if known.label is None:
        raise DataError(
            _("Case {case} has no segmentation; press Edit and draw it, or give it a label file.").format(case=case)
            + Candidates.hint(cohort, case)
        )
    if not known.images:  # the label is checked on the scan's file
        cohort.ensureFile(case)
        known = cohort.project.cases[case]
    from caml_core.data.labels import is_segmentation
    from caml_core.project.labels import check_label_file

    settled, listed = cohort.project.values_settled(case), cohort.project.segments
    found = check_label_file(known.as_case, listed, settled)
    if not listed:
        cohort.setSegments([s.name for s in found.segments], found.segments)
    elif not settled and not is_segmentation(known.label) and len(listed) == 1:
        cohort.project.segments = (replace(listed[0], label=found.segments[0].label),)
    names = tuple(s.name for s in found.segments)
    cohort.project.update(case, role=role, status="accepted", segments=names)
    return found.notes + _lacking(cohort, case, names)


def accept(cohort: Cohort, case: str, node: Any, role: str) -> tuple[str, ...]:
    """Take a segmentation of the scene as the label of a case, as ``Cohort.useAsLabeled`` does."""
    from caml_core.project.labels import check_names

    known, state = cohort.project.cases[case], SegmentationResult.fingerprint(node)
    named = [name.strip() for name in CaseExchange.segmentNames(node)]
    asTaken = TakenLabels.isLabel(node, cohort.project, case, state)
    # The state knows no names; of two of one name the empty one is none.
    asTaken = asTaken and list(dict.fromkeys(map(str.casefold, named))) == [s.casefold() for s in known.segments]
    if known.label is not None and os.path.exists(known.label) and asTaken and ScanFiles.areTogether(known):
        check_names(case, named, cohort.project.segments)
        cohort.project.update(case, role=role, status="accepted")
        return ()
    volumeNode = cohort.load(case)
    drawn = CaseExchange.drawnOn(node, volumeNode, case)
    if not drawn.segments:
        raise DataError(
            _("Case {case}: {segmentation} is empty; draw its segments first.").format(
                case=case, segmentation=node.GetName()
            )
            + Candidates.hint(cohort, case)
        )
    check_names(case, [s.name for s in drawn.segments], cohort.project.segments)
    keys = [name_key(segment.name) for segment in drawn.segments]
    if double := next((segment.name for segment in drawn.segments if keys.count(name_key(segment.name)) > 1), ""):
        raise DataError(
            _(
                "Case {case}: two segments are called {name}; make one of both in the Segment Editor (Logical "
                "operators), or give each its own name."
            ).format(case=case, name=double)
        )
    filled = {segment.name.strip().casefold() for segment in drawn.segments}
    empty = [name for name in drawn.empty if name.strip().casefold() not in filled]  # a second one of its name is none
    if empty:
        raise DataError(
            _(
                "Case {case}: the segment {name} is empty; draw it, or remove the segment where the patient does "
                "not have it."
            ).format(case=case, name=empty[0])
        )
    state = SegmentationResult.fingerprint(node)  # voxels may have been made of surfaces meanwhile
    began = TakenLabels.beganAs(node, cohort.project, case, state)
    path = _write(cohort, case, drawn, volumeNode)
    names = tuple(s.name for s in drawn.segments)
    cohort.project.update(case, label=path, role=role, status="accepted", segments=names, label_began=began)
    TakenLabels.remember(Candidates.take(cohort, case, node), cohort.project, case, state)
    return drawn.notes + _lacking(cohort, case, names)


def _write(cohort: Cohort, case: str, drawn: CaseExchange.Drawn, volumeNode: Any) -> Path:
    """Write a label, and its scan where that has to follow, and return the label's file; both or none of them."""
    before = cohort.project.cases[case].images
    try:
        cohort.ensureFile(case, labelFollows=True)
        path = cohort.project.label_path(case)
        CaseExchange.writeLabel(drawn, volumeNode, path)
        if not cohort.project.segments:
            cohort.setSegments([s.name for s in drawn.segments], drawn.segments)
    except CamlError:
        if before:  # an older label lies there
            cohort.project.update(case, images=before)
        raise
    return path


def _lacking(cohort: Cohort, case: str, names: Sequence[str]) -> tuple[str, ...]:
    present = {name.strip().casefold() for name in names}
    lacking = [s.name for s in cohort.project.segments if s.name.casefold() not in present]
    if not lacking:
        return ()
    text = _("Case {case} has no {names}: training takes it that the patient does not have it.")
    return (text.format(case=case, names=", ".join(lacking)),)
