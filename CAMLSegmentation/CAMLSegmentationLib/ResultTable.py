"""The figures of a result as a table node: volume, surface, parts, and how far both sub-models agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from caml_core.config import Segment

#: Agreement (Dice of one sub-model against the other) below which a segment is flagged. Of left atria, hippocampi and
#: vessel trees that needed correction it finds two thirds and more (docs/benchmarks.md, Quality control).
LOW_AGREEMENT = 0.9
#: Parts that were left out are remarked on from this volume on, the least that two decimals show.
LEAST_REMOVED_ML = 0.01
COLUMNS = ("Segment", "Volume mL", "Surface mm2", "Parts", "Agreement", "Remark")


@dataclass(frozen=True)
class Measures:
    """What the engine reports of a case, by the segments' names. ``agreement`` is empty where one sub-model ran.

    ``removedMl``: what the result lacks of a segment because it lay apart from the rest of it.
    """

    volumesMl: Mapping[str, float] = field(default_factory=dict)
    surfaceMm2: Mapping[str, float] = field(default_factory=dict)
    components: Mapping[str, int] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)
    removedMl: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Measures:
        """Take them from the fields of a ``case`` event."""
        return cls(
            fields.get("volumes_ml") or {},
            fields.get("surface_mm2") or {},
            fields.get("components") or {},
            fields.get("agreement") or {},
            fields.get("removed_ml") or {},
        )


def remark(measures: Measures, name: str) -> str:
    """Return what deserves a look at a segment; empty where nothing does."""
    agreement, removed = measures.agreement.get(name), measures.removedMl.get(name, 0.0)
    if not measures.volumesMl.get(name):
        left = _("all parts left out ({volume} mL)").format(volume=f"{removed:.2f}")
        return left if removed >= LEAST_REMOVED_ML else _("not found")
    remarks = [_("low agreement: check")] if agreement is not None and agreement < LOW_AGREEMENT else []
    if removed >= LEAST_REMOVED_ML:
        remarks.append(_("{volume} mL in other parts left out").format(volume=f"{removed:.2f}"))
    return "; ".join(remarks)


def createTable(name: str) -> Any:
    """Return a new empty table node."""
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", slicer.mrmlScene.GenerateUniqueName(name))


def fillTable(node: Any, segments: Sequence[Segment], measures: Measures) -> None:
    """Write one row a segment into a table node, in place of what it held."""
    table = vtk.vtkTable()
    table.AddColumn(_column(vtk.vtkStringArray(), "Segment", [s.name for s in segments]))
    for title, values in (
        ("Volume mL", measures.volumesMl),
        ("Surface mm2", measures.surfaceMm2),
        ("Parts", measures.components),
    ):
        array = vtk.vtkIntArray() if title == "Parts" else vtk.vtkDoubleArray()
        table.AddColumn(_column(array, title, [values.get(s.name, 0) for s in segments]))
    shares = [measures.agreement.get(s.name) for s in segments]
    table.AddColumn(_column(vtk.vtkDoubleArray(), "Agreement", [float("nan") if v is None else v for v in shares]))
    table.AddColumn(_column(vtk.vtkStringArray(), "Remark", [remark(measures, s.name) for s in segments]))
    node.SetAndObserveTable(table)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)


def rowsOf(node: Any) -> list[tuple[str, ...]]:
    """Return the rows of a table node as texts for display, one a segment."""
    table = node.GetTable()
    return [tuple(_text(title, table.GetValueByName(row, title)) for title in COLUMNS) for row in _rows(table)]


def _rows(table: Any) -> range:
    complete = all(table.GetColumnByName(title) is not None for title in COLUMNS)
    return range(table.GetNumberOfRows() if complete else 0)


def _text(title: str, variant: Any) -> str:
    if title == "Parts":
        return str(variant.ToInt())
    if title in ("Volume mL", "Surface mm2"):
        return f"{variant.ToDouble():.2f}" if title == "Volume mL" else f"{variant.ToDouble():.0f}"
    if title == "Agreement":
        value = variant.ToDouble()
        return "" if value != value else f"{value:.3f}"
    return variant.ToString()


def _column(array: Any, title: str, values: Sequence[Any]) -> Any:
    array.SetName(title)
    array.SetNumberOfValues(len(values))
    for index, value in enumerate(values):
        array.SetValue(index, value)
    return array
