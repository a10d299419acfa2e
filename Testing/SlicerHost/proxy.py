"""PythonQt's manners over PySide6: properties are attributes, signals are named by strings, nothing takes keywords.

An object of ``qt``, ``ctk`` or a qMRML class is a ``Proxy`` around a PySide6 object. What it has is decided by
``facts`` alone; what it does, by PySide6 or by a stand-in (a PySide6 subclass with the real class's name).
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets

from . import calling, facts

#: Exceptions that left a slot: PythonQt prints them and goes on; a test fails on them at its end.
slot_errors: list[BaseException] = []
#: Class name -> the proxy class of that name.
classes: dict[str, type[Proxy]] = {}
#: Connections by the C++ address of the sender: (signal, callable, what Qt was given).
_connections: dict[int, list[tuple[str, Any, Any]]] = {}
_TOOL_TIP = "<p>{}</p>"
#: Methods that leave an argument to whoever holds it, while PySide6 would keep it alive.
_NOT_OWNING = frozenset({"setMenu", "setModel", "setDefaultAction", "setItemDelegate", "addAction"})


class UnknownSignal(LookupError):
    """A connection that was refused: only printed by Slicer, but a fault of the module."""


class EnumValue(int):
    """An enumerator: an int that remembers PySide6's own."""

    native: Any

    def __new__(cls, value: int, native: Any = None) -> EnumValue:
        made = super().__new__(cls, value)
        made.native = native
        return made

    def __repr__(self) -> str:
        return str(int(self))

    __str__ = __repr__


class ByteArray:
    """A QByteArray as PythonQt shows it: no length, no bytes(), but data()."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def data(self) -> bytes:
        """The bytes."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return self._value == (other._value if isinstance(other, ByteArray) else other)

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return repr(self._value)


class Proxy:
    """Base of all proxy classes. They are flat: a QLabel is no QWidget to isinstance."""

    _class_name = ""
    _native: Any = None

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        _no_keywords(type(self)._class_name, keywords)
        try:
            made = type(self)._native(*(to_native(a) for a in arguments))
        except (TypeError, NotImplementedError) as error:
            raise ValueError(f"no constructor of {type(self)._class_name} takes these arguments: {error}") from error
        _adopt(self, made)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        native, known = self._living(name), facts.members(self._class_name)
        if name == "name" and "objectName" in known.properties:
            name = "objectName"
        if name in known.properties:
            return _read(native, name)
        if name in known.signal_names and hasattr(native, name):
            return BoundSignal(self, name)
        if name in facts.enumerators(self._class_name):
            return getattr(type(self), name)
        if name in known.methods or (name == "exec_" and "exec" in known.methods):
            return _method(self, name)
        if isinstance(native, QtCore.QObject) and name.encode() in [bytes(n) for n in native.dynamicPropertyNames()]:
            return from_native(native.property(name))
        raise AttributeError(f"{self._class_name} has no attribute named '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        native, known = self._living(name), facts.members(self._class_name)
        if name == "name" and "objectName" in known.properties:
            name = "objectName"
        if name not in known.properties:
            raise AttributeError(
                f"{self._class_name} has no attribute named '{name}': creating new attributes on C++ objects is not "
                "allowed"
            )
        if not known.properties[name][1]:
            raise AttributeError(f"Property '{name}' of type '{known.properties[name][0]}' is read-only")
        _write(native, name, calling.lenient(known.properties[name][0], value))

    def __bool__(self) -> bool:
        native = object.__getattribute__(self, "_object")
        if isinstance(native, shiboken6.Object) and not shiboken6.isValid(native):
            return False
        # PythonQt asks the object itself: an empty menu, URL or layout is false.
        empty = getattr(native, "isEmpty", None) or getattr(native, "isNull", None)
        return not empty() if empty is not None else True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Proxy):
            return NotImplemented
        return object.__getattribute__(self, "_object") == object.__getattribute__(other, "_object")

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_object"))

    def _living(self, name: str) -> Any:
        native = object.__getattribute__(self, "_object")
        if isinstance(native, shiboken6.Object) and not shiboken6.isValid(native):
            raise ValueError(f"Trying to read property '{name}' from a destroyed {self._class_name} object")
        return native


