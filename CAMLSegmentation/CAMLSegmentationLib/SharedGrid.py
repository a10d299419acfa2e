"""Whether volumes of one case, the channels of a model, lie voxel on voxel: in files, and as the scene shows them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from slicer.i18n import tr as _

from . import Region, VolumeExchange

#: Share of a voxel by which two volumes may lie apart.
_APART = 0.1
#: Along each axis, the parts between the places at which two volumes are compared: warps are smooth.
_PARTS = 8

Place = tuple[float, ...]


def fault(volumeNodes: Sequence[Any]) -> str:
    """Return why volumes cannot be the channels of one case, as one sentence; empty where they can.

    Files cannot hold a transform that warps or shears (``VolumeExchange.worldMatrix``). A volume that it alone brings
    onto another one would lie apart from that again, and nobody would see it.
    """
    if not sameGrid(volumeNodes):
        sentence = _("The channels {names} lie on different grids; resample them onto one grid first.")
    elif not _areNear(volumeNodes, [_shownPlaces(node) for node in volumeNodes]):
        sentence = _(
            "The channels {names} are under different transforms, and one that warps or shears is left out when they "
            "are segmented; harden it, or resample them onto one grid first."
        )
    else:
        return ""
    return sentence.format(names=", ".join(node.GetName() for node in volumeNodes))


def sameGrid(volumeNodes: Sequence[Any]) -> bool:
    """Whether volumes have the same number of voxels in the same places of the world, as they are written to files."""
    sizes = [node.GetImageData().GetDimensions() for node in volumeNodes]
    return len(set(sizes)) == 1 and _areNear(volumeNodes, [_writtenCorners(node) for node in volumeNodes])


def _areNear(volumeNodes: Sequence[Any], places: Sequence[Iterable[Place]]) -> bool:
    """Whether each place (RAS, mm) of the first volume is that of all others."""
    limit = _APART * min(volumeNodes[0].GetSpacing())
    return all(max(values) - min(values) <= limit for points in zip(*places) for values in zip(*points))


def _writtenCorners(volumeNode: Any) -> list[Place]:
    matrix = VolumeExchange.worldMatrix(volumeNode)
    ends = [(0, n - 1) for n in volumeNode.GetImageData().GetDimensions()]
    return [matrix.MultiplyPoint((*corner, 1.0))[:3] for corner in Region.corners(ends)]


def _shownPlaces(volumeNode: Any) -> list[Place]:
    """Where the scene shows voxels of all parts of a volume."""
    steps = [[i * (n - 1) / _PARTS for i in range(_PARTS + 1)] for n in volumeNode.GetImageData().GetDimensions()]
    return VolumeExchange.shownPlaces(volumeNode, itertools.product(*steps))
