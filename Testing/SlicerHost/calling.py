"""What PythonQt makes of the arguments of a call, and which signals are not in every Slicer."""

from __future__ import annotations

import enum
import numbers
from collections.abc import Callable
from typing import Any

from shibokensupport.signature import get_signature

from . import facts

#: Signals of Qt 5 that a Slicer built with Qt 6 lacks: (class, signature). Modules must run in both.
GONE_IN_QT6 = frozenset(
    {
        *(("QComboBox", f"{name}(QString)") for name in ("currentIndexChanged", "activated", "highlighted")),
        *((name, "valueChanged(QString)") for name in ("QSpinBox", "QDoubleSpinBox")),
        *(("QButtonGroup", f"{name}(int)") for name in ("buttonClicked", "buttonPressed", "buttonReleased")),
        ("QButtonGroup", "buttonToggled(int,bool)"),
        ("QProcess", "finished(int)"),
        ("QProcess", "error(QProcess::ProcessError)"),
    }
)
_NUMBERS = {"int": int, "uint": int, "double": float}


def with_enumerators(function: Callable[..., Any], values: list[Any]) -> Any:
    """Call; PythonQt takes a plain number where PySide6 wants an enumerator, so try that second."""
    try:
        return function(*values)
    except TypeError:
        signatures = get_signature(function)
        for signature in signatures if isinstance(signatures, list) else [signatures]:
            kinds = [p.annotation for p in signature.parameters.values() if p.name != "self"] if signature else []
            if len(kinds) >= len(values) and any(_is_enumerator(k, v) for k, v in zip(kinds, values)):
                return function(*(k(v) if _is_enumerator(k, v) else v for k, v in zip(kinds, values)))
        raise


def _is_enumerator(kind: Any, value: Any) -> bool:
    return type(value) is int and isinstance(kind, enum.EnumMeta)


def as_property(class_name: str, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """``setText(5)`` takes what ``text = 5`` takes."""
    name = method[3:4].lower() + method[4:]
    kind = facts.members(class_name).properties.get(name, ("", False))[0]
    return (lenient(kind, arguments[0]),) if method.startswith("set") and len(arguments) == 1 else arguments


def lenient(kind: str, value: Any) -> Any:
    """PythonQt's conversions: anything to text (None, too), truth to bool, numbers to numbers, and nothing else."""
    if kind == "QString":
        return str(value)
    if kind == "bool":
        return bool(value)
    if kind in _NUMBERS:
        if not isinstance(value, numbers.Real):
            raise ValueError(f"{value!r} is no {kind}")
        return _NUMBERS[kind](value)
    return value
