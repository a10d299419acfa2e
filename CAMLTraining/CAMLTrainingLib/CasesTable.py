"""The table of cases: one row each, sorted and filtered by the user. Rows change in place: hundreds stay fluid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from caml_core.project.cases import ProjectCase

HEADERS = (
    _("Case"),
    _("Role"),
    _("Status"),
    _("Segments"),
    _("Uncertainty"),
    _("Segmentation"),
    _("Spacing (mm)"),
    _("Size"),
)
ROLE_TITLES = {
    "labeled": _("Labeled"),
    "unlabeled": _("Unlabeled"),
    "validation": _("Validation"),
    "excluded": _("Excluded"),
}
STATUS_TITLES = {"": "", "edited": _("edited"), "predicted": _("predicted"), "accepted": _("accepted")}
_ROW_HEIGHT = 24
_WIDTHS = (110, 75, 70, 90, 95, 120, 110, 100)


class CasesTable:
    """Shows cases in a QTableWidget; ``onSelection`` is called when other rows are selected, ``onOpen`` for a double
    click on a case.
    """

    def __init__(self, table: Any, onSelection: Callable[[], None], onOpen: Callable[[str], None]) -> None:
        self._table, self._onSelection, self._onOpen = table, onSelection, onOpen
        self._shown: dict[str, tuple[str, ...]] = {}
        self._updating = False
        table.columnCount = len(HEADERS)
        table.setHorizontalHeaderLabels(list(HEADERS))
        table.verticalHeader().hide()
        for column, width in enumerate(_WIDTHS):
            table.setColumnWidth(column, width)
        table.setSortingEnabled(True)
        table.sortByColumn(0, qt.Qt.AscendingOrder)
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        table.connect("itemSelectionChanged()", self._onSelected)
        table.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)

    def show(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show one row a case; the first text is the case's id. Selection and scrolling stay."""
        wanted = {row[0]: row for row in rows}
        if wanted == self._shown and list(wanted) == list(self._shown):
            return
        self._updating = True
        self._table.setSortingEnabled(False)  # a row that is sorted while it is filled is filled in two places
        try:
            where = self._rows()
            for index in sorted((i for case, i in where.items() if case not in wanted), reverse=True):
                self._table.removeRow(index)
            where = self._rows()
            for case, texts in wanted.items():
                if case not in where:
                    where[case] = self._table.rowCount
                    self._table.insertRow(where[case])
                    self._fill(where[case], texts, ())
                elif texts != self._shown.get(case):
                    self._fill(where[case], texts, self._shown.get(case, ()))
            self._shown = wanted
        finally:
            self._table.setSortingEnabled(True)
            self._updating = False

    def filter(self, text: str, role: str) -> None:
        """Hide the rows in which not every word of ``text`` occurs, or that have another role; empty: any."""
        words, title = text.casefold().split(), ROLE_TITLES.get(role, "")
        for case, row in self._rows().items():
            texts = self._shown[case]
            fits = all(any(word in cell.casefold() for cell in texts) for word in words)
            self._table.setRowHidden(row, not (fits and title in ("", texts[1])))

    def selected(self) -> list[str]:
        """Return the ids of the selected cases that are shown, in the order of the rows."""
        return [
            case
            for case, row in sorted(self._rows().items(), key=lambda pair: pair[1])
            if self._table.item(row, 0).isSelected() and not self._table.isRowHidden(row)
        ]

    def select(self, cases: Sequence[str]) -> None:
        """Select these cases and no others."""
        self._updating = True
        self._table.clearSelection()
        for case, row in self._rows().items():
            if case in cases:
                for column in range(len(HEADERS)):
                    self._table.item(row, column).setSelected(True)
        self._updating = False
        self._onSelection()

    def _rows(self) -> dict[str, int]:
        """Case -> row; sorting moves rows about."""
        found = {}
        for row in range(self._table.rowCount):
            item = self._table.item(row, 0)
            if item is not None:
                found[str(item.data(qt.Qt.UserRole))] = row
        return found

    def _fill(self, row: int, texts: tuple[str, ...], before: tuple[str, ...]) -> None:
        for column, text in enumerate(texts):
            if before and before[column] == text:
                continue
            item = self._table.item(row, column)
            if item is None:
                item = qt.QTableWidgetItem(text)
                if column == 0:
                    item.setData(qt.Qt.UserRole, text)
                self._table.setItem(row, column, item)
            else:
                item.setText(text)
            item.setToolTip(text)

    def _onSelected(self) -> None:
        if not self._updating:
            self._onSelection()

    def _onDoubleClicked(self, row: int, column: int) -> None:
        item = self._table.item(row, 0)
        if item is not None:
            self._onOpen(str(item.data(qt.Qt.UserRole)))


def rowOf(case: ProjectCase, segmentation: str) -> tuple[str, ...]:
    """Return the texts of a case's row. ``segmentation``: the name of its segmentation in the scene."""
    uncertainty = case.uncertainty
    return (
        case.id,
        ROLE_TITLES[case.role],
        STATUS_TITLES[case.status],
        ", ".join(case.segments),
        "" if uncertainty is None else f"{uncertainty:.3f}",
        segmentation or (case.label.name if case.label is not None else ""),
        " x ".join(f"{s:.3g}" for s in case.spacing or ()),
        " x ".join(str(n) for n in case.size or ()),
    )
