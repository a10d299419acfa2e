"""The table of cases: one row each, sorted and filtered by the user. Rows change in place: hundreds stay fluid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import qt
from CAMLSegmentationLib.PlainText import asWritten
from slicer.i18n import tr as _

from caml_core.project.cases import ProjectCase

HEADERS = (
    _("Case"),
    _("Role"),
    _("Status"),
    _("Segments"),
    _("Disagreement"),
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
#: Columns of numbers, one or several between the same signs.
_NUMBERS, _BETWEEN = (4, 6, 7), " x "
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
        header = table.horizontalHeader()
        table.setSortingEnabled(False)  # Qt compares the texts of cells: 9.5 would come after 10.2
        header.setSectionsClickable(True)
        header.setSortIndicatorShown(True)
        header.setSortIndicator(0, qt.Qt.AscendingOrder)
        header.connect("sortIndicatorChanged(int,Qt::SortOrder)", self._onSort)
        table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        table.connect("itemSelectionChanged()", self._onSelected)
        table.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)

    def show(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show one row a case; the first text is the case's id. Selection and scrolling stay."""
        wanted = {row[0]: row for row in rows}
        if wanted == self._shown and list(wanted) == list(self._shown):
            return
        self._arrange(wanted)

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
        wanted = set(cases)
        self._updating = True
        self._selectRows([row for case, row in self._rows().items() if case in wanted])
        self._updating = False
        self._onSelection()

    def _selectRows(self, rows: Iterable[int]) -> None:
        """Select these rows alone. Qt compares each piece with all that are selected, so neighbours go in one."""
        self._table.clearSelection()
        for first, last in _runs(rows):
            self._table.setRangeSelected(qt.QTableWidgetSelectionRange(first, 0, last, len(HEADERS) - 1), True)

    def _rows(self) -> dict[str, int]:
        """Case -> row; sorting moves rows about."""
        found = {}
        for row in range(self._table.rowCount):
            item = self._table.item(row, 0)
            if item is not None:
                found[str(item.data(qt.Qt.UserRole))] = row
        return found

    def _arrange(self, wanted: dict[str, tuple[str, ...]]) -> None:
        """Fill the rows in the order that the header's arrow tells; cases stay selected, or hidden, where they go."""
        self._updating = True
        try:
            before = {row: case for case, row in self._rows().items()}
            selected = {case for row, case in before.items() if self._table.item(row, 0).isSelected()}
            hidden = {case for row, case in before.items() if self._table.isRowHidden(row)}
            order = self._ordered(wanted)
            self._table.rowCount = len(order)
            moved = [row for row, case in enumerate(order) if before.get(row, "") != case]
            for row, case in enumerate(order):
                there = before.get(row, "")
                self._fill(row, wanted[case], self._shown.get(there, ()))
            for row in moved:
                self._table.setRowHidden(row, order[row] in hidden)
            if moved:
                self._selectRows(row for row, case in enumerate(order) if case in selected)
            self._shown = wanted
        finally:
            self._updating = False

    def _ordered(self, wanted: dict[str, tuple[str, ...]]) -> list[str]:
        """The cases by the column of the arrow; those that have nothing there come last, whichever way it points."""
        header = self._table.horizontalHeader()
        column = header.sortIndicatorSection()
        descending = header.sortIndicatorOrder() == qt.Qt.DescendingOrder
        known = [case for case, texts in wanted.items() if texts[column]]
        known.sort(key=lambda case: _key(column, wanted[case][column]), reverse=descending)
        return [*known, *(case for case, texts in wanted.items() if not texts[column])]

    def _fill(self, row: int, texts: tuple[str, ...], before: tuple[str, ...]) -> None:
        for column, text in enumerate(texts):
            if before and before[column] == text:
                continue
            item = self._table.item(row, column)
            if item is None:
                item = qt.QTableWidgetItem(text)
                self._table.setItem(row, column, item)
            else:
                item.setText(text)
            if column == 0:
                item.setData(qt.Qt.UserRole, text)
            item.setToolTip(asWritten(text))

    def _onSort(self) -> None:
        self._arrange(self._shown)

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
        _BETWEEN.join(f"{s:.3g}" for s in case.spacing or ()),
        _BETWEEN.join(str(n) for n in case.size or ()),
    )


def _runs(rows: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last of each run of neighbours."""
    runs: list[tuple[int, int]] = []
    for row in sorted(rows):
        if runs and runs[-1][1] == row - 1:
            runs[-1] = (runs[-1][0], row)
        else:
            runs.append((row, row))
    return runs


def _key(column: int, text: str) -> tuple[float, ...] | str:
    """What a cell is sorted by."""
    return tuple(float(part) for part in text.split(_BETWEEN)) if column in _NUMBERS else text.casefold()
