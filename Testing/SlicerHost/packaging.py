"""``slicer.packaging``: what was asked to be installed is noted, and nothing is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import slicer

#: Requests in order: (function, requirements, options).
requests: list[tuple[str, Any, dict[str, Any]]] = []
#: Set by a test: start of a requirement that pip cannot install -> what pip says of it.
failure: dict[str, str] = {}


def load_requirements(path: str | Path) -> list[str]:
    """The requirements of a file, without comments and options."""
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def pip_ensure(
    requirements: Any,
    constraints: Any = None,
    skip_packages: Any = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> None:
    """Note a request."""
    options = {"prompt_install": prompt_install, "requester": requester, "show_progress": show_progress}
    requests.append(("pip_ensure", requirements, options))
    _install(requirements, show_progress)


def pip_install(requirements: Any, show_progress: bool = True, **options: Any) -> None:
    """Note a request."""
    requests.append(("pip_install", requirements, options))
    _install(requirements, show_progress)


def _install(requirements: Any, show_progress: bool) -> None:
    """Fail as Slicer's does: with its progress window it has told the user already when it raises."""
    said = next((text for start, text in failure.items() for one in requirements if str(one).startswith(start)), None)
    if said is None:
        return
    if not show_progress:
        raise subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "pip", "install"])
    slicer.util.errorDisplay("Package installation failed.", windowTitle="Installation Failed", detailedText=said)
    raise subprocess.CalledProcessError(1, "pip install")
