"""The demo runs from end to end through the public command line, and never removes what is not its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[1] / "demo" / "run_demo.py"


def _run(*arguments: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(DEMO), *map(str, arguments)]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_demo_leaves_a_report_of_both_trainings(tmp_path, caml_environment):
    output = tmp_path / "demo"
    small = ("--only", "atrium", "--iterations", 2, "--base-filters", 4)
    done = _run("--output", output, *small, environment=caml_environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.rstrip().endswith((output / "index.html").as_uri())
    (section,) = json.loads((output / "report.json").read_text())["sections"]
    assert len(section["cases"]) == 4
    for figures in section["cases"].values():
        assert set(figures) == {"Labelled only", "CAML"}
        assert all(0 <= f["Left atrium"]["dice"] <= 1 for f in figures.values())
    assert section["verdicts"][0] in done.stdout
    for run in ("labelled-only", "caml"):
        assert (output / "atrium" / run / "model.caml").is_file()
        assert (output / "atrium" / run / "curves.png").is_file()


def test_demo_leaves_a_foreign_folder_alone(tmp_path, caml_environment):
    (tmp_path / "precious.txt").write_text("mine")
    done = _run("--output", tmp_path, environment=caml_environment)
    assert done.returncode != 0
    assert "holds something else" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]
