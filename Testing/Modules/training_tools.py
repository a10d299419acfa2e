"""What the tests of the training module share: scans with a ball in them, their segmentations, a panel with both."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import SlicerHost
from stand_ins import ijk_to_ras

from caml_core.config import Segment
from caml_core.data.io import read_volume
from caml_core.data.labels import write_labels

SIZE = (24, 22, 20)
SEGMENT = "ball"
#: Axes of files (LPS, row by row): right-handed ones, and left-handed ones as "radiological" NIfTI files have them, of
#: which Slicer reverses the slices as it loads them.
AXES = {"right-handed": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), "left-handed": (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}
#: A network that trains in the blink of an eye; its arithmetic is not measured.
SMALL = ("--base-filters", "4", "--patch", "16,16,16", "--dtype", "fp32")


def ball(seed: int) -> np.ndarray:
    """Where the ball of a scan lies: bool [k, j, i]."""
    rng = np.random.default_rng(1000 + seed)
    center = np.array(SIZE[::-1]) / 2 + rng.uniform(-2, 2, 3)
    k, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    radius = rng.uniform(4.5, 6.0)
    return (k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 < radius**2


def scan(seed: int) -> np.ndarray:
    """A scan: noise around 200, the ball around 500; int16 [k, j, i]."""
    rng = np.random.default_rng(seed)
    return (rng.normal(200, 30, SIZE[::-1]) + 300 * ball(seed)).astype(np.int16)


def add_scan(seed: int, name: str = "", axes=None):
    """Add a scan to the scene and return its volume node."""
    import slicer

    matrix = ijk_to_ras((1.5, 1.5, 1.5), axes=axes)
    return slicer.util.addVolumeFromArray(scan(seed), ijkToRAS=matrix, name=name or f"Scan {seed:02d}")


def draw(node, volume, mask: np.ndarray, segment: int = 0) -> None:
    """Draw in a segmentation, as a hand would."""
    import slicer

    identity = node.GetSegmentation().GetNthSegmentID(segment)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, identity, volume)


def add_segmentation(volume, mask: np.ndarray, name: str = SEGMENT):
    """Add a segmentation of a volume with one segment."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} seg")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.GetSegmentation().AddEmptySegment("", name, (0.2, 0.4, 0.8))
    if mask.any():
        draw(node, volume, mask)
    return node


