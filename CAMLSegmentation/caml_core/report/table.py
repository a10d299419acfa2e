"""Reading RUN_DIR/metrics.csv as columns of numbers. Standard library only."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from ..errors import DataError

#: Column -> values by row, NaN where the table has none.
Table = dict[str, list[float]]


def read_table(path: Path) -> Table:
    """Return the columns of a metrics table; raise DataError where there is no such table.

    Rows without an iteration (a line torn by a crash, or being written just now) are left out.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            reader = csv.DictReader(stream)
            names = [name for name in reader.fieldnames or () if name]
            rows = [row for row in reader if math.isfinite(_number(row.get("iteration")))]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be read ({reason}); name a folder that caml train has made.") from error
    if "iteration" not in names:
        raise DataError(f"{path} is no table of a training: it has no column called iteration.")
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def points(table: Table, x: str, y: str) -> tuple[list[float], list[float]]:
    """Return the pairs of two columns for which both have a finite number; empty lists where a column is missing."""
    pairs = zip(table.get(x, ()), table.get(y, ()))
    kept = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in kept], [b for _, b in kept]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
