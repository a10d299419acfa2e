"""What the tests of the panel share: the panel with a model, clicking Apply, reading results."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from stand_ins import ijk_to_ras, noise, read_labels, save_stand_in


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    return save_stand_in(tmp_path_factory.mktemp("stand-in") / "stand-in.caml", name="Stand-in")


@pytest.fixture
def a_model(models_folder, stand_in):
    models_folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(stand_in, models_folder / "stand-in.caml"))


@pytest.fixture
def panel(a_model, the_segmentation_panel):
    the_segmentation_panel.enter()
    return the_segmentation_panel


@pytest.fixture
def a_scan(a_volume, panel):
    node = a_volume("LA 01", noise(), ijk_to_ras())
    panel._parameterNode.inputVolume = node
    return node


def results():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def finish(panel, wait_for, timeout=120.0):
    wait_for(lambda: not panel.logic.running, timeout)


def apply(panel, wait_for):
    assert panel.ui.applyButton.enabled, panel.problem()
    panel.ui.applyButton.click()
    finish(panel, wait_for)


def caml_predict(model, image, output, *options):
    from CAMLSegmentationLib import Worker
    from CAMLSegmentationLib.Process import pythonProgram

    command = [pythonProgram(), Worker.__file__, "predict", str(model), str(image), "-o", str(output)]
    done = subprocess.run([*command, "--progress", "none", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_labels(output)


def labels_of(node, volume, segments=(1, 2)):
    """Voxels [k, j, i] of a segmentation node, as a label map."""
    import slicer

    found = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    for label in segments:
        found[slicer.util.arrayFromSegmentBinaryLabelmap(node, f"Segment_{label}", volume) > 0] = label
    return found
