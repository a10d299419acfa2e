"""A network drive that answers with errors: the panel stays usable, and is as before once the drive is back."""

from __future__ import annotations

import errno

import pytest
import SlicerHost
from training_tools import add_scan, case_of, finish_round, message, roles, select, write_folder


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EACCES, errno.EHOSTDOWN], ids=errno.errorcode.get)
def test_a_drive_that_answers_with_errors_leaves_the_panel_usable(
    training, stand_in, tmp_path, break_drive, monkeypatch, code
):
    import slicer

    scans = write_folder(tmp_path / "drive" / "scans", 2)
    slicer.util.loadVolume(str(scans / "case-00.nii.gz"))
    training.update()
    training.logic.addFolder(scans)
    training.update()
    finish_round(training, 1, stand_in, caml=0.8)
    before, model = roles(training), training.logic.latestModel()
    assert list(before) == ["case-00", "case-01"] and model is not None and training.ui.predictButton.enabled

    break_drive([tmp_path / "drive", training.logic.project.rounds_folder()], code)
    add_scan(7, "came meanwhile")
    training.update()
    assert roles(training) == {**before, "came meanwhile": "unlabeled"}
    SlicerHost.leave("CAMLTraining")
    SlicerHost.enter("CAMLTraining")
    assert roles(training) == {**before, "came meanwhile": "unlabeled"}
    assert training.logic.latestModel() is None and not training.ui.predictButton.enabled
    select(training, ["case-01"])
    training.ui.editButton.click()
    assert "case-01" in message(training) and training.ui.pagesStackedWidget.currentIndex == 0
    select(training, ["came meanwhile"])
    training.ui.excludeButton.click()

    monkeypatch.undo()
    SlicerHost.leave("CAMLTraining")
    SlicerHost.enter("CAMLTraining")
    assert roles(training) == {**before, "came meanwhile": "excluded"}
    assert training.logic.latestModel() == model and training.ui.predictButton.enabled
    assert case_of(training, "case-00").images == (scans / "case-00.nii.gz",)
