"""What the module remembers in the scene: the choices that belong to the data. The device belongs to the computer and
is kept in the application's settings instead.
"""

from __future__ import annotations

from typing import Annotated

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from .Job import CHOICES, Settings

INPUT_KINDS = ("one", "several", "all", "folder", "sequence")
_DEVICE_KEY = "CAMLSegmentation/Device"


@parameterNodeWrapper
class CAMLSegmentationParameterNode:
    """The panel's state in the scene. ``modelName`` names the model: a path would not travel with the scene.

    modelHash: of its weights, which tells models of one name apart, such as those of a project's rounds; empty in
    scenes of earlier versions.
    inputKind: one of INPUT_KINDS. inputVolumes: the volumes of "several". channelVolumes: those of the second and
    further channels. result: the segmentation shown under Result.
    """

    inputKind: str = "one"
    inputVolume: slicer.vtkMRMLScalarVolumeNode
    inputVolumes: list[slicer.vtkMRMLScalarVolumeNode]
    channelVolumes: list[slicer.vtkMRMLScalarVolumeNode]
    inputSequence: slicer.vtkMRMLSequenceNode
    region: slicer.vtkMRMLMarkupsROINode
    inputFolder: str = ""
    outputFolder: str = ""
    loadResults: bool = False
    modelName: str = ""
    modelHash: str = ""
    quality: str = "balanced"
    subModel: str = "auto"
    parts: str = "auto"
    smallestIslandMl: Annotated[float, WithinRange(0.0, 1000.0)] = 0.0
    fillHoles: bool = False
    disagreement: bool = True
    probability: bool = False
    existing: str = "update"
    result: slicer.vtkMRMLSegmentationNode


def settingsOf(parameterNode: CAMLSegmentationParameterNode) -> Settings:
    """Return the settings of a run; a value that this version does not know becomes the default."""
    known = Settings()
    values = {name: getattr(parameterNode, name) for name in ("fillHoles", "probability")}
    values |= {"disagreement": parameterNode.disagreement, "smallestIslandMl": parameterNode.smallestIslandMl}
    settings = Settings.of(device=storedDevice(), **values)
    for name in CHOICES:
        try:
            settings = Settings.of(**{**vars(settings), name: getattr(parameterNode, name)})
        except ValueError:
            settings = Settings.of(**{**vars(settings), name: getattr(known, name)})
    return settings


def storedDevice() -> str:
    """Return the device chosen on this computer."""
    return str(slicer.util.settingsValue(_DEVICE_KEY, "auto") or "auto")


def storeDevice(name: str) -> None:
    """Remember the device for this computer."""
    slicer.app.userSettings().setValue(_DEVICE_KEY, name)
