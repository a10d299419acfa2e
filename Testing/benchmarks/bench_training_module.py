"""The training module in the test host: a cohort of 300 files, and Slicer's own memory while a training runs.

The files are links to real scans (hippocampus). Fluid means: the longest gap between two ticks of a 2 ms timer.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import REPOSITORY, machine, shared_folder, table, write_section

CASES, RUNS, ITERATIONS = 300, 3, 60
sys.path.insert(0, str(REPOSITORY / "Testing"))


def main() -> None:
    """Measure and write the section."""
    shared = shared_folder()
    if shared is None:
        print("No real scans: set CAML_SHARED.", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAML_MODELS_DIR"] = str(folder / "models")
        os.environ["CAML_CACHE_DIR"] = str(folder / "cache")
        scans = sorted((shared / "hippocampus" / "images").glob("*.nii.gz"))
        links = _links(folder / "scans", scans)
        panel = _panel()
        rows = [_listed(panel, folder / f"project-{index}", links) for index in range(RUNS)]
        memory = _trained(panel, folder / "training", shared / "hippocampus", scans)
    write_section("training-module", _section(rows, memory))


def _links(folder: Path, scans: list[Path]) -> Path:
    folder.mkdir()
    for index in range(CASES):
        (folder / f"case-{index:03d}.nii.gz").symlink_to(scans[index % len(scans)])
    return folder


def _panel() -> Any:
    import SlicerHost

    SlicerHost.install()
    for name in ("CAMLSegmentation", "CAMLTraining"):
        widget = SlicerHost.load_module(REPOSITORY / name / f"{name}.py")
    SlicerHost.enter("CAMLTraining")
    return widget.panel


def _listed(panel: Any, project: Path, links: Path) -> dict[str, float]:
    """Seconds from the choice of the folder to the table, to all headers, of a change of all roles, longest block."""
    from PySide6 import QtCore
    from SlicerHost import qt_module

    panel.logic.openProject(project)
    panel.logic.remember()
    panel.update()
    qt_module.answers["getExistingDirectory"] = str(links)
    begin = time.perf_counter()
    panel.ui.addFolderButton.click()
    seen = time.perf_counter() - begin
    assert panel.ui.casesTableWidget.rowCount == CASES
    ticks = [time.perf_counter()]
    timer, loop, watch = QtCore.QTimer(), QtCore.QEventLoop(), QtCore.QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    watch.timeout.connect(lambda: loop.quit() if all(c.size for c in panel.logic.project.cases.values()) else None)
    timer.start(2)
    watch.start(5)
    loop.exec()
    whole = time.perf_counter() - begin
    block = max(b - a for a, b in zip(ticks, ticks[1:]))
    panel.cohort.table.select(list(panel.logic.project.cases))
    start = time.perf_counter()
    panel.ui.excludeButton.click()
    return {"table": seen, "headers": whole, "block": 1000 * block, "roles": time.perf_counter() - start}


def _trained(panel: Any, project: Path, shared: Path, scans: list[Path]) -> dict[str, float]:
    """Resident memory of this process before a training and its peak meanwhile, in MB."""
    import SlicerHost
    from CAMLTrainingLib.Preflight import TrainingSettings

    from caml_core.project.cases import ProjectCase

    panel.logic.openProject(project)
    for index, path in enumerate(scans[:12]):
        label = shared / "labels" / path.name if index < 4 else None
        panel.logic.project.add(ProjectCase(path.name.partition(".")[0], (path,), label))
    panel.logic.setRole([c.id for c in list(panel.logic.project.cases.values())[:4]], "labeled")
    panel.update()
    before = peak = _resident()
    panel.logic.startTraining(TrainingSettings(budget="10m", iterations=ITERATIONS))

    def at_rest() -> bool:
        nonlocal peak
        peak = max(peak, _resident())
        return not panel.logic.training

    SlicerHost.wait_for(at_rest, 1800)
    assert panel.logic.round.state == "finished", panel.logic.roundMessage
    return {"before": before, "peak": peak}


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _section(rows: list[dict[str, float]], memory: dict[str, float]) -> str:
    titles = (
        ("table", "folder chosen to table filled, s", 2),
        ("headers", "to size and spacing of all cases, s", 2),
        ("block", "longest block of the event loop meanwhile, ms", 0),
        ("roles", "another role for all cases at once, s", 2),
    )
    body = table(
        ("what", "smallest", "largest"),
        [
            (title, *(f"{pick(row[key] for row in rows):.{digits}f}" for pick in (min, max)))
            for key, title, digits in titles
        ],
    )
    grown = memory["peak"] - memory["before"]
    return (
        f"### The training module, in the test host\n\n{body}\n\n"
        f"A folder of {CASES} scans (links to {min(CASES, 160)} hippocampus scans), {RUNS} projects; none is loaded. "
        f"While a training of {ITERATIONS} iterations ran, the process that stands for Slicer grew from "
        f"{memory['before']:.0f} MB to {memory['peak']:.0f} MB at most ({grown:+.0f} MB). Aims: a usable table within "
        f"2 s, at most 200 MB more.\n\n{machine()}"
    )


if __name__ == "__main__":
    main()
