"""The Slicer module in the test host: what it adds to the worker's time, and how long it blocks the event loop.

One real left atrium, one model of random weights at 1.25 mm, quality balanced. The worker's own wall time is that of
the same command run by itself, the two in turn. A timer of 2 ms is asked for; the longest gap between two of its ticks
from Apply to the segmentation node is what a user would feel as a stutter.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import REPOSITORY, caml, machine, run, shared_folder, table, write_section

RUNS = 5
sys.path.insert(0, str(REPOSITORY / "Testing"))
MODULE = REPOSITORY / "CAMLSegmentation" / "CAMLSegmentation.py"


def main() -> None:
    """Measure and write the section."""
    shared = shared_folder()
    if shared is None:
        print("No real scans: set CAML_SHARED.", file=sys.stderr)
        return
    scan = sorted((shared / "la2018").glob("*_image.nii.gz"))[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAML_MODELS_DIR"] = str(folder / "models")
        os.environ["PYTHONPATH"] = str(REPOSITORY / "CAMLSegmentation")
        opening = [opened() for _ in range(3)]
        rows = measure(folder, scan)
    write_section("slicer", section(rows, opening))


def opened() -> float:
    """Seconds from the module script to the panel on the screen, in a process of its own, without PyTorch."""
    code = (
        "import sys, time, pathlib\nimport SlicerHost\nSlicerHost.install()\nbegin = time.perf_counter()\n"
        "SlicerHost.load_module(pathlib.Path(sys.argv[1]))\nSlicerHost.enter('CAMLSegmentation')\n"
        "print(time.perf_counter() - begin, 'torch' in sys.modules)"
    )
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY / "Testing"), str(REPOSITORY / "CAMLSegmentation")])
    from subprocess import run as start

    done = start([sys.executable, "-c", code, str(MODULE)], capture_output=True, text=True, check=True)
    seconds, torch = done.stdout.split()[-2:]
    assert torch == "False"
    return float(seconds)


def measure(folder: Path, scan: Path) -> list[dict[str, float]]:
    """Apply through the panel and the bare command in turn."""
    import SlicerHost

    application = SlicerHost.install()
    import slicer
    from bench_prediction import model_file

    widget = SlicerHost.load_module(MODULE)
    SlicerHost.enter("CAMLSegmentation")
    panel = widget.panel
    model = model_file(folder, 1.25)
    panel.models.add(model)
    volume = slicer.util.loadVolume(str(scan))
    panel._parameterNode.inputVolume = volume
    slicer.util.saveNode(volume, str(folder / "scan.nrrd"))
    rows = []
    for index in range(RUNS + 1):  # the first one measures the arithmetic and is not counted
        output = folder / "out" / "scan.nrrd"
        command = caml("predict", model, folder / "scan.nrrd", "-o", output, "--uncertainty", "--measures")
        bare = run([*command, "--progress", "json"])
        seconds, gap = through_the_panel(application, panel)
        if index:
            rows.append({"bare": bare.seconds, "panel": seconds, "gap": gap})
    SlicerHost.unload_module("CAMLSegmentation")
    return rows


def through_the_panel(application: Any, panel: Any) -> tuple[float, float]:
    """Click Apply; return (seconds until the node is there, longest gap between the timer's ticks)."""
    from PySide6 import QtCore

    ticks: list[float] = []
    timer = QtCore.QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(2)
    loop = QtCore.QEventLoop()
    watch = QtCore.QTimer()
    watch.timeout.connect(lambda: loop.quit() if not panel.logic.running else None)
    watch.start(2)
    begin = time.perf_counter()
    ticks.append(begin)
    panel.ui.applyButton.click()
    loop.exec()
    ticks.append(time.perf_counter())
    assert panel._parameterNode.result is not None, panel.ui.statusLabel.text
    return ticks[-1] - begin, max(b - a for a, b in zip(ticks, ticks[1:]))


def section(rows: list[dict[str, float]], opening: list[float]) -> str:
    """The text with its table."""

    def median(name: str) -> float:
        return statistics.median(row[name] for row in rows)

    added = [row["panel"] - row["bare"] for row in rows]
    body = table(
        ("what", "median", "smallest", "largest"),
        [
            _row("`caml predict` by itself, s", [row["bare"] for row in rows], 2),
            _row("Apply to segmentation node, s", [row["panel"] for row in rows], 2),
            _row("added by the module, s", added, 2),
            _row("longest block of the event loop, ms", [1000 * row["gap"] for row in rows], 0),
            _row("module script to panel on the screen, without PyTorch, s", opening, 2),
        ],
    )
    return (
        "### The Slicer module, in the test host\n\n"
        f"{body}\n\n"
        f"One left atrium (la2018), model at 1.25 mm with random weights, quality balanced, disagreement map and "
        f"measures; {len(rows)} runs, both in turn. Aims: at most 3 s added, no block over 100 ms. The host has "
        f"Slicer's MRML libraries and Qt 6, but no views: drawing is not part of it. Ratio of the medians: "
        f"{median('panel') / median('bare'):.2f}.\n\n{machine()}"
    )


def _row(title: str, values: list[float], digits: int) -> tuple[str, ...]:
    return (title, *(f"{f(values):.{digits}f}" for f in (statistics.median, min, max)))


if __name__ == "__main__":
    main()
