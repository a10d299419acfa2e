"""The whole workflow on real scans, through the panel's buttons: `make acceptance`. About an hour.

Not part of `make test`: a training that is worth something takes minutes. What it saw last is in docs/verification.md.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from training_tools import cell, draw, roles, select

from caml_core.config import Segment
from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.data.labels import read_labels

ITERATIONS, START_ITERATIONS = 240, 120
ATRIUM = "left atrium"


@pytest.fixture
def report(capsys):
    """``report(text)``: say a figure in the middle of the run."""

    def say(text):
        with capsys.disabled():
            print(f"\n    {text}", flush=True)

    return say


@pytest.fixture
def la_cases(shared_folder):
    """(name, image, label) of the left atria, in the official order."""
    folder = shared_folder / "la2018"
    if not folder.is_dir():
        pytest.skip("the folder of real scans has no la2018")
    with (folder / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [(f"LA {int(r['index']):02d}", folder / r["image"], folder / r["label"]) for r in rows]


@pytest.fixture
def set_iterations(the_training_module, monkeypatch):
    """``set_iterations(n)``: what the shortest choice of time means."""
    from CAMLTrainingLib import Preflight

    return lambda count: monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", str(count)))


def start_model(folder: Path, cases, environment) -> Path:
    """A model that has seen two other atria for a minute."""
    listed = tuple(Case(name, (image,), label, "labeled") for name, image, label in cases)
    save_cohort(Cohort(listed, folder, (Segment(ATRIUM, 1),)), folder / "start.json")
    command = [sys.executable, "-m", "caml_core", "train", str(folder / "start.json"), "-o", str(folder / "start")]
    options = ["--iterations", str(START_ITERATIONS), "--name", "Started", "--progress", "none"]
    subprocess.run([*command, *options], env=environment, check=True, capture_output=True)
    return folder / "start" / "model.caml"


def load_segmentation(name: str, label: Path, volume):
    """A label map as a segmentation, named as a user would."""
    import slicer

    array = read_labels(label).array.transpose(2, 1, 0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} segmentation")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("", ATRIUM)
    draw(node, volume, array > 0)
    return node


def train(panel, wait_for, kill_at: int = 0):
    wait_for(lambda: panel.ui.trainButton.enabled, 60)  # labels are being checked
    panel.ui.trainButton.click()
    wait_for(lambda: not panel.logic.checking, 600)
    if not panel.logic.training:
        panel.ui.trainButton.click()
    if kill_at:
        wait_for(lambda: f"iteration {kill_at}" in panel.ui.statusLabel.text or _past(panel, kill_at), 1200)
        panel.logic.round.kill()
        wait_for(lambda: not panel.logic.training, 60)
        assert panel.logic.round.state == "interrupted", panel.logic.roundMessage
        panel.ui.resumeButton.click()
    wait_for(lambda: not panel.logic.training, 3600)
    assert panel.logic.round.state == "finished", panel.logic.roundMessage
    return panel.logic.rounds()[-1]


def _past(panel, iteration: int) -> bool:
    words = panel.ui.statusLabel.text.split()
    return "iteration" in words and int(words[words.index("iteration") + 1]) >= iteration


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_left_atria_from_labels_to_predictions(
    training, la_cases, set_iterations, wait_for, tmp_path, models_folder, caml_environment, report
):
    import slicer
    from CAMLSegmentationLib import Models

    models_folder.mkdir(parents=True, exist_ok=True)
    (models_folder / "start.caml").write_bytes(start_model(tmp_path, la_cases[30:32], caml_environment).read_bytes())
    set_iterations(ITERATIONS)
    names = [name for name, _image, _label in la_cases[:12]]
    for index, (name, image, label) in enumerate(la_cases[:12]):
        volume = slicer.util.loadVolume(str(image), {"name": name})
        if index < 4 or index >= 10:
            load_segmentation(name, label, volume)
    panel = training
    panel.enter()
    select(panel, names[:4])
    panel.ui.useAsLabeledButton.click()
    select(panel, names[10:])
    panel.ui.validationButton.click()
    assert list(roles(panel).values()) == ["labeled"] * 4 + ["unlabeled"] * 6 + ["validation"] * 2
    panel.ui.startModelComboBox.currentIndex = panel.ui.startModelComboBox.findData("Started")
    panel.ui.budgetComboBox.currentIndex = panel.ui.budgetComboBox.findData("10m")
    panel.ui.baselineCheckBox.checked = False
    panel.ui.modelNameLineEdit.text = "Our atria"
    memory = _memory()
    found = train(panel, wait_for, kill_at=40)
    grown = _memory() - memory
    start, ours = found.row("start").mean_dice, found.row("caml").mean_dice
    report(
        f"held-out Dice, 2 cases: start {100 * start:.1f}, trained {100 * ours:.1f}; Slicer's side grew {grown:.0f} MB"
    )
    assert ours > start
    assert grown < 200
    assert "Our atria" in [entry.name for entry in Models.library().entries()]

    panel.ui.predictButton.click()
    wait_for(lambda: not panel.loop.running, 1200)
    assert panel.ui.predictLabel.text.startswith("6 cases segmented.")
    truths = []
    for name, _image, label in la_cases[4:10]:
        node = panel.logic.cohort.predictionNode(name)
        volume = panel.logic.cohort.volumeNode(name)
        there = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), volume)
        truths.append(dice(there > 0, read_labels(label).array.transpose(2, 1, 0) > 0))
        assert cell(panel, name, "Status") == "predicted"
    report(f"Dice of the six predictions, never labelled: {np.round(100 * np.array(truths), 1).tolist()}")
    assert np.mean(truths) > start

    said = _reopened(panel.logic.project.folder, caml_environment)
    assert said["roles"] == roles(panel)
    assert said["rounds"] == 1 and said["predicted"] == 6 and said["html"]


@pytest.mark.parametrize(
    ("name", "counts", "iterations"), [("hippocampus", (4, 60, 24), 1500), ("vessels", (4, 20, 8), 1400)]
)
def test_from_scratch_against_labels_alone(
    training, shared_folder, tmp_path, wait_for, set_iterations, report, name, counts, iterations
):
    labeled, unlabeled, validation = counts
    cohort = load_cohort(shared_folder / name)
    chosen = cohort.cases[: labeled + unlabeled + validation]
    listed = [Case(c.id, c.images, c.label, "unlabeled") for c in chosen]
    save_cohort(Cohort(tuple(listed), tmp_path, cohort.segments), tmp_path / "cases.json")
    set_iterations(iterations)
    panel = training
    panel.logic.addFolder(tmp_path / "cases.json")
    panel.update()
    ids = [c.id for c in chosen]
    select(panel, ids[:labeled])
    panel.ui.useAsLabeledButton.click()
    select(panel, ids[labeled + unlabeled :])
    panel.ui.validationButton.click()
    wanted = {"labeled": labeled, "unlabeled": unlabeled, "validation": validation}
    wait_for(lambda: Counter(roles(panel).values()) == wanted, 60)  # labels are checked one after the other
    panel.ui.budgetComboBox.currentIndex = panel.ui.budgetComboBox.findData("10m")
    panel.ui.baselineCheckBox.checked = True
    found = train(panel, wait_for)
    alone, ours = found.row("labeled-only"), found.row("caml")
    said = [f"{100 * row.mean_dice:.1f} ({row.iterations} iterations, {row.seconds:.0f} s)" for row in (alone, ours)]
    report(f"{name}, {ours.count} held-out cases: labels alone {said[0]}, CAML {said[1]}")
    assert set(ours.dice) == {s.name for s in panel.logic.project.segments}
    assert ours.mean_dice > alone.mean_dice


def _memory() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _reopened(folder: Path, environment) -> dict:
    """Open the project in a fresh interpreter, in the panel, and return what it shows."""
    code = f"""
import json, sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parents[2])!r}, {str(Path(__file__).parents[1])!r}]
import SlicerHost
SlicerHost.install()
home = Path({str(Path(__file__).parents[3])!r})
SlicerHost.load_module(home / "CAMLSegmentation" / "CAMLSegmentation.py")
panel = SlicerHost.load_module(home / "CAMLTraining" / "CAMLTraining.py").panel
SlicerHost.enter("CAMLTraining")
panel.ui.projectDirectoryButton.directory = {str(folder)!r}
cases = panel.logic.project.cases.values()
print("SAID" + json.dumps({{
    "roles": {{c.id: c.role for c in cases}}, "rounds": len(panel.logic.rounds()),
    "predicted": sum(c.prediction is not None for c in cases), "html": "Dice" in panel.ui.resultTextBrowser.html,
}}), flush=True)
import os
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("SAID"))[4:])
