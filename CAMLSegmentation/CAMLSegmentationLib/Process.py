"""One worker process: the engine's command line as a child of Slicer, followed by its events, ended on request.

Threads stand still while Slicer's event loop idles, so everything here is driven by QProcess's signals.
"""

from __future__ import annotations

import logging
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import qt
from slicer.i18n import tr as _

from caml_core import events

from . import Worker
from .ProcessTree import endTree

#: Milliseconds that a worker gets to end in good order before it is ended by force; Cancel promises three seconds.
GRACE = 1500
#: What the log says where there is no program to start.
NOT_STARTED = "could not be started"
#: Slicer's Python is started by a launcher, whose exit code is 1 when a signal has ended Python: this line alone tells.
_ABNORMAL = re.compile(r"error: \[.*\] exit abnormally")


class WorkerListener(Protocol):
    """What wants to know of a worker."""

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """An event of ``caml_core.events``."""

    def onWorkerLog(self, text: str) -> None:
        """A line that is no event: a library's print, a traceback."""

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """The process is gone; nothing more comes."""


class WorkerLike(Protocol):
    """What the rest of the module needs of a worker; tests put others in its place."""

    running: bool

    def start(self, arguments: Sequence[str], stopFile: Path) -> None:
        """Begin."""

    def stop(self) -> None:
        """Ask for an end; by force after GRACE."""

    def end(self) -> None:
        """End the whole process tree now, and wait until it is gone."""

    def wait(self, milliseconds: int = 100) -> None:
        """Let it report without an event loop."""


WorkerFactory = Callable[[WorkerListener], WorkerLike]


def pythonProgram() -> str:
    """Return the program that runs Python with Slicer's packages; inside Slicer sys.executable is empty."""
    return shutil.which("PythonSlicer") or sys.executable


