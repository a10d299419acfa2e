"""The pictures of the module CAML Training: its practice cohort, two rounds, and what lies between them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import charts
import numpy as np
import pictures
import SlicerHost
from pictures import OUTPUT, REPOSITORY

MODEL = "Left atrium (phantoms)"
#: A coarse grid and patches that hold a whole scan: a few hundred iterations are minutes, and validation costs little.
#: One thread, which a busy machine slows down least.
SMALL = ("--spacing", "2.5,2.5,2.5", "--patch", "48,40,32", "--base-filters", "8", "--dtype", "fp32", "--threads", "1")
#: What a click opens in turn; the others are closed, so that a picture shows one thing.
SECTIONS = ("cohort", "train", "result", "loop", "history")
CHART = (600, 300)
OVERVIEW_WIDTH = 1200
#: Unlabelled cases that are corrected between the rounds.
CORRECTED = 2
#: Seconds that a step of the story may take on a busy machine.
PATIENCE = 3 * 3600.0


def photograph(iterations: int, slices: Sequence[Any]) -> None:
    """Open the module, practise two rounds on phantoms, and take a picture at each step."""
    import slicer

    slicer.mrmlScene.Clear()
    SlicerHost.load_module(REPOSITORY / "CAMLSegmentation" / "CAMLSegmentation.py")
    widget = SlicerHost.load_module(REPOSITORY / "CAMLTraining" / "CAMLTraining.py")
    SlicerHost.enter("CAMLTraining")
    # A path that may be shown: the same on every machine.
    project = Path(tempfile.gettempdir()) / "CAML Training" / "left-atrium"
    shutil.rmtree(project, ignore_errors=True)
    panel = widget.panel
    try:
        panel.ui.projectDirectoryButton.directory = str(project)
        practise(widget)
        first_round(widget, iterations)
        next_cases(widget, slices)
        second_round(widget, max(1, iterations // 3))
        save_overview()
    finally:
        if panel.logic.training:
            panel.logic.round.kill()
        slicer.mrmlScene.Clear()
        SlicerHost.unload_module("CAMLTraining")
        SlicerHost.unload_module("CAMLSegmentation")


def practise(widget: Any) -> None:
    """Make the phantoms, give them roles, look at the cohort."""
    from CAMLTrainingLib import Practice

    panel, ui = widget.panel, widget.panel.ui
    ui.practiceButton.click()
    SlicerHost.wait_for(lambda: panel.logic.project.cases or "could not" in ui.cohortMessageLabel.text, PATIENCE)
    with_label = [case.id for case in panel.logic.project.cases.values() if case.label is not None]
    assert len(with_label) == Practice.LABELED + Practice.VALIDATION, ui.cohortMessageLabel.text
    for cases, button in (
        (with_label[: Practice.LABELED], ui.useAsLabeledButton),
        (with_label[Practice.LABELED :], ui.validationButton),
    ):
        panel.cohort.table.select(cases)
        button.click()
        assert not ui.cohortMessageLabel.text, ui.cohortMessageLabel.text
    SlicerHost.wait_for(lambda: all(c.size for c in panel.logic.project.cases.values()))
    panel.cohort.table.select(with_label[:1])
    show(widget, "cohort")
    pictures.save_panel(widget, "training-cohort")


def first_round(widget: Any, iterations: int) -> None:
    """Check, train with the labels alone beside it, look at progress, curves and result."""
    from CAMLTrainingLib import Curves

    panel, ui = widget.panel, widget.panel.ui
    panel._parameterNode.modelName = MODEL
    ui.baselineCheckBox.checked = True
    choose_time(panel, iterations)
    show(widget, "train")
    ui.checkButton.click()
    SlicerHost.wait_for(lambda: not panel.logic.checking, PATIENCE)
    assert panel.logic.verdict.mayTrain, panel.logic.verdict.sentence
    pictures.save_panel(widget, "training-check")
    ui.logCheckBox.checked = True
    ui.trainButton.click()
    SlicerHost.wait_for(lambda: not panel.logic.training or far_enough(panel, 0.6), PATIENCE)
    assert panel.logic.training, panel.logic.roundMessage
    pictures.save_panel(widget, "training-running")
    finish(panel)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{role}.png" for role in ("loss", "dice")]
        for path in paths:
            charts.save_chart(Curves.chartNode(path.stem), path, CHART)
        pictures.row([pictures.read(path) for path in paths]).save(str(OUTPUT / "training-curves.png"))


def next_cases(widget: Any, slices: Sequence[Any]) -> None:
    """Segment the unlabelled cases, look at the ranking and at a disagreement, correct the first ones."""
    panel, ui = widget.panel, widget.panel.ui
    show(widget, "loop")
    ui.predictButton.click()
    SlicerHost.wait_for(lambda: not panel.loop.running, PATIENCE)
    assert "segmented" in ui.predictLabel.text, ui.predictLabel.text
    for column in range(ui.suggestionsTableWidget.columnCount):
        ui.suggestionsTableWidget.item(0, column).setSelected(True)
    panel.loop._onSelection()
    ui.showDisagreementButton.click()
    assert ui.showDisagreementButton.checked, ui.predictLabel.text
    pictures.save_panel(widget, "training-next")
    pictures.save_slices(slices, "training-slices")
    truth = labels_of_all(panel.logic.project.folder)
    ui.correctButton.click()
    for _ in range(CORRECTED):
        correct(panel, truth)
        ui.acceptNextButton.click()
    ui.backButton.click()


def second_round(widget: Any, iterations: int) -> None:
    """Go on from the first model with the corrected cases, look at result and rounds."""
    panel, ui = widget.panel, widget.panel.ui
    choose_time(panel, iterations)
    ui.startModelComboBox.currentIndex = ui.startModelComboBox.findData(MODEL)
    ui.checkButton.click()
    SlicerHost.wait_for(lambda: not panel.logic.checking, PATIENCE)
    ui.trainButton.click()
    finish(panel)
    show(widget, "result", "history")
    pictures.save_panel(widget, "training-result")


def choose_time(panel: Any, iterations: int) -> None:
    """The shortest choice of time is a number of iterations on a coarse grid."""
    from CAMLTrainingLib import Preflight

    Preflight.BUDGETS["10m"] = ("--iterations", str(iterations), *SMALL)
    panel.ui.budgetComboBox.currentIndex = panel.ui.budgetComboBox.findData("10m")


def far_enough(panel: Any, share: float) -> bool:
    """Whether the first part of a round has got so far."""
    bar = panel.ui.progressBar
    return "iteration" in panel.ui.statusLabel.text and bar.value >= share * bar.maximum


def finish(panel: Any) -> None:
    """Wait for the end of a training."""
    SlicerHost.wait_for(lambda: not panel.logic.training, PATIENCE)
    assert panel.logic.round.state == "finished", f"{panel.logic.round.state}: {panel.logic.roundMessage}"


def show(widget: Any, *wanted: str) -> None:
    """Open some sections of the panel and close the others."""
    for section in SECTIONS:
        getattr(widget.panel.ui, f"{section}CollapsibleButton").collapsed = section not in wanted


def labels_of_all(project: Path) -> Path:
    """Make the practice cohort again, with a label for every case: what a perfect hand would draw."""
    from CAMLTrainingLib import Practice

    folder = project / "truth"
    counts = ["--cases", str(Practice.CASES), "--validation", str(Practice.VALIDATION)]
    counts += ["--labeled", str(Practice.CASES - Practice.VALIDATION), "--seed", "7"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    caml = [sys.executable, "-m", "caml_core", "phantom", "atrium", "-o", str(folder), "--progress", "none"]
    subprocess.run([*caml, *counts], env=environment, check=True)
    return folder / "labels"


def correct(panel: Any, truth: Path) -> None:
    """Draw the true label into the segmentation that the editor holds."""
    import slicer
    from CAMLTrainingLib import CaseExchange

    editor, case = panel.edit.editor, panel.edit.case
    volume, node = editor.sourceVolumeNode(), editor.segmentationNode()
    file = next(path for path in sorted(truth.iterdir()) if path.name.startswith(f"{case}."))
    drawn = CaseExchange.loadLabel(file, volume, case, panel.logic.project.segments)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(drawn, drawn.GetSegmentation().GetNthSegmentID(0), volume)
    slicer.mrmlScene.RemoveNode(drawn)
    identity = node.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray((mask > 0).astype(np.uint8), node, identity, volume)


def save_overview() -> None:
    """Put cohort, training and result side by side, with the curves below, for the README."""
    panels = [pictures.read(OUTPUT / f"training-{name}.png") for name in ("cohort", "running", "result")]
    upper = pictures.row([pictures.scaled(panel, OVERVIEW_WIDTH // 3) for panel in panels])
    curves = pictures.scaled(pictures.read(OUTPUT / "training-curves.png"), OVERVIEW_WIDTH)
    pictures.column([upper, curves]).save(str(OUTPUT / "training-overview.png"))
