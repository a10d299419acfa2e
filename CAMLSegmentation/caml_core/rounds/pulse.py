"""Signs of life: a reader of the events can tell a process that works on something long from one that is gone."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from ..errors import CamlError
from ..events import Listener

#: Seconds without any heartbeat after which one is told.
SECONDS = 10.0


class Pulse:
    """A listener that hands on what it is told, one event at a time, and adds heartbeats while nothing else does.

    As a context manager it beats until the end of the block.
    """

    def __init__(self, listener: Listener, seconds: float | None = None) -> None:
        self._listener = listener
        self._seconds = SECONDS if seconds is None else seconds
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beat_at = time.monotonic()
        self._fields: dict[str, Any] = {}

    def __call__(self, kind: str, fields: dict[str, Any]) -> None:
        with self._lock:
            if kind == "finished":  # nothing comes after it
                self._ended.set()
            self._fields = {k: fields[k] for k in ("part", "iteration") if k in fields} or self._fields
            if kind == "heartbeat":
                self._beat_at = time.monotonic()
            self._listener(kind, fields)

    def __enter__(self) -> Pulse:
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds / 10):
            if time.monotonic() - self._beat_at >= self._seconds:
                self._beat()

    def _beat(self) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self._beat_at = time.monotonic()
            try:
                self._listener("heartbeat", dict(self._fields))
            except CamlError:  # the thread that works meets the same disk and tells of it
                return


def for_part(listener: Listener, part: str) -> Listener:
    """Return a listener that says of each event to which part of the round it belongs."""

    def tell(kind: str, fields: dict[str, Any]) -> None:
        listener(kind, {**fields, "part": part})

    return tell
