"""`make screenshots`: the pictures of README and tutorial, from the test host and slicer-core's own rendering.

They show phantoms, never patients. Without ``--model`` a model is trained on phantoms for a few minutes first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
OUTPUT = REPOSITORY / "Resources" / "Screenshots"
MODULE = REPOSITORY / "CAMLSegmentation" / "CAMLSegmentation.py"
#: As wide as the module panel is in Slicer.
PANEL_WIDTH = 450


def main() -> int:
    """Make all pictures; return 0."""
    args = _parse()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    model = args.model or train(REPOSITORY / "build" / "screenshots", args.budget)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAML_MODELS_DIR"] = folder
        photograph(model)
    for path in sorted(OUTPUT.glob("*.png")):
        print(f"{path.relative_to(REPOSITORY)}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def train(folder: Path, budget: str) -> Path:
    """Return a model of the phantom atrium, trained once and kept."""
    model = folder / "run" / "model.caml"
    if not model.is_file():
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
        caml = [sys.executable, "-m", "caml_core"]
        cases = ["--cases", "26", "--labeled", "16", "--validation", "4", "--seed", "5"]
        subprocess.run([*caml, "phantom", "atrium", "-o", str(folder / "cohort"), *cases], env=environment, check=True)
        name = ["--name", "Left atrium (phantom)", "--budget", budget]
        subprocess.run(
            [*caml, "train", str(folder / "cohort"), "-o", str(folder / "run"), *name], env=environment, check=True
        )
    return model


def photograph(model: Path) -> None:
    """Open the module on a phantom, segment it, and take a picture at each step."""
    sys.path.insert(0, str(REPOSITORY / "Testing"))
    import SlicerHost

    SlicerHost.install()
    import slicer
    import views

    slices = [views.SliceView(name, (360, 300)) for name in ("Red", "Yellow", "Green")]
    widget = SlicerHost.load_module(MODULE)
    SlicerHost.enter("CAMLSegmentation")
    panel = widget.panel
    save_panel(widget, "panel-empty")
    panel.models.add(model)
    volume = slicer.util.loadVolume(str(sample()))
    panel._parameterNode.inputVolume = volume
    panel.ui.largestComponentCheckBox.checked = True
    panel.update()
    panel.ui.applyButton.click()
    SlicerHost.wait_for(lambda: "Segmenting" in panel.ui.statusLabel.text or not panel.logic.running)
    save_panel(widget, "panel-running")
    SlicerHost.wait_for(lambda: not panel.logic.running, 600)
    assert panel._parameterNode.result is not None, panel.ui.statusLabel.text
    panel.ui.modelCollapsibleButton.collapsed = True
    panel.ui.nextStopButton.click()
    save_panel(widget, "panel-done")
    save_slices(slices, "slices-segmentation")
    panel.ui.overlayCheckBox.click()
    save_slices(slices, "slices-disagreement")
    panel.ui.show3DButton.click()
    views.save_surface(OUTPUT / "surface.png", (420, 360))
    save_overview(views)
    SlicerHost.unload_module("CAMLSegmentation")


def sample() -> Path:
    """The phantom that comes with the extension."""
    return REPOSITORY / "CAMLSegmentation" / "Resources" / "SampleData" / "CAMLPhantomLeftAtriumMR.nrrd"


def save_panel(widget: Any, name: str) -> None:
    """Take a picture of the panel, as wide as it is in Slicer."""
    from SlicerHost import proxy, qt_module

    native = proxy.to_native(widget.uiWidget).window()
    for _ in range(3):
        native.resize(PANEL_WIDTH, native.sizeHint().height())
        qt_module.process_events()
    native.grab().save(str(OUTPUT / f"{name}.png"))


def save_slices(slices: list[Any], name: str) -> None:
    """Put the slice views side by side into one picture."""
    from PySide6 import QtGui

    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for index, view in enumerate(slices):
            view.save(Path(folder) / f"{index}.png")
            pictures.append(QtGui.QImage(str(Path(folder) / f"{index}.png")))
    joined = QtGui.QImage(sum(p.width() for p in pictures), pictures[0].height(), QtGui.QImage.Format_RGB32)
    painter, x = QtGui.QPainter(joined), 0
    for picture in pictures:
        painter.drawImage(x, 0, picture)
        x += picture.width()
    painter.end()
    joined.save(str(OUTPUT / f"{name}.png"))


def save_overview(views: Any) -> None:
    """Put panel, slices and surface into the picture that the README opens with."""
    from PySide6 import QtCore, QtGui

    panel = QtGui.QImage(str(OUTPUT / "panel-done.png"))
    rows = [QtGui.QImage(str(OUTPUT / f"slices-{kind}.png")) for kind in ("segmentation", "disagreement")]
    rows = [row.scaledToWidth(720, QtCore.Qt.SmoothTransformation) for row in rows]
    left = panel.height() - sum(row.height() for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        views.save_surface(Path(folder) / "surface.png", (720, left))
        rows.append(QtGui.QImage(str(Path(folder) / "surface.png")))
    joined = QtGui.QImage(panel.width() + 720, panel.height(), QtGui.QImage.Format_RGB32)
    painter, y = QtGui.QPainter(joined), 0
    painter.drawImage(0, 0, panel)
    for row in rows:
        painter.drawImage(panel.width(), y, row)
        y += row.height()
    painter.end()
    joined.save(str(OUTPUT / "overview.png"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a model of the left atrium (default: train one on phantoms)")
    parser.add_argument("--budget", default="10m", help="for the training (default: 10m)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
