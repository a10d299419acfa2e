"""Scans that the scene alone has are written one a turn of the event loop: Slicer answers, and Stop is heard."""

from __future__ import annotations

import json

import pytest
import SlicerHost
from training_tools import add_scan, case_of, choose_time, roles, write_folder

from caml_core.data.cohort import load_cohort
from caml_core.data.io import read_volume
from caml_core.project.cases import ProjectCase


@pytest.fixture
def written(training, monkeypatch):
    """Names of the volumes that were written, each with how often a timer of 0 ms had come by until then."""
    import qt
    from CAMLTrainingLib import CaseExchange

    told, ticks, write = [], [], CaseExchange.writeVolume
    timer = qt.QTimer()
    timer.setInterval(0)
    timer.connect("timeout()", lambda: ticks.append(1))
    timer.start()

    def noted(node, path):
        told.append((node.GetName(), len(ticks)))
        write(node, path)

    monkeypatch.setattr(CaseExchange, "writeVolume", noted)
    yield told
    timer.stop()


class Fits:
    """Stands in for the process of a check, which takes its time: it finds that all fits."""

    def __init__(self, listener):
        self._listener, self.running, self.cohorts = listener, False, []

    def start(self, arguments, stopFile):
        import qt

        self.running = True
        self.cohorts.append(load_cohort(arguments[1]))
        qt.QTimer.singleShot(20, self._end)

    def stop(self):
        pass

    def end(self):
        self._end()

    def wait(self, milliseconds=0):
        self._end()

    def _end(self):
        if self.running:
            self.running = False
            self._listener.onWorkerEvent("finished", {"result": {"verdict": "fits", "sentence": "It fits."}})
            self._listener.onWorkerEnd(0, False)


@pytest.fixture
def unwritten(training, a_cohort, short_training, written, monkeypatch):
    """The panel with a labelled case, which is a file, and three scans that the scene alone has."""
    a_cohort(labeled=1, unlabeled=3)
    choose_time(training)
    written.clear()
    monkeypatch.setattr(training.logic._preflight, "_worker", Fits(training.logic._preflight))
    return training


def files(panel) -> list[str]:
    """What lies in the project's folder of scans."""
    return sorted(path.name for path in (panel.logic.project.folder / "volumes").iterdir())


def test_a_check_writes_one_scan_a_turn_and_then_looks(unwritten, written, wait_for, monkeypatch):
    from CAMLSegmentationLib.Process import WorkerProcess

    monkeypatch.setattr(unwritten.logic._preflight, "_worker", WorkerProcess(unwritten.logic._preflight))
    ui, logic = unwritten.ui, unwritten.logic
    ui.checkButton.click()
    assert not written and ui.statusLabel.text == "Writing scans: 0 of 3", "what is said can be seen before the first"
    assert logic.checking and ui.stopButton.enabled
    assert not (ui.checkButton.enabled or ui.trainButton.enabled or ui.removeButton.enabled)
    seen = set()
    wait_for(lambda: seen.add(ui.statusLabel.text) or not logic.scans.running)
    assert [name for name, _ in written] == ["Scan 01", "Scan 02", "Scan 03"]
    turns = [turn for _, turn in written]
    assert len(set(turns)) == 3, "others have their turn in between"
    assert {"Writing scans: 1 of 3", "Writing scans: 2 of 3"} <= seen
    wait_for(lambda: not logic.checking, 120)
    assert logic.verdict.kind == "fits" and len(written) == 3
    assert ui.checkButton.enabled and not ui.statusLabel.text


def test_stop_keeps_the_rest_from_being_written_and_leaves_nothing_half_done(unwritten, written, wait_for):
    ui, logic = unwritten.ui, unwritten.logic
    ui.trainButton.click()
    wait_for(lambda: len(written) == 2)
    ui.stopButton.click()
    assert not logic.checking and ui.checkButton.enabled and ui.trainButton.enabled
    assert "Cancelled" in ui.verdictTextBrowser.toPlainText() and not ui.statusLabel.text
    for _ in range(5):
        SlicerHost.wait_for(lambda: True)
    assert len(written) == 2 and files(unwritten) == ["Scan 00.nrrd", "Scan 01.nrrd", "Scan 02.nrrd"]
    listed = {case["id"]: case["images"] for case in json.loads(logic.project.file.read_text())["cases"]}
    assert [name for name, images in listed.items() if not images] == ["Scan 03"], "what is there is known"
    read_volume(case_of(unwritten, "Scan 02").images[0])
    assert not logic.training, "a stopped Train does not begin"

    ui.checkButton.click()
    wait_for(lambda: not logic.checking, 120)
    assert logic.verdict.kind == "fits" and [name for name, _ in written[2:]] == ["Scan 03"]
    assert not logic.training


