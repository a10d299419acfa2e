"""The newest model over the unlabelled cases: what came is kept, whatever happens to the rest."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from CAMLSegmentationLib import SegmentationResult
from stand_ins import SEGMENTS
from training_tools import add_scan, ball, case_of, cell, draw, finish_round, roles, write_folder

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import write_labels
from caml_core.errors import DataError, ResourceError
from caml_core.model_file import read_card
from caml_core.project.cases import ProjectCase


class AWorker:
    """Stands in for the process: does what the test says when it says so. The run itself is the real one."""

    def __init__(self, listener):
        self.listener, self.running, self.given, self.stopped = listener, False, [], False

    def start(self, arguments, stopFile):
        self.running, self.folder = True, Path(arguments[arguments.index("-o") + 1])
        self.cases = json.loads(Path(arguments[2]).read_text())["cases"]
        self.given.append([case["id"] for case in self.cases])

    def stop(self):
        self.stopped = True

    def end(self):
        if self.running:
            self.finish(-9, crashed=True)

    def wait(self, milliseconds=0):
        """Nothing to wait for."""

    def tell(self, kind, **fields):
        self.listener.onWorkerEvent(kind, fields)

    def finish(self, code=0, crashed=False):
        self.running = False
        self.listener.onWorkerEnd(code, crashed)

    def begin(self, case):
        self.tell("stage", name="prepare", detail=case, case=case)

    def segment(self, case, **more):
        """Write a result as the engine does, and report it."""
        self.begin(case)
        listed = next(c for c in self.cases if c["id"] == case)
        grid = read_volume((self.folder / listed["images"][0]).resolve()).grid
        labels, path = np.zeros(grid.size, np.uint8), self.folder / f"{case}.seg.nrrd"
        labels[4:12, 5:11, 6:12] = 1
        write_labels(path, labels, grid, [Segment("ball", 1)])
        self.tell("case", case=case, output=str(path), agreement={"ball": 0.9}, volumes_ml={"ball": 2.0}, **more)


@pytest.fixture
def worker(training, monkeypatch):
    """The worker of the next run."""
    made = []

    def factory(listener):
        made[:] = [AWorker(listener)]
        return made[0]

    monkeypatch.setattr(training.logic, "_workerFactory", factory)
    return lambda: made[0]


@pytest.fixture
def a_round(training, stand_in):
    """A project with four unlabelled cases and a model."""
    training.logic.addFolder(write_folder(training.logic.project.folder.parent / "scans", 4))
    finish_round(training, 1, stand_in)
    return training


def saved(panel) -> dict[str, str]:
    """Case -> status, as the project's file has it."""
    listed = json.loads(panel.logic.project.file.read_text())["cases"]
    return {case["id"]: case.get("status", "") for case in listed if case.get("status")}


CASES = [f"case-{number:02d}" for number in range(4)]


