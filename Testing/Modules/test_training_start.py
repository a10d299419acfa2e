"""What the next round starts from: the last one's model, wherever the project is opened, and what the user chooses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import SlicerHost
from training_tools import finish_round, write_folder


@pytest.fixture
def two_rounds(training, stand_in, tmp_path):
    """The panel with a project whose two rounds have models, and the second one's folder."""
    training.logic.addFolder(write_folder(tmp_path / "scans", 2, labels=1))
    training.logic.setRole(["case-00"], "labeled")
    for number in (1, 2):
        folder = finish_round(training, number, renamed(stand_in, tmp_path, f"Round {number}"))
    return training, folder


def renamed(model: Path, folder: Path, name: str) -> Path:
    """A model file of another name and other weights."""
    import dataclasses

    from caml_core.model_file import load_model, save_model

    loaded, factor = load_model(model), 1 + len(list(folder.glob("*.caml")))
    state = {k: factor * v if v.is_floating_point() else v for k, v in loaded.state.items()}
    path = folder / f"{name}.caml"
    save_model(path, spec=loaded.spec, state=state, info=dataclasses.replace(loaded.info, name=name))
    return path


def start(panel) -> str:
    """What the user reads as the start; the settings agree with it."""
    from CAMLTrainingLib.ModelChoice import titleOf

    text, path = panel.ui.startModelComboBox.currentText, panel.train.settings().startModel
    assert text == (titleOf(path) if path is not None else "From scratch")
    return text


def choose_start(panel, name: str) -> None:
    """Choose a start, as a user does."""
    panel.ui.startModelComboBox.currentIndex = panel.ui.startModelComboBox.findData(name)


def reopen(folder: Path):
    """The project in a scene that knows nothing of it, in a Slicer that was just started; returns the panel."""
    import slicer

    SlicerHost.unload_module("CAMLTraining")
    slicer.mrmlScene.Clear()
    panel = SlicerHost.load_module(Path(SlicerHost._state["paths"]["CAMLTraining"])).panel
    SlicerHost.enter("CAMLTraining")
    panel.ui.projectDirectoryButton.directory = str(folder)
    return panel


def models() -> list[str]:
    """The names of the user's models."""
    from CAMLSegmentationLib import Models

    return [entry.name for entry in Models.library().entries()]


def test_a_round_that_ends_is_what_the_next_one_starts_from(two_rounds):
    panel, _ = two_rounds
    assert start(panel) == "Round 2" and models() == ["Round 1", "Round 2"]
    assert panel.ui.statusLabel.text.endswith("the next round starts from its model.")


def test_a_project_opened_by_its_folder_goes_on_from_its_last_model(two_rounds):
    panel, _ = two_rounds
    panel = reopen(panel.logic.project.folder)
    assert start(panel) == "Round 2" and models() == ["Round 1", "Round 2"]
    assert panel.ui.statusLabel.text.endswith("the next round starts from its model.")


def test_the_mark_of_an_older_version_finds_the_model_again(two_rounds):
    panel, folder = two_rounds
    (folder / "in-models").write_text("")
    panel = reopen(panel.logic.project.folder)
    assert start(panel) == "Round 2"


def test_another_computer_gets_the_model_into_its_list(two_rounds, tmp_path, monkeypatch):
    panel, _ = two_rounds
    project = shutil.copytree(panel.logic.project.folder, tmp_path / "copied")
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "models of another computer"))
    panel = reopen(project)
    assert models() == ["Round 2"] and start(panel) == "Round 2"
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "models"))
    panel = reopen(project)
    assert start(panel) == "Round 2" and models() == ["Round 1", "Round 2"], "nothing comes twice"


def test_a_scene_on_another_computer_goes_on_from_the_same_model(two_rounds, tmp_path, monkeypatch):
    import slicer

    panel, _ = two_rounds
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "models of another computer"))
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert models() == ["Round 2"] and start(panel) == "Round 2"


@pytest.mark.parametrize("mark", ["of this version", "of an older version"])
def test_a_model_that_the_user_has_removed_does_not_come_back(two_rounds, mark):
    from CAMLSegmentationLib import Models

    panel, folder = two_rounds
    if mark == "of an older version":
        (folder / "in-models").write_text("")
    Models.library().remove(next(e.path for e in Models.library().entries() if e.name == "Round 2"))
    panel.enter()
    assert start(panel) == "From scratch"
    panel = reopen(panel.logic.project.folder)
    assert models() == ["Round 1"] and start(panel) == "From scratch"
    assert panel.ui.statusLabel.text == "The training is done."


