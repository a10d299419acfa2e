"""The panel's parts "Result" and "Rounds": what trainings have reached, side by side and one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from CAMLSegmentationLib import Models
from CAMLSegmentationLib.Combo import choose, chosen, fill
from CAMLSegmentationLib.PlainText import asWritten
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.project.history import Round

from . import Curves, ModelChoice, Results
from .Logic import CAMLTrainingLogic

_HEADERS = (
    _("Round"),
    _("Labels"),
    _("Unlabeled"),
    _("Minutes"),
    _("CAML, Dice %"),
    _("Labels alone, Dice %"),
    _("Start model, Dice %"),
    _("Held-out cases"),
)
#: Rows of a result that have a column each.
_ROWS = ("caml", "labeled-only", "start")


class RoundSection:
    """Shows the rounds of the project; ``onModel`` gets the name of the last one's model, and whether the list had it
    before.
    """

    def __init__(self, ui: Any, logic: CAMLTrainingLogic, onModel: Callable[[str, bool], None]) -> None:
        self._ui, self._logic, self._onModel = ui, logic, onModel
        self._rounds: tuple[Round, ...] = ()
        ui.historyTableWidget.columnCount = len(_HEADERS)
        ui.historyTableWidget.setHorizontalHeaderLabels(list(_HEADERS))
        ui.historyTableWidget.verticalHeader().hide()
        ui.roundComboBox.connect("currentIndexChanged(int)", self._onRound)
        ui.reportButton.connect("clicked(bool)", self._onReport)
        ui.useModelButton.connect("clicked(bool)", self._onUse)
        ui.exportModelButton.connect("clicked(bool)", self._onExport)
        ui.historyPlotButton.connect("clicked(bool)", lambda checked=False: self._onPlot())

    @property
    def round(self) -> Round | None:
        """The round that is shown."""
        key = chosen(self._ui.roundComboBox)
        return next((r for r in self._rounds if str(r.number) == key), None)

    def refresh(self, newest: bool = False) -> None:
        """Read the rounds again, and put the last one's model into the list of models; ``newest``: show it, too."""
        self._rounds = self._logic.rounds()
        finished = [r for r in self._rounds if r.finished]
        fill(
            self._ui.roundComboBox,
            [(_("Round {number}").format(number=r.number), str(r.number)) for r in reversed(finished)],
        )
        if newest and finished:
            choose(self._ui.roundComboBox, str(finished[-1].number))
            self._ui.resultCollapsibleButton.collapsed = False
            self._ui.loopCollapsibleButton.collapsed = False
        if finished:
            self._addToModels(finished[-1])
        self._showRound()
        self._showHistory(finished)

    def _addToModels(self, found: Round) -> None:
        """Once for each round and computer: a model that the user has removed from the list does not come back by
        itself.
        """
        if not os.path.isfile(found.model):
            return
        try:
            again = ModelChoice.wasListed(found)
            known = again or ModelChoice.wasPut(found)
            path = ModelChoice.library().find(found.model) if known else self._logic.addToModels(found)
            if path is None:
                return
            ModelChoice.noteListed(found)
        except CamlError as error:
            self._ui.statusLabel.text = asWritten(str(error))
            return
        self._onModel(ModelChoice.titleOf(path), again)

    def _showRound(self) -> None:
        found, ui = self.round, self._ui
        ui.resultTextBrowser.html = (
            Results.resultHtml(found) if found is not None else _("<p>There is no result yet; press Train.</p>")
        )
        ui.reportButton.enabled = found is not None and os.path.isfile(found.report)
        for name in ("useModel", "exportModel"):
            getattr(ui, f"{name}Button").enabled = found is not None and os.path.isfile(found.model)

    def _showHistory(self, finished: list[Round]) -> None:
        table = self._ui.historyTableWidget
        table.rowCount = len(finished)
        for row, found in enumerate(finished):
            for column, text in enumerate(_historyRow(found)):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        self._ui.historyPlotButton.enabled = any(Results.measured(r, n) is not None for r in finished for n in _ROWS)

    # Buttons

    def _onRound(self, index: int) -> None:
        self._showRound()

    def _onReport(self, checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.round.report)))

    def _onUse(self, checked: bool = False) -> None:
        """Open CAML Segmentation with the model chosen."""
        try:
            path = self._logic.addToModels(self.round)
        except CamlError as error:
            slicer.util.errorDisplay(asWritten(str(error)))
            return
        name = Models.library().entry(path).name
        slicer.util.selectModule("CAMLSegmentation")
        panel = slicer.modules.camlsegmentation.widgetRepresentation().self().panel
        panel.models.add(path)
        text = _("The model {name} is chosen in CAML Segmentation.").format(name=name)
        self._ui.statusLabel.text = asWritten(text)

    def _onExport(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save the model"), f"{self._logic.project.folder.name}.caml", "CAML (*.caml)"
        )
        if path:
            try:
                Models.library().export(self.round.model, Path(path))
            except CamlError as error:
                slicer.util.errorDisplay(asWritten(str(error)))

    def _onPlot(self) -> None:
        if Curves.plotHistory(self._rounds) is not None:
            Curves.show("history")


def _historyRow(found: Round) -> tuple[str, ...]:
    values = (Results.measured(found, name) for name in _ROWS)
    dice = [Results.percent(value) if value is not None else "" for value in values]
    return (
        str(found.number),
        str(found.labeled),
        str(found.unlabeled),
        f"{found.minutes:.0f}",
        *dice,
        str(found.validation),
    )
