"""The module ``qt``: Qt's classes with PythonQt's manners."""

from __future__ import annotations

import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import shiboken6
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import facts, proxy

#: Classes that the host has. Each is described, or stands in NAMED_ONLY with those of its members that Slicer uses.
CLASSES = [
    "QObject",
    "QTimer",
    "QProcess",
    "QProcessEnvironment",
    "QEventLoop",
    "QUrl",
    "QSize",
    "QSettings",
    "QDir",
    "QFileInfo",
    "QFile",
    "QWidget",
    "QLabel",
    "QPushButton",
    "QToolButton",
    "QCheckBox",
    "QRadioButton",
    "QComboBox",
    "QLineEdit",
    "QSpinBox",
    "QDoubleSpinBox",
    "QSlider",
    "QProgressBar",
    "QPlainTextEdit",
    "QTextEdit",
    "QTextBrowser",
    "QTableWidget",
    "QTableWidgetItem",
    "QTableWidgetSelectionRange",
    "QListWidget",
    "QListWidgetItem",
    "QTreeWidget",
    "QTreeWidgetItem",
    "QHeaderView",
    "QStackedWidget",
    "QTabWidget",
    "QGroupBox",
    "QFrame",
    "QSplitter",
    "QScrollArea",
    "QVBoxLayout",
    "QHBoxLayout",
    "QFormLayout",
    "QGridLayout",
    "QMenu",
    "QButtonGroup",
    "QDialog",
    "QDialogButtonBox",
    "QMessageBox",
    "QFileDialog",
    "QInputDialog",
    "QAction",
    "QIcon",
    "QPixmap",
    "QImage",
    "QColor",
    "QBrush",
    "QFont",
    "QPalette",
    "QClipboard",
    "QAbstractButton",
    "QApplication",
    "QDesktopServices",
]

#: What the user would answer to dialogs, set by tests: name of the dialog -> answer or function of its arguments.
answers: dict[str, Any] = {}
#: Addresses that were to be opened in a browser or file manager.
opened: list[str] = []


def make() -> types.ModuleType:
    """Return the module; PySide6's application must exist."""
    module = types.ModuleType("qt")
    for name in CLASSES:
        native = next((getattr(m, name) for m in (QtCore, QtGui, QtWidgets) if hasattr(m, name)), None)
        assert native is not None and facts.is_named(name), name
        setattr(module, name, proxy.proxy_class(name, native))
    module.Qt = _namespace()
    module.QUiLoader = proxy.proxy_class("QUiLoader", UiLoader)
    _statics()
    return module


def _namespace() -> type:
    """``qt.Qt``: enumerators, bare and by the enum's name."""
    values = facts.facts()["enums"]["Qt"]
    body: dict[str, Any] = {}
    for name, value in values.items():
        native = getattr(QtCore.Qt, name, None)
        body[name] = proxy.EnumValue(value, native)
        if native is not None:
            holder = body.setdefault(type(native).__name__, type(type(native).__name__, (), {}))
            setattr(holder, name, body[name])
    return type("Qt", (), body)


def _statics() -> None:
    def single_shot(milliseconds: int, function: Callable[[], Any]) -> None:
        QtCore.QTimer.singleShot(int(milliseconds), lambda: proxy._call(function, []))

    def dialog(name: str) -> Callable[..., Any]:
        def show(*arguments: Any) -> Any:
            if name not in answers:
                raise AssertionError(f"a dialog came up that the test does not answer: {name}{arguments!r}")
            answer = answers[name]
            return answer(*arguments) if callable(answer) else answer

        return show

    proxy.add_static("QTimer", "singleShot", single_shot)
    proxy.add_static(
        "QProcessEnvironment",
        "systemEnvironment",
        lambda: proxy.from_native(QtCore.QProcessEnvironment.systemEnvironment()),
    )
    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        proxy.add_static("QFileDialog", name, dialog(name))
    proxy.add_static("QUrl", "fromLocalFile", lambda path: proxy.from_native(QtCore.QUrl.fromLocalFile(str(path))))
    proxy.add_static("QDesktopServices", "openUrl", lambda url: opened.append(proxy.to_native(url).toString()) is None)
    proxy.add_static("QApplication", "clipboard", lambda: proxy.from_native(QtWidgets.QApplication.clipboard()))
    proxy.add_static("QApplication", "processEvents", process_events)
    cursor = QtWidgets.QApplication.setOverrideCursor
    proxy.add_static("QApplication", "setOverrideCursor", lambda shape: cursor(proxy.to_native(shape)))
    proxy.add_static("QApplication", "restoreOverrideCursor", QtWidgets.QApplication.restoreOverrideCursor)
    for name in ("question", "warning", "information", "critical"):
        proxy.add_static("QMessageBox", name, dialog(f"QMessageBox.{name}"))
    _answer_message_boxes()


