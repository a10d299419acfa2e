"""Which scan a case is. Two patients' volumes may have one name and one grid, and a mark in a scene says no more.

So a case keeps what its scan was when it was listed, and what is marked in a scene bears the same. It names the scan,
not its present voxels: a scan that was filtered or moved since is still the one that it was.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import Any

from CAMLSegmentationLib import VolumeExchange

from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

from . import CaseExchange

#: Attribute of marked nodes, followed by the project: the scan of their case.
SCAN = CaseExchange.PREFIX + "Scan"


def nameOf(volumeNode: Any) -> str:
    """Return a digest of a volume's voxels and place; for one without voxels, or all of one value, one of its own."""
    if VolumeExchange.checkVolume(volumeNode):
        return uuid.uuid4().hex[:24]
    low, high = volumeNode.GetImageData().GetScalarRange()
    if low == high:
        return uuid.uuid4().hex[:24]  # its voxels tell nothing, or are still to come
    import numpy

    matrix, voxels = VolumeExchange.worldMatrix(volumeNode), VolumeExchange.voxelsOf(volumeNode)
    place = [f"{matrix.GetElement(row, column) + 0.0:.2f}" for row in range(3) for column in range(4)]
    digest = hashlib.blake2b(f"{voxels.shape} {' '.join(place)}".replace("-0.00", "0.00").encode(), digest_size=12)
    digest.update(numpy.ascontiguousarray(voxels).data)
    return digest.hexdigest()


def borneBy(node: Any, project: Project) -> str:
    """Return the scan that a marked node belongs to; empty where it was marked before scans had names."""
    return node.GetAttribute(_attribute(project)) or ""


def put(node: Any, project: Project, case: str) -> None:
    """Let a node bear the scan of a case."""
    known = project.cases.get(case)
    if known is not None and known.scan:
        node.SetAttribute(_attribute(project), known.scan)
    else:
        forget(node, project)


def forget(node: Any, project: Project) -> None:
    """Let a node bear no scan."""
    node.RemoveAttribute(_attribute(project))


def mayBe(node: Any, project: Project, case: str) -> bool:
    """Whether nothing says that a node belongs to another scan than a case's."""
    known = project.cases.get(case)
    return known is None or borneBy(node, project) in ("", known.scan) or not known.scan


def isKnown(node: Any, project: Project, case: str) -> bool:
    """Whether a node bears the scan of a case, so that nothing needs to be compared."""
    return borneBy(node, project) == project.cases[case].scan != ""


def isAnother(volumeNode: Any, known: ProjectCase) -> bool:
    """Whether a volume that bears no scan can be seen to be another one than a case's. It may read the case's file.

    A scan that was merely moved is the same.
    """
    if CaseExchange.fileOf(volumeNode) in known.images or (known.scan and known.scan == nameOf(volumeNode)):
        return False
    files = [path for path in known.images if os.path.exists(path)]
    if files:
        return not any(CaseExchange.holds(path, volumeNode, anywhere=True) for path in files)
    return bool(known.scan) or not looksLike(volumeNode, known)


def looksLike(volumeNode: Any, known: ProjectCase) -> bool:
    """Whether a volume has the size and spacing that a case's scan had, as far as they are known."""
    size = tuple(int(n) for n in volumeNode.GetImageData().GetDimensions())
    spacing = volumeNode.GetSpacing()
    return known.size in (None, size) and (
        known.spacing is None or all(abs(a - b) < 1e-3 for a, b in zip(known.spacing, spacing))
    )


def waiting(volumeNode: Any, project: Project, scan: str) -> list[ProjectCase]:
    """Return the cases that a volume may be which is no case yet, the one of its name first.

    A scan that bears its name is that case's, as one of a scene older than the list. Otherwise only cases wait that
    were never written, and so have no label that a scan could be given by mistake.
    """
    name, borne = volumeNode.GetName() or "", borneBy(volumeNode, project)
    unwritten = [c for c in project.cases.values() if c.in_scene and not c.images]
    found = [c for c in (project.cases.values() if borne else unwritten) if c.scan == scan]
    found += [c for c in unwritten if not c.scan and c.id == name and looksLike(volumeNode, c)]
    return sorted(found, key=lambda c: c.id != name)


def _attribute(project: Project) -> str:
    return f"{SCAN}.{project.id}"
