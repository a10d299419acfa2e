"""Colours of words, which Slicer's light and its dark style both let the user read."""

from __future__ import annotations

import qt
import slicer

_ON_LIGHT = {"good": "#2e7d32", "caution": "#9a5b00", "bad": "#b71c1c"}
_ON_DARK = {"good": "#81c784", "caution": "#ffb74d", "bad": "#ff8a80"}
#: Half of what QColor calls white.
_MIDDLE = 128


def wordColor(meaning: str) -> str:
    """Return the colour, as #rrggbb, of words that say what is "good", a "caution" or "bad", in the style of now."""
    behind = slicer.app.palette().color(qt.QPalette.Base)
    return (_ON_DARK if behind.lightness() < _MIDDLE else _ON_LIGHT)[meaning]
