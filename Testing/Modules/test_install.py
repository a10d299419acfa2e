"""First run: PyTorch is missing, on a machine with internet or without."""

from __future__ import annotations

import site
import sys
import sysconfig
import types
from pathlib import Path

import pytest

#: They are about processes, or about starting them.
pytestmark = pytest.mark.cold_python


@pytest.fixture(autouse=True)
def packages_folder(monkeypatch, an_open_folder):
    """The folder into which pip would install, as in a Slicer: there is no other one of the user's."""
    folder, real = an_open_folder / "site-packages", sysconfig.get_path
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name, *a: str(folder) if name.endswith("lib") else real(name, *a))
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    return folder


@pytest.fixture
def installed(monkeypatch):
    """Which packages this Python seems to have; a test takes some away."""
    import importlib.util

    gone = {"torch", "safetensors"}
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in gone else real(name, *a))
    return gone


@pytest.fixture
def pytorch_extension(monkeypatch, installed):
    """Slicer's PyTorch extension; what it was asked for is kept."""
    asked = []

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation=False, forceComputationBackend=None, torchVersionRequirement=None):  # noqa: N802, N803
            asked.append((askConfirmation, torchVersionRequirement))
            installed.discard("torch")
            return types.ModuleType("torch")

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return asked


@pytest.fixture
def dialogs(monkeypatch):
    """Slicer's own message windows: what they said; the user says yes unless told otherwise."""
    import slicer

    shown = types.SimpleNamespace(errors=[], questions=[], yes=True)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *a, **k: shown.errors.append(text))
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, *a, **k: (shown.questions.append(text), shown.yes)[1]
    )
    return shown


@pytest.fixture
def pip(monkeypatch, installed):
    """Slicer's pip_ensure as the host has it, after which safetensors is there unless it failed."""
    from SlicerHost import packaging

    original = packaging.pip_ensure
    monkeypatch.setattr(packaging, "pip_ensure", lambda *a, **k: (original(*a, **k), installed.discard("safetensors")))
    return packaging


@pytest.fixture
def pip_offline(monkeypatch, installed):
    """Slicer's pip_install, as the host has it, that installs what is asked for unless what is there satisfies it."""
    from packaging.requirements import Requirement
    from SlicerHost import packaging

    original, versions = packaging.pip_install, {}

    def pip_install(arguments, **options):
        original(arguments, **options)
        for one in map(Requirement, arguments[3:]):
            if one.name not in versions or not one.specifier.contains(versions[one.name]):
                installed.discard(one.name)

    monkeypatch.setattr(packaging, "pip_install", pip_install)
    return types.SimpleNamespace(requests=packaging.requests, versions=versions)


@pytest.fixture
def a_folder(tmp_path, answers):
    """``a_folder(package, ...)``: the user chooses a folder with a wheel of each."""

    def choose(*packages):
        for package in packages:
            (tmp_path / f"{package}-9.9.0-cp312-none-any.whl").write_bytes(b"")
        answers["getExistingDirectory"] = str(tmp_path)
        return tmp_path

    return choose


def test_a_missing_torch_is_said_at_the_top_and_on_apply(installed, the_segmentation_panel):
    the_segmentation_panel.enter()
    ui = the_segmentation_panel.ui
    assert not ui.installFrame.isHidden() and "PyTorch, safetensors" in ui.installLabel.text
    assert not ui.applyButton.enabled and "PyTorch" in ui.applyButton.toolTip


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({"torch/lib/left.txt": ""}, False),
        ({"torch/__init__.py": "", "torch-2.4.1.dist-info/METADATA": "Name: torch\nVersion: 2.4.1\n"}, False),
        ({"torch/__init__.py": "", "torch-3.0.0.dist-info/METADATA": "Name: torch\nVersion: 3.0.0\n"}, False),
        ({"torch/__init__.py": "", "torch-2.6.0.dist-info/METADATA": "Name: torch\nVersion: 2.6.0+cpu\n"}, True),
        ({"torch/__init__.py": "", "torch-2.13.0.dist-info/METADATA": "Name: torch\nVersion: 2.13.0\n"}, True),
        ({"torch/__init__.py": ""}, True),
    ],
    ids=["remnant", "too old", "too new", "first", "newer", "built by hand"],
)
def test_a_torch_that_will_not_do_counts_as_missing(tmp_path, monkeypatch, the_segmentation_panel, files, there):
    from CAMLSegmentationLib import Installation

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    others = [entry for entry in sys.path if "site-packages" not in entry]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert ("PyTorch" not in Installation.missingPackages()) == there


