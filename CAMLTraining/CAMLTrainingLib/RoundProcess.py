"""One round of training in a process of its own, which may outlive Slicer, followed through its events file.

The process is started apart from Slicer's own (no pipe binds them), so that closing the module, the scene or Slicer
does not end it. Whoever opens the project later follows the same file.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import qt
from CAMLSegmentationLib import Worker
from CAMLSegmentationLib.Process import missingPackage, pythonProgram, saysAbnormal
from CAMLSegmentationLib.ProcessTree import endTree
from slicer.i18n import tr as _

from caml_core import events
from caml_core.data.files import disk_error, make_folder
from caml_core.errors import CamlError, ResourceError, TrainingError
from caml_core.locking import is_locked
from caml_core.rounds import listing
from caml_core.rounds.round_folder import RoundFolder

from .RoundFiles import setPreviewCase

#: Milliseconds between two looks at the events file, and bytes that one look takes in at most.
PERIOD = 400
CHUNK = 2**18
#: Seconds without a sign of life after which the user is told that the computer may have slept.
SILENCE = 120.0
#: Seconds that a process gets from its start until it must have said something.
STARTING = 90.0
_ENDED_BY_FORCE = (-9, 137, 9)
#: A line of the log where the next process of a round begins.
_BEGIN = "--- caml round"
#: Events after which a process says nothing more; its number may soon be another one's.
_ENDS = ("finished", "error")


class RoundListener(Protocol):
    """What wants to know of a round."""

    def onRoundEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """An event of the round, in order; those of before are told again when a round is taken up."""

    def onRoundLook(self) -> None:
        """All that is new has been told for now: the time to draw."""

    def onRoundState(self, state: str, message: str) -> None:
        """The round is now "running", "silent", "paused", "finished", "failed" or "interrupted"; why, in a sentence."""


@dataclass
class _Seen:
    """What the events said last."""

    offset: int = 0
    last: str = ""
    time: float = 0.0
    message: str = ""
    exitCode: int = 0
    pid: int = 0
    host: str = ""
    rest: bytes = field(default=b"", repr=False)


class RoundProcess:
    """Starts, follows, pauses and ends the round in ``folder``; ``lock`` is the project's lock file.

    listsModel: whether the process puts its model into the user's models, though Slicer may be closed by then.
    """

    def __init__(self, folder: Path, lock: Path, listener: RoundListener, listsModel: bool = False) -> None:
        self.folder, self.lock, self._listsModel = folder, lock, listsModel
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None
        self._exitCode: int | None = None
        self._started = 0.0
        self._seen = _Seen()
        #: What the end of a long file says, as long as its beginning is still being told.
        self._end: _Seen | None = None
        self._asked = self._ended = False
        self.state = ""
        self._told = ("", "")
        self._timer = qt.QTimer()
        self._timer.setInterval(PERIOD)
        self._timer.connect("timeout()", self.look)

    @property
    def stopFile(self) -> Path:
        """The process ends in good order once this file is there."""
        return self.folder / "stop"

    @property
    def eventsFile(self) -> Path:
        """What the process reports."""
        return self.folder / "events.jsonl"

    @property
    def _log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def active(self) -> bool:
        """Whether a process is at work."""
        return self.state in ("running", "silent")

    @property
    def pausing(self) -> bool:
        """Whether the process at work was asked to end, by this Slicer or another, and has not done so yet."""
        return self.active and self._asked

    @property
    def catchingUp(self) -> bool:
        """Whether events of before are still being told; ``state`` is the present one all the same."""
        return self._end is not None

    def start(self, arguments: Sequence[str], previewCase: str = "") -> None:
        """Start a new round with the arguments of ``caml round``; raise ResourceError where it cannot be started."""
        if previewCase:
            setPreviewCase(make_folder(self.folder), previewCase)
        self._launch(["round", *arguments, "-o", str(self.folder)])

    def resume(self, finish: bool = False, device: str = "auto") -> None:
        """Go on where the round stands; ``finish``: train no more, score what there is.

        device: where to compute from here on; ``auto``: where it was begun.
        """
        words = [*(["--finish"] if finish else []), *([] if device == "auto" else ["--device", device])]
        self._launch(["round", "--resume", str(self.folder), *words])

    def follow(self) -> None:
        """Take up a round that another Slicer, or an earlier one, has started.

        A night of training has left megabytes of events. They are told a piece a turn of the event loop, and how the
        round stands is known at once, by their end; the listener hears of it after the last of them.
        """
        self._seen, self._end = _Seen(), self._readEnd()
        if self._end is not None:
            self.state = self._standing(self._end)[0]
        self.look()
        self._timer.start()

    def pause(self) -> None:
        """Ask the process to end with everything saved; it answers within a step of training.

        Raises ResourceError where it cannot be asked.
        """
        try:
            self.stopFile.touch()
        except OSError as error:
            raise disk_error(error, self.stopFile) from error
        self._asked = True

    def kill(self) -> None:
        """End the process by force; the last checkpoint stays.

        Raises TrainingError where another computer trains in the folder: here its number is another process's.
        """
        self._catchUp()
        if self._process is None and self._seen.host not in ("", platform.node()):
            raise TrainingError(
                _("The training runs on the computer {host}; stop it there.").format(host=self._seen.host)
            )
        pids = [p for p in (self._seen.pid, self._process.pid if self._process is not None else 0) if p]
        if pids and self.alive():
            self._ended = True
            endTree(pids)

    def close(self) -> None:
        """Stop following; the process goes on."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self.look)

    def alive(self) -> bool:
        """Whether the process is there, whoever has started it.

        The project's lock may be another round's: it counts as long as this one has not said that it has ended.
        """
        if self._process is not None and self._exitCode is None:
            self._exitCode = self._process.poll()
            if self._exitCode is None:
                return True
        last = (self._end or self._seen).last
        return is_locked(RoundFolder(self.folder).lock().path) or (last not in _ENDS and is_locked(self.lock))

    def look(self) -> None:
        """Read what is new and say where the round stands. Called by the timer."""
        self._asked = os.path.exists(self.stopFile)  # Path's raises where a network drive is gone for a moment
        before, fresh = self._seen.offset, self._take(self._seen)
        behind = self._behind()
        # A file that grows but does not let itself be read must not be asked without a pause.
        self._timer.setInterval(0 if behind and self._seen.offset > before else PERIOD)
        if not behind:
            self._end = None
        for kind, fields in fresh:
            self._note(kind, fields, self._seen)
            try:
                self._listener.onRoundEvent(kind, fields)
            except Exception:  # one event that is not understood must not lose the others
                logging.exception("CAML: an event of the training could not be followed")
        if not behind:
            self._judge()
            self._listener.onRoundLook()

    def _catchUp(self) -> None:
        """Tell at once what is left to be told of before."""
        offset = -1
        while self.catchingUp and self._seen.offset > offset:
            offset = self._seen.offset
            self.look()

    def _launch(self, arguments: list[str]) -> None:
        self._catchUp()
        make_folder(self.folder)
        try:
            self.stopFile.unlink(missing_ok=True)
        except OSError as error:  # left there it would end the process at once
            raise disk_error(error, self.stopFile) from error
        self._asked = self._ended = False
        command = [pythonProgram(), str(Path(Worker.__file__).resolve()), *arguments]
        command += ["--lock", str(self.lock), "--stop-file", str(self.stopFile), "--progress", "none"]
        if self._listsModel:
            command.append(f"--to-models={listing.title_of(self.lock.parent, int(self.folder.name))}")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
        # Threads that wait for each other must not spin: beside other work (Slicer's own) a step took 1.5 times longer.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        apart: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW  # type: ignore[attr-defined]
            apart = {"creationflags": flags}
        try:  # what is told again by a resumed process is told once
            self._seen = _Seen(offset=self.eventsFile.stat().st_size)
        except OSError:
            self._seen = _Seen()
        self._end = None
        try:
            with self._log.open("ab") as log:
                log.write(f"{_BEGIN}\n".encode())
                log.flush()
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, **apart
                )
        except OSError as error:
            raise ResourceError(
                _("The training could not be started ({reason}); check the disk and {program}.").format(
                    reason=error.strerror or error, program=command[0]
                )
            ) from error
        self._exitCode, self._started = None, time.time()
        self._setState("running", _("Starting"))
        self._timer.start()

    def _behind(self) -> bool:
        try:
            return self.eventsFile.stat().st_size > self._seen.offset
        except OSError:
            return False

    def _readEnd(self) -> _Seen | None:
        """Return what the last events of a file say that is longer than one look takes in; None for others."""
        try:
            size = self.eventsFile.stat().st_size
        except OSError:
            return None
        if size <= CHUNK:
            return None
        end = _Seen(offset=size - CHUNK)
        for kind, fields in self._take(end):
            self._note(kind, fields, end)
        return end

    def _take(self, seen: _Seen) -> list[tuple[str, dict[str, Any]]]:
        """Return the events of the next piece of the file; half of a line is none."""
        try:
            with self.eventsFile.open("rb") as stream:
                stream.seek(seen.offset)
                data = stream.read(CHUNK)
        except OSError:
            return []
        seen.offset += len(data)
        *lines, seen.rest = (seen.rest + data).split(b"\n")
        found = (events.decode(line.decode("utf-8", "replace")) for line in lines)
        return [event for event in found if event is not None]

    def _note(self, kind: str, fields: dict[str, Any], seen: _Seen) -> None:
        seen.last, seen.time = kind, float(fields.get("time") or seen.time)
        seen.pid = 0 if kind in _ENDS else int(fields.get("pid") or seen.pid)
        if kind == "started":
            seen.message, seen.exitCode, seen.host = "", 0, str(fields.get("host") or "")
        elif kind == "error":
            message = str(fields.get("message") or "")
            seen.message, seen.exitCode = missingPackage(message) or message, int(fields.get("exit_code") or 1)

    def _judge(self) -> None:
        """Say how the round is."""
        state, message = self._standing(self._seen)
        if state not in ("running", "silent"):
            if self._behind():
                return  # its last words came between the look and the question
            self._timer.stop()
        if state:
            self._setState(state, message)

    def _standing(self, seen: _Seen) -> tuple[str, str]:
        """Tell from the last event and the lock how the round is, and why; empty where nothing tells."""
        if self.alive():
            began = max(seen.time, self._started)
            if time.time() - began > SILENCE:
                return (
                    "silent",
                    _(
                        "No sign of life from the training for {minutes} min: the computer may have slept or is very "
                        "busy. It goes on by itself; press Stop if it does not."
                    ).format(minutes=round((time.time() - began) / 60)),
                )
            if self._asked:
                return "running", _("Pausing: the step at work is finished, and everything is saved.")
            return "running", ""
        if self._ended and seen.last not in _ENDS:
            return "interrupted", self._interruption()
        if self._process is not None and seen.last == "":
            return "failed", self._silentEnd()
        if seen.last == "finished":
            return "finished", ""
        if seen.last == "error" and seen.exitCode == 130:
            return "paused", _("Paused with everything saved; press Resume to go on.")
        if seen.last == "error":
            return "failed", seen.message
        return ("interrupted", self._interruption()) if seen.last else ("", "")

    def _interruption(self) -> str:
        if self._ended:
            return _(
                "The training was ended by force, as you asked. Nothing before the last save is lost: press Resume to "
                "go on."
            )
        if self._endedBySystem():
            return _(
                "The training was ended by the system, most likely for want of memory. Nothing before the last save is "
                "lost: close other programs and press Resume."
            )
        return _(
            "The training ended without a word: its process was killed, or the computer was shut down. Nothing before "
            "the last save is lost: press Resume."
        )

    def _silentEnd(self) -> str:
        """The process died before its first event: its log says why."""
        if self._endedBySystem():
            return _(
                "The training was ended by the system before it could begin, most likely for want of memory; close "
                "other programs and start it again."
            )
        last = self._lastWord() or _("no message")
        return missingPackage(last) or _("The training could not start: {line}").format(line=last)

    def _endedBySystem(self) -> bool:
        """The launcher of Slicer's Python hides it behind a common exit code, and a later Slicer knows no code."""
        return self._exitCode in _ENDED_BY_FORCE or saysAbnormal(self._lastWord())

    def _lastWord(self) -> str:
        """The last line that the round's newest process has left in its log."""
        try:
            text = self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return next(iter(text.rpartition(f"{_BEGIN}\n")[2].strip().splitlines()[-1:]), "")

    def _setState(self, state: str, message: str) -> None:
        if (state, message) != self._told:
            self.state, self._told = state, (state, message)
            self._listener.onRoundState(state, message)


def pauseAll(rounds: Iterable[RoundProcess]) -> None:
    """Ask trainings to end with everything saved, as Slicer quits."""
    for found in dict.fromkeys(rounds):
        try:
            found.pause()
        except CamlError as error:  # nobody is there to read it, and Slicer must quit all the same
            logging.warning("CAML: the training goes on: %s", error)
