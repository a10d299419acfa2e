"""Which frame of a volume sequence a node of the scene shows: browsing puts other contents into the very same node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer


@dataclass(frozen=True)
class ShownFrame:
    """``number`` counts from 1; ``value`` is the index value of the frame, such as its time."""

    number: int
    value: str


def shownFrame(node: Any) -> ShownFrame | None:
    """Return the frame that a node shows at this moment, None for a node that no browser of sequences fills."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.GetSequenceNode(node) is None:
            continue
        first, item = browser.GetMasterSequenceNode(), browser.GetSelectedItemNumber()
        if first is not None and 0 <= item < first.GetNumberOfDataNodes():
            return ShownFrame(item + 1, first.GetNthIndexValue(item))
    return None
