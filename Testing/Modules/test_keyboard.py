"""The panels without a mouse."""

from __future__ import annotations

import pytest


@pytest.fixture
def tables(the_segmentation_panel, the_training_module):
    """The tables of both panels, with rows, as Qt has them."""
    from PySide6 import QtWidgets
    from SlicerHost.proxy import to_native

    buttons = (the_segmentation_panel.ui.applyButton, the_training_module.ui.trainButton)
    windows = [to_native(button).window() for button in buttons]
    found = [table for window in windows for table in window.findChildren(QtWidgets.QTableWidget)]
    assert len({table.objectName() for table in found}) == 4
    shown = [part for table in found for part in _above(table) if part.isHidden()]
    for part in shown:  # Qt hands no key on to what is folded away
        part.setVisible(True)
    yield found
    for part in shown:
        part.setVisible(False)


def _above(widget):
    while widget is not None:
        yield widget
        widget = widget.parentWidget()


def test_the_tab_key_leaves_every_table(tables):
    from PySide6 import QtCore
    from PySide6.QtTest import QTest

    for table in tables:
        table.setRowCount(3)
        table.setColumnCount(max(table.columnCount(), 2))
        table.setCurrentCell(0, 0)
        for key in (QtCore.Qt.Key_Tab, QtCore.Qt.Key_Backtab):
            QTest.keyClick(table, key)
            assert (table.currentRow(), table.currentColumn()) == (0, 0), table.objectName()
        QTest.keyClick(table, QtCore.Qt.Key_Down)
        assert table.currentRow() == 1, "arrows go through its rows"