def test_one_question_then_torch_comes_through_its_extension(pip, pytorch_extension, dialogs, the_segmentation_panel):
    the_segmentation_panel.enter()
    the_segmentation_panel.ui.installButton.click()
    assert len(dialogs.questions) == 1 and not dialogs.errors
    assert pytorch_extension == [(False, ">=2.6,<3")]
    function, requirements, options = pip.requests[-1]
    assert function == "pip_ensure" and not options["prompt_install"]
    assert not any("torch" in str(r) for r in requirements), "torch is the extension's business alone"
    assert the_segmentation_panel.ui.installFrame.isHidden()


@pytest.mark.parametrize("fails", [False, True], ids=["to its end", "and fails"])
def test_an_installation_says_that_it_is_at_work_and_is_not_begun_twice(
    pip, pytorch_extension, dialogs, the_segmentation_panel, monkeypatch, fails
):
    """PyTorch's extension lets Slicer handle events between the lines that pip prints."""
    import slicer
    from PySide6 import QtWidgets

    ui, install = the_segmentation_panel.ui, the_segmentation_panel.install
    buttons = (ui.installButton, ui.offlineButton, ui.installFolderButton)
    real, seen = sys.modules["PyTorchUtils"].PyTorchUtilsLogic.installTorch, []

    def at_work(self, **options):
        ui.installButton.click()
        slicer.app.processEvents()
        the_segmentation_panel.enter()
        cursor = QtWidgets.QApplication.overrideCursor() is not None
        seen.append(([b.enabled for b in buttons], ui.installLabel.text, cursor, install.install()))
        assert not ui.installFrame.isHidden() and not ui.applyButton.enabled
        if fails:
            raise RuntimeError("no connection")
        return real(self, **options)

    monkeypatch.setattr(sys.modules["PyTorchUtils"].PyTorchUtilsLogic, "installTorch", at_work)
    the_segmentation_panel.enter()
    ui.installButton.click()
    text = "Installing PyTorch, safetensors; Slicer does not answer for some minutes."
    assert seen == [([False] * 3, text, True, False)]
    assert len(dialogs.questions) == 1 and len(pytorch_extension) == (0 if fails else 1)
    assert all(b.enabled for b in buttons) and QtWidgets.QApplication.overrideCursor() is None
    assert ui.installFrame.isHidden() != fails and "Slicer does not answer" not in ui.installLabel.text


def test_pictures_of_reports_come_along_and_keep_nobody_waiting(
    installed, pytorch_extension, dialogs, the_segmentation_panel, monkeypatch
):
    from SlicerHost import packaging

    installed.add("matplotlib")
    the_segmentation_panel.enter()
    ui, asked = the_segmentation_panel.ui, []
    assert "matplotlib" not in ui.installLabel.text, "it is not what CAML computes with"

    def pip_ensure(requirements, **options):
        asked.append([str(one) for one in requirements])
        if "matplotlib" in asked[-1][0]:
            raise RuntimeError("no wheel")
        installed.discard("safetensors")

    monkeypatch.setattr(packaging, "pip_ensure", pip_ensure)
    ui.installButton.click()
    assert "matplotlib" in dialogs.questions[0], "nothing is installed that was not named"
    assert [names[0].split(">")[0] for names in asked] == ["safetensors", "matplotlib"]
    assert not dialogs.errors and ui.installFrame.isHidden()
    assert not the_segmentation_panel.problem().startswith("Install"), "without it everything but pictures works"


