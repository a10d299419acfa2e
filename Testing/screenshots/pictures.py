"""What the pictures of both modules share: where they go, panels as wide as in Slicer, pictures put together."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
OUTPUT = REPOSITORY / "Resources" / "Screenshots"
#: As wide as the module panel is in Slicer.
PANEL_WIDTH = 450
#: Below the last thing in a panel.
MARGIN = 22


def save_panel(widget: Any, name: str) -> None:
    """Take a picture of a module's panel, as wide as it is in Slicer and no higher than what it shows."""
    from SlicerHost import proxy, qt_module

    native = proxy.to_native(widget.uiWidget).window()
    for _ in range(3):  # a window that is not shown is laid out as it is grabbed
        qt_module.process_events()
        native.grab()
        native.resize(PANEL_WIDTH, native.sizeHint().height())
    _without_foot(native.grab().toImage()).save(str(OUTPUT / f"{name}.png"))


def save_slices(slices: Sequence[Any], name: str) -> None:
    """Put the slice views side by side into one picture."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index}.png" for index in range(len(slices))]
        for view, path in zip(slices, paths, strict=True):
            view.save(path)
        row([read(path) for path in paths]).save(str(OUTPUT / f"{name}.png"))


def read(path: Path) -> Any:
    """Return a picture of a file."""
    from PySide6 import QtGui

    return QtGui.QImage(str(path))


def row(pictures: Sequence[Any]) -> Any:
    """Return pictures side by side, their tops in line; below shorter ones their own ground goes on."""
    return _joined(pictures, across=True)


def column(pictures: Sequence[Any]) -> Any:
    """Return pictures one below the other."""
    return _joined(pictures, across=False)


def scaled(picture: Any, width: int) -> Any:
    """Return a picture of another width, its proportions kept."""
    from PySide6 import QtCore

    return picture.scaledToWidth(width, QtCore.Qt.SmoothTransformation)


def _without_foot(picture: Any) -> Any:
    """Cut off what is empty at the foot, but for a margin."""
    width, height = picture.width(), picture.height()
    ground = picture.pixel(0, height - 1)
    empty = height
    while empty and all(picture.pixel(x, empty - 1) == ground for x in range(width)):
        empty -= 1
    return picture.copy(0, 0, width, min(height, empty + MARGIN))


def _joined(pictures: Sequence[Any], across: bool) -> Any:
    from PySide6 import QtGui

    widths, heights = [p.width() for p in pictures], [p.height() for p in pictures]
    size = (sum(widths), max(heights)) if across else (max(widths), sum(heights))
    joined = QtGui.QImage(*size, QtGui.QImage.Format_RGB32)
    painter, place = QtGui.QPainter(joined), 0
    for picture in pictures:
        corner = (place, 0) if across else (0, place)
        painter.fillRect(*corner, *size, picture.pixelColor(0, picture.height() - 1))
        painter.drawImage(*corner, picture)
        place += picture.width() if across else picture.height()
    painter.end()
    return joined