def test_train_goes_on_once_all_is_written(unwritten, written, wait_for, monkeypatch):
    """With what was changed meanwhile, and a scan that came meanwhile has a turn of its own."""
    started = []
    monkeypatch.setattr(unwritten.logic, "startTraining", lambda settings: started.append(roles(unwritten)))
    unwritten.ui.trainButton.click()
    wait_for(lambda: len(written) == 1)
    unwritten.logic.setRole(["Scan 01"], "excluded")
    add_scan(9, "came meanwhile")
    wait_for(lambda: not unwritten.logic.checking, 120)
    assert [name for name, _ in written] == ["Scan 01", "Scan 02", "Scan 03", "came meanwhile"]
    assert len({turn for _, turn in written}) == 4
    assert started == [
        {"Scan 00": "labeled", "Scan 01": "excluded"}
        | dict.fromkeys(("Scan 02", "Scan 03", "came meanwhile"), "unlabeled")
    ]


def test_scans_that_were_moved_since_the_check_are_written_and_checked_before_they_are_trained_on(
    unwritten, written, wait_for, monkeypatch
):
    started, checked = [], unwritten.logic._preflight._worker.cohorts
    monkeypatch.setattr(unwritten.logic, "startTraining", lambda settings: started.append(len(checked)))
    unwritten.ui.checkButton.click()
    wait_for(lambda: not unwritten.logic.checking, 120)
    assert unwritten.logic.verdict.mayTrain
    written.clear()
    for name in ("Scan 01", "Scan 02"):
        unwritten.logic.cohort.volumeNode(name).SetOrigin(0, 0, 77.0)
    unwritten.ui.trainButton.click()
    assert len(written) <= 1 and not started
    wait_for(lambda: not unwritten.logic.checking, 120)
    assert [name for name, _ in written] == ["Scan 01", "Scan 02"] and len({turn for _, turn in written}) == 2
    assert started == [2], "checked again, then trained"
    assert read_volume(next(c for c in checked[-1].cases if c.id == "Scan 02").images[0]).grid.origin[2] == 77.0


@pytest.mark.parametrize("fault", ["scan", "disk"])
def test_what_is_wrong_with_a_scan_is_said_and_ends_it(training, written, short_training, tmp_path, wait_for, fault):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2, labels=1))
    training.logic.setRole(["case-00"], "labeled")
    for seed in (7, 8):
        add_scan(seed)
    training.update()
    if fault == "scan":
        training.logic.project.add(ProjectCase("of another scene", in_scene=True))
        expected, count = "case of another scene is neither in the scene nor in a file", 2
    else:
        (training.logic.project.folder / "volumes").write_text("no folder")
        expected, count = f"Cannot write {training.logic.project.folder / 'volumes'}", 1
    choose_time(training)
    training.ui.trainButton.click()
    wait_for(lambda: not training.logic.checking)
    assert expected in training.ui.statusLabel.text and expected in training.ui.logTextEdit.plainText
    assert len(written) == count and training.logic.verdict is None
    assert training.ui.trainButton.enabled and not training.logic.training
    with pytest.raises(Exception, match=expected):
        training.logic.startPreflight(training.train.settings())


@pytest.mark.parametrize(
    "meanwhile", ["scene closed", "scene closed elsewhere", "another project", "reload", "removed"]
)
def test_what_happens_while_scans_are_written_leaves_no_loose_end(
    unwritten, written, wait_for, tmp_path, monkeypatch, meanwhile
):
    import slicer

    logic, file, started = unwritten.logic, unwritten.logic.project.file, []
    monkeypatch.setattr(logic, "startTraining", started.append)
    unwritten.ui.trainButton.click()
    wait_for(lambda: len(written) == 1)
    if meanwhile == "scene closed elsewhere":
        SlicerHost.leave("CAMLTraining")
    if meanwhile.startswith("scene closed"):
        slicer.mrmlScene.Clear()
        add_scan(9, "another patient")
    elif meanwhile == "another project":
        logic.openProject(tmp_path / "another")
    elif meanwhile == "reload":
        SlicerHost.unload_module("CAMLTraining")
    else:
        slicer.mrmlScene.RemoveNode(logic.cohort.volumeNode("Scan 02"))
    wait_for(lambda: not logic.checking, 120)
    for _ in range(5):
        SlicerHost.wait_for(lambda: True)
    names = [name for name, _ in written]
    assert names == (["Scan 01", "Scan 03"] if meanwhile == "removed" else ["Scan 01"])
    listed = {case["id"]: case["images"] for case in json.loads(file.read_text())["cases"]}
    assert listed["Scan 01"] == ["volumes/Scan 01.nrrd"], "what was written is known"
    if meanwhile == "scene closed elsewhere":
        assert list(roles(unwritten)) == [f"Scan 0{number}" for number in range(4)], "and nothing taken for it"
    assert len(started) == (meanwhile == "removed"), "a case that went with its volume is no fault"


def test_a_script_waits_for_all_of_them(unwritten, written):
    assert unwritten.logic.preflight(unwritten.train.settings()).mayTrain
    assert len(written) == 3
