"""A run, whatever its worker does: pieces are delivered, fail one by one, or are dropped - and the run ends."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from stand_ins import ijk_to_ras, noise, save_stand_in

from caml_core.errors import UsageError


class AWorker:
    """Stands in for the process: does what the test says when it says so. The run itself is the real one."""

    def __init__(self, listener):
        self.listener, self.running, self.starts, self.stopped, self.ended = listener, False, [], False, False

    def start(self, arguments, stopFile):
        self.running = True
        self.starts.append(list(arguments))
        self.outputs = Path(arguments[arguments.index("-o") + 1])
        self.cases = json.loads(Path(arguments[2]).read_text())["cases"]

    def stop(self):
        self.stopped = True

    def end(self):
        self.ended = True
        if self.running:
            self.finish(-9, crashed=True)

    def wait(self, milliseconds=0):
        """Nothing to wait for."""

    def tell(self, kind, **fields):
        self.listener.onWorkerEvent(kind, fields)

    def finish(self, code=0, crashed=False):
        self.running = False
        self.listener.onWorkerEnd(code, crashed)

    def segment(self, index):
        """Write a result for a case as the engine does, and report it."""
        case = self.cases[index]
        listed = case.get("images") or [case["image"]]
        image = sitk.ReadImage(str(Path(self.outputs).parent / listed[0]))
        labels = np.zeros(image.GetSize()[::-1], np.uint8)
        labels[2:6, 3:9, 4:9] = 1
        result = sitk.GetImageFromArray(labels)
        result.CopyInformation(image)
        path = self.outputs / f"{case['id']}.nrrd"
        sitk.WriteImage(result, str(path))
        self.tell("stage", name="predict", detail=case["id"])
        self.tell("case", case=case["id"], output=str(path), volumes_ml={"Left atrium": 1.0}, seconds=1.0)


class Ears:
    """A listener that remembers."""

    def __init__(self):
        self.progress, self.log, self.deliveries, self.ends = [], [], [], []
        self.onRunProgress, self.onRunLog, self.onRunEnd = self.progress.append, self.log.append, self.ends.append

    def onRunDelivery(self, title, delivery):
        self.deliveries.append((title, delivery))


@pytest.fixture
def ears():
    return Ears()


@pytest.fixture
def workers():
    return []


@pytest.fixture
def a_model(tmp_path):
    return save_stand_in(tmp_path / "stand-in.caml")


@pytest.fixture
def a_logic(a_scene, workers):
    from CAMLSegmentationLib.Logic import CAMLSegmentationLogic

    def factory(listener):
        workers.append(AWorker(listener))
        return workers[-1]

    logic = CAMLSegmentationLogic(factory)
    yield logic
    logic.close()


@pytest.fixture
def three_volumes(a_volume):
    return [a_volume(f"LA {n}", noise(seed=n), ijk_to_ras()) for n in range(3)]


def started(run, workers, wait_for):
    wait_for(lambda: run.ended or (workers and workers[-1].running))


def results():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def scene_size():
    import slicer

    return slicer.mrmlScene.GetNumberOfNodes()


def test_every_volume_gets_its_result(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    for index in range(3):
        workers[0].segment(index)
    workers[0].finish()
    assert run.ended and not run.summary.failures and len(ears.ends) == 1
    assert [title for title, _ in ears.deliveries] == ["LA 0", "LA 1", "LA 2"]
    assert len(results()) == 3
    shares = [p.share for p in ears.progress]
    assert shares == sorted(shares) and shares[-1] <= 1.0


def test_nothing_is_left_on_the_disk(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    folder = workers[0].outputs.parent
    assert folder.is_dir()
    workers[0].segment(0)
    assert not list(folder.rglob("LA_0*.nrrd")), "files of a delivered volume must not wait for the others"
    workers[0].segment(1)
    workers[0].segment(2)
    workers[0].finish()
    assert not folder.exists()


def test_results_that_wait_are_spared_when_one_is_delivered(a_logic, a_model, a_volume, ears, workers, wait_for):
    twins = [a_volume("LA", noise(seed=n), ijk_to_ras()) for n in range(2)]
    run = a_logic.segmentVolumes(twins, a_model, ears, wait=False)
    started(run, workers, wait_for)
    worker, told = workers[0], []
    worker.tell, tell = (lambda kind, **fields: told.append((kind, fields))), worker.tell
    worker.segment(0)  # both are written before the first one is taken in
    worker.segment(1)
    for kind, fields in told:
        tell(kind, **fields)
    worker.finish()
    assert not run.summary.failures and [title for title, _ in ears.deliveries] == ["LA", "LA (2)"]


def test_an_unexpected_fault_fails_one_piece_and_is_logged(
    a_logic, a_model, three_volumes, ears, workers, wait_for, monkeypatch
):
    from CAMLSegmentationLib import Work

    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    real = Work.VolumeWork.deliver

    def deliver(self, *arguments):
        if self.id == "LA_1":
            raise MemoryError("no memory for this one")
        return real(self, *arguments)

    monkeypatch.setattr(Work.VolumeWork, "deliver", deliver)
    for index in range(3):
        workers[0].segment(index)
    workers[0].finish()
    assert list(run.summary.failures) == ["LA 1"] and len(results()) == 2
    assert "MemoryError" not in run.summary.failures["LA 1"] and any("MemoryError" in line for line in ears.log)


def test_a_fault_while_exporting_does_not_leave_the_run_standing(
    a_logic, a_model, three_volumes, ears, workers, wait_for, monkeypatch
):
    from CAMLSegmentationLib import Work

    monkeypatch.setattr(Work.VolumeWork, "export", lambda self, files: 1 / 0)
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    wait_for(lambda: run.ended)
    assert len(run.summary.failures) == 3


def test_nothing_holds_a_run_that_has_ended(a_logic, a_model, three_volumes, ears, workers, wait_for):
    import gc
    import weakref

    run = weakref.ref(a_logic.segmentVolumes(three_volumes[:1], a_model, ears, wait=False))
    started(run(), workers, wait_for)
    workers[0].segment(0)
    workers[0].finish()
    workers.clear()
    a_logic.run = None
    gc.collect()
    assert run() is None


@pytest.mark.parametrize("end", ["done", "cancelled", "failed"])
def test_no_patient_stays_in_memory_for_a_run_that_has_ended(a_logic, a_model, a_volume, workers, wait_for, end):
    import gc

    import slicer
    import vtk

    def follow(node):
        references.append(vtk.vtkWeakReference())
        references[-1].Set(node)

    references, told = [], []
    follow(a_volume("LA", noise(), ijk_to_ras()))
    a_logic.segment(references[0].Get(), a_model, wait=False, onFinished=lambda node, words: told.append(words))
    run = a_logic.run
    started(run, workers, wait_for)
    if end == "cancelled":
        a_logic.cancel()
    if end == "done":
        workers[0].segment(0)
        delivery = run.summary.deliveries[0]
        for node in (delivery.segmentation, delivery.table):
            assert node is not None
            follow(node)
        assert delivery.volume is references[0].Get()
        del node, delivery
    workers[0].finish(0 if end == "done" else 1)
    assert run.ended and len(told) == 1 and a_logic.run is run
    slicer.mrmlScene.Clear()
    gc.collect()
    assert [reference.Get() for reference in references] == [None] * len(references)
    assert len(a_logic.run.summary.deliveries) == (end == "done")
    assert a_logic.run.summary.cancelled == (end == "cancelled")
    assert all(delivery.segmentation is None for delivery in run.summary.deliveries)


def test_one_bad_volume_does_not_stop_the_others(a_logic, a_model, three_volumes, ears, workers, wait_for):
    import slicer

    three_volumes.insert(1, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].tell("warning", case="LA_0", message="A remark, not a failure.")
    workers[0].segment(0)
    workers[0].tell("warning", case="LA_1", message="Case LA_1: damaged.", exit_code=3)
    workers[0].segment(2)
    workers[0].tell("error", message="1 of 3 cases could not be segmented.", exit_code=3)
    workers[0].finish(3)
    assert list(run.summary.failures) == ["empty", "LA 1"]
    assert "no voxels" in run.summary.failures["empty"] and "damaged" in run.summary.failures["LA 1"]
    assert [title for title, _ in ears.deliveries] == ["LA 0", "LA 2"]


def test_a_worker_that_dies_over_one_volume_is_replaced_for_the_rest(
    a_logic, a_model, three_volumes, ears, workers, wait_for
):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].segment(0)
    workers[0].tell("stage", name="predict", detail="LA_1")
    workers[0].finish(-9, crashed=True)
    wait_for(lambda: len(workers[0].starts) == 2)
    assert [case["id"] for case in workers[0].cases] == ["LA_2"]
    workers[0].segment(0)
    workers[0].finish()
    assert list(run.summary.failures) == ["LA 1"] and "memory" in run.summary.failures["LA 1"]
    assert len(results()) == 2


def test_a_worker_that_cannot_run_at_all_is_not_tried_again(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].listener.onWorkerLog("ModuleNotFoundError: No module named 'safetensors'")
    workers[0].finish(1)
    assert run.ended and len(workers[0].starts) == 1 and len(run.summary.failures) == 3
    assert "safetensors" in run.summary.failures["LA 0"] and "Traceback" not in run.summary.failures["LA 0"]


def test_an_error_of_the_engine_is_shown_as_its_sentence(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes[:1], a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].tell("error", message="The weights are not those it was made with; copy it again.", exit_code=4)
    workers[0].finish(4)
    assert run.summary.failures == {"LA 0": "The weights are not those it was made with; copy it again."}


def test_cancelling_leaves_the_scene_as_it_was(a_logic, a_model, three_volumes, ears, workers, wait_for):
    before = scene_size()
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    a_logic.cancel()
    assert workers[0].stopped and not run.ended
    workers[0].segment(0)  # it was quicker than the request
    workers[0].finish(130)
    assert run.ended and run.summary.cancelled and scene_size() == before
    assert not a_logic.running


def test_cancelling_before_the_worker_starts_is_possible(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    a_logic.cancel()
    assert run.ended and not workers[0].starts
    wait_for(lambda: True)
    assert not workers[0].starts


def test_closing_the_scene_ends_the_run_at_once(a_logic, a_model, three_volumes, ears, workers, wait_for):
    import slicer

    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    slicer.mrmlScene.Clear()
    assert run.ended and workers[0].ended and run.summary.cancelled


def test_a_volume_removed_in_mid_run_drops_its_result_only(a_logic, a_model, three_volumes, ears, workers, wait_for):
    import slicer

    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    slicer.mrmlScene.RemoveNode(three_volumes[0])
    for index in range(3):
        workers[0].segment(index)
    workers[0].finish()
    assert "removed" in run.summary.failures["LA 0"] and len(results()) == 2


def test_a_second_run_is_refused_while_one_is_under_way(a_logic, a_model, three_volumes, ears, workers, wait_for):
    run = a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    started(run, workers, wait_for)
    with pytest.raises(UsageError, match="cancel it first"):
        a_logic.segmentVolumes(three_volumes, a_model, ears, wait=False)
    assert not run.ended


def test_running_again_updates_the_result(a_logic, a_model, three_volumes, ears, workers, wait_for):
    for number in range(2):
        run = a_logic.segmentVolumes(three_volumes[:1], a_model, ears, wait=False)
        started(run, workers, wait_for)
        workers[number].segment(0)
        workers[number].finish()
    assert len(results()) == 1


def test_running_again_adds_where_that_was_chosen(a_logic, a_model, three_volumes, ears, workers, wait_for):
    for number in range(2):
        run = a_logic.segmentVolumes(three_volumes[:1], a_model, ears, wait=False, existing="add")
        started(run, workers, wait_for)
        workers[number].segment(0)
        workers[number].finish()
    assert len(results()) == 2


def touch_up(node, scan):
    import slicer

    changed = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_1", scan).copy()
    changed[0, 0, 0] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, "Segment_1", scan)
    return changed


@pytest.mark.parametrize("overwrite", [False, True])
def test_hand_edits_are_replaced_on_request_alone(a_logic, a_model, three_volumes, ears, workers, wait_for, overwrite):
    import slicer

    scan = three_volumes[0]
    run = a_logic.segmentVolumes([scan], a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].segment(0)
    workers[0].finish()
    edited = results()[0]
    changed = touch_up(edited, scan)
    run = a_logic.segmentVolumes([scan], a_model, ears, wait=False, overwriteEdits=overwrite)
    started(run, workers, wait_for)
    workers[1].segment(0)
    workers[1].finish()
    kept = np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(edited, "Segment_1", scan), changed)
    assert kept != overwrite and len(results()) == (1 if overwrite else 2)
    assert bool(run.summary.notes) != overwrite


def test_a_model_of_two_channels_wants_two_volumes_on_one_grid(
    a_logic, tmp_path, three_volumes, a_volume, ears, workers, wait_for
):
    model = save_stand_in(tmp_path / "two.caml", channels=2)
    with pytest.raises(UsageError, match="2 images"):
        a_logic.segmentVolumes(three_volumes[:1], model, ears, wait=False)
    from CAMLSegmentationLib.Job import Settings
    from CAMLSegmentationLib.Work import VolumeWork

    elsewhere = a_volume("elsewhere", noise(seed=5), ijk_to_ras(origin=(90.0, 0.0, 0.0)))
    run = a_logic.start(model, [VolumeWork("x", [three_volumes[0], elsewhere])], Settings(), ears)
    wait_for(lambda: run.ended)
    assert "different grids" in run.summary.failures["LA 0"]
    run = a_logic.start(model, [VolumeWork("x", three_volumes[:2])], Settings(), ears)
    started(run, workers, wait_for)
    assert len(workers[-1].cases[0]["images"]) == 2
    workers[-1].segment(0)
    workers[-1].finish()
    assert not run.summary.failures


def a_folder_of_scans(folder):
    folder.mkdir()
    for n in range(2):
        sitk.WriteImage(sitk.GetImageFromArray(noise(seed=n)), str(folder / f"p{n}.nrrd"))
    return folder


def test_the_folder_for_results_is_there_when_the_worker_starts(a_logic, a_model, ears, workers, wait_for, tmp_path):
    """The engine would take a name with a dot for that of a file."""
    outputs = tmp_path / "Dr. Meier" / "2024.05.12-segmentations"
    run = a_logic.segmentFolder(a_folder_of_scans(tmp_path / "scans"), outputs, a_model, ears, wait=False)
    started(run, workers, wait_for)
    assert workers[0].outputs == outputs and outputs.is_dir()


def test_a_folder_that_cannot_be_made_is_one_sentence_and_no_worker(
    a_logic, a_model, ears, workers, wait_for, tmp_path
):
    (tmp_path / "taken").write_text("a file")
    run = a_logic.segmentFolder(a_folder_of_scans(tmp_path / "scans"), tmp_path / "taken", a_model, ears, wait=False)
    started(run, workers, wait_for)
    assert run.ended and not workers[0].starts
    assert list(run.summary.failures) == ["p0", "p1"] and str(tmp_path / "taken") in run.summary.failures["p0"]


def test_stale_folders_of_a_crashed_slicer_are_removed(a_scene):
    import os

    import slicer
    from CAMLSegmentationLib.Run import newFolder

    old = Path(slicer.app.temporaryPath) / "CAMLSegmentation" / "run-1-old"
    fresh = Path(slicer.app.temporaryPath) / "CAMLSegmentation" / "run-2-fresh"
    for folder in (old, fresh):
        folder.mkdir(parents=True, exist_ok=True)
    os.utime(old, (0, 0))
    newFolder()
    assert not old.exists() and fresh.exists()
