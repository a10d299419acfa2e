"""The part "Model": the list, the card, and what can be done with model files."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import SlicerHost
from stand_ins import SEGMENTS, ijk_to_ras, noise, save_stand_in


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save_stand_in(folder / "atrium.caml", name="Left atrium")
    save_stand_in(folder / "vessels.caml", name="Coronary vessels", modality="CT")
    return folder


@pytest.fixture
def panel(files, models_folder, the_segmentation_panel):
    models_folder.mkdir(parents=True, exist_ok=True)
    for path in files.glob("*.caml"):
        shutil.copy(path, models_folder / path.name)
    the_segmentation_panel.enter()
    return the_segmentation_panel


@pytest.fixture
def errors(monkeypatch):
    import slicer

    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *a, **k: shown.append(text))
    return shown


def listed(panel):
    widget = panel.ui.modelListWidget
    return [widget.item(row).text() for row in range(widget.count)]


def choose(panel, name):
    row = next(i for i, text in enumerate(listed(panel)) if text.startswith(name))
    panel.ui.modelListWidget.currentRow = row


def click(panel, row):
    from SlicerHost.proxy import to_native

    widget = to_native(panel.ui.modelListWidget)
    widget.clicked.emit(widget.model().index(row, 0))


def test_models_are_listed_and_the_first_is_chosen(panel):
    assert [text.split("  ")[0] for text in listed(panel)] == ["Coronary vessels", "Left atrium"]
    assert panel.models.card.info.name == "Coronary vessels"


def test_the_card_says_what_a_user_must_know(panel):
    choose(panel, "Left atrium")
    text = panel.ui.modelCardTextBrowser.plainText
    for expected in ("Left atrium", "Aorta", "MR", "1.5 x 1.5 x 1.5", "4 labelled and 12 unlabelled", "not measured"):
        assert expected in text, expected
    assert "not stated" in text  # the licence
    assert all(f"#{round(255 * s.color[0]):02x}" in panel.ui.modelCardTextBrowser.html for s in SEGMENTS)


def test_the_search_narrows_the_list(panel):
    panel.ui.modelSearchBox.text = "atrium mr"
    assert len(listed(panel)) == 1 and listed(panel)[0].startswith("Left atrium")
    panel.ui.modelSearchBox.text = "liver"
    assert listed(panel) == []
    panel.ui.modelSearchBox.text = ""
    assert len(listed(panel)) == 2


def test_the_first_model_that_suits_a_volume_is_chosen_until_someone_chooses(panel, a_volume):
    mri, ct = (a_volume(name, noise(mean=mean), ijk_to_ras()) for name, mean in (("MRI", 900.0), ("CT", -900.0)))
    for volume, model in ((mri, "Left atrium"), (ct, "Coronary vessels"), (mri, "Left atrium")):
        panel._parameterNode.inputVolume = volume
        panel.update()
        assert panel.models.card.info.name == model and not panel.ui.fitLabel.text
        widget = panel.ui.modelListWidget
        assert widget.item(widget.currentRow).text().startswith(model)
    choose(panel, "Coronary vessels")
    panel._parameterNode.inputVolume = ct
    panel._parameterNode.inputVolume = mri
    panel.update()
    assert panel.models.card.info.name == "Coronary vessels" and "Hounsfield" in panel.ui.fitLabel.text


def test_what_a_crop_cannot_mend_weighs_more_than_what_it_can(panel, models_folder, a_volume):
    save_stand_in(models_folder / "both.caml", channels=2, name="Both channels")
    panel.models.refresh()
    large = a_volume("Large MRI", noise(size=(90, 90, 90), mean=900.0), ijk_to_ras(spacing=(5.0, 5.0, 5.0)))
    panel._parameterNode.inputVolume = large
    panel.update()
    # Coarse and wide along all axes for the one, wrong in number or in kind for the others.
    assert panel.models.card.info.name == "Left atrium" and panel.ui.fitLabel.text.count("mm") >= 3


def test_what_someone_chose_stays_in_the_next_scene(panel, a_volume):
    import slicer

    panel._parameterNode.inputVolume = a_volume("MRI", noise(mean=900.0), ijk_to_ras())
    panel.update()
    assert panel.models.card.info.name == "Left atrium"
    choose(panel, "Coronary vessels")
    slicer.mrmlScene.Clear(0)
    panel.setParameterNode(panel.logic.getParameterNode())
    assert not panel._parameterNode.modelName
    panel._parameterNode.inputVolume = a_volume("Other MRI", noise(mean=900.0), ijk_to_ras())
    panel.update()
    assert panel.models.card.info.name == "Coronary vessels"


def test_a_click_on_the_chosen_model_chooses_it(panel, a_volume):
    ct = a_volume("CT", noise(mean=-900.0), ijk_to_ras())
    assert panel.models.card.info.name == "Coronary vessels" and not panel._parameterNode.modelName
    choose(panel, "Left atrium")
    panel._parameterNode.modelName = ""
    panel.models._decided = False
    click(panel, panel.ui.modelListWidget.currentRow)
    assert panel._parameterNode.modelName == "Left atrium"
    panel._parameterNode.inputVolume = ct
    panel.update()
    assert panel.models.card.info.name == "Left atrium"


def test_the_choice_is_kept_in_the_scene_by_name(panel):
    choose(panel, "Left atrium")
    assert panel._parameterNode.modelName == "Left atrium"
    panel.models.refresh()
    assert panel.models.card.info.name == "Left atrium"


@pytest.fixture
def rounds(panel, files, models_folder):
    """The models of a project's three rounds, of one name; the second file is the newest."""
    from caml_core.model_file import load_model, save_model

    model, paths = load_model(files / "atrium.caml"), []
    for number, age in ((1, 300), (2, 100), (3, 200)):
        state = {name: tensor + 0.01 * number for name, tensor in model.state.items() if tensor.is_floating_point()}
        paths.append(models_folder / f"ours round {number}.caml")
        info = dataclasses.replace(model.info, name="Ours")
        save_model(paths[-1], spec=model.spec, state=model.state | state, info=info)
        os.utime(paths[-1], (2e9 - age, 2e9 - age))
    panel.models.refresh()
    return paths


