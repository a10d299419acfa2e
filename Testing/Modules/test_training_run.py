"""Trainings through the panel's buttons: real processes, on scans small enough for a test."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_tools import (
    SMALL,
    add_scan,
    add_segmentation,
    ball,
    cell,
    choose_time,
    draw,
    finish,
    roles,
    select,
    train,
    write_folder,
)

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("short_training")


@pytest.mark.cold_python
def test_from_labels_to_a_model_and_on_to_the_next_case(training, a_cohort, wait_for, answers, tmp_path):
    import slicer
    from CAMLSegmentationLib import Models
    from CAMLTrainingLib import Curves
    from PySide6 import QtCore
    from SlicerHost import qt_module

    a_cohort(labeled=3, unlabeled=2, validation=1)
    panel = training
    panel.ui.previewComboBox.currentIndex = panel.ui.previewComboBox.findData("Scan 05")
    panel._parameterNode.modelName = "Balls"
    train(panel, wait_for, baseline=True)
    finish(panel, wait_for)

    # The result: rows side by side, with how far they go.
    (found,) = panel.logic.rounds()
    assert sorted(row.name for row in found.rows) == ["caml", "labeled-only"]
    html = panel.ui.resultTextBrowser.html
    assert "1 case" in html and "Labels alone" in html and "Scan 05" in html
    assert panel.ui.reportButton.enabled
    assert panel.ui.historyTableWidget.rowCount == 1
    assert panel.ui.historyTableWidget.item(0, 1).text() == "3"

    # The report opens where reports are read, and the model goes where the user says.
    panel.ui.reportButton.click()
    assert [QtCore.QUrl(address).toLocalFile() for address in qt_module.opened] == [str(found.report)]
    answers["getSaveFileName"] = str(tmp_path / "for-others.caml")
    panel.ui.exportModelButton.click()
    assert (tmp_path / "for-others.caml").read_bytes() == found.model.read_bytes()

    # The model is in the list of CAML Segmentation, with its card.
    names = [entry.name for entry in Models.library().entries()]
    assert names == ["Balls"]
    entry = Models.library().entries()[0]
    assert entry.card.info.labeled_cases == 3 and entry.card.info.unlabeled_cases == 2

    # Curves are plot nodes of Slicer; the preview is a prediction on the chosen case.
    assert Curves.chartNode("dice") is not None and Curves.chartNode("loss") is not None
    series = slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode")
    tables = {
        s.GetName(): s.GetTableNode().GetNumberOfRows()
        for s in series
        if s.GetAttribute("CAMLTraining.Plot").startswith("dice")
    }
    assert tables["CAML"] >= 1
    previews = [n for n in slicer.util.getNodesByClass("vtkMRMLSegmentationNode") if "preview" in n.GetName()]
    assert len(previews) == 1
    assert panel.logic.cohort.segmentationNode("Scan 05") not in previews

    # The unlabelled cases.
    panel.ui.predictButton.click()
    wait_for(lambda: not panel.loop.running, 120)
    assert panel.ui.predictLabel.text == "2 cases segmented.", panel.ui.predictLabel.text
    assert cell(panel, "Scan 03", "Status") == "predicted"
    assert cell(panel, "Scan 03", "Disagreement") != ""
    node = panel.logic.cohort.predictionNode("Scan 03")
    assert node.GetName() == "Scan 03 - Balls (prediction)"
    assert panel.logic.cohort.segmentationNode("Scan 03") is None, "a prediction is no hand's work"
    select(panel, ["Scan 03"])
    panel.ui.useAsLabeledButton.click()
    assert roles(panel)["Scan 03"] == "unlabeled"

    # Which case next: shown, opened, corrected, taken.
    assert panel.ui.suggestionsTableWidget.rowCount == 2
    first = panel.ui.suggestionsTableWidget.item(0, 0).text()
    scores = [float(panel.ui.suggestionsTableWidget.item(r, 1).text()) for r in range(2)]
    assert scores == sorted(scores, reverse=True)
    for column in range(3):
        panel.ui.suggestionsTableWidget.item(0, column).setSelected(True)
    panel.loop._onSelection()
    panel.ui.showDisagreementButton.click()
    assert panel.ui.showDisagreementButton.checked, panel.ui.predictLabel.text
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    mapNode = slicer.mrmlScene.GetNodeByID(composite.GetForegroundVolumeID())
    assert mapNode.GetName() == f"{first} disagreement"
    assert 0 < slicer.util.arrayFromVolume(mapNode).max() <= 100
    panel.ui.correctButton.click()
    assert panel.edit.case == first
    hand = panel.edit.editor.segmentationNode()
    assert hand.GetAttribute("CAMLTraining.Prediction") is None
    draw(hand, panel.edit.editor.sourceVolumeNode(), ball(int(first[-2:])))
    panel.ui.acceptNextButton.click()
    assert roles(panel)[first] == "labeled"
    panel.ui.backButton.click()
    assert panel.ui.suggestionsTableWidget.rowCount == 1

    # The next round starts from the last model.
    assert panel.ui.startModelComboBox.currentText == "Balls"
    train(panel, wait_for)
    finish(panel, wait_for)
    second = panel.logic.rounds()[1]
    assert {row.name for row in second.rows} == {"start", "caml"}
    assert second.labeled == 4
    assert panel.ui.historyTableWidget.rowCount == 2


@pytest.mark.slow
def test_paused_and_resumed(training, a_cohort, wait_for, monkeypatch):
    import slicer
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "4000", *SMALL))
    a_cohort(labeled=2, unlabeled=1)
    panel = training
    train(panel, wait_for)
    wait_for(lambda: "iteration" in panel.ui.statusLabel.text, 120)
    panel.ui.pauseButton.click()
    wait_for(lambda: not panel.logic.training, 60)
    assert "Paused" in panel.ui.statusLabel.text
    assert panel.ui.resumeButton.enabled and not panel.ui.pauseButton.enabled
    panel.ui.resumeButton.click()
    wait_for(lambda: "iteration" in panel.ui.statusLabel.text, 120)

    # Stopped for good: what it has learnt is kept.
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *a, **k: True)
    panel.ui.stopButton.click()
    wait_for(lambda: panel.logic.round.state == "finished", 120)
    (found,) = panel.logic.rounds()
    assert found.finished and found.ended == "stopped" and found.model.is_file()
    rows = (found.folder / "caml" / "metrics.csv").read_text().splitlines()[1:]
    iterations = [int(row.split(",")[0]) for row in rows]
    assert iterations == sorted(set(iterations)), "resuming repeats nothing"
    assert 0 < found.row("caml").iterations < 4000


@pytest.mark.cold_python
@pytest.mark.slow
def test_a_killed_training_goes_on_where_it_was(training, a_cohort, wait_for, monkeypatch):
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "60", *SMALL))
    a_cohort(labeled=2, unlabeled=1, validation=1)
    panel = training
    train(panel, wait_for)
    wait_for(lambda: (panel.logic.round.folder / "caml" / "checkpoint.pt").is_file(), 120)
    panel.logic.round.kill()
    wait_for(lambda: not panel.logic.training, 60)
    if panel.logic.round.state == "finished":
        pytest.fail("the training was faster than the test; give it more iterations")
    assert panel.logic.round.state == "interrupted"
    assert "press Resume" in panel.ui.statusLabel.text
    panel.ui.resumeButton.click()
    finish(panel, wait_for)
    assert panel.logic.rounds()[0].finished
    assert len(panel.logic.rounds()) == 1


@pytest.mark.cold_python
@pytest.mark.slow
def test_it_survives_the_module_and_is_found_again(training, the_training_module, a_cohort, wait_for, tmp_path):
    import slicer
    import SlicerHost

    names = a_cohort(labeled=2, unlabeled=1)
    train(training, wait_for)
    wait_for(lambda: (tmp_path / "project" / "rounds" / "001" / "events.jsonl").is_file(), 60)
    slicer.mrmlScene.Clear()
    SlicerHost.unload_module("CAMLTraining")
    time.sleep(1.0)

    panel = SlicerHost.load_module(Path(the_training_module.resourcePath("")).parent / "CAMLTraining.py").panel
    SlicerHost.enter("CAMLTraining")
    panel.ui.projectDirectoryButton.directory = str(tmp_path / "project")
    finish(panel, wait_for)
    assert panel.logic.rounds()[0].finished
    assert set(names[:2]) <= {c.id for c in panel.logic.project.with_role("labeled")}
    from CAMLSegmentationLib import Models

    assert len(Models.library().entries()) == 1


@pytest.mark.slow
def test_a_scan_removed_in_mid_run_does_no_harm(training, a_cohort, wait_for):
    import slicer

    names = a_cohort(labeled=2, unlabeled=1, validation=1)
    train(training, wait_for)
    for name in names:
        slicer.mrmlScene.RemoveNode(training.logic.cohort.volumeNode(name))
    training.update()
    finish(training, wait_for)
    assert list(roles(training)) == names


def test_a_second_training_of_the_project_is_refused(training, a_cohort, wait_for, monkeypatch):
    from CAMLTrainingLib import Preflight
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    from caml_core.errors import TrainingError

    # So long that it is still at work when the other one tries; it is ended by force afterwards.
    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "4000", *SMALL))
    a_cohort(labeled=2, unlabeled=1)
    train(training, wait_for)
    assert not training.ui.trainButton.enabled
    wait_for(lambda: "iteration" in training.ui.statusLabel.text, 120)
    other = CAMLTrainingLogic()
    other.openProject(training.logic.project.folder)
    with pytest.raises(TrainingError, match="running already"):
        other.startTraining(Preflight.TrainingSettings(budget="10m"))
    assert other.training, "the other one follows what is at work"
    other.close()
    assert training.logic.training


def test_without_a_label_train_is_off_and_says_why(training):
    add_scan(0)
    training.update()
    assert not training.ui.trainButton.enabled
    assert "No case is labelled" in training.ui.trainButton.toolTip


def test_until_better_needs_a_validation_case(training, a_cohort):
    a_cohort(labeled=2, unlabeled=1)
    choose_time(training, "better")
    assert "validation case" in training.ui.trainButton.toolTip
    assert not training.ui.trainButton.enabled


def test_the_check_says_what_to_expect(training, a_cohort, wait_for):
    a_cohort(labeled=1, unlabeled=0)
    choose_time(training)
    training.ui.checkButton.click()
    assert training.ui.progressBar.isVisibleTo(training.ui.progressBar.parent())
    wait_for(lambda: not training.logic.checking, 120)
    text = training.ui.verdictTextBrowser.toPlainText()
    assert training.logic.verdict.kind == "fits", text
    assert "no unlabelled case" in text and "Memory" in text
    assert any("no unlabelled case" in caution for caution in training.logic.verdict.cautions)
    assert not training.logic.rounds(), "checking trains nothing"


@pytest.mark.slow
def test_a_check_is_not_repeated_because_sizes_became_known(training, wait_for, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 3, labels=1))
    training.logic.setRole(["case-00"], "labeled")
    training.update()
    choose_time(training)
    assert any(case.size is None for case in training.logic.project.cases.values())
    training.ui.trainButton.click()
    wait_for(lambda: not training.logic.checking, 120)
    assert "press Train again" in training.ui.statusLabel.text
    wait_for(lambda: all(case.size for case in training.logic.project.cases.values()), 60)
    training.ui.trainButton.click()
    assert training.logic.training and not training.logic.checking
    finish(training, wait_for)


def test_a_damaged_scan_keeps_the_check_from_passing(training, a_cohort, wait_for, tmp_path):
    a_cohort(labeled=2, unlabeled=0)
    folder = write_folder(tmp_path / "scans", 1, first=7)
    (folder / "case-07.nii.gz").write_bytes(b"torn")
    training.logic.addFolder(folder)
    training.update()
    choose_time(training)
    training.ui.trainButton.click()
    wait_for(lambda: not training.logic.checking, 120)
    assert not training.logic.training
    assert "case-07" in training.ui.verdictTextBrowser.toPlainText()


def test_scans_that_are_gone_are_named_before_anything_runs(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2, labels=1))
    training.logic.setRole(["case-00"], "labeled")
    training.update()
    (tmp_path / "scans" / "case-01.nii.gz").unlink()
    choose_time(training)
    training.ui.trainButton.click()
    assert (
        "case-01 is not there" in training.ui.statusLabel.text or "case-01 is neither" in training.ui.statusLabel.text
    )
    assert not training.logic.checking


@pytest.mark.cold_python
def test_quitting_pauses_where_the_user_wants_it(training, a_cohort, wait_for):
    import slicer
    import SlicerHost

    a_cohort(labeled=2, unlabeled=1)
    training.ui.onQuitComboBox.currentIndex = training.ui.onQuitComboBox.findData("pause")
    train(training, wait_for)
    stop = training.logic.round.stopFile
    SlicerHost.unload_module("CAMLTraining")  # what Slicer does first when it quits
    slicer.app._emit("aboutToQuit()")
    assert stop.is_file()


@pytest.mark.cold_python
@pytest.mark.slow
def test_slicer_that_crashes_leaves_the_training_alive(tmp_path, caml_environment, training, wait_for):
    """The process that has started the training is gone at once; the project is opened by another."""
    folder = write_folder(tmp_path / "scans", 3, labels=2)
    code = f"""
