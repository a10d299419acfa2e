"""Tables that people open in spreadsheets: what names a case or a segment is text there, whoever has thought it up.

Spreadsheets take a cell that begins with = + - or @ for a formula, and a formula may send other cells to a server. In
front of it stands an apostrophe, as where a person enters text; CAML's own readers take it away again. Standard library
only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

#: The beginning of a formula, in the wide letters of East Asia, too. Some spreadsheets part cells at semicolons,
#: whatever stands around them.
_FORMULA = r"(?=[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20])"
_BARE = re.compile(rf"(^|[;\t\r\n]){_FORMULA}")
_GUARDED = re.compile(rf"(^|[;\t\r\n])'{_FORMULA}")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|inf|nan)")


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Return a comma-separated table in which no cell is a formula."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(guarded, row) for row in rows)
    return text.getvalue()


def guarded(cell: str) -> str:
    """Return a cell as a table has it; all but formulas stays as it is, numbers, too."""
    return cell if _NUMBER.fullmatch(cell) else _BARE.sub(r"\1'", cell)


def unguarded(cell: str) -> str:
    """Return what ``guarded`` was given."""
    return _GUARDED.sub(r"\1", cell)