def test_saying_no_installs_nothing(installed, pytorch_extension, dialogs, the_segmentation_panel):
    from SlicerHost import packaging

    dialogs.yes = False
    the_segmentation_panel.enter()
    the_segmentation_panel.ui.installButton.click()
    assert pytorch_extension == [] and packaging.requests == []


def test_packages_that_could_not_be_written_are_neither_asked_for_nor_downloaded(
    installed, pytorch_extension, dialogs, the_segmentation_panel, packages_folder, a_plain_user, monkeypatch
):
    from CAMLSegmentationLib import Installation
    from SlicerHost import packaging

    from caml_core.errors import ResourceError

    the_segmentation_panel.enter()
    ui = the_segmentation_panel.ui
    packages_folder.chmod(0o555)
    with a_plain_user():
        for button in (ui.installButton, ui.installFolderButton):
            button.click()
            said = dialogs.errors.pop()
            assert str(packages_folder) in said and "administrator rights" in said and "internet" not in said
        for install in (Installation.install, lambda: Installation.installFromFolder(Path("anywhere"))):
            with pytest.raises(ResourceError, match="cannot be written"):
                install()
        monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
        Installation.checkFolder()  # pip takes the user's own folder
    assert not dialogs.questions and not dialogs.errors and not pytorch_extension and not packaging.requests
    assert list(packages_folder.iterdir()) == []


def test_a_look_at_the_folder_of_packages_leaves_nothing(packages_folder, slicer_host):
    from CAMLSegmentationLib import Installation

    Installation.checkFolder()
    assert list(packages_folder.iterdir()) == []


def test_without_the_pytorch_extension_the_way_out_is_said(installed, dialogs, the_segmentation_panel):
    the_segmentation_panel.enter()
    the_segmentation_panel.ui.installButton.click()
    assert len(dialogs.errors) == 1 and "Extensions Manager" in dialogs.errors[0]


def test_a_failing_download_opens_one_window_and_the_way_out_stands_in_the_panel(
    pip, pytorch_extension, dialogs, the_segmentation_panel
):
    ui, pip.failure["safetensors"] = the_segmentation_panel.ui, "ERROR: no matching distribution"
    the_segmentation_panel.enter()
    ui.installButton.click()
    assert dialogs.errors == ["Package installation failed."], "Slicer's own, which has what pip said"
    assert "without internet" in ui.installLabel.text and "safetensors" in ui.installLabel.text
    assert not ui.installFrame.isHidden() and not ui.applyButton.enabled
    dialogs.yes = False  # it is said of the last try alone
    ui.installButton.click()
    assert "without internet" in ui.installLabel.text
    pip.failure.clear()
    dialogs.yes = True
    ui.installButton.click()
    assert ui.installFrame.isHidden() and len(dialogs.errors) == 1
    assert "without internet" not in ui.installLabel.text


def test_a_failure_without_a_window_of_slicers_gets_one_with_its_reason(
    installed, pytorch_extension, dialogs, the_segmentation_panel, monkeypatch
):
    from SlicerHost import packaging

    def pip_ensure(requirements, **options):
        raise RuntimeError("lots of output\nanother installation is at work")

    monkeypatch.setattr(packaging, "pip_ensure", pip_ensure)
    the_segmentation_panel.enter()
    the_segmentation_panel.ui.installButton.click()
    assert len(dialogs.errors) == 1
    assert "another installation" in dialogs.errors[0] and "without internet" in dialogs.errors[0]


