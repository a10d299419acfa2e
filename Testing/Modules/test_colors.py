"""Coloured words can be read in Slicer's light style and in its dark one."""

from __future__ import annotations

import re

import pytest

#: What lies behind text: of the style "Light Slicer", and of "Dark Slicer".
STYLES = {"light": "#ffffff", "dark": "#1e1e1e"}


@pytest.fixture(params=STYLES)
def behind(request):
    """The colour behind text in the style that was chosen."""
    from PySide6 import QtGui, QtWidgets

    before = QtGui.QPalette(QtWidgets.QApplication.palette())
    palette = QtGui.QPalette(before)
    palette.setColor(QtGui.QPalette.Base, QtGui.QColor(STYLES[request.param]))
    QtWidgets.QApplication.setPalette(palette)
    yield STYLES[request.param]
    QtWidgets.QApplication.setPalette(before)


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances, as the web's guidelines on accessibility define it: 1 to 21."""

    def luminance(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("kind", ["fits", "smaller-patch", "does-not-fit", "fault"])
def test_the_verdict_of_the_check_can_be_read(the_training_module, behind, kind):
    from CAMLTrainingLib.Preflight import Verdict, verdictHtml

    (color,) = re.findall(r"color:(#\w{6})", verdictHtml(Verdict(kind, "A sentence.")))
    assert contrast(color, behind) >= 4.5


def test_a_row_with_a_remark_can_be_read(the_segmentation_panel, behind):
    rows = [("Left atrium", "1", "2", "1", "90 %", ""), ("Aorta", "0", "0", "0", "", "nothing found")]
    the_segmentation_panel.result._fillTable(rows)
    item = the_segmentation_panel.ui.measuresTableWidget.item(1, 0)
    assert contrast(item.foreground().color().name(), behind) >= 4.5
