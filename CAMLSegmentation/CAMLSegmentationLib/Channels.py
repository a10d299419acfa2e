"""What the channels of a model are called, and for which first volume those of the further ones were chosen.

Another patient's volumes must not stay with the next one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from caml_core.config import ChannelIntensity

from .PlainText import asWritten

#: Levels of the subject hierarchy below which everything is of one patient.
_OF_ONE_PATIENT = ("Patient", "Study")


def rowTexts(channels: Sequence[ChannelIntensity], index: int) -> tuple[str, str]:
    """Return label and tooltip of the row in which the volume of a channel is chosen. ``channels``: all of a model."""
    if len(channels) < 2:
        return _("Volume:"), ""
    title = channels[index].title
    if index:
        label = _("Channel {number} ({title}):").format(number=index + 1, title=title or channels[index].modality)
    else:
        label = _("Volume, channel 1 ({title}):").format(title=title) if title else _("Volume, channel 1:")
    text = _("The model was trained on several images of each case; choose this one's volume.")
    if title:
        text = _("The model was trained on several images of each case; choose the one that is {title}.")
    return asWritten(label), asWritten(text.format(title=title))


class FurtherChannels:
    """Follows ``channelVolumes`` of a parameter node as its ``inputVolume`` changes."""

    def __init__(self) -> None:
        #: Index in channelVolumes -> the id of the volume that is chosen there, and of the first one at that time.
        self._chosen: dict[int, tuple[str, str]] = {}

    def forget(self) -> None:
        """Take what a parameter node says next for chosen together, as that of a loaded scene is."""
        self._chosen = {}

    def follow(self, parameterNode: Any) -> None:
        """Note what is new; clear volumes that lie in another study (or folder) than a first volume that was changed.

        Where one of both lies in none, nothing tells whether they belong together: the volume stays, ``left`` names it.
        """
        first, volumes = parameterNode.inputVolume, list(parameterNode.channelVolumes)
        if first is None:
            return
        for index, volume in enumerate(volumes):
            known = self._chosen.get(index, ("", ""))
            if volume is None or known[0] != volume.GetID() or not known[1]:
                self.confirm(index, volume, first)
            elif known[1] != first.GetID() and _areApart(volume, first):
                volumes[index] = None
                self.confirm(index, None, first)
        if any(before is not after for before, after in zip(parameterNode.channelVolumes, volumes, strict=True)):
            parameterNode.channelVolumes = volumes

    def confirm(self, index: int, volume: Any, first: Any) -> None:
        """The user has chosen this volume for the first one that is chosen now."""
        self._chosen[index] = (volume.GetID() if volume is not None else "", first.GetID() if first is not None else "")

    def left(self, parameterNode: Any, count: int) -> list[Any]:
        """Return those of the first ``count`` further volumes that were chosen for another first volume."""
        first, volumes = parameterNode.inputVolume, list(parameterNode.channelVolumes)[:count]
        if first is None:
            return []
        left = []
        for index, volume in enumerate(volumes):
            known = self._chosen.get(index)
            same = volume is not None and known is not None and known[0] == volume.GetID()
            if same and known[1] != first.GetID() and not _areTogether(volume, first):
                left.append(volume)
        return left

    def caution(self, parameterNode: Any, count: int) -> str:
        """Return what is to be looked at before Apply, as one sentence; empty where nothing is."""
        left = self.left(parameterNode, count)
        if not left:
            return ""
        text = _("{volumes} stayed from before; check that this is the case of {first}, or choose again.")
        return text.format(volumes=", ".join(v.GetName() for v in left), first=parameterNode.inputVolume.GetName())


def _parent(node: Any) -> int:
    """The study, patient or folder in which a volume lies; 0 where it lies in none."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    parent = hierarchy.GetItemParent(item) if item else 0
    return int(parent) if parent and parent != hierarchy.GetSceneItemID() else 0


def _areApart(one: Any, other: Any) -> bool:
    parents = {_parent(one), _parent(other)}
    return len(parents) == 2 and 0 not in parents


def _areTogether(one: Any, other: Any) -> bool:
    """A folder may hold several patients."""
    parent = _parent(one)
    if not parent or parent != _parent(other):
        return False
    level = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene).GetItemLevel(parent)
    return level in _OF_ONE_PATIENT