def _answer_message_boxes() -> None:
    """A message box is answered at once by the text of one of its buttons: nobody is there to click."""

    def execute(box: QtWidgets.QMessageBox) -> int:
        answer = answers.get("QMessageBox")
        assert answer is not None, f"a message box came up that the test does not answer: {box.text()!r}"
        texts = {b.text().replace("&", ""): b for b in box.buttons()}
        wanted = answer(box.text()) if callable(answer) else answer
        assert wanted in texts, f"{wanted!r} is no button of {sorted(texts)}"
        box.show()
        texts[wanted].click()
        return int(box.result())

    proxy._OWN_METHODS["exec"] = proxy._OWN_METHODS["exec_"] = lambda owner, *arguments: (
        execute(proxy.to_native(owner))
        if isinstance(proxy.to_native(owner), QtWidgets.QMessageBox)
        else proxy.to_native(owner).exec(*arguments)
    )


def process_events(*_flags: Any) -> None:
    """Deliver what waits. An event loop does so: QCoreApplication's own static gave None away in some PySide6."""
    QtCore.QEventLoop().processEvents()


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files with stand-ins for Slicer's classes, and makes the file's connections between them."""

    #: Class name -> stand-in; filled by the modules of stand-ins.
    custom: dict[str, type[QtWidgets.QWidget]] = {}

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> QtWidgets.QWidget:  # noqa: N802
        """Make a widget of the file."""
        stand_in = self.custom.get(class_name)
        if stand_in is None:
            assert class_name.startswith("Q"), f"the host has no stand-in for {class_name}"
            return super().createWidget(class_name, parent, name)
        widget = stand_in(parent)
        widget.setObjectName(name)
        return widget

    def load(self, file: Any, parent: Any = None) -> Any:
        """Load from a QFile, as Slicer does."""
        path = Path(file.fileName())
        tree = ElementTree.parse(path)
        root = tree.getroot()
        late = _take_sets(root)
        connections = _take_connections(root)
        with tempfile.NamedTemporaryFile("wb", suffix=".ui", delete=False) as reduced:
            tree.write(reduced)
        try:
            widget = super().load(reduced.name, parent)
        finally:
            Path(reduced.name).unlink()
        for name, property_name, value in late:
            _find(widget, name).setProperty(property_name, value)
        for sender, signal, receiver, slot in connections:
            source, target = proxy.from_native(_find(widget, sender)), proxy.from_native(_find(widget, receiver))
            assert proxy.connect(source, signal, target, slot), f"{sender}.{signal}"
        return widget


def _find(widget: QtWidgets.QWidget, name: str) -> QtCore.QObject:
    return widget if widget.objectName() == name else widget.findChild(QtCore.QObject, name)


def _take_sets(root: ElementTree.Element) -> list[tuple[str, str, str]]:
    """Enumerators of Slicer's classes mean nothing to PySide6's loader; stand-ins take them as text."""
    late = []
    for widget in root.iter("widget"):
        if widget.get("class") in UiLoader.custom:
            for entry in [
                p for p in widget.findall("property") if p.find("set") is not None or p.find("enum") is not None
            ]:
                child = entry.find("set") if entry.find("set") is not None else entry.find("enum")
                if not str(child.text).startswith("Q"):
                    late.append((widget.get("name"), entry.get("name"), child.text))
                    widget.remove(entry)
    return late


def _take_connections(root: ElementTree.Element) -> list[tuple[str, str, str, str]]:
    found = []
    for holder in root.findall("connections"):
        for entry in holder.findall("connection"):
            found.append(tuple(entry.findtext(part) for part in ("sender", "signal", "receiver", "slot")))
        root.remove(holder)
    return found


def is_alive(native: Any) -> bool:
    """Whether the C++ half of an object is still there."""
    return shiboken6.isValid(native)