@pytest.mark.parametrize("name", ["", "Round 1"], ids=["from scratch", "from another model"])
def test_what_the_user_chooses_stays(two_rounds, tmp_path, name):
    import slicer

    panel, _ = two_rounds
    choose_start(panel, name)
    project, shown = panel.logic.project.folder, name or "From scratch"
    panel.enter()
    panel.logic.openProject(project)
    panel.update()
    assert start(panel) == shown and panel.ui.statusLabel.text == "The training is done."
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert panel.logic.project.folder == project and start(panel) == shown


def test_a_choice_holds_until_the_next_round_has_ended(two_rounds, stand_in, tmp_path):
    panel, _ = two_rounds
    choose_start(panel, "")
    finish_round(panel, 3, renamed(stand_in, tmp_path, "Round 3"))
    assert start(panel) == "Round 3"


def test_another_project_in_the_scene_starts_from_its_own_model(two_rounds, stand_in, tmp_path):
    panel, _ = two_rounds
    first = panel.logic.project.folder
    panel.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    finish_round(panel, 1, renamed(stand_in, tmp_path, "Of the second"))
    assert start(panel) == "Of the second"
    panel.ui.projectDirectoryButton.directory = str(first)
    assert start(panel) == "Round 2"


def test_where_models_cannot_be_written_the_list_is_still_followed(two_rounds, tmp_path):
    panel, folder = two_rounds
    (tmp_path / "models" / ".identity").unlink()
    (tmp_path / "models" / ".identity").mkdir()  # nothing can take its place, not even for root
    panel = reopen(panel.logic.project.folder)
    assert start(panel) == "Round 2" and models() == ["Round 1", "Round 2"]


def library():
    """The user's models."""
    from CAMLSegmentationLib import Models

    return Models.library()


def test_a_start_stays_though_models_of_its_name_come_and_go(two_rounds, stand_in, tmp_path):
    panel, _ = two_rounds
    (tmp_path / "other").mkdir()
    chosen = panel.train.settings().startModel
    twin = library().add(renamed(stand_in, tmp_path / "other", "Round 2"))
    assert panel.train.settings().startModel == chosen, "before the list is read again"
    panel.enter()
    assert start(panel) == f"Round 2 ({chosen.stem})"
    library().remove(twin)
    panel.enter()
    assert start(panel) == "Round 2" and panel.train.settings().startModel == chosen


def test_a_model_of_the_same_name_does_not_take_the_place_of_the_chosen_one(two_rounds, stand_in, tmp_path):
    panel, _ = two_rounds
    (tmp_path / "other").mkdir()
    library().add(renamed(stand_in, tmp_path / "other", "Round 1"))
    first = next(e.path for e in library().entries() if e.name == "Round 1" and e.path.stem != "Round 1")
    panel.enter()
    choose_start(panel, f"Round 1 ({first.stem})")
    assert panel.train.settings().startModel == first
    library().remove(next(e.path for e in library().entries() if e.name == "Round 1" and e.path != first))
    panel.enter()
    assert start(panel) == "Round 1" and panel.train.settings().startModel == first


def test_a_start_that_is_gone_is_said_and_train_asks_to_be_pressed_twice(two_rounds):
    from CAMLTrainingLib.Preflight import Verdict

    panel, _ = two_rounds
    library().remove(panel.train.settings().startModel)
    panel.enter()
    assert start(panel) == "From scratch"
    assert panel.ui.statusLabel.text.startswith("<b>The model Round 2, which the training was to start from")
    panel.train._trainNext = True
    panel.onPreflight(Verdict("fits", "It fits."))
    assert not panel.logic.training and "press Train again" in panel.ui.statusLabel.text
    assert "The model Round 2, which the training was to start from" in panel.ui.verdictTextBrowser.html
    choose_start(panel, "Round 1")
    panel.onPreflight(Verdict("fits", "It fits."))
    assert "Round 2" not in panel.ui.verdictTextBrowser.html
