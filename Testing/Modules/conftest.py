"""What the tests of the modules stand on, as nouns: a scene, a volume, the panel."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SlicerHost

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path += [str(Path(__file__).parent), str(REPOSITORY / "CAMLSegmentation")]
#: Minutes of training on real scans: `make acceptance`.
collect_ignore = [] if os.environ.get("CAML_ACCEPTANCE") else ["acceptance"]

if importlib.util.find_spec("slicer_core") is None:
    # pyproject.toml names the machines for which there are wheels; elsewhere these tests cannot be run at all.
    print("The tests of the Slicer module are left out: slicer-core is not installed.", file=sys.stderr)
    collect_ignore_glob = ["test_*.py"]
else:
    try:
        SlicerHost.install()
    except ImportError as error:
        raise pytest.UsageError(
            f"The tests of the Slicer module need Qt's system libraries ({error}); on Debian or Ubuntu: apt-get "
            "install libegl1 libgl1 libx11-6 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0"
        ) from error


@pytest.fixture(scope="session")
def a_warm_python() -> Iterator[Any]:
    """The server of workers, None elsewhere than on Linux. Its folder's name is short, as a socket's has to be."""
    from SlicerHost import warm_python

    with tempfile.TemporaryDirectory(prefix="caml-", dir="/tmp" if sys.platform == "linux" else None) as folder:
        server = warm_python.start(Path(folder))
        yield server
        if server is not None:
            server.stop()


@pytest.fixture(autouse=True)
def workers_start_warm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked from a process that has imported PyTorch, except in tests marked ``cold_python``."""
    if request.node.get_closest_marker("cold_python") is None:
        server = request.getfixturevalue("a_warm_python")
        if server is not None:
            monkeypatch.setenv("PATH", os.pathsep.join((str(server.folder), os.environ["PATH"])))


@pytest.fixture
def slicer_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The host, with its memory of dialogs and installations empty; an exception in a slot fails the test.

    The user's own folder, in which projects are begun, is one of the test.
    """
    from SlicerHost import packaging, proxy, qt_module

    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for memory in (proxy.slot_errors, packaging.requests, packaging.failure, qt_module.opened, qt_module.answers):
        memory.clear()
    yield SlicerHost
    errors, proxy.slot_errors[:] = list(proxy.slot_errors), []
    assert not errors, f"exceptions left slots: {errors!r}"


@pytest.fixture
def a_scene(slicer_host: Any) -> Iterator[Any]:
    """An empty scene with three slice views, closed afterwards."""
    import slicer

    slicer.mrmlScene.Clear()
    yield slicer.mrmlScene
    # They outlive the scene, and the panels' observers with them: those of all tests would hear of all that follows.
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        slicer.mrmlScene.RemoveNode(node)
    slicer.mrmlScene.Clear()
    slicer.app.userSettings().clear()


@pytest.fixture
def a_volume(a_scene: Any) -> Callable[..., Any]:
    """``a_volume(name, voxels [k, j, i], ijk_to_ras)``: a volume node of the scene."""
    import slicer

    def make(name: str, voxels: np.ndarray, ijk_to_ras: np.ndarray) -> Any:
        return slicer.util.addVolumeFromArray(voxels, ijkToRAS=ijk_to_ras, name=name)

    return make


@pytest.fixture
def wait_for(slicer_host: Any) -> Callable[..., None]:
    """``wait_for(condition, timeout)``: run the event loop until it holds."""
    return slicer_host.wait_for


@pytest.fixture
def answers(slicer_host: Any) -> dict[str, Any]:
    """What the user answers to dialogs, by the dialog's name."""
    from SlicerHost import qt_module

    return qt_module.answers


@pytest.fixture
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of models, empty; no model comes along, whatever ships."""
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "models"))
    models = importlib.import_module("CAMLSegmentationLib.Models")
    monkeypatch.setattr(models, "BUNDLED", tmp_path / "bundled")
    return tmp_path / "models"


@pytest.fixture
def the_module(a_scene: Any, models_folder: Path) -> Iterator[Any]:
    """The widget of CAMLSegmentation as Slicer would hold it, shown to the user."""
    widget = SlicerHost.load_module(REPOSITORY / "CAMLSegmentation" / "CAMLSegmentation.py")
    SlicerHost.enter("CAMLSegmentation")
    yield widget
    if "CAMLSegmentation" in SlicerHost._state["modules"]:
        SlicerHost.unload_module("CAMLSegmentation")


@pytest.fixture
def the_segmentation_panel(the_module: Any) -> Any:
    """The panel itself."""
    return the_module.panel


@pytest.fixture
def the_training_module(the_module: Any) -> Iterator[Any]:
    """The widget of CAMLTraining as Slicer would hold it, shown to the user; CAMLSegmentation is there as well."""
    SlicerHost.leave("CAMLSegmentation")
    widget = SlicerHost.load_module(REPOSITORY / "CAMLTraining" / "CAMLTraining.py")
    SlicerHost.enter("CAMLTraining")
    yield widget
    if "CAMLTraining" in SlicerHost._state["modules"]:
        SlicerHost.unload_module("CAMLTraining")


@pytest.fixture
def grab_panel(the_module: Any, tmp_path: Path) -> Callable[[str], Path]:
    """``grab_panel(name)``: save the panel, 450 pixels wide, as a PNG."""
    from SlicerHost import proxy

    def grab(name: str) -> Path:
        path = tmp_path / f"{name}.png"
        native = proxy.to_native(the_module.uiWidget).window()
        native.resize(450, max(720, native.sizeHint().height()))
        assert native.grab().save(str(path))
        return path

    return grab


# Fixtures of the panel with a model; they lie beside the helpers that belong to them.
from panel_tools import a_model, a_scan, panel, stand_in  # noqa: E402, F401
from training_tools import a_cohort, break_drive, short_training, training  # noqa: E402, F401
