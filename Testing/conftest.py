"""What all tests share: where real scans lie, and settings that keep runs quick and alike on every machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch or matplotlib is imported: many threads only slow small tensors down, and no test opens a window.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FIXTURES = Path(__file__).resolve().parent / "Core" / "fixtures"


def find_shared_folder() -> Path | None:
    """Return the folder of real scans: CAML_SHARED, else ``shared`` beside the repository; None where there is none."""
    named = os.environ.get("CAML_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real scans; a test that asks for it is skipped where it is absent."""
    folder = find_shared_folder()
    if folder is None:
        pytest.skip("no folder of real scans: set CAML_SHARED, or put `shared` beside the repository")
    return folder


@pytest.fixture(scope="session")
def fixtures_folder() -> Path:
    """The folder of small files that belong to the tests."""
    return FIXTURES


@pytest.fixture(scope="session")
def caml_environment() -> dict[str, str]:
    """The environment in which ``[sys.executable, "-m", "caml_core", ...]`` runs as a process of its own."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY / "CAMLSegmentation"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


@pytest.fixture
def caml(capsys):
    """The command line within this process: ``caml("info", path)`` returns (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from caml_core.cli import main

        capsys.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse leaves this way
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return call


def pytest_report_header(config: pytest.Config) -> str:
    """Say at the top what the run stands on."""
    return f"python {sys.version.split()[0]}, shared scans: {find_shared_folder() or 'none'}"