def test_models_of_one_name_are_told_apart_in_the_list(panel, rounds):
    titles = [text.split("  ")[0] for text in listed(panel)]
    assert titles == ["Coronary vessels", "Left atrium", *(f"Ours ({path.stem})" for path in rounds)]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_scene_brings_back_the_very_model_of_several_of_one_name(panel, rounds, number):
    choose(panel, f"Ours ({rounds[number - 1].stem})")
    panel.models._chosen = None  # Slicer was started anew
    panel.setParameterNode(panel.logic.getParameterNode())
    assert panel.models.entry.path == rounds[number - 1]
    rounds[number - 1].unlink()
    panel.models.refresh()
    assert panel.models.entry.name == "Ours"  # another one of its name, as in scenes that know no more


def test_of_models_that_suit_alike_the_newest_of_the_users_own_is_suggested(panel, rounds, files, a_volume):
    from caml_core.model_library import ModelLibrary

    panel.models.library = ModelLibrary([files], panel.models.library.user)
    later = os.stat(rounds[1]).st_mtime + 1000  # the extension was installed after the last training
    os.utime(files / "atrium.caml", (later, later))
    panel.models.refresh()
    panel._parameterNode.inputVolume = a_volume("MRI", noise(mean=900.0), ijk_to_ras())
    panel.update()
    assert panel.models.entry.path == rounds[1]


def test_a_file_is_opened_into_the_users_models(panel, models_folder, files, answers, tmp_path):
    source = save_stand_in(tmp_path / "mine.caml", name="Mine")
    answers["getOpenFileName"] = str(source)
    panel.ui.openModelButton.click()
    assert (models_folder / "mine.caml").read_bytes() == source.read_bytes()
    assert panel.models.card.info.name == "Mine"


