"""Progress as ASCII JSON lines: what a panel, a file or a progress bar can follow. Standard library only."""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from .errors import ResourceError

#: What listens to a training or a prediction. Called as ``listener(kind, fields)``.
Listener = Callable[[str, dict[str, Any]], None]

#: Every kind of event there is, with what it carries; those of a round (``caml round``) say to which ``part`` they
#: belong, too: "caml", "labeled-only", "fold-1", ..., or "" for the round itself.
KINDS = {
    "started": "command, pid, host, version",
    "stage": "name, detail, and case where it is a stage of one case",
    "progress": "done, total, unit, seconds_left, and case (the one at work) where there is one",
    "step": "iteration, total, losses, learning_rate, seconds_left",
    "validation": "iteration, cases, dice (mean and per segment), by sub-model",
    "checkpoint": "iteration, path",
    "preview": "case, path, iteration: the case's segmentation by the current weights was written",
    "scores": "row, count, summary: figures of held-out cases at full resolution",
    "case": "case, output, volumes_ml, agreement, score, seconds, window (voxels of the network's grid); where parts "
    "were left out, removed_ml; where asked for, surface_mm2 and components",
    "heartbeat": "pid, iteration",
    "warning": "message, case where it concerns one, exit_code where that case failed, and misfit (true) where its "
    "images are not like those that the model was made for",
    "log": "message",
    "error": "message, exit_code",
    "finished": "result",
}


def silent(kind: str, fields: dict[str, Any]) -> None:
    """The listener that does not listen."""


def encode(kind: str, fields: dict[str, Any]) -> str:
    """Return one event as one line of ASCII JSON with a time stamp, without the line's end."""
    if kind not in KINDS:
        msg = f"event kind must be one of {sorted(KINDS)}, got {kind!r}"
        raise ValueError(msg)
    return json.dumps({"event": kind, "time": round(time.time(), 3), **_finite(fields)}, ensure_ascii=True)


def decode(line: str) -> tuple[str, dict[str, Any]] | None:
    """Return (kind, fields) of a line, or None where the line is no event (a library's print, a torn line)."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or fields.get("event") not in KINDS:
        return None
    return fields.pop("event"), fields


#: Events that nothing follows which could bring them along, and how often and after how many seconds they are tried.
_LAST, _LAST_TRIES, _PAUSE = ("finished", "error"), 20, 0.1
#: Seconds that events may wait for their file.
_MOST_HELD = 60.0


class JsonLines:
    """A listener that writes each event as one line to an open text stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            self._stream.write(encode(kind, fields) + "\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError) as error:
            # The parent has gone (Slicer was closed); the work goes on and the events file still tells.
            if isinstance(error, ValueError) and not self._stream.closed:
                raise


class EventFile:
    """A listener that appends each event to a file with one write, so that a reader never sees half a line twice.

    Where another program holds the file, events wait for the next one, for a while: that must not end a training.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = b""
        self._held_since = 0.0

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        line = (encode(kind, {**fields, "pid": os.getpid()}) + "\n").encode("ascii")
        for left in reversed(range(_LAST_TRIES if kind in _LAST else 1)):
            try:
                self._append(self._held + line)
                self._held = b""
                return
            except ResourceError as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                if left:
                    time.sleep(_PAUSE)
                    continue
                self._hold(line, error)

    def _hold(self, line: bytes, error: ResourceError) -> None:
        if not self._held:
            self._held_since = time.monotonic()
        elif time.monotonic() - self._held_since > _MOST_HELD:
            raise error
        self._held += line

    def _append(self, line: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ResourceError(
                f"Cannot write {self.path} ({error.strerror}); free disk space or allow writing there, then resume."
            ) from error


class LateEventFile(EventFile):
    """An events file that is not touched before ``open``, which then writes what was told until then.

    A process that is refused, because another one is at work in the same folder, leaves no trace there. ``part`` is
    what events belong to that do not say it themselves.
    """

    def __init__(self, path: Path, part: str) -> None:
        super().__init__(path)
        self._part = part
        self._waiting: list[tuple[str, dict[str, Any]]] | None = []

    def open(self) -> None:
        """Begin to write; a line that was torn when the disk was full, or the machine went down, is ended first."""
        if _is_torn(self.path):
            self._append(b"\n")
        waiting, self._waiting = self._waiting or [], None
        for kind, fields in waiting:
            self(kind, fields)

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        if self._waiting is not None:
            self._waiting.append((kind, fields))
        else:
            super().__call__(kind, {"part": self._part, **fields})


def _is_torn(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # not there, or empty
        return False


def fan_out(*listeners: Listener) -> Listener:
    """Return a listener that tells all of ``listeners``, in order."""

    def tell(kind: str, fields: dict[str, Any]) -> None:
        for listener in listeners:
            listener(kind, fields)

    return tell


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: both become null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
