"""Which scan a case is. Two patients' volumes may have one name and one grid, and a mark in a scene says no more.

So a case keeps what its scan was when it was listed, and what is marked in a scene bears the same. It names the scan,
not its present voxels: a scan that was filtered or moved since is still the one that it was.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from typing import Any

from CAMLSegmentationLib import VolumeExchange

from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

from . import CaseExchange

#: Attribute of marked nodes, followed by the project: the scan of their case.
SCAN = CaseExchange.PREFIX + "Scan"


#: Voxels that a name is made of at most. All of twenty large CTs take ten seconds, in which Slicer does not answer.
MOST_VOXELS = 2**18
#: What names of such a sample begin with; no other name does. Earlier projects have names of all voxels.
_SAMPLED = "s"
#: With fewer values than this in an eighth of it a sample says little, as of a mask.
_TELLING = 16


def nameOf(volumeNode: Any) -> str:
    """Return a digest of a volume's voxels and place; for one without voxels, or all of one value, one of its own.

    Of large volumes voxels spread over all of them count.
    """
    if not VolumeExchange.checkVolume(volumeNode):
        import numpy

        voxels = VolumeExchange.voxelsOf(volumeNode)
        step = _step(voxels.shape)
        sample = numpy.ascontiguousarray(voxels.reshape(-1)[::step])
        if step > 1 and numpy.unique(sample[::8]).size >= _TELLING:
            return _SAMPLED + _digest(volumeNode, sample)
    return _nameOfAll(volumeNode)


def _nameOfAll(volumeNode: Any) -> str:
    """Return the digest of all voxels and place, as it was the name of any volume before."""
    if VolumeExchange.checkVolume(volumeNode):
        return uuid.uuid4().hex[:24]
    low, high = volumeNode.GetImageData().GetScalarRange()
    if low == high:
        return uuid.uuid4().hex[:24]  # its voxels tell nothing, or are still to come
    import numpy

    return _digest(volumeNode, numpy.ascontiguousarray(VolumeExchange.voxelsOf(volumeNode)))


def _digest(volumeNode: Any, voxels: Any) -> str:
    matrix, shape = VolumeExchange.worldMatrix(volumeNode), VolumeExchange.voxelsOf(volumeNode).shape
    place = [f"{matrix.GetElement(row, column) + 0.0:.2f}" for row in range(3) for column in range(4)]
    digest = hashlib.blake2b(f"{shape} {' '.join(place)}".replace("-0.00", "0.00").encode(), digest_size=12)
    digest.update(voxels.data)
    return digest.hexdigest()


def _step(shape: tuple[int, ...]) -> int:
    """Return which voxels of [k, j, i] in a row to take, so that they lie in other places of each line."""
    step = math.ceil(math.prod(shape) / MOST_VOXELS)
    while step > 1 and math.gcd(step, shape[-1]) > 1:
        step += 1
    return step


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
    if _isNamedByAll(known, volumeNode) and known.scan == _nameOfAll(volumeNode):
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
    names = {scan}
    if not borne and scan.startswith(_SAMPLED) and any(_isNamedByAll(c, volumeNode) for c in unwritten):
        names.add(_nameOfAll(volumeNode))
    found = [c for c in (project.cases.values() if borne else unwritten) if c.scan in names]
    found += [c for c in unwritten if not c.scan and c.id == name and looksLike(volumeNode, c)]
    return sorted(found, key=lambda c: c.id != name)


def _isNamedByAll(known: ProjectCase, volumeNode: Any) -> bool:
    """Whether a case's scan may be a volume that was named by all of its voxels."""
    size = tuple(int(n) for n in volumeNode.GetImageData().GetDimensions())
    return known.scan != "" and not known.scan.startswith(_SAMPLED) and known.size in (None, size)


def _attribute(project: Project) -> str:
    return f"{SCAN}.{project.id}"
