"""What the buttons beside results do: curves, the plot of all rounds, places of disagreement, the model in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SlicerHost
from stand_ins import save_stand_in
from training_tools import add_scan, ball, finish_round, predict

from caml_core.data.io import read_volume
from caml_core.data.labels import write_scalar
from caml_core.project.history import Round, Row


def shown_chart():
    """The chart in the plot view of Slicer's layout."""
    import slicer

    selection = slicer.app.applicationLogic().GetSelectionNode()
    return slicer.mrmlScene.GetNodeByID(selection.GetActivePlotChartID() or "")


def lines(chart) -> dict[str, list[tuple[float, float]]]:
    """Name -> points of a chart's lines."""
    found = {}
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        table = series.GetTableNode().GetTable()
        x, y = (table.GetColumnByName(name) for name in (series.GetXColumnName(), series.GetYColumnName()))
        found[series.GetName()] = [(x.GetValue(row), y.GetValue(row)) for row in range(table.GetNumberOfRows())]
    return found


# Plots


def test_the_plot_shows_all_rounds_that_were_measured(training, stand_in):
    finish_round(training, 1, stand_in, caml=0.8, labeled_only=0.7)
    finish_round(training, 2, stand_in)
    finish_round(training, 3, stand_in, cross_validation=0.85)
    finish_round(training, 4, stand_in, caml=0.9, start=0.0)
    training.ui.historyPlotButton.click()
    chart = shown_chart()
    assert chart.GetXAxisTitle() == "Round" and chart.GetYAxisTitle() == "Dice (%)"
    assert {name: [(x, pytest.approx(y)) for x, y in points] for name, points in lines(chart).items()} == {
        "CAML": [(1, 80), (3, 85), (4, 90)],
        "Labels alone": [(1, 70)],
        "Start model": [(4, 0)],
    }
    assert [training.ui.historyTableWidget.item(row, 4).text() for row in range(4)] == ["80.0", "", "85.0", "90.0"]


def test_a_start_model_with_fewer_segments_is_compared_on_them(training):
    from CAMLTrainingLib.Results import resultHtml

    def row(name: str, **dice: float) -> Row:
        return Row(name, 2, {segment: (value, 0.0) for segment, value in dice.items()}, {})

    ours = row("caml", A=0.9, B=0.5)
    said = resultHtml(Round(2, Path(), True, rows=(row("start", A=0.8), ours)))
    assert "Dice 70.0 % (Start model 80.0 %, on A alone, where it is 90.0 % now)." in said
    said = resultHtml(Round(2, Path(), True, rows=(row("start", A=0.8, B=0.2), ours)))
    assert "Dice 70.0 % (Start model 50.0 %)." in said


def test_rounds_that_were_not_measured_cannot_be_plotted(training, stand_in):
    finish_round(training, 1, stand_in)
    assert training.ui.historyTableWidget.rowCount == 1
    assert not training.ui.historyPlotButton.enabled


@pytest.mark.parametrize(
    ("button", "axis", "points"),
    [("lossCurve", "Loss", [(1, 2.0), (2, 1.0)]), ("validationCurve", "Dice (%)", [(2, 50.0)])],
)
def test_a_curve_is_shown_when_its_button_is_pressed(training, button, axis, points):
    assert not getattr(training.ui, f"{button}Button").enabled
    for iteration, loss in ((1, 2.0), (2, 1.0)):
        training.onRoundEvent("step", {"part": "caml", "iteration": iteration, "total": 9, "losses": {"total": loss}})
    training.onRoundEvent("validation", {"part": "caml", "iteration": 2, "dice": 0.5, "cases": 1})
    training.onRoundLook()
    training.update()
    assert shown_chart() is None, "a training does not change what the user looks at"
    getattr(training.ui, f"{button}Button").click()
    assert shown_chart().GetYAxisTitle() == axis
    assert lines(shown_chart()) == {"CAML": points}


def test_a_long_curve_is_as_fine_at_its_beginning_as_at_its_end(training):
    from CAMLTrainingLib import Curves

    curves = Curves.Curves()
    for iteration in (*range(1, 9001), *range(8001, 20_001)):  # resumed once
        fields = {"part": "caml", "iteration": iteration, "losses": {"total": 1.0 / iteration}}
        curves.onEvent("step", fields)
    curves.update()
    (points,) = lines(Curves.chartNode("loss")).values()
    gaps = [b - a for (a, _), (b, _) in zip(points, points[1:])]
    assert points[0] == (1, 1.0) and points[-1] == (20_000, 1.0 / 20_000)
    assert Curves.MOST_POINTS / 3 < len(points) <= Curves.MOST_POINTS and 0 < min(gaps) and max(gaps) < 150


