"""``slicer.packaging``: what was asked to be installed is noted, and nothing is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Requests in order: (function, requirements, options).
requests: list[tuple[str, Any, dict[str, Any]]] = []
#: Set by a test: raised instead of noting a success.
failure: list[Exception] = []


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
    _note("pip_ensure", requirements, prompt_install=prompt_install, requester=requester)


def pip_install(requirements: Any, **options: Any) -> None:
    """Note a request."""
    _note("pip_install", requirements, **options)


def _note(function: str, requirements: Any, **options: Any) -> None:
    requests.append((function, requirements, options))
    if failure:
        raise failure.pop()
