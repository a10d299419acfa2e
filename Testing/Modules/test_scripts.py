"""The logic in a script: what takes several scans waits for the end as the one-liner does, or returns at once."""

from __future__ import annotations

import pytest
from stand_ins import ijk_to_ras, noise
from test_run import AWorker, a_folder_of_scans, a_model  # noqa: F401


class Diligent(AWorker):
    """Does all of its work as soon as someone waits for it."""

    def wait(self, milliseconds=0):
        for index, case in enumerate(self.cases):
            if self.outputs.name != "results":
                self.segment(index)
                continue
            (self.outputs / f"{case['id']}.seg.nrrd").write_bytes(b"labels")  # a case of the folder
            self.tell("case", case=case["id"], seconds=1.0)
        self.finish()


@pytest.fixture
def logic(a_scene):
    from CAMLSegmentationLib.Logic import CAMLSegmentationLogic

    made = CAMLSegmentationLogic(Diligent)
    yield made
    made.close()


@pytest.fixture(params=["segmentVolumes", "segmentSequence", "segmentFolder"])
def several(request, logic, a_volume, a_model, tmp_path):  # noqa: F811
    """``several(**options)``: one of the functions that take several scans, on two; returns the run."""
    import slicer

    volumes = [a_volume(f"LA {n}", noise(seed=n), ijk_to_ras()) for n in range(2)]
    if request.param == "segmentVolumes":
        scans = (volumes,)
    elif request.param == "segmentSequence":
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
        for n, volume in enumerate(volumes):
            sequence.SetDataNodeAtValue(volume, str(n))
        scans = (sequence,)
    else:
        scans = (a_folder_of_scans(tmp_path / "scans"), tmp_path / "results")
    return lambda **options: getattr(logic, request.param)(*scans, a_model, **options)


def test_a_script_has_its_results_in_the_next_line(several, logic):
    run = several()
    assert run.ended and not logic.running and not run.summary.failures
    assert len(run.summary.deliveries) >= 2


def test_a_script_may_go_on_meanwhile(several, logic):
    run = several(wait=False)
    assert not run.ended and logic.running
    assert len(run.wait().deliveries) >= 2 and run.ended and not run.summary.failures
