"""Getting what the engine needs into Slicer's Python: PyTorch through its extension, the rest from wheels.

Nothing is imported to find out what is there, and nothing is installed without a question.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import site
import sysconfig
import uuid
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from caml_core.errors import ResourceError

#: The first version of PyTorch that will do, and the first that is too new.
_FIRST, _TOO_NEW = (2, 6), (3,)
TORCH_VERSION = f">={'.'.join(map(str, _FIRST))},<{'.'.join(map(str, _TOO_NEW))}"
#: Modules that the worker imports -> the package they come from. All others come with Slicer.
NEEDED = {"torch": "PyTorch", "safetensors": "safetensors"}
#: Modules that are installed along, and that nothing waits for -> what the user reads of them.
EXTRA = {"matplotlib": _("matplotlib (for the pictures of reports)")}
_REQUESTER = "CAML Segmentation"
#: What the error of Slicer's installer names as its command where a window has told the user what pip said.
_TOLD_BY_SLICER = "pip install"


class InstallationToldError(ResourceError):
    """Packages could not be installed, and a window of Slicer's has said so: a second one would be in the way."""


def missingPackages() -> tuple[str, ...]:
    """Return the names of the packages that have to be installed."""
    return _absent(NEEDED)


def missingExtras() -> tuple[str, ...]:
    """Return the names of the packages that would be installed along."""
    return _absent(EXTRA)


def _absent(modules: dict[str, str]) -> tuple[str, ...]:
    importlib.invalidate_caches()
    return tuple(title for module, title in modules.items() if not _isThere(module))


def _isThere(module: str) -> bool:
    """Whether a package can be imported, as far as can be told without doing so."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # nothing, or a folder that an installation has left half-way
        return False
    return module != "torch" or _torchFits()


def _torchFits() -> bool:
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return True  # built by hand: it is the user's to know
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    return _FIRST <= numbers < _TOO_NEW


def requirementsPath() -> Path:
    """Return the list of the packages besides PyTorch."""
    return Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def checkFolder() -> None:
    """Raise ResourceError where nothing can be installed: pip would find out after the download of PyTorch only.

    On computers of several people Slicer often lies in a folder of the administrator's.
    """
    if site.ENABLE_USER_SITE:  # Slicer switches it off; elsewhere pip would install into the user's own folder
        return
    for folder in sorted({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}):
        trial = folder / f".caml-{uuid.uuid4().hex}"  # whether it can be written is not to be asked for on Windows
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            sentence = _(
                "The folder of Slicer's Python packages, {folder}, cannot be written ({reason}), so that nothing can "
                "be installed. Start Slicer once with administrator rights and press Install, or install Slicer into "
                "a folder of your own."
            )
            raise ResourceError(sentence.format(folder=folder, reason=error.strerror or error)) from error


def install() -> None:
    """Install what is missing; raise ResourceError with a way out.

    Returns when all is done. PyTorch's extension shows nothing meanwhile and lets Slicer handle events now and then;
    the others come with Slicer's window of progress.
    """
    checkFolder()
    if "PyTorch" in missingPackages():
        _installTorch()
    needed, extra = _requirements()
    try:
        _ensure(needed)
    except Exception as error:  # pip fails in many ways; the console has its output
        raise _failed(error) from error
    try:
        _ensure(extra, window=False)  # Slicer opens one over every failure, and nothing waits for these
    except Exception as error:  # segmenting and training go on without it, and reports say what they lack
        logging.warning("CAML: %s could not be installed: %s", ", ".join(EXTRA), error)
    if left := missingPackages():
        raise ResourceError(
            _(
                "{names} could not be installed; see the Python console, or install without internet (described below)."
            ).format(names=", ".join(left))
        )


def _requirements() -> tuple[list[Any], list[Any]]:
    """What has to be there besides PyTorch, and what is installed along."""
    import slicer.packaging

    listed = slicer.packaging.load_requirements(requirementsPath())
    extra = [one for one in listed if str(one).startswith(tuple(EXTRA))]
    return [one for one in listed if one not in extra], extra


def _ensure(requirements: list[Any], window: bool = True) -> None:
    """Install what is missing; ``window``: with Slicer's window of progress, else with a busy cursor alone."""
    import slicer.packaging

    slicer.packaging.pip_ensure(requirements, prompt_install=False, requester=_REQUESTER, show_progress=window)


def _installTorch() -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise ResourceError(
            _(
                "PyTorch is installed by Slicer's extension of that name, which is missing; open the Extensions "
                "Manager, install PyTorch, restart Slicer and press Install again."
            )
        ) from error
    try:
        installed: Any = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False, torchVersionRequirement=TORCH_VERSION
        )
    except Exception as error:  # whatever it was, the user can do the same two things
        raise _failed(error) from error
    if installed is None:
        raise _failed(None)


def _failed(error: Exception | None) -> ResourceError:
    if getattr(error, "cmd", None) == _TOLD_BY_SLICER:
        return InstallationToldError(
            _(
                "The packages could not be installed, for the reason that Slicer's window gave; check the internet "
                "connection and try again, or install without internet as described below."
            )
        )
    detail = f" ({str(error).strip().splitlines()[-1][:200]})" if error is not None and str(error).strip() else ""
    return ResourceError(
        _(
            "The packages could not be installed{detail}; check the internet connection and try again, or install "
            "without internet as described below."
        ).format(detail=detail)
    )


def installFromFolder(folder: Path) -> None:
    """Install what is missing from a folder of wheels, without any connection; raise ResourceError with a way out.

    What nothing waits for is installed where the folder has it.
    """
    checkFolder()
    missing = missingPackages()
    for module, title in NEEDED.items():
        if title in missing and not any(folder.glob(f"{module}-*.whl")):
            raise ResourceError(
                _(
                    "{folder} holds no wheel of {name} ({module}-....whl); choose the folder that pip download filled."
                ).format(folder=folder, name=title, module=module)
            )
    # With its version: pip is content with any that is there, too old a one as well.
    torch = [f"torch{TORCH_VERSION}"] if "PyTorch" in missing else []
    needed, extra = _requirements()
    there = tuple(module for module in EXTRA if any(folder.glob(f"{module}-*.whl")))
    wanted = map(str, [*torch, *needed, *(one for one in extra if str(one).startswith(there))])
    try:
        slicer.util.pip_install(["--no-index", "--find-links", str(folder), *wanted])
    except Exception as error:
        raise _failed(error) from error
    if left := missingPackages():
        raise ResourceError(
            _(
                "{names} could not be installed from {folder}; see the Python console, and fill a folder anew as "
                "described below."
            ).format(names=", ".join(left), folder=folder)
        )


def offlineInstructions() -> str:
    """Return how to install on a machine without internet, as HTML."""
    import platform
    import sys

    first = _("On a computer with internet, the same system ({system}) and Python {version}, open a terminal and run:")
    system, version = f"{platform.system()} {platform.machine()}", f"{sys.version_info[0]}.{sys.version_info[1]}"
    steps = (
        first.format(system=system, version=version)
        + '<br><code>pip download "torch&gt;=2.6,&lt;3" safetensors matplotlib -d caml-wheels</code>',
        _(
            "Where the computer here has no NVIDIA graphics card, add the address of the CPU build from PyTorch's page "
            "Get Started: it is much smaller."
        ),
        _("Carry the folder caml-wheels here and choose it with the button From a Folder."),
        _("Models are single files (.caml): carry them likewise and open them with Open."),
    )
    return "<ol>" + "".join(f"<li>{step}</li>" for step in steps) + "</ol>"