def test_wheels_that_do_not_fit_open_one_window(installed, dialogs, the_segmentation_panel, a_folder):
    from SlicerHost import packaging

    ui = the_segmentation_panel.ui
    the_segmentation_panel.enter()
    a_folder("torch", "safetensors")
    packaging.failure["torch"] = "ERROR: not a supported wheel"
    ui.installFolderButton.click()
    assert dialogs.errors == ["Package installation failed."] and "could not be installed" in ui.installLabel.text


def test_pictures_that_cannot_be_had_open_no_window(pip, pytorch_extension, dialogs, installed, the_segmentation_panel):
    installed.add("matplotlib")
    pip.failure["matplotlib"] = "ERROR: no matching distribution"
    the_segmentation_panel.enter()
    the_segmentation_panel.ui.installButton.click()
    assert dialogs.errors == [] and the_segmentation_panel.ui.installFrame.isHidden()
    shown = {str(names[0]).split(">")[0]: options["show_progress"] for _, names, options in pip.requests}
    assert shown == {"safetensors": True, "matplotlib": False}


def test_the_way_without_internet_is_explained_and_taken(
    installed, pip_offline, dialogs, the_segmentation_panel, a_folder
):
    ui = the_segmentation_panel.ui
    the_segmentation_panel.enter()
    assert ui.offlineText.isHidden() and ui.installFolderButton.isHidden()
    ui.offlineButton.click()
    assert "pip download" in ui.offlineText.plainText and not ui.installFolderButton.isHidden()
    a_folder()
    ui.installFolderButton.click()
    assert "no wheel of PyTorch" in dialogs.errors.pop() and pip_offline.requests == []
    folder = a_folder("torch", "safetensors")
    ui.installFolderButton.click()
    function, requirements, _options = pip_offline.requests[-1]
    assert function == "pip_install" and "--no-index" in requirements and str(folder) in requirements
    assert "matplotlib" in ui.offlineText.plainText and not any("matplotlib" in r for r in requirements)
    assert ui.installFrame.isHidden() and not dialogs.errors
    a_folder("matplotlib")
    ui.installFolderButton.click()
    assert any("matplotlib" in r for r in pip_offline.requests[-1][1])


def test_too_old_a_torch_gives_way_to_that_of_the_folder(pip_offline, dialogs, the_segmentation_panel, a_folder):
    pip_offline.versions["torch"] = "2.4.1"
    the_segmentation_panel.enter()
    a_folder("torch", "safetensors")
    the_segmentation_panel.ui.installFolderButton.click()
    assert the_segmentation_panel.ui.installFrame.isHidden() and not dialogs.errors


def test_a_folder_needs_no_torch_where_torch_is_there(
    installed, pip_offline, dialogs, the_segmentation_panel, a_folder
):
    installed.discard("torch")
    the_segmentation_panel.enter()
    a_folder()
    the_segmentation_panel.ui.installFolderButton.click()
    assert "no wheel of safetensors" in dialogs.errors.pop()
    a_folder("safetensors")
    the_segmentation_panel.ui.installFolderButton.click()
    assert the_segmentation_panel.ui.installFrame.isHidden() and not dialogs.errors
    assert not any(r.startswith("torch") for r in pip_offline.requests[-1][1]), "what is there is left alone"


def test_what_is_missing_after_a_folder_is_said(pip_offline, dialogs, the_segmentation_panel, a_folder):
    pip_offline.versions["torch"] = "2.13.0"  # pip finds it, Python does not
    the_segmentation_panel.enter()
    folder = a_folder("torch", "safetensors")
    the_segmentation_panel.ui.installFolderButton.click()
    assert len(dialogs.errors) == 1 and "PyTorch could not be installed" in dialogs.errors[0]
    assert str(folder) in dialogs.errors[0] and "Python console" in dialogs.errors[0]


def test_nothing_is_shown_where_nothing_is_missing(the_segmentation_panel):
    the_segmentation_panel.enter()
    assert the_segmentation_panel.ui.installFrame.isHidden()