def test_a_night_of_events_is_followed_in_pieces_when_its_project_is_opened(training, stand_in, wait_for):
    """5 MB of them; in one go they keep Slicer from answering for seconds."""
    from CAMLTrainingLib import Curves, RoundProcess

    folder, steps = finish_round(training, 1, stand_in), 20_000
    told = [
        {"event": "step", "part": "caml", "iteration": n, "total": steps, "losses": {"total": 1 / n}, "note": "x" * 150}
        for n in range(1, steps + 1)
    ]
    told.append({"event": "error", "message": "Stopped.", "exit_code": 130})
    (folder / "result.json").unlink()
    (folder / "round.json").write_text("{}")  # one that waits to be resumed
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    assert (folder / "events.jsonl").stat().st_size > 5_000_000
    said = []
    training.logic.openProject(training.logic.project.folder)
    training.update()
    assert training.logic.round._seen.offset <= RoundProcess.CHUNK
    assert training.logic.resumable and not training.logic.training and training.ui.resumeButton.enabled
    wait_for(lambda: said.append(training.ui.statusLabel.text) or "Paused" in said[-1], 60)
    assert len(set(said) - {""}) <= 2, "steps of yesterday do not race through the status"
    (points,) = lines(Curves.chartNode("loss")).values()
    assert points[0] == (1, 1.0) and points[-1] == (steps, pytest.approx(1 / steps))
    gaps = [b - a for (a, _), (b, _) in zip(points, points[1:])]
    assert max(gaps) < steps / 100, "no piece is missing"


# Places


def predict_with_map(panel, case: str, slices: tuple[int, ...]) -> None:
    """A prediction whose sub-models disagree in a square on each of these slices, the first the most."""
    predict(panel, case, ball(0))
    grid = read_volume(panel.logic.project.cases[case].images[0]).grid
    percent = np.zeros(grid.size, np.uint8)
    for rank, index in enumerate(slices):
        percent[8:12, 6 : 16 - 2 * rank, index] = 90
    write_scalar(panel.logic.project.folder / "predictions" / f"{case}_disagreement.nrrd", percent, grid)


def slice_of_red() -> float:
    """Where the axial view is, in mm."""
    import slicer

    return slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceOffset()


def select_suggestion(panel, row: int) -> None:
    """Select a case of the ranking, as a click does."""
    panel.ui.suggestionsTableWidget.selectRow(row)


def test_next_place_goes_round_the_slices_of_disagreement_the_worst_first(training):
    import slicer

    volume = add_scan(0)
    training.update()
    training.logic.save()
    predict_with_map(training, "Scan 00", (10, 4, 17))
    training.update()
    ui = training.ui
    assert not ui.nextPlaceButton.enabled
    select_suggestion(training, 0)
    ui.showDisagreementButton.click()
    assert ui.showDisagreementButton.checked and ui.nextPlaceButton.enabled, ui.predictLabel.text
    texts, places = [ui.predictLabel.text], [slice_of_red()]
    for _ in range(3):
        ui.nextPlaceButton.click()
        texts.append(ui.predictLabel.text)
        places.append(slice_of_red())
    assert texts == [f"Place {n} of 3, slice {s}." for n, s in ((1, 10), (2, 4), (3, 17), (1, 10))]
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    assert places == pytest.approx([bounds[4] + 1.5 * (s + 0.5) for s in (10, 4, 17, 10)])
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    shown = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    assert shown.GetName() == "Scan 00 disagreement"
    ui.showDisagreementButton.click()
    assert composite.GetForegroundVolumeID() is None and not ui.nextPlaceButton.enabled


def test_without_a_map_it_is_said_and_nothing_stays_pressed(training):
    add_scan(0)
    training.update()
    training.logic.save()
    predict(training, "Scan 00", ball(0))
    training.update()
    select_suggestion(training, 0)
    training.ui.showDisagreementButton.click()
    assert "There is no map of the disagreement" in training.ui.predictLabel.text
    assert not training.ui.showDisagreementButton.checked and not training.ui.nextPlaceButton.enabled


# The model in use


def test_segment_with_it_opens_the_other_module_with_the_model_chosen(training, stand_in, tmp_path):
    import slicer
    from CAMLSegmentationLib import Models

    older = finish_round(training, 1, save_stand_in(tmp_path / "older.caml", name="Older")) / "model.caml"
    finish_round(training, 2, save_stand_in(tmp_path / "newer.caml", name="Newer"))
    combo = training.ui.roundComboBox
    combo.currentIndex = combo.findData("1")
    training.ui.useModelButton.click()
    assert SlicerHost.selected_module() == "CAMLSegmentation"
    chosen = slicer.modules.camlsegmentation.widgetRepresentation().self().panel.models.entry
    assert chosen.name == "Older" and chosen.path.read_bytes() == older.read_bytes()
    assert training.ui.statusLabel.text == "The model Older is chosen in CAML Segmentation."
    combo.currentIndex = combo.findData("2")
    training.ui.useModelButton.click()
    assert slicer.modules.camlsegmentation.widgetRepresentation().self().panel.models.entry.name == "Newer"
    assert len(Models.library().entries()) == 2, "a model that is there is not copied again"


def test_a_model_file_that_is_damaged_is_said(training, stand_in, monkeypatch):
    import slicer

    folder = finish_round(training, 1, stand_in)
    (folder / "model.caml").write_bytes(b"torn")
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", said.append)
    training.ui.useModelButton.click()
    assert len(said) == 1 and "model.caml" in said[0].replace("round 1.caml", "model.caml")
