"""Loss and validation as Slicer plots: a table node that grows, series and charts that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.project.history import Round

from . import Results

#: Attribute of the nodes, by which they are found again in a loaded scene.
ROLE = "CAMLTraining.Plot"
#: Points of a curve: beyond, every second one is dropped, and those that follow lie as far from each other.
MOST_POINTS = 800
_COLORS = {"caml": (0.12, 0.47, 0.71), "labeled-only": (1.0, 0.5, 0.05)}
_OTHER = (0.45, 0.45, 0.45)


class Curves:
    """The curves of one round: loss and validated Dice over iterations, a line for each part of the round."""

    def __init__(self) -> None:
        self._loss: dict[str, _Line] = {}
        self._dice: dict[str, _Line] = {}
        self._dirty = False

    def clear(self) -> None:
        """Begin anew; the nodes stay."""
        self._loss, self._dice, self._dirty = {}, {}, True

    def onEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Take in an event of a round."""
        part, iteration = str(fields.get("part") or "caml"), float(fields.get("iteration") or 0)
        if kind == "step" and (total := (fields.get("losses") or {}).get("total")) is not None:
            self._loss.setdefault(part, _Line()).append(iteration, float(total))
        elif kind == "validation" and fields.get("dice") is not None:
            self._dice.setdefault(part, _Line()).append(iteration, 100.0 * float(fields["dice"]))
        else:
            return
        self._dirty = True

    def update(self) -> None:
        """Bring the nodes in line; cheap where nothing is new."""
        if not self._dirty:
            return
        self._dirty = False
        for role, title, unit, lines in (
            ("loss", _("Training loss"), _("Loss"), self._loss),
            ("dice", _("Validation"), _("Dice (%)"), self._dice),
        ):
            if lines:
                shown = {_partTitle(p): (_colorOf(p), line.points) for p, line in lines.items()}
                # Validations are few: each is a point of its own.
                _fill(role, title, _("Iteration"), unit, shown, points=role == "dice")


def plotHistory(rounds: Sequence[Round]) -> Any:
    """Show held-out Dice over the rounds, a point for each that was measured; return the chart node, None without."""
    lines: dict[str, tuple[tuple[float, float, float], list[tuple[float, float]]]] = {}
    for name, title in (
        ("caml", _("CAML")),
        ("labeled-only", _("Labels alone")),
        ("start", _("Start model")),
    ):
        measured = ((r.number, Results.measured(r, name)) for r in rounds)
        found = [(float(number), 100.0 * dice) for number, dice in measured if dice is not None]
        if found:
            lines[title] = (_COLORS.get(name, _OTHER), found)
    return _fill("history", _("Rounds"), _("Round"), _("Dice (%)"), lines, points=True) if lines else None


def show(role: str) -> bool:
    """Show a chart ("loss", "dice", "history") in the plot view of Slicer's layout; return whether there is one."""
    chart = _node("vtkMRMLPlotChartNode", role)
    if chart is None:
        return False
    slicer.modules.plots.logic().ShowChartInLayout(chart)
    return True


def chartNode(role: str) -> Any:
    """Return the chart of a role, None where it was not made yet."""
    return _node("vtkMRMLPlotChartNode", role)


class _Line:
    """Points of a curve, as far from each other everywhere; the last one is always the newest."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        self._least = 0.0

    def append(self, x: float, y: float) -> None:
        """Go on, or again from ``x``."""
        points = self.points
        while points and points[-1][0] >= x:  # a resumed run repeats what came after its last save
            points.pop()
        if len(points) > 2 and points[-1][0] - points[-2][0] < self._least:
            points.pop()
        points.append((x, y))
        if len(points) > MOST_POINTS:
            del points[1:-1:2]
            self._least = (points[-1][0] - points[0][0]) / len(points)


def _fill(
    role: str,
    title: str,
    xTitle: str,
    yTitle: str,
    lines: dict[str, tuple[tuple[float, float, float], list[tuple[float, float]]]],
    points: bool = False,
) -> Any:
    chart = _node("vtkMRMLPlotChartNode", role) or _make("vtkMRMLPlotChartNode", role, title)
    modified = chart.StartModify()
    try:
        chart.SetTitle(title)
        chart.SetXAxisTitle(xTitle)
        chart.SetYAxisTitle(yTitle)
        wanted = []
        for name, (color, values) in lines.items():
            key = f"{role}:{name}"
            table = _node("vtkMRMLTableNode", key) or _make("vtkMRMLTableNode", key, f"{title} - {name}")
            _setColumns(table, xTitle, yTitle, values)
            series = _node("vtkMRMLPlotSeriesNode", key) or _makeSeries(key, name, table, xTitle, yTitle, points)
            series.SetColor(*color)
            wanted.append(series.GetID())
        chart.RemoveAllPlotSeriesNodeIDs()
        for identity in wanted:
            chart.AddAndObservePlotSeriesNodeID(identity)
    finally:
        chart.EndModify(modified)
    return chart


def _setColumns(table: Any, xTitle: str, yTitle: str, values: list[tuple[float, float]]) -> None:
    content = vtk.vtkTable()
    for index, name in enumerate((xTitle, yTitle)):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.SetNumberOfValues(len(values))
        for row, value in enumerate(values):
            column.SetValue(row, value[index])
        content.AddColumn(column)
    table.SetAndObserveTable(content)


def _makeSeries(key: str, name: str, table: Any, xTitle: str, yTitle: str, points: bool) -> Any:
    series = _make("vtkMRMLPlotSeriesNode", key, name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(xTitle)
    series.SetYColumnName(yTitle)
    series.SetPlotType(series.PlotTypeScatter)
    series.SetLineStyle(series.LineStyleSolid)
    series.SetMarkerStyle(series.MarkerStyleCircle if points else series.MarkerStyleNone)
    return series


def _make(className: str, key: str, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(className, name)
    node.SetAttribute(ROLE, key)
    return node


def _node(className: str, key: str) -> Any:
    return next((n for n in slicer.util.getNodesByClass(className) if n.GetAttribute(ROLE) == key), None)


def _partTitle(part: str) -> str:
    titles = {"caml": _("CAML"), "labeled-only": _("Labels alone")}
    return titles.get(part, part)


def _colorOf(part: str) -> tuple[float, float, float]:
    return _COLORS.get(part, _OTHER)