def write_folder(
    folder: Path, count: int, labels: int = 0, suffix: str = ".nii.gz", first: int = 0, axes=AXES["right-handed"]
) -> Path:
    """Write scans ``case-NN`` and the labels of the first few, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        voxels = {"": scan(seed), "_label": ball(seed).astype(np.uint8)}
        for end, array in list(voxels.items())[: 2 if seed < first + labels else 1]:
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.5, 1.5, 1.5))
            image.SetDirection(axes)
            sitk.WriteImage(image, str(folder / f"case-{seed:02d}{end}{suffix}"))
    return folder


def write_two_channels(folder: Path) -> Path:
    """Write two cases with two channels each, ``p0_0000`` to ``p1_0001``."""
    for seed, name in ((0, "p0_0000"), (5, "p0_0001"), (1, "p1_0000"), (6, "p1_0001")):
        write_folder(folder, 1, first=seed, suffix=".nrrd")
        (folder / f"case-{seed:02d}.nrrd").rename(folder / f"{name}.nrrd")
    return folder


def predict(panel, case: str, mask: np.ndarray, agreement: float = 0.5):
    """A prediction of a case, as the engine leaves it."""
    folder = panel.logic.project.folder / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    panel.logic.cohort.ensureFile(case)
    grid = read_volume(panel.logic.project.cases[case].images[0]).grid
    path = folder / f"{case}.seg.nrrd"
    write_labels(path, mask.astype(np.uint8).transpose(2, 1, 0), grid, [Segment(SEGMENT, 1)])
    panel.logic.project.update(
        case, prediction=path, agreement={SEGMENT: agreement}, volumes_ml={SEGMENT: 1.0}, status="predicted"
    )


def finish_round(panel, number: int, model: Path, **dice: float) -> Path:
    """A finished round of the open project, as a training leaves it; the project is opened anew. Returns its folder.

    dice: of the ball, by the name of the row, with "_" for "-".
    """
    folder = panel.logic.project.rounds_folder() / f"{number:03d}"
    folder.mkdir(parents=True)
    shutil.copy(model, folder / "model.caml")
    rows = [
        {"name": name.replace("_", "-"), "count": 2, "summary": {SEGMENT: {"dice": {"mean": value, "std": 0.0}}}}
        for name, value in dice.items()
    ]
    if "caml" not in dice:  # the engine always writes it, also where no case is held out
        rows.insert(0, {"name": "caml", "count": 0, "summary": {}})
    (folder / "result.json").write_text(json.dumps({"rows": rows}))
    told = ({"event": "started", "command": "round", "pid": 1, "version": "0"}, {"event": "finished", "result": {}})
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    panel.logic.save()
    panel.logic.openProject(panel.logic.project.folder)
    panel.update()
    return folder


@pytest.fixture
def break_drive(monkeypatch) -> Callable[..., None]:
    """``break_drive(folders, code)``: whatever is asked of these folders, the system answers with this error."""

    def use(folders: list[Path], code: int) -> None:
        def failing(call):
            def ask(path, *arguments, **options):
                if isinstance(path, (str, os.PathLike)):
                    asked = Path(os.path.abspath(path))
                    if any(folder == asked or folder in asked.parents for folder in folders):
                        raise OSError(code, os.strerror(code), str(path))
                return call(path, *arguments, **options)

            return ask

        for place, names in ((os, ("stat", "lstat", "listdir", "scandir", "open")), (io, ("open",))):
            for name in names:
                monkeypatch.setattr(place, name, failing(getattr(place, name)))
        monkeypatch.setattr(builtins, "open", io.open)

    return use


@pytest.fixture
def training(the_training_module, tmp_path):
    """The training panel, with an empty project folder."""
    panel = the_training_module.panel
    panel.logic.openProject(tmp_path / "project")
    panel.logic.remember()
    panel.update()
    yield panel
    end_trainings(tmp_path)


@pytest.fixture
def a_cohort(training):
    """``a_cohort(labeled, unlabeled, validation)``: scans of the scene with these roles, labels drawn and accepted."""

    def make(labeled: int = 2, unlabeled: int = 2, validation: int = 0) -> list[str]:
        names = []
        for seed in range(labeled + unlabeled + validation):
            volume = add_scan(seed)
            names.append(volume.GetName())
            if not labeled <= seed < labeled + unlabeled:
                add_segmentation(volume, ball(seed))
        training.update()
        select(training, names[:labeled])
        training.ui.useAsLabeledButton.click()
        SlicerHost.wait_for(lambda: training.ui.useAsLabeledButton.enabled)
        if validation:
            select(training, names[labeled + unlabeled :])
            training.ui.validationButton.click()
        assert not training.ui.cohortMessageLabel.text, training.ui.cohortMessageLabel.text
        return names

    return make


@pytest.fixture
def short_training(the_training_module, monkeypatch):
    """The shortest choice of time is a few iterations."""
    from CAMLTrainingLib import Preflight

    monkeypatch.setitem(Preflight.BUDGETS, "10m", ("--iterations", "12", *SMALL))


def end_trainings(folder: Path) -> None:
    """Trainings outlive whoever started them, and so a test that failed in mid-run."""
    from CAMLSegmentationLib.ProcessTree import endTree

    from caml_core.events import decode
    from caml_core.locking import is_locked

    for file in folder.glob("*/rounds/*/events.jsonl"):
        pids = [event[1].get("pid") for line in file.read_text().splitlines() if (event := decode(line))]
        if pids and is_locked(file.parents[2] / "training.lock"):
            endTree([int(pids[-1])])


def choose_time(panel, key: str = "10m") -> None:
    """Choose how long to train."""
    panel.ui.budgetComboBox.currentIndex = panel.ui.budgetComboBox.findData(key)


def train(panel, wait_for, baseline: bool = False) -> None:
    """Press Train, read the remarks, press it again where there are some."""
    choose_time(panel)
    panel.ui.baselineCheckBox.checked = baseline
    assert panel.ui.trainButton.enabled, panel.ui.trainButton.toolTip
    panel.ui.trainButton.click()
    wait_for(lambda: not panel.logic.checking, 120)
    if not panel.logic.training:
        assert "press Train again" in panel.ui.statusLabel.text, panel.ui.statusLabel.text
        panel.ui.trainButton.click()


def finish(panel, wait_for, timeout: float = 240) -> None:
    """Wait for the training, which must come to its end."""
    wait_for(lambda: not (panel.logic.training or panel.logic.checking), timeout)
    log = panel.ui.logTextEdit.plainText
    assert panel.logic.round.state == "finished", f"{panel.logic.round.state}: {panel.logic.roundMessage} {log}"


def select(panel, cases) -> None:
    """Select rows of the table."""
    panel.cohort.table.select(list(cases))


def accept(panel, *cases) -> None:
    """Take the segmentations of cases as labels, by the panel's button."""
    select(panel, cases)
    panel.ui.useAsLabeledButton.click()


def message(panel) -> str:
    """What the panel says below the table."""
    return panel.ui.cohortMessageLabel.text


def case_of(panel, name: str):
    """What the project knows of a case."""
    return panel.logic.project.cases[name]


def roles(panel) -> dict[str, str]:
    """Case -> role."""
    return {case.id: case.role for case in panel.logic.project.cases.values()}


def cell(panel, case: str, title: str) -> str:
    """A cell of the table as the user reads it."""
    from CAMLTrainingLib.CasesTable import HEADERS

    table = panel.ui.casesTableWidget
    column = HEADERS.index(title)
    row = next(r for r in range(table.rowCount) if table.item(r, 0).text() == case)
    return table.item(row, column).text()