def test_cancel_keeps_what_is_done_and_the_next_time_goes_on_from_there(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    assert worker().given == [CASES]
    worker().segment("case-00")
    worker().segment("case-01")
    panel.ui.cancelPredictButton.click()
    assert worker().stopped
    worker().finish(130)
    assert panel.ui.predictLabel.text == "2 cases segmented. Cancelled."
    assert saved(panel) == {"case-00": "predicted", "case-01": "predicted"}
    assert panel.ui.predictButton.enabled
    panel.ui.predictButton.click()
    assert worker().given == [CASES[2:]]
    for case in CASES[2:]:
        worker().segment(case)
    worker().finish()
    assert panel.ui.predictLabel.text == "2 cases segmented."
    panel.ui.predictButton.click()
    assert worker().given == [CASES], "where all are done, all are done again"
    worker().finish(130)


def test_another_model_segments_all_again(a_round, worker, stand_in, tmp_path):
    from caml_core.model_file import load_model, save_model

    panel = a_round
    panel.ui.predictButton.click()
    worker().segment("case-00")
    panel.ui.cancelPredictButton.click()
    worker().finish(130)
    model = load_model(stand_in)
    state = {name: 2 * weights if weights.is_floating_point() else weights for name, weights in model.state.items()}
    save_model(tmp_path / "second.caml", spec=model.spec, state=state, info=model.info)
    finish_round(panel, 2, tmp_path / "second.caml")
    panel.ui.predictButton.click()
    assert worker().given == [CASES]
    worker().finish(130)


def test_what_is_done_is_written_down_while_the_rest_goes_on(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    worker().segment("case-00")
    assert panel.loop.running and saved(panel) == {"case-00": "predicted"}
    worker().finish(130)


def test_a_project_opened_again_ends_what_runs_and_keeps_what_is_done(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    worker().segment("case-00")
    worker().segment("case-01")
    panel.logic.openProject(panel.logic.project.folder)
    assert not worker().running and not panel.loop.running
    panel.logic.save()
    assert saved(panel) == {"case-00": "predicted", "case-01": "predicted"}


def test_a_case_that_fails_is_named_and_the_others_come(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    worker().segment("case-00")
    worker().begin("case-01")
    worker().tell("warning", message="Case case-01: its file is damaged.", case="case-01", exit_code=3)
    for case in CASES[2:]:
        worker().segment(case)
    worker().tell("error", message="1 of 4 cases could not be segmented (case-01).", exit_code=3)
    worker().finish(3)
    assert panel.ui.predictLabel.text == "3 cases segmented. Case case-01: its file is damaged."
    assert sorted(saved(panel)) == ["case-00", "case-02", "case-03"]


def test_a_worker_that_dies_takes_one_case_with_it(a_round, worker):
    panel = a_round
    shares = []
    panel.ui.predictProgressBar.connect("valueChanged(int)", shares.append)
    panel.ui.predictButton.click()
    worker().segment("case-00")
    worker().begin("case-01")
    worker().finish(-9, crashed=True)
    assert worker().given == [CASES, CASES[2:]] and panel.loop.running
    worker().segment("case-02")
    worker().tell("progress", done=1, total=2, unit="cases", case="case-02")
    assert shares[-1] == 750
    worker().segment("case-03")
    worker().finish()
    text = panel.ui.predictLabel.text
    assert text.startswith("3 cases segmented. Case case-01: ") and "want of memory" in text
    assert sorted(saved(panel)) == ["case-00", "case-02", "case-03"]


def test_a_worker_that_dies_before_it_works_is_not_started_again(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    worker().tell("stage", name="load", detail="model.caml")
    worker().finish(-9, crashed=True)
    assert worker().given == [CASES] and not panel.loop.running
    assert "4 cases" in panel.ui.predictLabel.text and not panel.logic.predictions.summary.failures


def test_a_cancelled_worker_that_dies_is_not_started_again(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    worker().begin("case-00")
    panel.ui.cancelPredictButton.click()
    worker().finish(-9, crashed=True)
    assert worker().given == [CASES] and panel.ui.predictLabel.text == "0 cases segmented. Cancelled."


def test_a_scan_that_is_gone_does_not_keep_the_others(a_round, worker, tmp_path):
    panel = a_round
    (tmp_path / "scans" / "case-02.nii.gz").unlink()
    panel.ui.predictButton.click()
    assert worker().given == [["case-00", "case-01", "case-03"]]
    worker().finish(130)
    for scan in (tmp_path / "scans").iterdir():
        scan.unlink()
    with pytest.raises(DataError, match="case-03 is neither in the scene nor in a file"):
        panel.logic.startPredictions()


@pytest.mark.parametrize(
    ("left", "more"),
    [({"case-01": 0.5}, ""), ({"case-00": 0.2, "case-01": 0.5, "case-03": 0.004}, ", and less of 1 other")],
)
def test_what_was_left_out_of_predictions_is_said(a_round, worker, left, more):
    """Who corrects a prediction should know that it was more than is shown."""
    a_round.ui.predictButton.click()
    for case in CASES:
        worker().segment(case, **({"removed_ml": {"ball": left[case]}} if case in left else {}))
    worker().finish()
    end = f"Only the largest parts are kept; of case-01 0.50 mL were left out{more}."
    assert a_round.ui.predictLabel.text == f"4 cases segmented. {end}"


@pytest.mark.parametrize(("others", "more"), [((), ""), (("case-03",), " 1 other does not fit it either.")])
def test_scans_that_the_model_was_not_made_for_are_named(a_round, worker, others, more):
    """Their predictions come all the same, and nobody may have looked at the scans."""
    a_round.ui.predictButton.click()
    for case in CASES:
        if case in ("case-01", *others):
            sentence = f"Case {case}: its grey values are like a CT's."
            worker().tell("warning", message=sentence, case=case, misfit=True)
        worker().segment(case)
    worker().finish()
    end = f"Case case-01: its grey values are like a CT's.{more}"
    assert a_round.ui.predictLabel.text == f"4 cases segmented. {end}"


def test_a_case_taken_off_the_list_meanwhile_is_no_fault(a_round, worker):
    panel = a_round
    panel.ui.predictButton.click()
    panel.logic.project.remove(["case-00"])
    for case in CASES:
        worker().segment(case)
    worker().finish()
    assert panel.ui.predictLabel.text == "3 cases segmented."
    assert sorted(roles(panel)) == CASES[1:]


@pytest.mark.parametrize("blocked", ["predictions", "volumes"])
def test_a_project_folder_that_takes_no_files_is_said(a_round, worker, wait_for, blocked):
    """A file in a folder's place: that stops root, too."""
    panel = a_round
    add_scan(7)  # to be written first
    panel.update()
    (panel.logic.project.folder / blocked).write_text("no folder")
    panel.ui.predictButton.click()
    wait_for(lambda: not panel.loop.running)
    assert panel.ui.predictButton.enabled
    assert f"Cannot write {panel.logic.project.folder / blocked}" in panel.ui.predictLabel.text
    with pytest.raises(ResourceError):
        panel.logic.startPredictions()


@pytest.fixture
def written(monkeypatch):
    """Names of the volumes that were written."""
    from CAMLTrainingLib import CaseExchange

    names, write = [], CaseExchange.writeVolume
    monkeypatch.setattr(
        CaseExchange, "writeVolume", lambda node, path: names.append(node.GetName()) or write(node, path)
    )
    return names


def test_scans_of_the_scene_are_written_one_a_turn_before_they_are_segmented(a_round, worker, wait_for, written):
    panel = a_round
    for seed in (5, 6, 7):
        add_scan(seed)
    panel.update()
    panel.ui.predictButton.click()
    assert not written and panel.loop.running and panel.ui.predictLabel.text == "Writing scans: 0 of 3"
    assert panel.ui.cancelPredictButton.enabled and not panel.ui.predictButton.enabled
    counts = []
    wait_for(lambda: counts.append(len(written)) or worker().given)
    assert max(b - a for a, b in zip(counts, counts[1:])) == 1, "others have their turn in between"
    assert worker().given == [[*CASES, "Scan 05", "Scan 06", "Scan 07"]]
    assert panel.ui.predictLabel.text == "Starting"
    worker().segment("Scan 05")
    panel.ui.cancelPredictButton.click()
    worker().finish(130)
    assert panel.ui.predictLabel.text == "1 case segmented. Cancelled."


@pytest.mark.parametrize("ended", ["cancelled", "another project"])
def test_no_scan_is_written_once_segmenting_was_ended(a_round, worker, wait_for, written, tmp_path, ended):
    panel, project = a_round, a_round.logic.project
    for seed in (5, 6, 7):
        add_scan(seed)
    panel.update()
    panel.ui.predictButton.click()
    wait_for(lambda: len(written) == 2)
    if ended == "cancelled":
        panel.ui.cancelPredictButton.click()
        assert panel.ui.predictLabel.text == "0 cases segmented. Cancelled." and panel.ui.predictButton.enabled
    else:
        panel.logic.openProject(tmp_path / "another")
    for _ in range(5):
        wait_for(lambda: True)
    assert not panel.loop.running and not worker().given
    assert [path.name for path in sorted((project.folder / "volumes").iterdir())] == ["Scan 05.nrrd", "Scan 06.nrrd"]
    listed = {case["id"]: case["images"] for case in json.loads(project.file.read_text())["cases"]}
    assert listed["Scan 06"] and not listed["Scan 07"]


def test_a_scan_that_is_nowhere_does_not_keep_those_of_the_scene(a_round, worker, wait_for):
    import slicer

    panel = a_round
    panel.logic.project.add(ProjectCase("of another scene", in_scene=True))
    gone = add_scan(5)
    add_scan(6)
    panel.update()
    panel.ui.predictButton.click()
    slicer.mrmlScene.RemoveNode(gone)
    panel.update()
    wait_for(lambda: worker().given)
    assert worker().given == [[*CASES, "Scan 06"]]
    worker().finish(130)
    assert "of another scene is neither in the scene nor in a file" in panel.ui.predictLabel.text


def test_the_real_worker_passes_over_a_damaged_scan(a_round, wait_for, tmp_path):
    panel = a_round
    (tmp_path / "scans" / "case-01.nii.gz").write_bytes(b"torn")
    panel.ui.predictButton.click()
    wait_for(lambda: not panel.loop.running, 120)
    text = panel.ui.predictLabel.text
    assert text.startswith("3 cases segmented. ") and "case-01" in text, text
    assert case_of(panel, "case-03").agreement.keys() == {s.name for s in SEGMENTS}
    assert cell(panel, "case-03", "Status") == "predicted" and cell(panel, "case-01", "Status") == ""


def replace_scan(path: Path, seed: int) -> None:
    """Another scan is exported under the name of one."""
    write_folder(path.parent / "again", 1, first=seed)
    (path.parent / "again" / f"case-{seed:02d}.nii.gz").replace(path)


@pytest.fixture
def all_predicted(a_round, worker, tmp_path):
    """All cases were segmented a minute ago, and the scan of case-02 was replaced since."""
    panel = a_round
    panel.logic.cohort.setSegments(["ball"])
    panel.ui.predictButton.click()
    for case in CASES:
        worker().segment(case)
    worker().finish()
    for folder, ago in ((tmp_path / "scans", 90), (panel.logic.project.folder / "predictions", 60)):
        for path in folder.iterdir():
            os.utime(path, (time.time() - ago,) * 2)
    replace_scan(tmp_path / "scans" / "case-02.nii.gz", 9)
    panel.update()
    return panel


def test_a_scan_that_was_replaced_is_segmented_anew_and_its_old_prediction_not_shown(all_predicted, worker):
    from CAMLTrainingLib.Predictions import correction, showPrediction

    panel, cohort = all_predicted, all_predicted.logic.cohort
    with pytest.raises(DataError, match="case-02: its scan was replaced"):
        showPrediction(cohort, "case-02")
    with pytest.raises(DataError, match="case-02: its scan was replaced"):
        correction(cohort, "case-02")
    assert showPrediction(cohort, "case-01") is not None
    panel.ui.predictButton.click()
    assert worker().given == [["case-02"]]
    worker().segment("case-02")
    worker().finish()
    assert showPrediction(cohort, "case-02") is not None
    panel.ui.predictButton.click()
    assert worker().given == [CASES], "where all are done, all are done again"
    worker().finish(130)


def test_a_scan_that_was_replaced_opens_without_its_old_prediction(all_predicted):
    panel = all_predicted
    panel.openCase("case-02")
    assert SegmentationResult.isEmpty(panel.edit.editor.segmentationNode())
    assert "its scan was replaced" in panel.ui.editMessageLabel.text
    panel.edit.leave()
    panel.openCase("case-01")
    assert not SegmentationResult.isEmpty(panel.edit.editor.segmentationNode())
    assert "replaced" not in panel.ui.editMessageLabel.text


def test_a_copy_that_no_hand_has_touched_goes_with_the_scan_that_it_was_of(all_predicted, tmp_path):
    import slicer

    panel = all_predicted
    for case in ("case-00", "case-01"):
        panel.openCase(case)
        panel.edit.leave()
    touched = panel.logic.cohort.segmentationNode("case-01")
    draw(touched, panel.logic.cohort.volumeNode("case-01"), ball(1))
    for case, seed in (("case-00", 7), ("case-01", 8)):
        replace_scan(tmp_path / "scans" / f"{case}.nii.gz", seed)
    panel.openCase("case-00")
    assert SegmentationResult.isEmpty(panel.edit.editor.segmentationNode())
    panel.edit.leave()
    panel.openCase("case-01")
    assert panel.edit.editor.segmentationNode() is touched and not SegmentationResult.isEmpty(touched)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 2


def test_scans_that_cannot_be_reached_are_not_taken_for_replaced(all_predicted, break_drive, monkeypatch, tmp_path):
    from CAMLTrainingLib.Predictions import unsegmented

    project, card = all_predicted.logic.project, read_card(all_predicted.logic.latestModel())
    project.update("case-00", prediction=None)
    assert unsegmented(project, card) == ["case-00", "case-02"]
    break_drive([tmp_path / "scans"], errno.ESTALE)
    assert unsegmented(project, card) == ["case-00"]
    monkeypatch.undo()