class BoundSignal:
    """``button.clicked``: connect, disconnect, emit; calling it emits, too."""

    def __init__(self, owner: Proxy, name: str) -> None:
        self._owner, self._name = owner, name

    def connect(self, function: Callable[..., Any]) -> bool:
        """Connect the overload that the bare name means."""
        return _connect(self._owner, self._signature(), function)

    def disconnect(self, function: Callable[..., Any] | None = None) -> bool:
        """Disconnect ``function``, or all Python connections of the signal."""
        return disconnect(self._owner, self._signature() if function else self._name, function)

    def emit(self, *arguments: Any) -> None:
        """Emit."""
        getattr(to_native(self._owner), self._name).emit(*(to_native(a) for a in arguments))

    __call__ = emit

    def _signature(self) -> str:
        known = facts.members(type(self._owner)._class_name)
        overloads = sorted(s for s in known.signals if s.startswith(f"{self._name}("))
        numbers = [s for s in overloads if re.search(r"\((int|bool|double|vtkMRMLNode\*)\)$", s)]
        return (numbers or overloads)[0]


def proxy_class(name: str, native: Any) -> type[Proxy]:
    """Make (or return) the proxy class of ``name``; enumerators and static functions become attributes."""
    if name in classes:
        return classes[name]
    body: dict[str, Any] = {"_class_name": name, "_native": native, "__doc__": f"{name}, as PythonQt shows it."}
    for enumerator, value in facts.enumerators(name).items():
        found = _native_enumerator(native, enumerator)
        body.setdefault(enumerator, EnumValue(value, found))
    for member, _value in inspect.getmembers(native, lambda m: isinstance(m, enum.EnumMeta)):
        inner = {e.name: body[e.name] for e in getattr(native, member) if getattr(body.get(e.name), "native", 0) is e}
        if inner:
            body.setdefault(member, type(member, (), inner))
    made = type(name, (Proxy,), body)
    classes[name] = made
    return made


def add_static(name: str, method: str, function: Callable[..., Any]) -> None:
    """Give a proxy class a static function."""
    setattr(classes[name], method, staticmethod(function))


def from_native(value: Any) -> Any:
    """Turn what PySide6 returns into what PythonQt would."""
    if isinstance(value, Proxy) or value is None:
        return value
    if isinstance(value, enum.Enum):
        return EnumValue(_int(value), value)
    if isinstance(value, QtCore.QByteArray):
        return ByteArray(bytes(value))
    if isinstance(value, (list, tuple)):
        return tuple(from_native(v) for v in value)
    if isinstance(value, shiboken6.Object):
        existing = getattr(value, "_host_proxy", None)
        if existing is not None and existing() is not None:
            return existing()
        found = _class_of(value)
        if found is not None:
            made = object.__new__(found)
            _adopt(made, value)
            return made
    return value


def to_native(value: Any) -> Any:
    """Turn what a module passes into what PySide6 takes."""
    if isinstance(value, Proxy):
        return object.__getattribute__(value, "_object")
    if isinstance(value, EnumValue):
        return value.native if value.native is not None else int(value)
    if isinstance(value, ByteArray):
        return QtCore.QByteArray(value.data())
    if isinstance(value, (list, tuple)):
        return [to_native(v) for v in value]
    return value


def connect(sender: Proxy, signature: str, *target: Any) -> bool:
    """Connect a signal by its signature; print and return False for one that does not exist."""
    known, wanted = facts.members(type(sender)._class_name), facts.normalised(signature)
    gone = any((base, wanted) in calling.GONE_IN_QT6 for base in known.bases)
    if wanted not in known.signals or gone or not hasattr(to_native(sender), wanted.partition("(")[0]):
        message = f"PythonQt: QObject::connect() signal '{signature}' does not exist"
        print(message, file=sys.stderr)
        slot_errors.append(UnknownSignal(f"{message} in every Slicer: {known.name}"))
        return False
    return _connect(sender, wanted, target[0] if len(target) == 1 else _slot_of(*target))