def test_a_file_that_is_no_model_is_refused_with_one_sentence(panel, models_folder, answers, errors, tmp_path):
    (tmp_path / "photo.caml").write_bytes(b"\x89PNG, and certainly no model")
    answers["getOpenFileName"] = str(tmp_path / "photo.caml")
    before = sorted(models_folder.iterdir())
    panel.ui.openModelButton.click()
    assert len(errors) == 1 and "photo.caml" in errors[0] and sorted(models_folder.iterdir()) == before


def test_a_copy_is_one_file_for_another_computer(panel, answers, tmp_path, files):
    choose(panel, "Left atrium")
    answers["getSaveFileName"] = str(tmp_path / "carried.caml")
    panel.ui.exportModelButton.click()
    assert (tmp_path / "carried.caml").read_bytes() == (files / "atrium.caml").read_bytes()


def test_removing_asks_and_takes_the_users_models_only(panel, models_folder, monkeypatch):
    import slicer

    choose(panel, "Left atrium")
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *a, **k: False)
    panel.ui.removeModelButton.click()
    assert (models_folder / "atrium.caml").is_file()
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *a, **k: True)
    panel.ui.removeModelButton.click()
    assert not (models_folder / "atrium.caml").exists() and len(listed(panel)) == 1


def test_a_bundled_model_is_listed_and_cannot_be_removed(the_segmentation_panel, files):
    from caml_core.model_library import ModelLibrary

    panel = the_segmentation_panel
    panel.models.library = ModelLibrary([files], panel.models.library.user)
    panel.models.refresh()
    assert len(listed(panel)) == 2 and not panel.ui.removeModelButton.enabled
    assert "comes with the extension" in panel.ui.modelCardTextBrowser.plainText


def test_what_ships_is_listed_with_its_held_out_figures(the_segmentation_panel):
    from caml_core.model_library import ModelLibrary

    shipped = Path(__file__).resolve().parents[2] / "CAMLSegmentation" / "Resources" / "Models"
    panel = the_segmentation_panel
    panel.models.library = ModelLibrary([shipped], panel.models.library.user)
    panel.models.refresh()
    assert len(listed(panel)) == len(list(shipped.glob("*.caml"))) > 0
    choose(panel, "Left atrium, LGE-MRI")
    text = panel.ui.modelCardTextBrowser.plainText
    for expected in ("comes with the extension", "80 labelled", "Dice", "20", "twin", "Apache-2.0", "research"):
        assert expected in text, text
    assert all(row.endswith("cases, see card") or "indicative" in row for row in listed(panel))


def test_the_folder_is_shown_and_made_where_it_is_not_there(the_segmentation_panel, models_folder):
    from SlicerHost import qt_module

    the_segmentation_panel.ui.modelFolderButton.click()
    assert models_folder.is_dir() and qt_module.opened[-1].endswith("models")


def test_a_published_checkpoint_is_imported_in_the_background(panel, answers, wait_for, tmp_path):
    import torch

    from caml_core.model import build_network
    from caml_core.published import published_spec

    torch.manual_seed(0)
    torch.save(build_network(published_spec().network).state_dict(), tmp_path / "iter_6000.pth")
    answers["getOpenFileName"] = str(tmp_path / "iter_6000.pth")
    panel.ui.importModelButton.click()
    assert not panel.ui.importModelButton.enabled
    wait_for(lambda: panel.ui.importModelButton.enabled, 120)
    assert panel.models.card.info.name == "iter_6000" and panel.models.entry.path.parent.name == "models"


def test_a_checkpoint_that_is_none_is_one_sentence(panel, answers, errors, wait_for, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"not a checkpoint" * 100)
    answers["getOpenFileName"] = str(tmp_path / "weights.pth")
    panel.ui.importModelButton.click()
    wait_for(lambda: panel.ui.importModelButton.enabled, 120)
    assert len(errors) == 1 and "weights.pth" in errors[0] and "Traceback" not in errors[0]


