"""The model of a training that ended while nobody looked: CAML Segmentation lists it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import SlicerHost
from test_round_process import Notes
from test_training_start import models, renamed, reopen, start, two_rounds  # noqa: F401
from training_tools import finish_round, write_folder

from caml_core.rounds.listing import put_into_models
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder, save_json
from caml_core.training.request import Request


def shown(panel) -> list[str]:
    """The list of models as the user reads it."""
    widget = panel.ui.modelListWidget
    return [widget.item(row).text().partition("  -  ")[0] for row in range(widget.count)]


def test_a_training_that_outlives_slicer_lists_its_model(
    the_training_module, the_segmentation_panel, stand_in, tmp_path, wait_for
):
    """No panel has opened its project since."""
    from CAMLTrainingLib.RoundProcess import RoundProcess

    panel, project = the_segmentation_panel, tmp_path / "heart"
    folder = RoundFolder(project / "rounds" / "001")
    start_round(folder, write_folder(tmp_path / "scans", 2, labels=1), RoundRequest(Request(), cache="cache"))
    shutil.copy(stand_in, folder.model)
    save_json(folder.result, {"ended": "finished", "report": "report/index.html", "model": "model.caml", "rows": []})
    before = shown(panel)
    made = RoundProcess(folder.path, project / "training.lock", Notes(), listsModel=True)
    made.resume()
    made.close()  # nobody follows it any more
    wait_for(lambda: not made.alive(), 60)
    panel.enter()
    assert before == [] and shown(panel) == ["Stand-in"]
    assert panel.models.entry.path.name == "heart round 1.caml"


def test_trainings_of_the_panel_are_told_to_list_their_models_and_those_of_scripts_are_not(
    training, stand_in, tmp_path, monkeypatch, wait_for
):
    from CAMLTrainingLib import RoundProcess
    from CAMLTrainingLib.Logic import CAMLTrainingLogic

    program, heard = tmp_path / "python", tmp_path / "heard"
    program.write_text(f'#!/bin/sh\necho "$@" > {heard}.part && mv {heard}.part {heard}\n')
    program.chmod(0o755)
    monkeypatch.setattr(RoundProcess, "pythonProgram", lambda: str(program))
    finish_round(training, 1, stand_in)
    script = CAMLTrainingLogic()
    script.openProject(training.logic.project.folder)
    for logic, wanted in ((training.logic, True), (script, False)):
        heard.unlink(missing_ok=True)
        logic.round.resume()
        wait_for(heard.exists, 30)
        assert ("--to-models=project round 1" in heard.read_text()) == wanted
    script.close()


@pytest.mark.parametrize("removed", [False, True], ids=["there", "removed since"])
def test_a_panel_that_comes_later_starts_from_the_model_and_brings_no_removed_one_back(
    two_rounds,  # noqa: F811
    stand_in,
    tmp_path,
    removed,
):
    from CAMLSegmentationLib import Models

    panel, folder = two_rounds
    project = panel.logic.project.folder
    SlicerHost.unload_module("CAMLTraining")
    third = Path(shutil.copytree(folder, folder.with_name("003"), ignore=shutil.ignore_patterns("in-models")))
    shutil.copy(renamed(stand_in, tmp_path, "Round 3"), third / "model.caml")
    put_into_models(third, "project round 3", Models.library())
    if removed:
        Models.library().remove(next(e.path for e in Models.library().entries() if e.name == "Round 3"))
    SlicerHost.load_module(Path(SlicerHost._state["paths"]["CAMLTraining"]))
    panel = reopen(project)
    assert models() == ["Round 1", "Round 2"] + ["Round 3"] * (not removed)
    assert start(panel) == ("From scratch" if removed else "Round 3")
