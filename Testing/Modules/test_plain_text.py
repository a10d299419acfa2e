"""Names that strangers give to models, segments and cases are shown as they are: none becomes a picture or a link."""

from __future__ import annotations

import pytest
from stand_ins import save_stand_in

EVIL = '<img src="file://elsewhere/p.png">'
NAMES = ["Left atrium", "a < b & c", EVIL, "&lt;b&gt;", "first\nsecond <b>"]


def is_plain(label):
    import qt

    return int(label.textFormat) == int(qt.Qt.PlainText)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_was_written(the_segmentation_panel, name):
    from CAMLSegmentationLib.PlainText import asWritten

    shown = the_segmentation_panel.ui.modelCardTextBrowser
    shown.html = asWritten(name) if "<" in asWritten(name) else name.replace("&", "&amp;")
    assert shown.plainText == name
    assert asWritten("Left atrium") == "Left atrium", "what Qt takes for text stays text"


def test_a_models_name_is_asked_about_as_it_is(the_segmentation_panel, models_folder, monkeypatch):
    import slicer

    models_folder.mkdir(parents=True, exist_ok=True)
    save_stand_in(models_folder / "evil.caml", name=EVIL)
    panel, asked = the_segmentation_panel, []
    panel.enter()
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *a, **k: asked.append(text))
    panel.ui.modelListWidget.currentRow = next(
        row for row in range(panel.ui.modelListWidget.count) if EVIL in panel.ui.modelListWidget.item(row).text()
    )
    panel.ui.removeModelButton.click()
    assert len(asked) == 1 and "<img" not in asked[0] and "&lt;img" in asked[0]


def test_lines_that_name_segments_volumes_and_cases_are_text(the_segmentation_panel):
    ui = the_segmentation_panel.ui
    assert is_plain(ui.statusLabel) and is_plain(ui.resultNoteLabel)


def test_the_rows_of_channels_show_their_titles_as_they_are():
    from CAMLSegmentationLib.Channels import rowTexts

    from caml_core.config import ChannelIntensity

    channels = (ChannelIntensity(title=EVIL), ChannelIntensity(title="FLAIR"))
    assert not any("<img" in text for text in rowTexts(channels, 0))
    assert rowTexts(channels, 1)[0] == "Channel 2 (FLAIR):"


def test_what_a_training_says_of_cases_is_text(the_training_module):
    panel = the_training_module.panel
    assert is_plain(panel.ui.predictLabel)
    panel.train.onRoundState("failed", f"Case {EVIL} has no label.")
    assert "<img" not in panel.ui.statusLabel.text
