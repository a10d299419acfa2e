"""The module ``ctk``: stand-ins for the CTK widgets that the modules use, as PySide6 widgets that really work."""

from __future__ import annotations

import types
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from . import facts, proxy, qt_module


class ctkCollapsibleButton(QtWidgets.QWidget):  # noqa: N801
    """A button with content below it that folds away."""

    contentsCollapsed = QtCore.Signal(bool)  # noqa: N815
    clicked = QtCore.Signal(bool)
    toggled = QtCore.Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        if isinstance(parent, str):
            parent = None
        super().__init__(parent)
        self._collapsed, self._text = False, ""
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Maximum)

    def _header(self) -> int:
        return self.fontMetrics().height() + 10

    def childEvent(self, event: QtCore.QChildEvent) -> None:  # noqa: N802
        """Content begins below the header."""
        super().childEvent(event)
        self._fold()

    def event(self, event: QtCore.QEvent) -> bool:
        """The layout may come late."""
        if event.type() == QtCore.QEvent.LayoutRequest:
            self._fold()
        return super().event(event)

    def _fold(self) -> None:
        self.setContentsMargins(0, self._header(), 0, 0)
        # Clipped, not hidden: what the module hides inside stays hidden when it is unfolded.
        self.setMaximumHeight(self._header() if self._collapsed else 16777215)
        self.updateGeometry()

    def minimumSizeHint(self) -> QtCore.QSize:  # noqa: N802
        """The header alone when folded."""
        hint = super().minimumSizeHint()
        return QtCore.QSize(min(hint.width(), 200), self._header()) if self._collapsed else hint

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        """The header alone when folded."""
        hint = super().sizeHint()
        return QtCore.QSize(hint.width(), self._header()) if self._collapsed else hint

    def isCollapsed(self) -> bool:  # noqa: N802
        """Whether the content is folded away."""
        return self._collapsed

    def setCollapsed(self, collapsed: bool) -> None:  # noqa: N802
        """Fold or unfold."""
        if bool(collapsed) != self._collapsed:
            self._collapsed = bool(collapsed)
            self._fold()
            self.update()
            self.contentsCollapsed.emit(self._collapsed)

    def getText(self) -> str:  # noqa: N802
        """The header's text."""
        return self._text

    def setText(self, text: str) -> None:  # noqa: N802
        """Set the header's text."""
        self._text = str(text)
        self.update()

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """A click on the header folds and unfolds."""
        if event.position().y() <= self._header():
            self.setCollapsed(not self._collapsed)
            self.clicked.emit(not self._collapsed)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Draw the header as a flat button with an arrow."""
        painter, option = QtWidgets.QStylePainter(self), QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self._header())
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyle.PE_IndicatorArrowRight if self._collapsed else QtWidgets.QStyle.PE_IndicatorArrowDown
        mark = QtWidgets.QStyleOption()
        mark.initFrom(self)
        mark.rect = QtCore.QRect(6, self._header() // 2 - 5, 10, 10)
        painter.drawPrimitive(arrow, mark)
        painter.drawText(option.rect.adjusted(22, 0, 0, 0), QtCore.Qt.AlignVCenter, self._text)

    collapsed = QtCore.Property(bool, isCollapsed, setCollapsed)
    text = QtCore.Property(str, getText, setText)


class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """A path with a button to browse."""

    currentPathChanged = QtCore.Signal(str)  # noqa: N815
    validInputChanged = QtCore.Signal(bool)  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._edit, self._filters = QtWidgets.QLineEdit(), ""
        button = QtWidgets.QToolButton()
        button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        layout.addWidget(button)
        self._valid = False
        self._edit.textChanged.connect(self._on_text)

    def _on_text(self, text: str) -> None:
        """CTK tells a path only where its validator accepts it: ".+" without name filters, so never an empty one."""
        before, self._valid = self._valid, bool(text)
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    def getPath(self) -> str:  # noqa: N802
        """The path as it stands."""
        return self._edit.text()

    def setCurrentPath(self, path: str) -> None:  # noqa: N802
        """Set the path."""
        self._edit.setText(str(path))

    def getFilters(self) -> str:  # noqa: N802
        """What may be chosen."""
        return self._filters

    def setFilters(self, filters: str) -> None:  # noqa: N802
        """Set what may be chosen."""
        self._filters = filters

    currentPath = QtCore.Property(str, getPath, setCurrentPath)  # noqa: N815
    filters = QtCore.Property(str, getFilters, setFilters)


class ctkSearchBox(QtWidgets.QLineEdit):  # noqa: N801
    """A line with a clear button."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)


class ctkDirectoryButton(QtWidgets.QWidget):  # noqa: N801
    """A button that shows a folder and lets another be chosen."""

    directoryChanged = QtCore.Signal(str)  # noqa: N815
    directorySelected = QtCore.Signal(str)  # noqa: N815

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._directory, self._elide = QtCore.QDir(), QtCore.Qt.ElideNone
        self._button = QtWidgets.QPushButton()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._button)
        self._button.setSizePolicy(QtWidgets.QSizePolicy.Ignored, QtWidgets.QSizePolicy.Fixed)

    def getDirectory(self) -> str:  # noqa: N802
        """The folder."""
        return self._directory.path()

    def setDirectory(self, path: str) -> None:  # noqa: N802
        """Set the folder; the same one again is "selected", not "changed"."""
        new = QtCore.QDir(str(path))
        changed = new != self._directory
        self._directory.setPath(new.absolutePath())
        self._show()
        self.directorySelected.emit(new.absolutePath())
        if changed:
            self.directoryChanged.emit(new.absolutePath())

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """As much of the path as there is room for."""
        super().resizeEvent(event)
        self._show()

    def _show(self) -> None:
        metrics = self._button.fontMetrics()
        self._button.setText(
            metrics.elidedText(self._directory.path(), self._elide, max(self._button.width() - 12, 40))
        )

    def getElideMode(self) -> QtCore.Qt.TextElideMode:  # noqa: N802
        """Where long paths are cut."""
        return self._elide

    def setElideMode(self, mode: QtCore.Qt.TextElideMode) -> None:  # noqa: N802
        """Set where long paths are cut."""
        self._elide = QtCore.Qt.TextElideMode(mode)

    directory = QtCore.Property(str, getDirectory, setDirectory)
    elideMode = QtCore.Property(QtCore.Qt.TextElideMode, getElideMode, setElideMode)  # noqa: N815


STAND_INS = (ctkCollapsibleButton, ctkDirectoryButton, ctkPathLineEdit, ctkSearchBox)


def make() -> types.ModuleType:
    """Return the module."""
    module = types.ModuleType("ctk")
    for stand_in in STAND_INS:
        name = stand_in.__name__
        assert facts.is_named(name, "ctk"), name
        setattr(module, name, proxy.proxy_class(name, stand_in))
        qt_module.UiLoader.custom[name] = stand_in
    return module