def _connect(sender: Proxy, wanted: str, function: Callable[..., Any]) -> bool:
    name, _, arguments = wanted.partition("(")
    native = to_native(sender)
    count = len([a for a in arguments.rstrip(")").split(",") if a])
    kind = arguments.rstrip(")")

    def deliver(*values: Any) -> None:
        _call(function, [_argument(v, kind) for v in values])

    # PySide6 hands over as many arguments as the slot names.
    slots = (lambda: deliver(), lambda a: deliver(a), lambda a, b: deliver(a, b))
    slot = slots[count] if count < len(slots) else deliver
    getattr(native, name).connect(slot)
    _connections_of(native).append((wanted, function, slot))
    return True


def _connections_of(native: QtCore.QObject) -> list[tuple[str, Any, Any]]:
    address = _address(native)
    if address not in _connections:
        _connections[address] = []
        # The next object may get the same address.
        native.destroyed.connect(lambda: _connections.pop(address, None))
    return _connections[address]


def disconnect(sender: Proxy, signature: str, *target: Any) -> bool:
    """Undo connections; a bare signal name undoes all of that signal."""
    native, kept, found = to_native(sender), [], False
    wanted = facts.normalised(signature) if "(" in signature else signature
    function = target[0] if target else None
    entries = _connections_of(native)
    for entry in list(entries):
        same = entry[0] == wanted or ("(" not in wanted and entry[0].startswith(f"{wanted}("))
        if same and (function is None or entry[1] == function) and (not found or function is None):
            getattr(native, entry[0].partition("(")[0]).disconnect(entry[2])
            found = True
        else:
            kept.append(entry)
    entries[:] = kept
    return found


def _slot_of(receiver: Proxy, slot: str) -> Callable[..., Any]:
    name = slot.partition("(")[0]
    attribute = getattr(receiver, name, None)
    if callable(attribute):
        return attribute
    raise ValueError(f"{type(receiver)._class_name} has no slot {slot}")


def _argument(value: Any, kind: str) -> Any:
    """Two overloads of one signal share PySide6's only one; the facts say which was meant."""
    if kind == "bool" and not isinstance(value, (bool, int)):
        return value is not None
    return from_native(value)


def _call(function: Callable[..., Any], values: list[Any]) -> None:
    """Call with as many arguments as it takes; an exception is printed and kept, never passed on."""
    try:
        function(*values[: _most(function, len(values))])
    except Exception as error:
        traceback.print_exc()
        slot_errors.append(error)


