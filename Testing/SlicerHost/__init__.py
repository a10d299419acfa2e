"""Runs scripted modules and their .ui files unchanged, without Slicer: slicer-core's real libraries and PySide6.

``install()`` puts ``qt``, ``ctk`` and what ``slicer`` lacks in place. ``load_module`` does what Slicer does with a
module script. What the host offers is held against slicer-api.json by Testing/Modules/test_host_honesty.py.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The one application of the process, once installed.
_state: dict[str, Any] = {}
#: Kits that slicer-core puts into ``slicer`` and a Slicer does not. Where Slicer has a module of that name: True.
_KITS_APART = {"vtkTeem": True, "vtkITK": True, "vtkRemoteIO": False}


def install() -> Any:
    """Put the host in place and return its application; a second call returns the same."""
    if "application" in _state:
        return _state["application"]
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6 import QtWidgets

    _state["qt"] = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["SlicerHost"])
    import slicer

    from . import application, ctk_module, mrml_widgets, packaging, parameter_node, qt_module

    _set_kits_apart(slicer)
    application.quiet()
    sys.modules["qt"] = qt_module.make()
    sys.modules["ctk"] = ctk_module.make()
    _state["application"] = application.make(_state["qt"])
    mrml_widgets.install()
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = lambda text: text, lambda context, text: text
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper, wrapper.WithinRange = parameter_node.parameterNodeWrapper, parameter_node.WithinRange
    for name, module in (("i18n", i18n), ("parameterNodeWrapper", wrapper), ("packaging", packaging)):
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    sys.modules["slicer.ScriptedLoadableModule"] = importlib.import_module(".scripted_module", __name__)
    slicer.ScriptedLoadableModule = sys.modules["slicer.ScriptedLoadableModule"]
    slicer.util.selectModule = select_module
    slicer.util.modulePath = lambda name: _state.setdefault("paths", {})[name]
    slicer.util.resetThreeDViews = lambda: _state.setdefault("resets", []).append("3D")
    editor = types.SimpleNamespace(editor=slicer.qMRMLSegmentEditorWidget())
    slicer.modules.segmenteditor = application.Module(widget=editor)
    return _state["application"]


def _set_kits_apart(slicer: Any) -> None:
    for kit, is_module in _KITS_APART.items():
        module = sys.modules[f"slicer_core.{kit}"]
        for name in (kit, *(name for name in vars(module) if name.startswith("vtk"))):
            delattr(slicer, name)
        if is_module:
            sys.modules[kit] = module


def load_module(path: Path) -> Any:
    """Load a module script as Slicer does, build its widget, and return that widget. Its folder joins sys.path."""
    import qt
    import slicer

    from .application import Module

    name, folder = path.stem, str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    _state.setdefault("paths", {})[name] = str(path)
    script = importlib.import_module(name)
    description = types.SimpleNamespace(path=str(path))
    module = getattr(script, name)(description)
    parent = slicer.qMRMLWidget()
    layout = qt.QVBoxLayout()
    parent.setLayout(layout)
    holder = _Parent(parent)
    widget = getattr(script, f"{name}Widget")(holder)
    setattr(slicer.modules, name.lower(), Module(widget=widget, path=str(path)))
    _state.setdefault("modules", {})[name] = (module, widget, holder, description)
    widget.setup()
    return widget


def enter(name: str) -> None:
    """The user opens a module."""
    _module, widget, holder, _description = _state["modules"][name]
    holder.isEntered = True
    widget.enter()


def leave(name: str) -> None:
    """The user opens another module."""
    _module, widget, holder, _description = _state["modules"][name]
    holder.isEntered = False
    widget.exit()


def unload_module(name: str) -> None:
    """Slicer quits, or reloads the module."""
    _module, widget, holder, _description = _state["modules"].pop(name)
    widget.cleanup()
    holder.widget.delete()


def reload_module(name: str) -> Any:
    """Load a module's script anew, as Slicer's Reload button does."""
    path = Path(_state["paths"][name])
    unload_module(name)
    sys.modules.pop(name, None)
    return load_module(path)


def select_module(name: str) -> None:
    """``slicer.util.selectModule``: noted, and the module that was shown is left."""
    for loaded, (_module, _widget, holder, _description) in list(_state.get("modules", {}).items()):
        if holder.isEntered and loaded != name:
            leave(loaded)
    _state["selected"] = name
    if name in _state.get("modules", {}):
        enter(name)


def selected_module() -> str:
    """The module shown last by ``slicer.util.selectModule``."""
    return _state.get("selected", "")


def description(name: str) -> Any:
    """What a module says of itself: title, categories, help text."""
    return _state["modules"][name][3]


def wait_for(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    """Run the event loop until a condition holds; raise AssertionError after ``timeout`` seconds."""
    from .qt_module import process_events

    end = time.monotonic() + timeout
    while True:
        process_events()
        if condition():
            return
        assert time.monotonic() < end, f"not within {timeout:.0f} s"
        time.sleep(0.002)


class _Parent:
    """The widget that Slicer makes for a module: a qMRMLWidget that knows whether the user is here."""

    def __init__(self, widget: Any) -> None:
        self.widget, self.isEntered = widget, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.widget, name)
