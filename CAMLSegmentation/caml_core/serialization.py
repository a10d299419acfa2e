"""Frozen dataclasses to JSON values and back, strictly: unknown or missing fields are errors. Standard library only."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from .data.files import replace_when_free
from .errors import UsageError

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Return ``value`` (dataclasses, tuples, paths, scalars) as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value) if not _left_out(f, value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def from_json(cls: type[T], value: Any, where: str = "") -> T:
    """Return an instance of the dataclass ``cls`` from JSON values; raise UsageError naming the place at fault."""
    return typing.cast(T, _decode(cls, value, where or cls.__name__))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented ASCII JSON under a temporary name, then rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(to_json(value), indent=2) + "\n", encoding="ascii")
        replace_when_free(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise UsageError where it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # as editors on Windows may begin it
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error}).") from error


def _left_out(description: dataclasses.Field[Any], value: Any) -> bool:
    """Whether a field says nothing, and is not written then (``config.LEFT_OUT_WHERE_DEFAULT``)."""
    return "left_out_where_default" in description.metadata and getattr(value, description.name) == description.default


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), value, where)
    if origin is typing.Literal:
        return _checked(value in arguments, value, where, f"one of {arguments}")
    if origin in (typing.Union, types.UnionType):
        return _decode_optional(arguments, value, where)
    if origin is tuple:
        return _decode_tuple(arguments, value, where)
    if origin is dict:
        _checked(isinstance(value, dict), value, where, "an object")
        return {str(k): _decode(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any:
        return value
    if kind is float:
        _checked(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, "a number")
        return float(value)
    if kind is Path:
        return Path(_checked(isinstance(value, str), value, where, "a path"))
    return _checked(type(value) is kind, value, where, f"a value of type {kind.__name__}")


def _decode_dataclass(kind: type, value: Any, where: str) -> Any:
    _checked(isinstance(value, dict), value, where, "an object")
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(value) - set(fields))
    if unknown:
        raise UsageError(f"{where} has unknown entries {unknown}; it was made by another version or edited by hand.")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for name, description in fields.items():
        if name in value:
            arguments[name] = _decode(hints[name], value[name], f"{where}.{name}")
        elif description.default is dataclasses.MISSING and description.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where} lacks the entry {name!r}.")
    return kind(**arguments)


def _decode_optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    (kind,) = (a for a in arguments if a is not type(None))
    return _decode(kind, value, where)


def _decode_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    _checked(isinstance(value, (list, tuple)), value, where, "a list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_decode(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    _checked(len(value) == len(arguments), value, where, f"a list of {len(arguments)}")
    return tuple(_decode(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(arguments, value)))


def _checked(condition: bool, value: Any, where: str, expected: str) -> Any:
    if not condition:
        raise UsageError(f"{where} must be {expected}, got {value!r}.")
    return value