import os, sys
sys.path[:0] = {[str(HOME / "Testing"), str(HOME / "CAMLSegmentation"), str(HOME / "CAMLTraining")]!r}
import SlicerHost
SlicerHost.install()
from CAMLTrainingLib import Preflight
from CAMLTrainingLib.Logic import CAMLTrainingLogic
Preflight.BUDGETS["10m"] = {("--iterations", "12", *SMALL)!r}
logic = CAMLTrainingLogic()
logic.openProject({str(tmp_path / "crashed")!r})
logic.addFolder({str(folder)!r})
assert logic.setRole(["case-00", "case-01"], "labeled") == {{}}
logic.startTraining(Preflight.TrainingSettings(budget="10m"))
os._exit(11)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=caml_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 11, done.stderr
    # Until the process has taken its lock nobody can know that it is there.
    wait_for(lambda: (tmp_path / "crashed" / "rounds" / "001" / "events.jsonl").is_file(), 60)
    training.ui.projectDirectoryButton.directory = str(tmp_path / "crashed")
    finish(training, wait_for)
    assert training.logic.rounds()[0].finished and training.ui.resultTextBrowser.toPlainText()


@pytest.mark.slow
def test_what_the_readme_shows_works(the_training_module, tmp_path, monkeypatch):
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "1h", ("--iterations", "12", *SMALL))
    for seed in range(6):
        volume = add_scan(seed, f"LA {seed + 1:02d}")
        if seed < 4:
            add_segmentation(volume, ball(seed))
    lines = (HOME / "README.md").read_text(encoding="utf-8").splitlines()
    first = lines.index("    from CAMLTraining import CAMLTrainingLogic")
    block = list(itertools.takewhile(lambda line: line.startswith("    ") or not line, lines[first:]))
    script = "\n".join(line[4:] for line in block).replace("my-project", str(tmp_path / "my-project"))
    assert len([line for line in block if line.strip()]) <= 16
    space: dict = {}
    exec(compile(script, "README.md", "exec"), space)
    assert space["done"].validation == 1 and space["done"].model.is_file()
    assert {entry.case for entry in space["logic"].suggest()} == {"LA 05", "LA 06"}
    space["logic"].close()


