"""A cohort to practise on: procedural scans, some with labels, made on this computer in a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from CAMLSegmentationLib.Job import commonArguments
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess, newStopFile
from slicer.i18n import tr as _

from caml_core.data.files import make_folder

#: Scans, of which so many have a label for learning, and so many for validation.
CASES, LABELED, VALIDATION = 14, 4, 3
FOLDER = "practice"


class PracticeRun:
    """Makes the scans in the background; ``onEnd`` gets the folder, or a sentence why there is none."""

    def __init__(
        self,
        onEnd: Callable[[Path | None, str], None],
        onProgress: Callable[[str], None],
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._onEnd, self._onProgress = onEnd, onProgress
        self._worker = workerFactory(self)
        self._folder = self._stopFile = Path()
        self._fault = self._last = ""

    @property
    def running(self) -> bool:
        """Whether scans are being made."""
        return self._worker.running

    def start(self, project: Path) -> None:
        """Begin; the scans go to a folder of the project. Raises ResourceError where it cannot be made."""
        make_folder(project)
        self._folder, self._fault, self._last = project / FOLDER, "", ""
        self._stopFile = newStopFile(project)
        counts = ["--cases", str(CASES), "--labeled", str(LABELED), "--validation", str(VALIDATION)]
        arguments = ["phantom", "atrium", "-o", str(self._folder), *counts, "--seed", "7"]
        self._worker.start([*arguments, *commonArguments(self._stopFile)], self._stopFile)

    def end(self) -> None:
        """End at once."""
        self._worker.end()

    def wait(self) -> None:
        """Let it report, in a script without an event loop."""
        self._worker.wait(50)

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the engine."""
        if kind == "error":
            self._fault = str(fields.get("message") or "")
        elif kind == "progress":
            text = _("Making scans to practise on: {done} of {total}")
            self._onProgress(text.format(done=fields.get("done"), total=fields.get("total")))

    def onWorkerLog(self, text: str) -> None:
        """The last line may tell why it died."""
        self._last = text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Hand over the folder."""
        self._stopFile.unlink(missing_ok=True)
        if exitCode == 0 and not crashed:
            self._onEnd(self._folder, "")
        else:
            unknown = _("The scans to practise on could not be made: {line}").format(line=self._last or "-")
            self._onEnd(None, self._fault or unknown)
