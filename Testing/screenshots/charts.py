"""Slicer's plot nodes as pictures: slicer-core has the nodes but no plot view, so VTK's own chart draws what they say.

Titles, columns, colours, lines and markers come from the nodes, as Slicer's plot view takes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import views
import vtk

_FONT = 13


def save_chart(chart_node: Any, path: Path, size: tuple[int, int]) -> None:
    """Draw a chart node with all its series and write a PNG."""
    view = vtk.vtkContextView()
    window = view.GetRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetSize(*size)
    window.SetMultiSamples(4)
    view.GetRenderer().SetBackground(1.0, 1.0, 1.0)
    chart = vtk.vtkChartXY()
    view.GetScene().AddItem(chart)
    chart.SetTitle(chart_node.GetTitle())
    chart.GetTitleProperties().SetFontSize(_FONT + 3)
    chart.SetShowLegend(chart_node.GetLegendVisibility())
    chart.GetLegend().SetLabelSize(_FONT)
    for axis, title in (
        (vtk.vtkAxis.BOTTOM, chart_node.GetXAxisTitle()),
        (vtk.vtkAxis.LEFT, chart_node.GetYAxisTitle()),
    ):
        _label(chart.GetAxis(axis), title, chart_node.GetGridVisibility())
    for index in range(chart_node.GetNumberOfPlotSeriesNodes()):
        _add(chart, chart_node.GetNthPlotSeriesNode(index))
    views.save_window(window, path)


def _label(axis: Any, title: str, grid: bool) -> None:
    axis.SetTitle(title)
    axis.SetGridVisible(grid)
    axis.GetTitleProperties().SetFontSize(_FONT)
    axis.GetLabelProperties().SetFontSize(_FONT)


def _add(chart: Any, series: Any) -> None:
    """Add one series; all of the module's are scatter plots with lines."""
    table = series.GetTableNode().GetTable()
    plot = chart.AddPlot(vtk.vtkChart.LINE)
    plot.SetInputData(table, series.GetXColumnName(), series.GetYColumnName())
    plot.SetLabel(series.GetName())
    plot.SetColorF(*series.GetColor())
    plot.SetWidth(series.GetLineWidth())
    plot.GetPen().SetLineType(series.GetLineStyle())
    plot.SetMarkerStyle(series.GetMarkerStyle())
    plot.SetMarkerSize(series.GetMarkerSize())
