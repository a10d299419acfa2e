"""The pictures of the module CAML Segmentation: its panel at each step, its result in slices and as a surface."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pictures
import SlicerHost
import views
from pictures import OUTPUT, REPOSITORY

MODULE = REPOSITORY / "CAMLSegmentation" / "CAMLSegmentation.py"
#: A phantom that comes with the extension, as does a model that knows such phantoms.
SAMPLE = REPOSITORY / "CAMLSegmentation" / "Resources" / "SampleData" / "CAMLPhantomCoronaryCTA.nrrd"


def photograph(slices: Sequence[Any]) -> None:
    """Open the module on a phantom, segment it with a model that ships, and take a picture at each step."""
    import slicer

    widget = SlicerHost.load_module(MODULE)
    SlicerHost.enter("CAMLSegmentation")
    panel = widget.panel
    pictures.save_panel(widget, "panel-empty")
    panel._parameterNode.inputVolume = slicer.util.loadVolume(str(SAMPLE))
    panel.update()
    panel.ui.applyButton.click()
    SlicerHost.wait_for(lambda: "Segmenting" in panel.ui.statusLabel.text or not panel.logic.running)
    pictures.save_panel(widget, "panel-running")
    SlicerHost.wait_for(lambda: not panel.logic.running, 600)
    assert panel._parameterNode.result is not None, panel.ui.statusLabel.text
    panel.ui.modelCollapsibleButton.collapsed = True
    panel.ui.nextStopButton.click()
    pictures.save_panel(widget, "panel-done")
    pictures.save_slices(slices, "slices-segmentation")
    panel.ui.overlayCheckBox.click()
    pictures.save_slices(slices, "slices-disagreement")
    panel.ui.show3DButton.click()
    views.save_surface(OUTPUT / "surface.png", (420, 360))
    save_overview()
    slicer.mrmlScene.Clear()
    SlicerHost.unload_module("CAMLSegmentation")


def save_overview() -> None:
    """Put panel, slices and surface into the picture that the README opens with."""
    panel = pictures.read(OUTPUT / "panel-done.png")
    right = [pictures.read(OUTPUT / f"slices-{kind}.png") for kind in ("segmentation", "disagreement")]
    right = [pictures.scaled(picture, 720) for picture in right]
    left = panel.height() - sum(picture.height() for picture in right)
    with tempfile.TemporaryDirectory() as folder:
        views.save_surface(Path(folder) / "surface.png", (720, left))
        right.append(pictures.read(Path(folder) / "surface.png"))
    pictures.row([panel, pictures.column(right)]).save(str(OUTPUT / "overview.png"))
