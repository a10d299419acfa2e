"""``slicer.parameterNodeWrapper``: a class of annotated fields kept in a script node of the scene, bound to widgets.

Fields are stored under the names that Slicer uses, so that a scene reads back alike: a value as a parameter, a node as
a reference beside an empty parameter, a list as ``name.0``, ``name.1``, ... and ``name.len``.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk


@dataclass(frozen=True)
class WithinRange:
    """Numbers between two bounds, both included."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        """Raise ValueError outside of the range."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value {value} must be within range [{self.minimum}, {self.maximum}]")


class _Field:
    """One parameter of a node: how it is written, read, and found missing."""

    def __init__(self, name: str, annotation: Any, default: Any) -> None:
        self.name, self.checks = name, []
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *self.checks = typing.get_args(annotation)
        self.kind = annotation
        self.element = typing.get_args(annotation)[0] if typing.get_origin(annotation) is list else None
        self.default = default

    def is_in(self, node: Any) -> bool:
        return bool(node.HasParameter(f"{self.name}.len" if self.element else self.name))

    def write(self, node: Any, value: Any) -> None:
        for check in self.checks:
            check.validate(value)
        with slicer.util.NodeModify(node):
            if self.element is None:
                _write(node, self.name, self.kind, value)
                return
            old = int(node.GetParameter(f"{self.name}.len") or 0)
            for index, item in enumerate(value):
                _write(node, f"{self.name}.{index}", self.element, item)
            for index in range(len(value), old):
                node.UnsetParameter(f"{self.name}.{index}")
                node.RemoveNodeReferenceIDs(f"{self.name}.{index}")
            node.SetParameter(f"{self.name}.len", str(len(value)))

    def read(self, node: Any) -> Any:
        if self.element is None:
            return _read(node, self.name, self.kind)
        count = int(node.GetParameter(f"{self.name}.len") or 0)
        return [_read(node, f"{self.name}.{index}", self.element) for index in range(count)]


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _write(node: Any, name: str, kind: Any, value: Any) -> None:
    if _is_node(kind):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)
    elif kind in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        node.SetParameter(name, str(kind(value)))
    elif kind in (bool, str) and isinstance(value, kind):
        node.SetParameter(name, str(value))
    else:
        raise TypeError(f"{name} must be a {getattr(kind, '__name__', kind)}, got {value!r}")


def _read(node: Any, name: str, kind: Any) -> Any:
    if _is_node(kind):
        return node.GetNodeReference(name)
    text = node.GetParameter(name)
    return text == "True" if kind is bool else kind(text)


def parameterNodeWrapper(cls: type) -> type:  # noqa: N802
    """Turn a class of annotations into a wrapper of a script node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    table = {name: _Field(name, kind, getattr(cls, name, _default_of(kind))) for name, kind in hints.items()}
    for name, field in table.items():
        setattr(cls, name, _property(field))
    for name, member in vars(_Wrapper).items():
        if callable(member) or isinstance(member, property):
            setattr(cls, name, member)
    cls._fields = table
    return cls


def _default_of(annotation: Any) -> Any:
    kind = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
    if typing.get_origin(kind) is list:
        return []
    return None if _is_node(kind) else kind()


def _property(field: _Field) -> property:
    def read(self: Any) -> Any:
        return self._cache[field.name]

    def write(self: Any, value: Any) -> None:
        field.write(self.parameterNode, value)
        self._cache[field.name] = field.read(self.parameterNode)

    return property(read, write)


class _Wrapper:
    """The methods that a wrapper class gets."""

    _fields: dict[str, _Field]

    def __init__(self, parameterNode: Any) -> None:  # noqa: N803
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[Any, list[Callable[[], None]]]] = {}
        self._updating = False
        # Slicer keeps every value until the node says that it was modified: a node that has just been removed from
        # the scene is still there while the scene tells of it.
        self._cache: dict[str, Any] = {}
        self._refresh(None, None)
        parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._refresh, 1.0)

    def _refresh(self, caller: Any, event: Any) -> None:
        for name, field in self._fields.items():
            if not field.is_in(self.parameterNode):  # the scene was closed: Slicer's wrapper writes the default
                field.write(self.parameterNode, field.default)
            self._cache[name] = field.read(self.parameterNode)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:  # noqa: N802
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:  # noqa: N802
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)

    def HasObserver(self, *arguments: Any) -> Any:  # noqa: N802
        """Whether the node is observed."""
        return self.parameterNode.HasObserver(*arguments)

    def StartModify(self) -> Any:  # noqa: N802
        """Begin a change of several values."""
        return self.parameterNode.StartModify()

    def EndModify(self, state: Any) -> Any:  # noqa: N802
        """End it."""
        return self.parameterNode.EndModify(state)

    def Modified(self) -> None:  # noqa: N802
        """Say that something changed."""
        self.parameterNode.Modified()

    def connectGui(self, gui: Any) -> int:  # noqa: N802
        """Bind the widgets that have the dynamic property SlicerParameterName; return a tag for disconnectGui."""
        bound = []
        for widget in vars(gui).values():
            name = widget.property("SlicerParameterName")
            if name:
                if name not in self._fields:
                    raise ValueError(f"Cannot find a param with the given name: {name}")
                bound.append(_bind(self, self._fields[name], widget))
        tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._show(bound))
        self._show(bound)
        self._guis[tag] = (tag, [b[1] for b in bound])
        return tag

    def disconnectGui(self, tag: int) -> None:  # noqa: N802
        """Unbind."""
        entry = self._guis.pop(tag, None)
        if entry is not None:
            self.RemoveObserver(entry[0])
            for undo in entry[1]:
                undo()

    def _show(self, bound: list[Any]) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for show, _undo in bound:
                show()
        finally:
            self._updating = False


#: Widget class -> (property or method pair, signal), as far as the modules bind them.
_BINDINGS = {
    "QCheckBox": ("checked", "toggled(bool)", (bool,)),
    "QDoubleSpinBox": ("value", "valueChanged(double)", (float, int)),
    "QSpinBox": ("value", "valueChanged(int)", (int,)),
    "QLineEdit": ("text", "textChanged(QString)", (str,)),
}


def _bind(wrapper: Any, field: _Field, widget: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    name = widget.className()
    if name == "qMRMLNodeComboBox" and _is_node(field.kind):
        signal, read, write = "currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode
    elif name in _BINDINGS and field.kind in _BINDINGS[name][2]:
        attribute, signal, _kinds = _BINDINGS[name]

        def read() -> Any:
            return getattr(widget, attribute)

        def write(value: Any) -> None:
            setattr(widget, attribute, value)

        for check in field.checks:
            widget.setRange(check.minimum, check.maximum)
    else:
        raise RuntimeError(f"no connector binds a {name} to {field.name}: {field.kind}")

    def changed() -> None:
        if not wrapper._updating:
            field.write(wrapper.parameterNode, read())

    widget.connect(signal, changed)
    return lambda: write(field.read(wrapper.parameterNode)), lambda: widget.disconnect(signal, changed)
