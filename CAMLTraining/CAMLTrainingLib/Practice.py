"""A cohort to practise on: procedural scans, some with labels, made on this computer in a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess
from slicer.i18n import tr as _

from caml_core.data.files import make_folder

from .EngineCall import EngineCall

#: Scans, of which so many have a label for learning, and so many for validation.
CASES, LABELED, VALIDATION = 14, 4, 3
FOLDER = "practice"


class PracticeRun(EngineCall):
    """Makes the scans in the background; ``onEnd`` gets the folder, or a sentence why there is none."""

    def __init__(
        self,
        onEnd: Callable[[Path | None, str], None],
        onProgress: Callable[[str], None],
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._folder = Path()
        super().__init__(
            lambda result, sentence: onEnd(self._folder if result is not None else None, sentence),
            lambda kind, fields: _tell(kind, fields, onProgress),
            workerFactory,
        )

    def make(self, project: Path) -> None:
        """Begin; the scans go to a folder of the project. Raises ResourceError where it cannot be made."""
        self._folder = make_folder(project) / FOLDER
        counts = ["--cases", str(CASES), "--labeled", str(LABELED), "--validation", str(VALIDATION)]
        self.start(["phantom", "atrium", "-o", str(self._folder), *counts, "--seed", "7"], project)


def _tell(kind: str, fields: dict[str, Any], onProgress: Callable[[str], None]) -> None:
    if kind == "progress":
        text = _("Making scans to practise on: {done} of {total}")
        onProgress(text.format(done=fields.get("done"), total=fields.get("total")))