def _most(function: Callable[..., Any], given: int) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return given
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return given
    return min(given, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


def _method(owner: Proxy, name: str) -> Callable[..., Any]:
    native, class_name = to_native(owner), type(owner)._class_name
    own = _OWN_METHODS.get(name)
    if own is not None and isinstance(native, QtCore.QObject):
        return lambda *arguments, **keywords: (_no_keywords(name, keywords), own(owner, *arguments))[1]
    function = getattr(native, "exec" if name == "exec_" else name, None)
    if function is None:
        raise NotImplementedError(f"{class_name}.{name} exists in Slicer, but this host does not have it")

    def method(*arguments: Any, **keywords: Any) -> Any:
        _no_keywords(f"{class_name}.{name}", keywords)
        if name in _NOT_OWNING:
            _hold_weakly(arguments)
        values = [to_native(a) for a in calling.as_property(class_name, name, arguments)]
        try:
            return from_native(calling.with_enumerators(function, values))
        except (TypeError, NotImplementedError) as error:
            raise ValueError(f"Called {class_name}.{name} with wrong arguments: {error}") from error

    return method


def _hold_weakly(arguments: tuple[Any, ...]) -> None:
    for argument in arguments:
        native = to_native(argument)
        if isinstance(argument, Proxy) and isinstance(native, QtCore.QObject) and native.parent() is None:
            weakref.finalize(argument, _delete_orphan, native).atexit = False


def _delete_orphan(native: Any) -> None:
    if shiboken6.isValid(native) and native.parent() is None:
        shiboken6.delete(native)


def _read(native: Any, name: str) -> Any:
    value = _raw(native, name)
    if isinstance(value, (enum.Enum, enum.Flag)):
        return _int(value)  # properties of enum types read as plain numbers
    if name == "toolTip" and value and not value.startswith("<"):
        return _TOOL_TIP.format(value)
    return from_native(value)


def _raw(native: Any, name: str) -> Any:
    if isinstance(native, QtCore.QObject) and native.metaObject().indexOfProperty(name) >= 0:
        return native.property(name)
    for candidate in (name, f"is{name[:1].upper()}{name[1:]}", f"to{name[:1].upper()}{name[1:]}"):
        getter = getattr(native, candidate, None)
        if getter is not None:
            return getter() if callable(getter) else getter
    raise NotImplementedError(f"{type(native).__name__}.{name} exists in Slicer, but this host does not have it")


def _write(native: Any, name: str, value: Any) -> None:
    setter = getattr(native, f"set{name[:1].upper()}{name[1:]}", None)
    if name == "visible":
        setter = native.setVisible
    try:
        if setter is not None:
            setter(to_native(value))
        elif not native.setProperty(name, to_native(value)):
            raise TypeError(f"property {name} does not take {value!r}")
    except TypeError as error:
        raise ValueError(f"Property '{name}' does not accept an object of type {type(value).__name__}") from error


def _adopt(proxy: Proxy, native: Any) -> None:
    object.__setattr__(proxy, "_object", native)
    try:
        native._host_proxy = weakref.ref(proxy)
    except AttributeError:
        pass


def _class_of(native: Any) -> type[Proxy] | None:
    """The most derived class that Slicer knows; a stand-in is called like the class it stands for."""
    return next((classes[c.__name__] for c in type(native).__mro__ if c.__name__ in classes), None)


def _native_enumerator(native: Any, name: str) -> Any:
    holders = [native, QtCore.QIODevice, QtWidgets.QDialog, QtWidgets.QFrame, QtGui.QPalette]
    return next((v for h in holders if isinstance(v := getattr(h, name, None), enum.Enum)), None)


def _int(value: enum.Enum) -> int:
    return int(value.value)


def _address(native: Any) -> int:
    return shiboken6.getCppPointer(native)[0]


def _no_keywords(name: str, keywords: dict[str, Any]) -> None:
    if keywords:
        raise ValueError(f"{name}() with keyword arguments, but called slot does not support kwargs.")


def _children(owner: Proxy, wanted: Any, name: str | None) -> tuple[Any, ...]:
    native = to_native(owner)
    class_name = wanted if isinstance(wanted, str) else wanted._class_name
    found = []
    for child in native.findChildren(QtCore.QObject):
        proxy = from_native(child)
        if name is not None and child.objectName() != name:
            continue
        if isinstance(proxy, Proxy) and class_name in facts.members(type(proxy)._class_name).bases:
            found.append(proxy)
    return tuple(found)


_OWN_METHODS: dict[str, Callable[..., Any]] = {
    "connect": connect,
    "disconnect": disconnect,
    "className": lambda owner: type(owner)._class_name,
    "inherits": lambda owner, name: name in facts.members(type(owner)._class_name).bases,
    "findChild": lambda owner, wanted, name=None: next(iter(_children(owner, wanted, name)), None),
    "findChildren": lambda owner, wanted, name=None: _children(owner, wanted, name),
    "delete": lambda owner: shiboken6.delete(to_native(owner)),
    "isWidgetType": lambda owner: to_native(owner).isWidgetType(),
}