@pytest.mark.slow
def test_the_logic_alone_does_it_in_a_script(the_training_module, tmp_path):
    from CAMLTrainingLib.Logic import CAMLTrainingLogic
    from CAMLTrainingLib.Preflight import TrainingSettings

    folder = write_folder(tmp_path / "scans", 4, labels=2)
    logic = CAMLTrainingLogic()
    logic.openProject(tmp_path / "script")
    logic.addFolder(folder)
    assert logic.setRole(["case-00", "case-01"], "labeled") == {}
    settings = TrainingSettings(budget="10m", name="Scripted")
    assert logic.preflight(settings).mayTrain
    done = logic.train(settings)
    assert done.model.is_file()
    summary = logic.segmentUnlabeled(done.model)
    assert sorted(summary.done) == ["case-02", "case-03"] and not summary.failures
    assert [r.case for r in logic.suggest()] and logic.addToModels(done).is_file()
    assert {r.case for r in logic.suggest("random", seed=1)} == {"case-02", "case-03"}
    logic.close()
    files = sorted(p.name for p in (tmp_path / "script" / "predictions").glob("*.seg.nrrd"))
    assert files == ["case-02.seg.nrrd", "case-03.seg.nrrd"]
    assert json.loads((tmp_path / "script" / "cohort.json").read_text())["format"] == 1
