"""The files of a run: what the worker wrote is its own though it was cancelled, and nothing half-written stays."""

from __future__ import annotations

import os
import stat

import pytest
from stand_ins import ijk_to_ras, noise
from test_run import a_folder_of_scans, a_logic, a_model, ears, results, started, workers  # noqa: F401


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "results"


@pytest.fixture
def a_run(a_logic, a_model, ears, workers, wait_for, tmp_path, outputs):  # noqa: F811
    run = a_logic.segmentFolder(a_folder_of_scans(tmp_path / "scans"), outputs, a_model, ears, wait=False)
    started(run, workers, wait_for)
    workers[0].tell("started", pid=77)
    return run


def write(outputs, name):
    (outputs / f"{name}.seg.nrrd").write_bytes(b"labels")


def asked_about(outputs):
    """The results that the next run would take for a hand's work."""
    from CAMLSegmentationLib.Job import FolderResults

    return {path.name for path in outputs.glob("*.seg.nrrd") if FolderResults(outputs).isChanged(path)}


def test_a_case_that_was_finished_after_cancel_is_the_runs_own(a_run, workers, outputs):  # noqa: F811
    a_run.cancel()
    write(outputs, "p0")
    workers[0].tell("case", case="p0", seconds=1.0)
    workers[0].finish(130)
    assert a_run.ended and not a_run.summary.deliveries and asked_about(outputs) == set()


@pytest.mark.parametrize("end", ["cancel", "end", "die"])
def test_a_case_whose_worker_was_ended_while_it_wrote_is_the_runs_own(a_run, workers, outputs, end):  # noqa: F811
    workers[0].tell("stage", name="write", detail="p0", case="p0")
    for name in ("p0", "p1"):
        write(outputs, name)
    if end != "die":
        getattr(a_run, end)()
    if end != "end":
        workers[0].finish(-9, crashed=True)
    assert asked_about(outputs) == {"p1.seg.nrrd"}, "of which the worker said nothing"


def test_a_result_that_the_worker_did_not_get_to_replace_is_still_a_hands(a_run, workers, outputs):  # noqa: F811
    write(outputs, "p0")
    workers[0].tell("stage", name="write", detail="p0", case="p0")
    a_run.cancel()
    workers[0].finish(-9, crashed=True)
    assert asked_about(outputs) == {"p0.seg.nrrd"}


def test_no_part_of_a_file_stays_of_a_worker_that_was_ended(a_run, workers, outputs):  # noqa: F811
    for name in (".part-77-0a1b-p0_disagreement.nrrd", ".part-78-0a1b-p0_disagreement.nrrd"):
        (outputs / name).write_bytes(b"half")
    a_run.cancel()
    workers[0].finish(-9, crashed=True)
    assert [path.name for path in outputs.glob(".part-*")] == [".part-78-0a1b-p0_disagreement.nrrd"], "another one's"


def test_a_file_that_cannot_be_removed_costs_no_result(a_logic, a_model, a_volume, ears, workers, wait_for):  # noqa: F811
    run = a_logic.segmentVolumes([a_volume("LA", noise(), ijk_to_ras())], a_model, ears, wait=False)
    started(run, workers, wait_for)
    (workers[0].outputs / "LA_probability.nrrd").mkdir()  # the system refuses to remove it as a file
    workers[0].segment(0)
    workers[0].finish()
    assert not run.summary.failures and len(run.summary.deliveries) == 1 and len(results()) == 1


@pytest.mark.skipif(os.name == "nt", reason="folders of a user are nobody else's there")
def test_nobody_else_may_look_into_the_scans_of_a_run(a_scene):  # noqa: F811
    from CAMLSegmentationLib.Run import newFolder

    before = os.umask(0o022)
    try:
        folder = newFolder()
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and (folder / "outputs").is_dir()
