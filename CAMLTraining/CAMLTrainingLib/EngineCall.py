"""One question to the engine, answered in the background by the result of its command, or by a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from CAMLSegmentationLib.Job import commonArguments
from CAMLSegmentationLib.Process import NOT_STARTED, WorkerFactory, WorkerProcess, missingPackage, newStopFile
from slicer.i18n import tr as _

from caml_core.data.files import remove_quietly

#: Gets the result, None where there is none, and then why, in a sentence.
Answer = Callable[["dict[str, Any] | None", str], None]


class EngineCall:
    """Runs one command of ``caml`` at a time; ``onEvent`` gets all events but the last."""

    def __init__(
        self,
        onEnd: Answer,
        onEvent: Callable[[str, dict[str, Any]], None],
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._onEnd, self._onEvent = onEnd, onEvent
        self._worker = workerFactory(self)
        self._stopFile = Path()
        self._result: dict[str, Any] | None = None
        self._fault = self._last = ""
        self._cancelled = False

    @property
    def running(self) -> bool:
        """Whether the engine is at work."""
        return self._worker.running

    def start(self, arguments: Sequence[str], folder: Path) -> None:
        """Begin; ``folder``, which exists, takes the stop file."""
        self._result, self._fault, self._last, self._cancelled = None, "", "", False
        self._stopFile = newStopFile(folder)
        self._worker.start([*arguments, *commonArguments(self._stopFile)], self._stopFile)

    def cancel(self) -> None:
        """Ask for an end."""
        self._cancelled = True
        self._worker.stop()

    def end(self) -> None:
        """End at once."""
        self._cancelled = True
        self._worker.end()

    def wait(self) -> None:
        """Let it report, in a script without an event loop."""
        self._worker.wait(50)

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the engine."""
        if kind == "finished":
            self._result = fields.get("result") or {}
        elif kind == "error":
            message = str(fields.get("message") or "")
            self._fault = missingPackage(message) or message
        else:
            self._onEvent(kind, fields)

    def onWorkerLog(self, text: str) -> None:
        """The last line may tell why it died."""
        self._last = text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Hand over the answer."""
        remove_quietly(self._stopFile)
        if self._result is not None:
            self._onEnd(self._result, "")
        elif self._cancelled:
            self._onEnd(None, _("Cancelled."))
        else:
            self._onEnd(None, self._fault or died(self._last, crashed))


def died(lastLine: str, crashed: bool) -> str:
    """Return the sentence for a worker that ended without a word."""
    if missing := missingPackage(lastLine):
        return missing
    if NOT_STARTED in lastLine:
        return lastLine
    if crashed:
        return _("It was ended by the system, most likely for want of memory; close other programs and try again.")
    return _("It ended unexpectedly ({line}); try again, and report it if it happens again.").format(
        line=lastLine or "-"
    )