@pytest.mark.parametrize("end", [SlicerHost.unload_module, SlicerHost.reload_module], ids=["quit", "reload"])
def test_quitting_or_reloading_while_a_checkpoint_is_imported_opens_no_dialog(panel, answers, errors, tmp_path, end):
    (tmp_path / "weights.pth").write_bytes(b"not a checkpoint" * 100)
    answers["getOpenFileName"] = str(tmp_path / "weights.pth")
    panel.ui.importModelButton.click()
    worker, folder = panel.models._worker, panel.models._folder
    assert worker.running and folder.is_dir()
    end("CAMLSegmentation")
    assert not worker.running and not folder.exists() and not errors


def test_a_model_of_two_channels_gets_a_selector_for_each(the_segmentation_panel, models_folder, a_volume, wait_for):
    from stand_ins import ijk_to_ras, noise

    models_folder.mkdir(parents=True)
    save_stand_in(models_folder / "two.caml", channels=2, name="Two")
    panel = the_segmentation_panel
    first, second = (a_volume(name, noise(seed=i), ijk_to_ras()) for i, name in enumerate(("T1", "T2")))
    panel._parameterNode.inputVolume = first
    panel.enter()
    assert not panel.ui.applyButton.enabled and "2 channels" in panel.ui.applyButton.toolTip
    selector = panel.inputs._channelSelectors[0]
    selector.setCurrentNode(first)
    assert "different volume" in panel.ui.applyButton.toolTip
    selector.setCurrentNode(second)
    assert panel.ui.applyButton.enabled, panel.problem()
    works = panel.inputs.works(False)
    assert works[0].volumeNodes == (first, second)
    panel.ui.applyButton.click()
    wait_for(lambda: not panel.logic.running, 120)
    assert panel._parameterNode.result is not None, panel.ui.statusLabel.text


def test_held_out_figures_are_said_with_their_number():
    from CAMLSegmentationLib.Models import heldOut

    metrics = {
        "held_out": {
            "count": 3,
            "summary": {
                "mean": {"A": {"dice": {"mean": 0.9}}, "B": {"dice": {"mean": 0.8}}},
                "v": {"A": {"dice": {"mean": 0.1}}},
            },
        }
    }
    assert heldOut(metrics) == "Dice 85.0 % on 3 cases (few: indicative)"
    summary = metrics["held_out"]["summary"]
    metrics["held_out"]["summary"] = {"v": summary["v"], "mean": summary["mean"]}  # the first stands for the model
    assert heldOut(metrics) == "Dice 10.0 % on 3 cases (few: indicative)"
    assert heldOut({}) == heldOut({"held_out": {"summary": {"mean": {}}}}) == "not measured"
    assert heldOut(json.loads('{"held_out": [1, 2]}')) == "not measured"


def test_remarks_on_held_out_figures_are_on_the_card_and_the_list_points_to_it(panel, files, models_folder):
    from caml_core.model_file import load_model, save_model

    dice = {"mean": {"Aorta": {"dice": {"mean": 0.9}}}}
    held_out = {"count": 12, "summary": dice, "remarks": ["The start model has seen <p01>.", "One is empty."]}
    model = load_model(files / "atrium.caml")
    info = dataclasses.replace(model.info, name="Known", metrics={"held_out": held_out})
    save_model(models_folder / "known.caml", spec=model.spec, state=model.state, info=info)
    panel.models.refresh()
    choose(panel, "Known")
    assert next(text for text in listed(panel) if text.startswith("Known")).endswith("12 cases, see card")
    text = panel.ui.modelCardTextBrowser.plainText
    assert "The start model has seen <p01>." in text and "One is empty." in text


def test_the_users_models_outlive_slicer(monkeypatch, tmp_path):
    from CAMLSegmentationLib import Models

    monkeypatch.delenv("CAML_MODELS_DIR", raising=False)
    folder = Models.library().user
    assert "slicer" not in str(folder).lower() and folder.is_absolute() and Path.home() in folder.parents
