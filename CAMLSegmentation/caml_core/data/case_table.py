"""A CSV or tab-separated list of cases, as text. Standard library only."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .cells import unguarded

#: image, image2 (FLAIR), ...
_IMAGE_COLUMN = re.compile(r"^images?[ _-]?(\d*)\s*(?:\((.*)\))?$", re.IGNORECASE)
_IDENTITY = ("id", "case", "case_id", "name")


def table_rows(path: Path, text: str) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Return (where it stands, fields) of each case that ``text`` lists, and what the header calls the channels.

    ``path`` is named in errors alone. Fields: "images" (one file for each channel, in order), and "id", "label" and
    "role" where there are such columns. A channel's title stands in brackets, ``image2 (FLAIR)``; it is empty for one
    without, and left out with columns in which only excluded cases have a file. Raises DataError where the columns or
    a row do not say which channel is which.
    """
    first = text.splitlines()[0] if text.strip() else ""
    reader = csv.DictReader(io.StringIO(text), delimiter=max("\t;,", key=first.count))
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    images = sorted((int(m[1] or 1), columns[m[0]]) for m in map(_IMAGE_COLUMN.match, columns) if m)
    named: dict[str, str] = {name: columns[name] for name in ("label", "role") if name in columns}
    if identity := next((columns[name] for name in _IDENTITY if name in columns), None):
        named["id"] = identity
    _check_channel_columns(path, [number for number, _ in images])
    _check_single(path, reader.fieldnames or (), [*(name for _, name in images), *named.values()])
    rows: list[tuple[str, dict[str, Any]]] = []
    for line, row in enumerate(reader, 2):
        if not any(value.strip() for value in row.values() if isinstance(value, str)):
            continue
        files = [unguarded((row[name] or "").strip()) for _, name in images]
        _check_channels(path, line, files)
        fields: dict[str, Any] = {"images": [file for file in files if file]}
        rows.append(
            (f"line {line}", {**fields, **{key: unguarded((row[name] or "").strip()) for key, name in named.items()}})
        )
    titles = [_title(name) for _, name in images]
    counted = [fields["images"] for _, fields in rows if fields.get("role", "").lower() != "excluded"]
    return rows, titles[: max(map(len, counted), default=0)]


def _title(column: str) -> str:
    found = _IMAGE_COLUMN.match(column.strip())
    return (found and found[2]) or ""


def _check_channel_columns(path: Path, channels: Sequence[int]) -> None:
    """Raise DataError where the columns do not say which channel is which."""
    if not channels:
        raise DataError(f"{path} has no column called image; expected a header such as: id,image,label,role.")
    if list(channels) != list(range(1, len(channels) + 1)):
        raise DataError(
            f"{path} has columns for the images {', '.join(map(str, channels))}; channels are called image, image2, "
            "image3, each once and none left out."
        )


def _check_single(path: Path, names: Sequence[str], read: Sequence[str]) -> None:
    """Raise DataError where one of the columns that are ``read`` is there twice; others may be called as they like."""
    counted = Counter(name.strip().lower() for name in names if name)
    double = next((name for name in (column.strip().lower() for column in read) if counted[name] > 1), None)
    if double:
        rename = "channels are called image, image2, image3" if _IMAGE_COLUMN.match(double) else "remove or rename one"
        raise DataError(f"{path} has two columns called {double}; expected one of this name: {rename}.")


def _check_channels(path: Path, line: int, files: Sequence[str]) -> None:
    """Raise DataError where a channel is missing before another one: that would be taken for it."""
    given = [bool(file) for file in files]
    if given != sorted(given, reverse=True):
        first = given.index(False) + 1
        raise DataError(
            f"{path}, line {line}: image {first} is missing and a later one is given; name every channel, or exclude "
            "the case."
        )