class WorkerProcess:
    """Runs ``caml ARGUMENTS`` in a process of its own and tells ``listener`` what it reports."""

    def __init__(self, listener: WorkerListener) -> None:
        self._listener = listener
        self._process: Any = None
        self._pid = 0
        self._stopFile: Path | None = None
        self._buffers = {"out": b"", "err": b""}
        #: (channel, line) that wait to be told, and whether one is being told.
        self._untold: list[tuple[str, str]] = []
        self._telling = False
        #: Exit code, and whether it crashed, of a process of which not all is told yet.
        self._exit: tuple[int, bool] | None = None
        self._abnormal = ""
        self._timer: Any = None

    @property
    def running(self) -> bool:
        """Whether the process is there, or something of it is still to be told."""
        return self._process is not None

    def start(self, arguments: Sequence[str], stopFile: Path) -> None:
        """Start the process; ``stopFile`` is the file that ``arguments`` name as the sign to end."""
        if self.running:
            msg = "a worker runs one command at a time"
            raise RuntimeError(msg)
        self._stopFile, self._pid, self._abnormal = stopFile, 0, ""
        self._buffers, self._untold, self._exit = {"out": b"", "err": b""}, [], None
        process = self._process = qt.QProcess()
        environment = qt.QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        environment.insert("PYTHONIOENCODING", "utf-8")
        process.setProcessEnvironment(environment)
        for signal, slot in self._connections():
            process.connect(signal, slot)
        process.start(pythonProgram(), [str(Path(Worker.__file__).resolve()), *arguments])

    def stop(self) -> None:
        """Ask the worker to end in good order, and end it by force when it does not."""
        if not self.running or self._timer is not None:
            return
        self._touchStopFile()
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._onGraceOver)
        self._timer.start(GRACE)

    def end(self) -> None:
        """End the process tree at once. The listener is told before this returns."""
        if not self.running:
            return
        self._touchStopFile()
        if self._exit is None:
            process = self._process
            endTree([self._pid, process.processId()])
            process.kill()
            process.waitForFinished(2000)
            self._finish(-1, True)  # where "finished" was delivered meanwhile this does nothing
        if self.running:  # called while a line is being told: what comes after it is of no use any more
            self._untold = []
            self._conclude()

    def wait(self, milliseconds: int = 100) -> None:
        """Let the process report for up to ``milliseconds`` without an event loop."""
        if self.running:
            self._process.waitForReadyRead(milliseconds)

    def _connections(self) -> tuple[tuple[str, Callable[..., None]], ...]:
        return (
            ("readyReadStandardOutput()", self._onOutput),
            ("readyReadStandardError()", self._onError),
            ("finished(int,QProcess::ExitStatus)", self._onFinished),
            ("errorOccurred(QProcess::ProcessError)", self._onProcessError),
        )

    def _touchStopFile(self) -> None:
        try:
            self._stopFile.touch()
        except OSError as error:  # the disk may be full: then the worker is ended by force
            logging.warning("CAML: the stop file could not be written: %s", error)

    def _onGraceOver(self) -> None:
        if self.running and self._exit is None:
            endTree([self._pid, self._process.processId()])
            if self.running:
                self._process.kill()

    def _onOutput(self) -> None:
        if self.running:
            self._take("out", self._process.readAllStandardOutput().data())

    def _onError(self) -> None:
        if self.running:
            self._take("err", self._process.readAllStandardError().data())

    def _take(self, channel: str, data: bytes) -> None:
        self._keep(channel, data)
        self._tellAll()

    def _keep(self, channel: str, data: bytes, last: bool = False) -> None:
        """Put the lines that are complete behind those that wait; last: what is left counts as one."""
        *lines, rest = (self._buffers[channel] + data).split(b"\n")
        if last and rest:
            lines.append(rest)
            rest = b""
        self._buffers[channel] = rest
        self._untold += [(channel, line.decode("utf-8", "replace").rstrip("\r")) for line in lines]

    def _tellAll(self) -> None:
        """Tell what waits, in its order.

        Slicer handles events while a listener loads a file: what is read then waits for its turn, and so does the end.
        """
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                channel, line = self._untold.pop(0)
                try:
                    tell = self._tell if channel == "out" else self._tellError
                    tell(line)
                except Exception:  # one event that is not understood must not lose the others
                    logging.exception("CAML: an event of the worker could not be followed")
        finally:
            self._telling = False
        if self._exit is not None:
            self._conclude()

    def _tell(self, line: str) -> None:
        event = events.decode(line)
        if event is None:
            if line.strip():
                self._listener.onWorkerLog(line)
            return
        kind, fields = event
        if kind == "started":
            self._pid = int(fields.get("pid") or 0)
        self._listener.onWorkerEvent(kind, fields)

    def _tellError(self, line: str) -> None:
        """Keep what may be the launcher's last word; where others follow, it was that of another program."""
        if not line.strip():
            return
        self._releaseAbnormal()
        if saysAbnormal(line):
            self._abnormal = line
        else:
            self._tell(line)

    def _releaseAbnormal(self) -> None:
        line, self._abnormal = self._abnormal, ""
        if line:
            self._tell(line)

    def _onProcessError(self, error: int) -> None:
        if int(error) == int(qt.QProcess.FailedToStart) and self.running:
            self._listener.onWorkerLog(f"{pythonProgram()} {NOT_STARTED}: {self._process.errorString()}")
            self._finish(-1, True)

    def _onFinished(self, exitCode: int, exitStatus: int) -> None:
        self._finish(int(exitCode), int(exitStatus) != int(qt.QProcess.NormalExit))

    def _finish(self, exitCode: int, crashed: bool) -> None:
        if not self.running or self._exit is not None:
            return
        self._keep("out", self._process.readAllStandardOutput().data(), last=True)
        self._keep("err", self._process.readAllStandardError().data(), last=True)
        self._exit = (exitCode, crashed)
        self._tellAll()

    def _conclude(self) -> None:
        """All was told: let go of the process, and tell its end."""
        if self._exit is None or not self.running:
            return
        exitCode, crashed = self._exit
        crashed = crashed or (exitCode != 0 and bool(self._abnormal))
        if not crashed:
            self._releaseAbnormal()
        process, self._process, self._exit = self._process, None, None
        for signal, slot in self._connections():
            process.disconnect(signal, slot)
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        # A QProcess must not be destroyed by the slot that it is calling.
        self._done = process
        self._listener.onWorkerEnd(exitCode, crashed)


def saysAbnormal(line: str) -> bool:
    """Whether this is how the launcher of Slicer's Python says that Python was ended by the system."""
    return _ABNORMAL.match(line) is not None


def missingPackage(text: str) -> str:
    """Return the sentence for a package that the worker did not find; empty where that is not what ``text`` says."""
    found = re.search(r"No module named '?([A-Za-z0-9_]+)", text)
    if found is None:
        return ""
    return _("A Python package is missing ({name}); press Install in the module CAML Segmentation.").format(
        name=found.group(1)
    )


def newStopFile(folder: Path) -> Path:
    """Return the path of a stop file that does not exist yet."""
    return folder / f"stop-{uuid.uuid4().hex[:8]}"
