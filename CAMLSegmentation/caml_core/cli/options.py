"""Options that several sub-commands share, and what they become: a listener, a stop request, a number of seconds."""

from __future__ import annotations

import argparse
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from .. import __version__
from ..errors import CamlError, Cancelled, ResourceError, UsageError
from ..events import JsonLines, Listener
from .parent import ParentProcess
from .progress import ProgressBar, warnings_only
from .streams import lasting, show

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT_NAMES = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
_DURATION_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
LONGEST_DURATION = 366 * 86400.0


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` (``args.device``) and ``--threads`` (``args.threads``)."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda|cuda:N|mps",
        help="where to compute; auto takes the best there is (default: auto)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(0, 1024),
        default=0,
        metavar="N",
        help="processor threads; 0 leaves the choice to PyTorch (default: 0)",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed`` (``args.seed``)."""
    parser.add_argument(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="seed of everything that is drawn by chance (default: 0)",
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add ``--progress`` (``args.progress``), ``--stop-file`` and ``--parent-pid`` (for a ``StopRequest``)."""
    parser.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="a progress bar on stderr, JSON lines on stdout, or warnings alone (default: bar)",
    )
    parser.add_argument(
        "--stop-file",
        type=Path,
        default=None,
        metavar="FILE",
        help="end in good order as soon as this file exists",
    )
    parser.add_argument(
        "--parent-pid",
        type=whole_number(1, 2**32 - 1),
        default=None,
        metavar="PID",
        help="end in good order when this process has ended, such as the Slicer that waits for the result",
    )


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number between ``least`` and ``most``, both included."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
        return value

    return parse


def parse_duration(text: str) -> float:
    """Return the seconds of ``90m``, ``1h30m``, ``20 min``, ``1.5 hours``; raise UsageError for anything else."""
    seconds, position = 0.0, 0
    stripped = text.strip()
    while position < len(stripped):
        part = _DURATION_PART.match(stripped, position)
        unit = _UNIT_NAMES.get(part.group(2).lower()) if part else None
        if part is None or unit is None:
            raise UsageError(f"{text!r} is not a duration; write it with its unit, such as 90m, 1h30m or 20 min.")
        seconds += float(part.group(1)) * _UNITS[unit]
        position = part.end()
    if not 0 < seconds <= LONGEST_DURATION:
        raise UsageError(f"The duration {text!r} must be longer than nothing and at most a year, such as 90m or 1h30m.")
    return seconds


def duration(text: str) -> float:
    """Argparse type of a duration, in seconds."""
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@contextmanager
def reporting(args: argparse.Namespace, *more: Listener) -> Iterator[Listener]:
    """Yield the listener that ``--progress`` asks for (with ``more`` after it).

    Tells it that the command started, and the error that ends the block where there is one; the error goes on to
    the caller. The command itself reports what it does and ``finished``.
    """
    chosen = _listener(args.progress)
    listeners = (chosen, *more)

    def tell(kind: str, fields: dict[str, Any]) -> None:
        for listener in listeners:
            listener(kind, fields)

    try:
        tell("started", {"command": args.command, "pid": os.getpid(), "host": platform.node(), "version": __version__})
        yield tell
    except CamlError as error:
        _tell_error(listeners, str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        _tell_error(listeners, "Interrupted.", 130)
        raise
    except Exception as error:
        from ..device import out_of_memory

        if out_of_memory(error):
            fault = ResourceError(f"Memory ran out ({error}). Close other programs and scenes, then start this again.")
            _tell_error(listeners, str(fault), fault.exit_code)
            raise fault from error
        _tell_error(listeners, f"Unexpected fault: {type(error).__name__}: {error}", 1)
        raise
    finally:
        if isinstance(chosen, ProgressBar):
            chosen.close()


def _tell_error(listeners: Sequence[Listener], message: str, exit_code: int) -> None:
    """An events file that cannot be written, perhaps the very reason of the error, must not hide it."""
    for listener in listeners:
        try:
            listener("error", {"message": message, "exit_code": exit_code})
        except CamlError:
            continue


def say(text: str) -> None:
    """Print ``text`` on stdout; what its code page lacks, and what would steer the terminal, is written as an escape.

    Names of files and segments, and what a stranger wrote on a model's card, must neither end a command that is done
    nor clear a screen. Lines stay lines.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in text)
    code_page = getattr(sys.stdout, "encoding", None) or "ascii"
    show(shown.encode(code_page, "backslashreplace").decode(code_page))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class StopRequest:
    """Says whether the work was asked to end: by the stop file, by SIGTERM, by Ctrl-C, or by the end of the process
    that waits for it. Call it to ask.

    As a context manager it catches the signals. The first one asks for an end in good order; a second Ctrl-C
    interrupts at once. Outside the main thread, where Python cannot catch signals, file and process alone count.
    """

    #: A stop file on a network drive must not be asked for at every training step.
    _PAUSE = 0.25
    _PARENT_PAUSE = 2.0

    def __init__(self, stop_file: Path | None = None, parent_pid: int | None = None) -> None:
        self.stop_file = stop_file
        self.reason = ""
        self._parent = None if parent_pid is None else ParentProcess(parent_pid)
        self._file_due = self._parent_due = 0.0
        self._previous: dict[int, Any] = {}

    def __call__(self) -> bool:
        if not self.reason:
            self.reason = self._found()
        return bool(self.reason)

    def _found(self) -> str:
        now = time.monotonic()
        if self.stop_file is not None and now >= self._file_due:
            self._file_due = now + self._PAUSE
            if os.path.exists(self.stop_file):  # Path's raises where a network drive is gone for a moment
                return "the stop file appeared"
        if self._parent is not None and now >= self._parent_due:
            self._parent_due = now + self._PARENT_PAUSE
            if not self._parent.alive():
                return f"the process {self._parent.pid} that waited for the result has ended"
        return ""

    def __enter__(self) -> StopRequest:
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                self._previous[number] = signal.signal(number, self._on_signal)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.reason = f"{signal.Signals(number).name} was received"


def check_stop(stop: Callable[[], bool]) -> None:
    """Raise Cancelled where an end was asked for: for commands of a few steps, between which nothing is half done."""
    if stop():
        raise Cancelled("Stopped; nothing was written.")


def stoppable(listener: Listener, stop: Callable[[], bool]) -> Listener:
    """Return a listener that tells ``listener``, and raises Cancelled where an end was asked for (``check_stop``)."""

    def told(kind: str, fields: dict[str, Any]) -> None:
        listener(kind, fields)
        check_stop(stop)

    return told


def _listener(progress: str) -> Listener:
    if progress == "json":
        return JsonLines(lasting(sys.stdout))
    stream = lasting(sys.stderr)
    return ProgressBar(stream) if progress == "bar" else warnings_only(stream)
