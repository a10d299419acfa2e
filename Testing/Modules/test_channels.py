"""A model of several channels: volumes of the last patient, or in another order, do not go along unnoticed."""

from __future__ import annotations

import pytest
from stand_ins import ijk_to_ras, noise, save_stand_in


@pytest.fixture
def two_channels(the_segmentation_panel, models_folder, a_volume):
    """The panel with T1 and T2 of patient A chosen; B has both on the same grid."""
    models_folder.mkdir(parents=True)
    save_stand_in(models_folder / "two.caml", channels=2, name="Two")
    panel = the_segmentation_panel
    for index, name in enumerate(("A T1", "A T2", "B T1", "B T2")):
        a_volume(name, noise(seed=index), ijk_to_ras())
    panel._parameterNode.inputVolume = volume("A T1")
    panel.enter()
    selector(panel).setCurrentNode(volume("A T2"))
    assert not panel.problem() and "stayed" not in panel.ui.fitLabel.text
    return panel


def volume(name):
    import slicer

    return slicer.util.getNode(name)


def selector(panel):
    return panel.inputs._channelSelectors[0]


def put(name, kind, *volumes):
    """Put volumes into a new study or folder of the subject hierarchy."""
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    root = hierarchy.GetSceneItemID()
    made = hierarchy.CreateStudyItem(root, name) if kind == "study" else hierarchy.CreateFolderItem(root, name)
    for node in volumes:
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume(node)), made)


@pytest.mark.parametrize("kind", ["study", "folder"])
def test_a_volume_of_another_study_is_cleared_with_the_first_volume(two_channels, kind):
    panel = two_channels
    put("A", kind, "A T1", "A T2")
    put("B", kind, "B T1", "B T2")
    panel._parameterNode.inputVolume = volume("B T1")
    assert selector(panel).currentNode() is None and "2 channels" in panel.ui.applyButton.toolTip
    assert "stayed" not in panel.ui.fitLabel.text
    selector(panel).setCurrentNode(volume("B T2"))
    assert panel.ui.applyButton.enabled and panel.inputs.works(False)[0].volumeNodes[1] is volume("B T2")


def test_another_volume_of_the_same_study_keeps_the_channels_without_a_word(two_channels, a_volume):
    panel = two_channels
    a_volume("A T1 again", noise(seed=9), ijk_to_ras())
    put("A", "study", "A T1", "A T1 again", "A T2")
    panel._parameterNode.inputVolume = volume("A T1 again")
    assert selector(panel).currentNode() is volume("A T2") and "stayed" not in panel.ui.fitLabel.text


@pytest.mark.parametrize("in_one_folder", [False, True])
def test_where_nothing_tells_the_panel_cautions_until_the_channel_is_chosen(two_channels, in_one_folder):
    panel = two_channels
    if in_one_folder:
        put("All patients", "folder", "A T1", "A T2", "B T1", "B T2")
    panel._parameterNode.inputVolume = volume("B T1")
    text = panel.ui.fitLabel.text
    assert "Warning" in text and "A T2 stayed from before" in text and "B T1" in text
    assert selector(panel).currentNode() is volume("A T2") and panel.ui.applyButton.enabled
    panel._parameterNode.inputVolume = volume("A T1")
    assert "stayed" not in panel.ui.fitLabel.text
    panel._parameterNode.inputVolume = volume("B T1")
    selector(panel).setCurrentNode(volume("B T2"))
    assert "stayed" not in panel.ui.fitLabel.text


def test_choosing_the_same_volume_again_ends_the_caution(two_channels):
    from SlicerHost.proxy import to_native

    panel = two_channels
    panel._parameterNode.inputVolume = volume("B T1")
    assert "stayed" in panel.ui.fitLabel.text
    to_native(selector(panel)).nodeActivated.emit(volume("A T2"))
    assert "stayed" not in panel.ui.fitLabel.text


