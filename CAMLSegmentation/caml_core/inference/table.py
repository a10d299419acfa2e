"""The table of a folder's results: a row a case, and what earlier runs wrote of other cases stays in it."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.cells import csv_text, unguarded
from ..data.files import replacing

if TYPE_CHECKING:
    from .batch import CaseResult

NAME = "predictions.csv"
_FIRST, _LAST = ("case", "output"), ("agreement", "seconds", "error")
#: Before the error, where a case has one.
_REMARK = "remark"


@dataclass(frozen=True)
class _Column:
    """A figure of each segment in the table. ``always``: also where no case has it."""

    title: str
    digits: int
    of: Callable[[CaseResult], Mapping[str, float]]
    always: bool = True

    def titles(self, names: Sequence[str]) -> list[str]:
        """Return its titles for the segments."""
        return [self.title.format(name) for name in names]


_COLUMNS = (
    _Column("{} mL", 3, lambda row: row.volumes_ml),
    _Column("{} removed mL", 3, lambda row: row.removed_ml, always=False),
    _Column("{} mm2", 1, lambda row: row.measures.surface_mm2 if row.measures else {}, always=False),
    _Column("{} components", 0, lambda row: row.measures.components if row.measures else {}, always=False),
    _Column("agreement {}", 4, lambda row: row.agreement),
)


def table_for(path: Path, names: Sequence[str]) -> Path:
    """Return where the table of a model with these segments goes: ``path``, or a numbered name beside it.

    A file with the columns of other segments, and one that cannot be read, is not ours to replace.
    """
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not os.path.isfile(p) or _read(p, names) is not None)


class Table:
    """A CSV: case, output, figures of each segment, mean agreement, seconds, remark where there is one, error.

    The figures are volume and agreement, and between them, where there are any, the volume of removed parts, surface
    and number of parts. The mean agreement is that of the segments found, and empty where nothing was.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, tuple(names)
        self._earlier = (_read(path, names) or []) if os.path.isfile(path) else []

    def write(self, rows: Sequence[CaseResult]) -> None:
        """Write the rows, in place of earlier ones of the same cases; raise ResourceError where that fails."""
        done = {row.case for row in rows}
        lines = [line for line in self._earlier if line["case"] not in done] + [self._line(row) for row in rows]
        figures = [(c, c.titles(self._names)) for c in _COLUMNS]
        shown = [titles for c, titles in figures if c.always or any(line.get(t) for line in lines for t in titles)]
        remark = [_REMARK] if any(line.get(_REMARK) for line in lines) else []
        columns = [*_FIRST, *itertools.chain.from_iterable(shown), *_LAST[:-1], *remark, _LAST[-1]]
        cells = ([line.get(column, "") for column in columns] for line in lines)
        with replacing(self._path) as temporary:
            temporary.write_text(csv_text([columns, *cells]), encoding="utf-8")

    def _line(self, row: CaseResult) -> dict[str, str]:
        line = {"case": row.case, "output": row.output}
        for column in _COLUMNS:
            values = column.of(row)
            line |= {t: _figure(values.get(n), column.digits) for t, n in zip(column.titles(self._names), self._names)}
        line |= {"agreement": _figure(row.score, 4), "seconds": _figure(row.seconds, 2)}
        return {**line, _REMARK: row.remark, "error": row.error}


def _read(path: Path, names: Sequence[str]) -> list[dict[str, str]] | None:
    """Return the rows of a table of these segments; None where the file is another one, or cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            titles, *rows = [list(map(unguarded, row)) for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error):  # one without a line is empty
        return None
    needed = {*_FIRST, *_LAST, *(t for c in _COLUMNS if c.always for t in c.titles(names))}
    optional = {_REMARK} | {t for c in _COLUMNS if not c.always for t in c.titles(names)}
    whole = all(len(row) == len(titles) for row in rows)  # else a hand was at work
    known = whole and needed <= set(titles) <= needed | optional
    return [dict(zip(titles, row)) for row in rows] if known else None


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
