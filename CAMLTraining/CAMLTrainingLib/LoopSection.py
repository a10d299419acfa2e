"""The panel's part "Next cases": the newest model over all unlabelled cases, and which of them to correct next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from CAMLSegmentationLib import Review
from CAMLSegmentationLib.Combo import choose, chosen, fill
from CAMLSegmentationLib.PlainText import asWritten
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.project.suggestion import Ranked

from . import Editing, Predictions
from .Logic import CAMLTrainingLogic
from .PredictionSummary import PredictionSummary
from .TrainingTexts import counted

_HEADERS = (_("Case"), _("Disagreement"), _("Why"))


class LoopSection:
    """Runs the model and ranks the cases; calls ``onEdit(case)`` to open the editor, ``onChange`` after a change."""

    def __init__(
        self, ui: Any, logic: CAMLTrainingLogic, onChange: Callable[[], None], onEdit: Callable[[str], None]
    ) -> None:
        self._ui, self._logic, self._onChange, self._onEdit = ui, logic, onChange, onEdit
        self._parameterNode: Any = None
        self._ranked: tuple[Ranked, ...] = ()
        self._overlay, self._stops, self._stop = Review.Overlay(), [], -1
        self._shown = ""
        self._updating = False
        fill(ui.rankingComboBox, ((_("Most disagreement"), "disagreement"), (_("At random"), "random")))
        ui.suggestionsTableWidget.columnCount = len(_HEADERS)
        ui.suggestionsTableWidget.setHorizontalHeaderLabels(list(_HEADERS))
        ui.suggestionsTableWidget.verticalHeader().hide()
        ui.suggestionsTableWidget.horizontalHeader().setStretchLastSection(True)
        ui.suggestionsTableWidget.connect("itemSelectionChanged()", self._onSelection)
        ui.rankingComboBox.connect("currentIndexChanged(int)", self._onRanking)
        ui.predictButton.connect("clicked(bool)", lambda checked=False: self._onPredict())
        ui.cancelPredictButton.connect("clicked(bool)", lambda checked=False: self._logic.cancelPredictions())
        ui.showDisagreementButton.connect("clicked(bool)", self._onShow)
        ui.nextPlaceButton.connect("clicked(bool)", lambda checked=False: self._onPlace())
        ui.correctButton.connect("clicked(bool)", lambda checked=False: self._onCorrect())

    @property
    def running(self) -> bool:
        """Whether unlabelled cases are being segmented."""
        return self._logic.predictions is not None and not self._logic.predictions.ended

    @property
    def ranked(self) -> list[str]:
        """The cases, the one to label next first."""
        return [entry.case for entry in self._ranked]

    def setParameterNode(self, parameterNode: Any) -> None:
        """Follow a parameter node; None detaches."""
        self._parameterNode = parameterNode
        self.hide()
        if parameterNode is not None:
            choose(self._ui.rankingComboBox, parameterNode.ranking)

    def refresh(self) -> None:
        """Bring list and buttons in line."""
        ui = self._ui
        model = self._logic.latestModel()
        waiting = self._logic.project.with_role("unlabeled")
        ui.predictButton.enabled = model is not None and bool(waiting) and not self.running
        ui.predictButton.toolTip = (
            _("Train first: there is no model yet.")
            if model is None
            else _("There is no unlabelled case to segment; add scans to the cohort.")
            if not waiting
            else _("Run the newest model over the unlabelled cases that it has not segmented yet, in the background.")
        )
        ui.cancelPredictButton.enabled = self.running
        ui.predictProgressBar.setVisible(self.running)
        ranking = self._parameterNode.ranking if self._parameterNode is not None else "disagreement"
        choose(ui.rankingComboBox, ranking)
        ranked = self._logic.suggest(ranking if ranking in ("disagreement", "random") else "disagreement")
        if ranked != self._ranked:
            self._ranked = ranked
            self._showRanked()
        self._showButtons()

    def hide(self) -> None:
        """Take the overlay away."""
        self._overlay.hide()
        self._ui.showDisagreementButton.checked = False
        self._shown, self._stops, self._stop = "", [], -1

    def forget(self) -> None:
        """Another project, or another scene: what was said is of the cases of the one before."""
        self._ui.predictLabel.text = ""

    # What the logic reports

    def onPredictionProgress(self, share: float, text: str) -> None:
        """Show how far it is."""
        self._ui.predictProgressBar.value = round(1000 * share)
        self._ui.predictLabel.text = text

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """Say how it went."""
        text = counted(len(summary.done), _("{count} case segmented."), _("{count} cases segmented."))
        if summary.leftOut:
            text += " " + _leftOut(summary.leftOut)
        if summary.misfits:
            text += " " + _misfits(summary.misfits)
        if summary.channels:
            text += " " + summary.channels
        if summary.cancelled:
            text += " " + _("Cancelled.")
        if summary.failures:
            text += " " + next(iter(summary.failures.values()))
        if len(summary.failures) > 1:
            text += " " + _("And {count} more failed.").format(count=len(summary.failures) - 1)
        if summary.fault:
            text += " " + summary.fault
        self._ui.predictLabel.text = text
        self._onChange()

    # The list

    def _showRanked(self) -> None:
        self._updating = True
        table, selected = self._ui.suggestionsTableWidget, self._selected()
        table.rowCount = len(self._ranked)
        for row, entry in enumerate(self._ranked):
            score = "" if entry.score is None else f"{entry.score:.3f}"
            for column, text in enumerate((entry.case, score, entry.reason)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(asWritten(text))
                table.setItem(row, column, item)
                item.setSelected(entry.case == selected)
        self._updating = False

    def _selected(self) -> str:
        table = self._ui.suggestionsTableWidget
        for row in range(table.rowCount):
            item = table.item(row, 0)
            if item is not None and item.isSelected():
                return str(item.text())
        return ""

    def _showButtons(self) -> None:
        selected, ui = bool(self._selected()), self._ui
        ui.correctButton.enabled = selected
        ui.showDisagreementButton.enabled = selected or bool(self._shown)
        ui.nextPlaceButton.enabled = bool(self._stops)

    def _onSelection(self) -> None:
        if self._updating:
            return
        if self._shown and self._selected() != self._shown:
            self.hide()
        self._showButtons()

    def _onRanking(self, index: int) -> None:
        if self._parameterNode is not None:
            self._parameterNode.ranking = chosen(self._ui.rankingComboBox)
            self.refresh()

    # Buttons

    def _onPredict(self) -> None:
        self._ui.predictLabel.text = _("Starting")
        try:
            self._logic.startPredictions(inTurns=True)
        except CamlError as error:
            self._ui.predictLabel.text = str(error)
        self._onChange()

    def _onShow(self, checked: bool) -> None:
        if not checked:
            self.hide()
            self._showButtons()
            return
        case = self._selected()
        try:
            node = Predictions.showPrediction(self._logic.cohort, case)
            mapNode = Predictions.disagreementMap(self._logic.cohort, case)
        except CamlError as error:
            self._ui.predictLabel.text = str(error)
            self.hide()
            return
        Editing.show(self._logic.cohort, case, self._logic.cohort.volumeNode(case), node)
        if mapNode is None:
            self._ui.predictLabel.text = _("There is no map of the disagreement on this case; segment it again.")
            self.hide()
            return
        self._overlay.show(mapNode)
        self._shown, self._stops, self._stop = case, Review.findStops(mapNode), -1
        self._onPlace()
        self._showButtons()

    def _onPlace(self) -> None:
        if not self._stops:
            return
        self._stop = (self._stop + 1) % len(self._stops)
        Review.jumpTo(self._stops[self._stop])
        self._ui.predictLabel.text = _("Place {number} of {count}, slice {slice}.").format(
            number=self._stop + 1, count=len(self._stops), slice=self._stops[self._stop].slice
        )

    def _onCorrect(self) -> None:
        if case := self._selected():
            self._onEdit(case)


def _leftOut(volumes: dict[str, float]) -> str:
    """Say of predictions that they were more than is shown. ``volumes``: mL of parts left out, by case."""
    most, others = max(volumes, key=lambda case: volumes[case]), len(volumes) - 1
    if not others:
        more = ""
    else:
        more = _(", and less of {count} others") if others > 1 else _(", and less of {count} other")
    return _("Only the largest parts are kept; of {case} {volume} mL were left out{more}.").format(
        case=most, volume=f"{volumes[most]:.2f}", more=more.format(count=others)
    )


def _misfits(sentences: dict[str, str]) -> str:
    """Say of the first case how it is not like what the model was made for, and how many others there are."""
    text, others = next(iter(sentences.values())), len(sentences) - 1
    if not others:
        return text
    more = _("{count} others do not fit it either.") if others > 1 else _("{count} other does not fit it either.")
    return f"{text} {more.format(count=others)}"
