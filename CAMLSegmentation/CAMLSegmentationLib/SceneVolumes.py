"""Which volumes of the scene are scans."""

from __future__ import annotations

from typing import Any

import slicer

from . import SegmentationResult


def isScan(node: Any) -> bool:
    """Whether a volume node is a grey-value volume that is no map of ours."""
    plain = node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
    return plain and node.GetAttribute(SegmentationResult.MAP) is None


def sceneVolumes() -> list[Any]:
    """Return the grey-value volumes of the scene that a user can see; label maps and our own maps are none."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isScan(node)]
