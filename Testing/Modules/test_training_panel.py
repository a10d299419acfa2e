"""The training panel, clicked through on the host."""

from __future__ import annotations

import pytest
import SimpleITK as sitk
from training_tools import write_folder


def test_it_opens(the_training_module):
    panel = the_training_module.panel
    assert not panel.ui.trainButton.enabled
    assert "labelled" in panel.ui.trainButton.toolTip


@pytest.fixture
def shown(training):
    """``shown(verdict)``: the rows of the check's table, as the user reads them."""

    def show(verdict) -> dict[str, str]:
        from CAMLTrainingLib.Preflight import verdictHtml

        panel = training
        panel.ui.verdictTextBrowser.html = verdictHtml(verdict)
        lines = [line for line in panel.ui.verdictTextBrowser.toPlainText().splitlines() if line.strip()]
        return {title.strip("\xa0 "): text for title, text in zip(lines, lines[1:])}

    return show


@pytest.mark.usefixtures("short_training")
def test_the_check_says_what_was_found(training, tmp_path, shown):
    from CAMLTrainingLib.Preflight import TrainingSettings

    folder = write_folder(tmp_path / "scans", 3, labels=3)
    for name in ("case-02.nii.gz", "case-02_label.nii.gz"):
        image = sitk.ReadImage(str(folder / name))
        image.SetSpacing((1.5, 1.5, 3.0))
        sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(folder / name))
    training.logic.addFolder(folder)
    training.logic.setRole(["case-00", "case-01", "case-02"], "labeled")
    verdict = training.logic.preflight(TrainingSettings(budget="10m"))
    rows = shown(verdict)
    assert verdict.mayTrain and rows["Cases"] == "3 labelled, 0 unlabelled, 0 held out"
    assert rows["Spacing"] == "median 1.5 x 1.5 x 1.5 mm, from 1.5 x 1.5 x 1.5 to 1.5 x 1.5 x 3"
    assert rows["Size"] == "24 x 22 x 20 voxels in all cases"
    assert rows["Orientation"] == "LPS (2), RAS (1)"
    looks, scaling = rows["Grey values"].split("; ")
    modality, low, high = looks.replace(", about ", " to ").split(" to ")
    assert modality == "MR" and 90 < float(low) < 150 and 500 < float(high) < 600
    assert scaling == "each scan scaled by its own mean and spread"


def test_each_channel_has_its_own_row_and_a_window_is_named(shown):
    from CAMLTrainingLib.Preflight import Verdict

    def case(modality: str, *ends) -> dict:
        return {"size": [9, 9, 9], "spacing": [1, 1, 1], "orientation": "LPS", "modality": [modality, "MR"],
                "grey_values": list(ends)}  # fmt: skip

    cases = [case("CT", [-1000, 1200], [0, 50]), case("CT", [-900, 1100], [0, 70]), case("MR", [-800, 900], [0, 90])]
    channels = [{"kind": "window", "lower": -160.0, "upper": 240.0}, {"kind": "zscore", "lower": 0.5, "upper": 99.5}]
    rows = shown(Verdict("fits", "It fits.", {"cases": cases, "plan": {"channels": channels}}))
    assert rows["Grey values 1"] == "CT (2), MR (1), about -900 to 1100; cut to -160 to 240"
    assert rows["Grey values 2"] == "MR, about 0 to 70; each scan scaled by its own mean and spread"
    for channel, title in zip(channels, ("CT", "FLAIR")):
        channel["title"] = title
    rows = shown(Verdict("fits", "It fits.", {"cases": cases, "plan": {"channels": channels}}))
    assert rows["Grey values 2 (FLAIR)"].startswith("MR, about") and "Grey values 1 (CT)" in rows
    unplanned = shown(Verdict("does-not-fit", "It does not fit.", {"cases": cases, "plan": None}))
    assert unplanned["Grey values 2"] == "MR, about 0 to 70" and unplanned["Orientation"] == "LPS"
