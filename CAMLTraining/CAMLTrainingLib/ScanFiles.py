"""The file of a case's scan: where it is, when it is written anew, and that scan and label always lie in one place.

The engine takes a label that lies whole voxels off its scan for a cropped one, so nobody else would notice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from CAMLSegmentationLib import VolumeExchange
from slicer.i18n import tr as _

from caml_core.errors import DataError
from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

from . import CaseExchange

if TYPE_CHECKING:
    from caml_core.data.grid import Grid

    from .Cohort import Cohort

#: Share of a voxel by which the corners of a label may lie off those of its scan.
_SAME_CORNER = 0.2


def ensure(cohort: Cohort, case: str, labelFollows: bool) -> None:
    """Write the volume of a case that the scene alone has, as ``Cohort.ensureFile`` says."""
    node, known = cohort.volumeNode(case), cohort.project.cases[case]
    path = CaseExchange.fileOf(node) if node is not None else None
    there = bool(known.images) and os.path.exists(known.images[0])
    if there and (node is None or path in known.images or not _isOutdated(cohort.project, known, node, labelFollows)):
        return
    if node is None:
        raise DataError(
            _("The scan of case {case} is neither in the scene nor in a file; load it again, or exclude it.").format(
                case=case
            )
        )
    if known.images and not there and (len(known.images) > 1 or not (labelFollows or _hasLabelAt(known, node))):
        raise DataError(
            _("The scan of case {case} is not there ({path}); point to its folder with Locate.").format(
                case=case, path=known.images[0]
            )
        )
    if path is None:
        cohort.project.check_current()
        path = cohort.project.volume_path(case)
        CaseExchange.writeVolume(node, path)
    outdated: dict[str, Any] = {}
    if known.images:  # what was said of the file of before does not lie on the new one
        outdated = {"prediction": None, "predicted_by": "", "agreement": {}, "volumes_ml": {}}
        outdated |= {"status": ""} if known.status == "predicted" else {}
    cohort.project.update(case, images=(path,), **outdated)


def areTogether(known: ProjectCase) -> bool:
    """Whether the label of a case lies on the grid of its scan's file, as far as both can be read."""
    from caml_core.project.headers import read_grid

    scan = CaseExchange.fileGrid(known.images[0]) if known.images else None
    label = read_grid(known.label) if known.label is not None else None
    return scan is None or label is None or not CaseExchange.gridDifference(scan, label)


def checkTogether(project: Project) -> None:
    """Raise DataError where a label that was drawn here lies elsewhere than its scan, as early versions left some.

    Label files of others may be smaller than their scan, or have other axes; whether they fit is checked elsewhere.
    """
    from caml_core.project.headers import read_grid

    for case in project.with_role("labeled", "validation"):
        if case.label is None or case.label.parent != project.folder / "labels" or not case.images:
            continue
        scan, label = read_grid(case.images[0]), read_grid(case.label)
        if scan is None or label is None or scan.size != label.size:  # the file was cropped since, which does no harm
            continue
        if (difference := CaseExchange.gridDifference(scan, label)) and not _fillOneBox(scan, label):
            raise DataError(
                _(
                    "Case {case}: its label does not lie on its scan ({difference}). Look at both with Edit, and press "
                    "Use as Labeled once they lie in one place; or exclude the case."
                ).format(case=case.id, difference=difference),
                case.id,
            )


def _fillOneBox(first: Grid, second: Grid) -> bool:
    """Whether two grids lie in one place, in whatever order and direction their axes are, which reading puts right."""
    from caml_core.data.io import corners

    gaps = [min(abs(one - other).max() for other in corners(second)) for one in corners(first)]
    return bool(max(gaps) <= _SAME_CORNER * min(second.spacing))


def _isOutdated(project: Project, known: ProjectCase, node: Any, labelFollows: bool) -> bool:
    """Whether a volume that does not come from its case's file is to be written in that file's place.

    A file that the project wrote is as the scan was then: voxels that were changed since do not concern a label, or a
    prediction, of before. Raises DataError for a new label that no file could follow to where it was drawn.
    """
    first, here = known.images[0], VolumeExchange.gridOf(node)
    isOwn = first.parent == project.folder / "volumes"
    there = CaseExchange.fileGrid(first)
    if there is None:
        return not isOwn and (labelFollows or _hasLabelAt(known, node))
    isElsewhere = bool(CaseExchange.gridDifference(there, here))
    if len(known.images) > 1:  # of the others the scene may have none
        if isElsewhere and labelFollows:
            raise DataError(
                _(
                    "Case {case} has several images, and {volume} lies elsewhere in the scene than in its file, where "
                    "the others are. Take it out of its transform; or where that was hardened, remove it from the "
                    "scene and press Edit, which loads it again. Draw the label on it there."
                ).format(case=known.id, volume=node.GetName()),
                known.id,
            )
        return False
    if isElsewhere:
        return labelFollows or _hasLabelAt(known, node)
    return (labelFollows or not isOwn) and not CaseExchange.holds(first, node)


def _hasLabelAt(known: ProjectCase, node: Any) -> bool:
    """Whether the label of a case, if it has one, lies where its volume is in the scene."""
    from caml_core.project.headers import read_grid

    if known.label is None or not os.path.exists(known.label):
        return True
    label = read_grid(known.label)
    return label is not None and not CaseExchange.gridDifference(label, VolumeExchange.gridOf(node))
