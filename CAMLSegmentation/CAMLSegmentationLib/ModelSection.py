"""The panel's part "Model": the list with its search, the card, and what can be done with model files."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.model_file import ModelCard
from caml_core.model_library import Entry, ModelLibrary

from . import Models
from .Job import commonArguments
from .PlainText import asWritten
from .Process import NOT_STARTED, WorkerFactory, WorkerProcess, newStopFile
from .Run import newFolder

_FILTER = "CAML (*.caml)"


class ModelSection:
    """Shows the library; calls ``onChange`` when another model is chosen."""

    def __init__(
        self,
        ui: Any,
        onChange: Any,
        library: ModelLibrary | None = None,
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._ui, self._onChange = ui, onChange
        self.library = library or Models.library()
        self._parameterNode: Any = None
        self._entries: tuple[Entry, ...] = ()
        self._chosen: Path | None = None
        #: Someone has chosen, in this or an earlier scene, so that nothing is suggested any more.
        self._decided = False
        self._updating = False
        self._worker = workerFactory(self)
        self._folder: Path | None = None
        self._importFault = self._importLog = ""
        self._closed = False
        ui.modelSearchBox.connect("textChanged(QString)", self._onSearch)
        ui.modelListWidget.connect("currentRowChanged(int)", self._onRow)
        ui.modelListWidget.connect("clicked(QModelIndex)", self._onClicked)
        ui.openModelButton.connect("clicked(bool)", self._onOpen)
        ui.importModelButton.connect("clicked(bool)", self._onImport)
        ui.exportModelButton.connect("clicked(bool)", self._onExport)
        ui.removeModelButton.connect("clicked(bool)", self._onRemove)
        ui.modelFolderButton.connect("clicked(bool)", self._onFolder)

    @property
    def entry(self) -> Entry | None:
        """The chosen model, usable or not."""
        return next((e for e in self._entries if e.path == self._chosen), None)

    @property
    def card(self) -> ModelCard | None:
        """The chosen model's card, None where none is chosen or it cannot be used."""
        return self.entry.card if self.entry is not None else None

    def problem(self) -> str:
        """Return what is missing, as the tooltip of Apply; empty where nothing is."""
        if self.entry is None:
            return _("Choose a model, or open a model file.")
        if not self.entry.path.is_file():
            return _("The model file {path} is gone; choose another model.").format(path=self.entry.path)
        return self.entry.fault

    def setParameterNode(self, parameterNode: Any) -> None:
        """Choose the model that the scene names, where it is in the library."""
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self.refresh()

    def refresh(self) -> None:
        """Read the folders again and show what fits the search."""
        self._entries = self.library.entries()
        wanted = self._parameterNode.modelName if self._parameterNode is not None else ""
        meant = self._named(wanted)
        if meant and self._chosen not in [entry.path for entry in meant]:
            self._chosen = _newest(meant).path
        if self.entry is None:
            usable = [entry for entry in self._entries if entry.card is not None and not wanted]
            alike = [entry for entry in usable if entry.name == usable[0].name]
            self._chosen = _newest(alike).path if alike else None
        self._show()

    def suggest(self, misfit: Callable[[ModelCard], tuple[int, int]]) -> None:
        """Choose the model with the least ``misfit``, where nobody has chosen one yet.

        Among equals the newest of the user's own, else the newest that comes with the extension.
        """
        usable = [entry for entry in self._entries if entry.card is not None]
        if self._parameterNode is None or self._parameterNode.modelName or self._decided or not usable:
            return
        misfits = [misfit(entry.card) for entry in usable]
        equal = [entry for entry, found in zip(usable, misfits, strict=True) if found == min(misfits)]
        # The time of a file that comes along is only when Slicer was installed.
        best = _newest([entry for entry in equal if not entry.bundled] or equal).path
        if best != self._chosen:
            self._chosen = best
            self._show()

    def _named(self, name: str) -> list[Entry]:
        """The models that the scene may mean: of this name, and where there is such a one with the noted weights."""
        named = [entry for entry in self._entries if name and entry.name == name]
        noted = self._parameterNode.modelHash if named else ""
        return [entry for entry in named if entry.card is not None and entry.card.sha256 == noted] or named

    def add(self, path: Path) -> None:
        """Copy a model file into the user's models and choose it; raise CamlError."""
        self._choose(self.library.add(path))

    def close(self) -> None:
        """End an import, and say nothing of it: a dialog would keep Slicer from quitting."""
        self._closed = True
        self._worker.end()

    def importCheckpoint(self, checkpoint: Path, name: str) -> None:
        """Turn a published checkpoint into a model, in a process of its own (PyTorch reads it)."""
        self._importFault = self._importLog = ""
        self._folder = newFolder()
        stopFile = newStopFile(self._folder)
        target = self._folder / f"{checkpoint.stem}.caml"
        arguments = ["import-checkpoint", str(checkpoint), "-o", str(target), "--name", name]
        self._ui.importModelButton.enabled = False
        self._worker.start([*arguments, *commonArguments(stopFile)], stopFile)

    # The worker that imports

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Keep the sentence of what failed."""
        if kind == "error":
            self._importFault = str(fields.get("message") or "")

    def onWorkerLog(self, text: str) -> None:
        """Shown where nothing better is known."""
        self._importLog = self._importLog or text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Take the model in, or say what failed; after ``close`` only tidy up."""
        folder, self._folder = self._folder, None
        try:
            if not self._closed:
                self._ui.importModelButton.enabled = True
                self._takeIn(exitCode, crashed, sorted(folder.glob("*.caml")) if folder is not None else [])
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def _takeIn(self, exitCode: int, crashed: bool, made: list[Path]) -> None:
        try:
            if exitCode == 0 and made:
                self.add(made[0])
            elif exitCode != 130:
                slicer.util.errorDisplay(asWritten(self._importFault or self._importEnd(crashed)))
        except CamlError as error:
            slicer.util.errorDisplay(asWritten(str(error)))

    def _importEnd(self, crashed: bool) -> str:
        """The sentence for an import that ended without one."""
        if crashed and NOT_STARTED not in self._importLog:
            return _(
                "The checkpoint could not be imported: the system ended the worker, most likely for want of memory; "
                "close other programs and try again."
            )
        return self._importLog or _("The checkpoint could not be imported; is PyTorch installed?")

    # The list

    def _show(self) -> None:
        self._updating = True
        widget = self._ui.modelListWidget
        widget.clear()
        shown = self.library.search(self._entries, self._ui.modelSearchBox.text)
        names = Counter(entry.name for entry in self._entries)
        for entry in shown:
            title = f"{entry.name} ({entry.path.stem})" if names[entry.name] > 1 else entry.name
            item = qt.QListWidgetItem(_itemText(entry, title))
            item.setData(qt.Qt.UserRole, str(entry.path))
            item.setToolTip(asWritten(entry.fault or str(entry.path)))
            widget.addItem(item)
        rows = [entry.path for entry in shown]
        widget.currentRow = rows.index(self._chosen) if self._chosen in rows else -1
        self._updating = False
        self._showCard()

    def _showCard(self) -> None:
        entry = self.entry
        self._ui.modelCardTextBrowser.html = Models.cardHtml(entry) if entry is not None else self._emptyText()
        self._ui.exportModelButton.enabled = entry is not None and entry.card is not None
        self._ui.removeModelButton.enabled = entry is not None and not entry.bundled
        self._onChange()

    def _emptyText(self) -> str:
        if self._entries:
            return _("<p>Choose a model above.</p>")
        return _(
            "<p>There is no model yet. Open a model file (.caml) that you were given or trained yourself, or import a "
            "checkpoint published by the authors of CAML (.pth).</p>"
        )

    def _onSearch(self, text: str) -> None:
        self._show()

    def _onRow(self, row: int) -> None:
        if self._updating or row < 0:
            return
        self._chosen, self._decided = Path(self._ui.modelListWidget.item(row).data(qt.Qt.UserRole)), True
        self.remember()
        self._showCard()

    def _onClicked(self, index: Any) -> None:
        """A click on the row that is chosen already chooses it, too, and changes no row."""
        self._decided = True
        self.remember()

    def _choose(self, path: Path) -> None:
        self._chosen, self._decided = path, True
        self._entries = self.library.entries()
        self.remember()
        self._ui.modelSearchBox.text = ""
        self._show()

    def remember(self) -> None:
        """Note in the scene which model is chosen."""
        if self._parameterNode is not None and self.entry is not None:
            self._parameterNode.modelName = self.entry.name
            self._parameterNode.modelHash = self.card.sha256 if self.card is not None else ""

    # Buttons

    def _onOpen(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Open a model"), "", _FILTER)
        if path:
            self._trying(lambda: self.add(Path(path)))

    def _onImport(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Import a published checkpoint"), "", "PyTorch (*.pth *.pt)"
        )
        if path:
            self._trying(lambda: self.importCheckpoint(Path(path), Path(path).stem))

    def _onExport(self, checked: bool = False) -> None:
        entry = self.entry
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save a copy of the model"), entry.path.name, _FILTER
        )
        if path:
            self._trying(lambda: self.library.export(entry.path, Path(path)))

    def _onRemove(self, checked: bool = False) -> None:
        entry = self.entry
        question = _("Remove the model {name} from this computer? The file is deleted.").format(name=entry.name)
        if slicer.util.confirmYesNoDisplay(asWritten(question)):
            self._trying(lambda: self.library.remove(entry.path))
            self._chosen = None
            self.refresh()

    def _onFolder(self, checked: bool = False) -> None:
        self.library.user.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.library.user)))

    def _trying(self, action: Any) -> None:
        try:
            action()
        except CamlError as error:
            slicer.util.errorDisplay(asWritten(str(error)))


def _itemText(entry: Entry, title: str) -> str:
    """title: the model's name, with that of its file where several models bear it."""
    if entry.card is None:
        return _("{name} (cannot be used)").format(name=title)
    metrics = entry.card.info.metrics
    note = _(", see card") if Models.heldOutCases(metrics) or Models.heldOutRemarks(metrics) else ""
    return f"{title}  -  {Models.heldOut(metrics)}{note}"


def _newest(entries: Sequence[Entry]) -> Entry:
    """The entry whose file was put into the library last; the first of those of one time."""
    return max(entries, key=_changed)


def _changed(entry: Entry) -> int:
    try:
        return entry.path.stat().st_mtime_ns
    except OSError:  # removed a moment ago
        return 0
