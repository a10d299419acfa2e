"""What all tests share: where real scans lie, and settings that keep runs quick and alike on every machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Before torch or matplotlib is imported: many threads only slow small tensors down, and no test opens a window.
if not os.environ.get("CAML_ACCEPTANCE"):  # there, real networks are trained
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FIXTURES = Path(__file__).resolve().parent / "Core" / "fixtures"


def find_shared_folder() -> Path | None:
    """Return the folder of real scans: CAML_SHARED, else ``shared`` beside the repository; None where there is none."""
    named = os.environ.get("CAML_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    return folder if folder.is_dir() else None


#: Files of tests that take minutes: begun last, one of two workers would wait for the other.
LONG = ("test_demo.py", "test_training_run.py", "test_rounds_interrupted.py", "test_plateau.py", "test_training.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; ``make test`` keeps this order."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real scans; a test that asks for it is skipped where it is absent."""
    folder = find_shared_folder()
    if folder is None:
        pytest.skip("no folder of real scans: set CAML_SHARED, or put `shared` beside the repository")
    return folder


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared cases and measurements never land in the cache of the person who runs the tests."""
    before = os.environ.get("CAML_CACHE_DIR")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CAML_CACHE_DIR"] = str(folder)
    yield folder
    os.environ.pop("CAML_CACHE_DIR")
    if before is not None:
        os.environ["CAML_CACHE_DIR"] = before


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


@pytest.fixture
def a_full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """``with a_full_disk(n):`` no file of this process can grow past n bytes: the system itself refuses to write."""
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def a_plain_user() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """``with a_plain_user():`` the process has no rights of root, so that file permissions count. POSIX only."""
    if not hasattr(os, "seteuid"):
        pytest.skip("file permissions are told apart on POSIX systems only")

    @contextmanager
    def drop() -> Iterator[None]:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)

    yield drop


@pytest.fixture
def an_open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may enter and write (pytest's own is its user's alone)."""
    folder = Path(tempfile.mkdtemp(prefix="caml-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def pytest_report_header(config: pytest.Config) -> str:
    """Say at the top what the run stands on."""
    return f"python {sys.version.split()[0]}, shared scans: {find_shared_folder() or 'none'}"
