"""What the classes of a running 3D Slicer offer, read from slicer-api.json: the host must not offer more."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_PATH = Path(__file__).with_name("slicer-api.json")
_QUALIFIERS = re.compile(r"\s*\([^)]*\)$")

#: Members of classes that the facts only name. Each is called so in Slicer's own scripted modules or its slicer.util,
#: or was run in a Slicer. Enumerators have the values that stand with QProcess, where QIODevice's are, or else Qt's.
NAMED_ONLY: dict[str, dict[str, frozenset[str]]] = {
    "QFile": {
        "methods": frozenset({"exists", "open", "close"}),
        "enums": frozenset({"ReadOnly"}),
    },  # slicer.util.loadUI
    "QUiLoader": {"methods": frozenset({"load"})},  # slicer.util.loadUI
    "QEventLoop": {"methods": frozenset({"exec_", "exec", "quit", "processEvents"})},  # slicer.testing
    "QDesktopServices": {"methods": frozenset({"openUrl"})},  # ScriptedLoadableModule
    "QApplication": {
        "methods": frozenset({"clipboard", "processEvents", "setOverrideCursor", "restoreOverrideCursor"})
    },  # slicer.util
    "QClipboard": {"methods": frozenset({"setText", "text"})},  # SampleData, Segment Statistics
    "QAbstractButton": {"methods": frozenset({"click", "setText"})},  # what QMessageBox.addButton returns
    "QPalette": {"methods": frozenset({"color"}), "enums": frozenset({"Base"})},  # run in a Slicer
    "QUrl": {"methods": frozenset({"fromLocalFile"})},
    "QTableWidgetSelectionRange": {"methods": frozenset()},  # made of four whole numbers, as PythonQt's wrapper has it
}


#: A role of QPalette, whose number the facts do not give; Qt 5 and Qt 6 have the same.
_OF_QT = {"Base": 9}


@functools.cache
def facts() -> dict[str, Any]:
    """The whole file."""
    return json.loads(_PATH.read_text(encoding="utf-8"))


@functools.cache
def described() -> dict[str, dict[str, Any]]:
    """Class -> its own entry; titles such as ``slicer.app (qSlicerApplication)`` go by the class."""
    entries: dict[str, dict[str, Any]] = {}
    for title, entry in facts()["classes"].items():
        match = re.search(r"\((\w+)\)$", title)
        entries[match.group(1) if match else title] = entry
        entries.setdefault(_QUALIFIERS.sub("", title), entry)
    return entries


def is_named(name: str, module: str = "qt") -> bool:
    """Whether ``qt.NAME``, ``ctk.NAME`` or ``slicer.NAME`` exists."""
    return name in facts()["names"][module]


@functools.cache
def members(class_name: str) -> ClassFacts:
    """All that a class has, its bases included."""
    entry = described().get(class_name)
    if entry is None:
        named = NAMED_ONLY.get(class_name, {})
        return ClassFacts(class_name, {}, frozenset(), frozenset(named.get("methods", frozenset())), frozenset())
    chain = [entry, *(described()[base] for base in entry["inherits"] if base in described())]
    properties: dict[str, tuple[str, bool]] = {}
    signals: set[str] = set()
    methods: set[str] = {"className", "delete", "help", "inherits"}
    for part in chain:
        for name, (kind, writable) in part["properties"].items():
            properties.setdefault(name, (kind, writable))
        signals.update(_normal(s) for s in part["signals"])
        methods.update(part["python"])
        methods.update(_base(s) for s in (*part["slots"], *part["invokables"]))
    if class_name in NAMED_ONLY:
        methods |= NAMED_ONLY[class_name]["methods"]
    bases = frozenset([class_name, *(b for b in entry["inherits"] if not b.startswith("("))])
    signal_names = {_base(s) for s in signals}
    return ClassFacts(
        class_name, properties, frozenset(signals), frozenset(methods - set(properties) - signal_names), bases
    )


class ClassFacts:
    """``properties``: name -> (C++ type, writable); ``signals``: normalised signatures; ``methods``: callable names."""

    def __init__(
        self,
        name: str,
        properties: dict[str, tuple[str, bool]],
        signals: Iterable[str],
        methods: Iterable[str],
        bases: Iterable[str],
    ) -> None:
        self.name, self.properties = name, properties
        self.signals, self.methods, self.bases = frozenset(signals), frozenset(methods), frozenset(bases)
        self.signal_names = frozenset(_base(s) for s in self.signals)

    def has(self, name: str) -> bool:
        """Whether an instance has an attribute of this name."""
        return name in self.properties or name in self.methods or name in self.signal_names


@functools.cache
def enumerators(class_name: str) -> dict[str, int]:
    """Enumerator -> value of a class, as Slicer has them (its bases included)."""
    entry = described().get(class_name)
    names = [class_name, *(entry["inherits"] if entry else ())]
    found = {k: v for name in reversed(names) for k, v in facts()["enums"].get(name, {}).items()}
    named = NAMED_ONLY.get(class_name, {}).get("enums", frozenset())
    return found | {k: _OF_QT.get(k, facts()["enums"]["QProcess"].get(k)) for k in named}


def normalised(signature: str) -> str:
    """``finished(int, QProcess::ExitStatus)`` without what Qt drops: spaces, const and references."""
    return _normal(signature)


def _normal(signature: str) -> str:
    name, _, rest = signature.partition("(")
    arguments = [re.sub(r"\bconst\b|&", "", a).strip() for a in rest.rstrip(")").split(",")]
    return f"{name.strip()}({','.join(a for a in arguments if a)})"


def _base(signature: str) -> str:
    return signature.partition("(")[0].strip()
