"""Combo boxes whose entries have a text for the user and a key for the program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def fill(comboBox: Any, entries: Iterable[tuple[str, str]]) -> None:
    """Replace the entries by (text, key) pairs; what was chosen stays chosen where it is still there."""
    before = chosen(comboBox)
    blocked = comboBox.blockSignals(True)
    comboBox.clear()
    for text, key in entries:
        comboBox.addItem(text, key)
    comboBox.blockSignals(blocked)
    if before:
        choose(comboBox, before)


def chosen(comboBox: Any) -> str:
    """Return the key of the current entry, empty where there is none."""
    return str(comboBox.currentData or "")


def choose(comboBox: Any, key: str) -> bool:
    """Make the entry of a key the current one; return whether there is such an entry."""
    index = comboBox.findData(key)
    if index >= 0 and comboBox.currentIndex != index:
        comboBox.currentIndex = index
    return index >= 0