def test_the_caution_outlives_a_look_at_another_module_and_a_first_volume_that_is_gone(two_channels):
    import slicer
    import SlicerHost

    panel = two_channels
    slicer.mrmlScene.RemoveNode(volume("A T1"))
    panel._parameterNode.inputVolume = volume("B T1")
    SlicerHost.leave("CAMLSegmentation")
    SlicerHost.enter("CAMLSegmentation")
    assert "A T2 stayed from before" in panel.ui.fitLabel.text


# What the channels are called


@pytest.fixture
def titled(the_segmentation_panel, models_folder, a_volume):
    """The panel with a model of T1 and FLAIR, one of T2 and PD, and one of two channels that nobody has named."""
    models_folder.mkdir(parents=True)
    for name, titles in (("named", ("T1", "FLAIR")), ("others", ("T2", "PD")), ("plain", ("", ""))):
        save_stand_in(models_folder / f"{name}.caml", channels=2, name=name, titles=titles)
    panel = the_segmentation_panel
    for index, name in enumerate(("A T1 mprage", "A t2-flair", "A T1CE")):
        a_volume(name, noise(seed=index), ijk_to_ras())
    panel._parameterNode.inputVolume = volume("A T1 mprage")
    panel.enter()
    take(panel, models_folder / "named.caml")
    selector(panel).setCurrentNode(volume("A t2-flair"))
    return panel


def take(panel, path):
    panel.models._choose(path)
    panel.update()


def row(panel):
    layout = panel.ui.channelsWidget.layout()
    return layout.labelForField(selector(panel)).text, selector(panel).toolTip


def test_the_rows_and_the_card_say_what_the_channels_are(titled, models_folder):
    panel = titled
    assert panel.ui.volumeLabel.text == "Volume, channel 1 (T1):"
    label, tip = row(panel)
    assert label == "Channel 2 (FLAIR):" and "the one that is FLAIR" in tip
    assert "2 (T1, FLAIR)" in panel.ui.modelCardTextBrowser.toPlainText()
    take(panel, models_folder / "others.caml")  # as many channels, other names
    assert panel.ui.volumeLabel.text == "Volume, channel 1 (T2):"
    label, tip = row(panel)
    assert label == "Channel 2 (PD):" and "the one that is PD" in tip
    assert selector(panel).currentNode() is volume("A t2-flair")
    take(panel, models_folder / "plain.caml")
    assert panel.ui.volumeLabel.text == "Volume, channel 1:"
    label, tip = row(panel)
    assert label == "Channel 2 (MR):" and "choose this one's volume" in tip


def test_volumes_whose_names_say_another_order_are_a_warning_before_apply(titled, models_folder):
    panel = titled
    assert "another order" not in panel.ui.fitLabel.text
    panel._parameterNode.inputVolume = volume("A t2-flair")
    selector(panel).setCurrentNode(volume("A T1 mprage"))
    text = panel.ui.fitLabel.text
    assert "Warning" in text and "A t2-flair was given as T1 and A T1 mprage was given as FLAIR" in text
    assert panel.ui.applyButton.enabled
    selector(panel).setCurrentNode(volume("A T1CE"))  # T1 is no word of it
    assert "A T1CE was" not in panel.ui.fitLabel.text and "A t2-flair was given as T1" in panel.ui.fitLabel.text
    volume("A t2-flair").SetName("A")
    panel.update()
    assert "another order" not in panel.ui.fitLabel.text
    selector(panel).setCurrentNode(volume("A T1 mprage"))
    assert "A T1 mprage was given as FLAIR" in panel.ui.fitLabel.text
    volume("A T1 mprage").SetName("B")  # of a further channel, too
    panel.update()
    assert "another order" not in panel.ui.fitLabel.text
    volume("B").SetName("A T1 mprage")
    take(panel, models_folder / "plain.caml")
    assert "another order" not in panel.ui.fitLabel.text


def test_what_is_written_for_the_worker_raises_no_false_alarm(titled, wait_for):
    """Its files are called after the first volume alone."""
    panel = titled
    panel.ui.applyButton.click()
    wait_for(lambda: not panel.logic.running, 120)
    assert panel._parameterNode.result is not None, panel.ui.statusLabel.text
    assert "another order" not in panel.ui.logTextEdit.toPlainText()
