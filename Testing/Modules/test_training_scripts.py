"""Segmenting unlabelled cases from a script: what went wrong is not lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_training_predictions import AWorker
from training_tools import write_folder

from caml_core.errors import CamlError


@pytest.fixture
def segment(training, stand_in, tmp_path, monkeypatch):
    """``segment(act)``: two unlabelled cases from a script; ``act(worker)`` is what the process does."""
    training.logic.addFolder(write_folder(tmp_path / "scans", 2))

    def run(act: Callable[[AWorker], None]):
        class Acting(AWorker):
            def wait(self, milliseconds=0):
                act(self)
                self.finish()

        monkeypatch.setattr(training.logic, "_workerFactory", Acting)
        return training.logic.segmentUnlabeled(stand_in)

    return run


def fail(worker: AWorker, *cases: str) -> None:
    """Cases over which the process fails."""
    for case in cases:
        worker.tell("warning", case=case, exit_code=3, message=f"Case {case}: it is no scan.")


def test_a_fault_of_the_whole_is_raised(segment):
    with pytest.raises(CamlError, match="Memory does not suffice"):
        segment(lambda worker: worker.tell("error", message="Memory does not suffice."))


def test_that_no_case_could_be_segmented_is_raised(segment):
    with pytest.raises(CamlError, match=r"case-00: it is no scan. And 1 more failed\."):
        segment(lambda worker: fail(worker, "case-00", "case-01"))


def test_single_failures_are_in_the_summary(segment):
    def act(worker):
        fail(worker, "case-00")
        worker.segment("case-01")

    summary = segment(act)
    assert summary.done == ["case-01"] and list(summary.failures) == ["case-00"]


def test_a_script_that_cancels_gets_the_summary(segment, training):
    summary = segment(lambda worker: training.logic.cancelPredictions())
    assert summary.cancelled and not summary.done
