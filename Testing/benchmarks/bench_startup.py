"""Start-up: how soon ``caml --help`` answers, and how soon a prediction has seen its first window.

Every figure is that of a process of its own, from its start. One left atrium, a model of random weights at 1.25 mm.
``--quick`` only shows that everything runs: once each, and the page is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench_prediction import describe, left_atrium, model_file
from common import REPOSITORY, caml, machine, run, table, write_section

HELPS, PREDICTIONS = 9, 5
SPACING = 1.25


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see whether it runs; nothing is written")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAML_CACHE_DIR"] = str(folder / "cache")  # so that the first prediction is the machine's first
        text = section(folder, 1 if quick else HELPS, 1 if quick else PREDICTIONS)
    if quick:
        print(text)
    else:
        write_section("startup", text)


def section(folder: Path, helps: int, predictions: int) -> str:
    """The text with its table."""
    scan, model = left_atrium(folder), model_file(folder, SPACING)
    run(caml("--help"))
    rows = [_row("`python -m caml_core --help`", [run(caml("--help")).seconds for _ in range(helps)], "0.3")]
    installed = Path(sys.executable).with_name("caml.exe" if os.name == "nt" else "caml")
    if installed.is_file():
        rows.insert(0, _row("`caml --help`", [run([str(installed), "--help"]).seconds for _ in range(helps)], "0.3"))
    command = caml("predict", model, scan, "-o", folder / "out.seg.nrrd", "--progress", "json")
    first = first_window(command)
    later = [first_window(command) for _ in range(predictions)]
    rows += [
        _row("first window of the machine's first prediction, which measures the arithmetic", [first], "4"),
        _row("first window of a later prediction", later, "4"),
    ]
    return (
        "### From process start\n\n"
        + table(("from process start to", "median, s", "largest, s", "aim, s"), rows)
        + f"\n\n`caml --help`: to the end of the process, {helps} runs; predictions: until the first window is done, "
        f"{predictions} runs. Left atrium, {describe(scan)}, network at {SPACING} mm, quality balanced. Files are in "
        f"the system's cache.\n\n{machine()}"
    )


def first_window(command: list[str]) -> float:
    """Seconds from the start of a prediction until it tells of its first window; it runs to its end."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "CAMLSegmentation")}
    begin, seconds = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if not seconds and event["event"] == "progress" and event["unit"] == "windows":
                seconds = time.perf_counter() - begin
    if process.returncode or not seconds:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds


def _row(name: str, seconds: list[float], aim: str) -> tuple[str, ...]:
    return name, f"{median(seconds):.2f}", f"{max(seconds):.2f}", aim


if __name__ == "__main__":
    main()
