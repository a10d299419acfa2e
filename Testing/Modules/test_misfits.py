"""Volumes that a model was not made for: those that nobody looks at one by one are named as well."""

from __future__ import annotations

import numpy as np
import pytest
from panel_tools import apply
from stand_ins import ijk_to_ras, noise, save_stand_in

SIZE = (26, 24, 20)


def like_ct(seed=0):
    return np.random.default_rng(seed).integers(-1024, 1500, SIZE[::-1]).astype(np.int16)


def choose_all(panel):
    panel._parameterNode.inputKind = "all"
    panel.update()
    return panel.ui.fitLabel.text


def test_the_last_of_many_volumes_is_looked_at(panel, a_volume):
    for number in range(10):
        a_volume(f"MR {number}", noise(seed=number), ijk_to_ras())
    a_volume("Last", like_ct(), ijk_to_ras())
    text = choose_all(panel)
    assert text.count("Warning") == 1 and "Warning, Last:" in text and "more" not in text


def test_each_volume_comes_before_the_second_warning_of_another_and_the_rest_is_counted(panel, a_volume):
    for number in range(3):
        a_volume(f"CT {number}", like_ct(number), ijk_to_ras(spacing=(9.0, 9.0, 9.0)))
    text = choose_all(panel)
    assert all(f"Warning, CT {number}:" in text for number in range(3))
    assert text.count("Warning") == 4 and "And 8 more." in text


def test_a_scene_too_large_to_look_at_at_once_says_how_much_is_left(panel, a_volume, monkeypatch):
    from CAMLSegmentationLib import InputSection

    monkeypatch.setattr(InputSection, "_LOOKED_AT", 2 * int(np.prod(SIZE)))
    for number in range(4):
        a_volume(f"MR {number}", noise(seed=number), ijk_to_ras())
    a_volume("Last", like_ct(), ijk_to_ras())
    assert "3 of 5 volumes were not looked at" in choose_all(panel)
    for number in range(2):
        a_volume(f"One more {number}", noise(), ijk_to_ras())
    assert "Warning, Last:" in choose_all(panel), "what is known is not looked at again"


@pytest.fixture
def scans(a_volume, tmp_path):
    import slicer

    folder = tmp_path / "scans"
    folder.mkdir()
    for name, voxels in (("p0", noise()), ("p1", like_ct())):
        node = a_volume(name, voxels, ijk_to_ras())
        slicer.util.saveNode(node, str(folder / f"{name}.nrrd"))
        slicer.mrmlScene.RemoveNode(node)
    return folder


def test_a_run_over_a_folder_names_those_that_do_not_fit(panel, scans, wait_for):
    ui = panel.ui
    ui.inputKindComboBox.currentIndex = ui.inputKindComboBox.findData("folder")
    ui.folderPathLineEdit.currentPath = str(scans)
    apply(panel, wait_for)
    assert ui.statusLabel.text.startswith("2 done in") and ui.statusLabel.text.endswith("log explains: p1.")
    (line,) = (line for line in ui.logTextEdit.plainText.splitlines() if "like a CT" in line)
    assert line.startswith("Case p1: ")


def test_one_volume_has_its_warning_beforehand_and_a_line_in_the_log(panel, a_volume, wait_for):
    panel._parameterNode.inputVolume = a_volume("CT", like_ct(), ijk_to_ras())
    assert "like a CT" in panel.ui.fitLabel.text
    apply(panel, wait_for)
    assert panel.ui.logTextEdit.plainText.count("like a CT") == 1
    assert panel.ui.statusLabel.text.startswith("Done in") and "log" not in panel.ui.statusLabel.text


def test_a_region_is_not_judged_by_its_own_values(panel, models_folder, a_volume, wait_for):
    """Soft tissue of a CT has no air in it; the panel compares all of the scan."""
    import slicer

    save_stand_in(models_folder / "ct.caml", name="CT model", modality="CT")
    panel.models.refresh()
    texts = [panel.ui.modelListWidget.item(row).text() for row in range(panel.ui.modelListWidget.count)]
    panel.ui.modelListWidget.currentRow = next(row for row, text in enumerate(texts) if text.startswith("CT model"))
    voxels = noise()
    voxels[0] = -1000
    volume = a_volume("CT", voxels, ijk_to_ras())
    panel._parameterNode.inputVolume = volume
    bounds, region = [0.0] * 6, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    volume.GetRASBounds(bounds)
    region.SetCenter(*(0.5 * (bounds[2 * i] + bounds[2 * i + 1]) for i in range(3)))
    region.SetSize(20, 20, 20)
    panel._parameterNode.region = region
    panel.update()
    assert panel.models.card.info.name == "CT model" and not panel.ui.fitLabel.text
    apply(panel, wait_for)
    log = panel.ui.logTextEdit.plainText
    assert panel.ui.statusLabel.text.startswith("Done in") and "Hounsfield" not in log, log
