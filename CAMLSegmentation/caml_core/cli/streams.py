"""Streams whose reader may go away: Ctrl-C ends ``tee`` as well, a disk fills, a terminal was never there."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO, cast

from ..errors import ResourceError

#: What systems say of a pipe that nobody reads any more; Windows the latter.
_NOBODY_READS = {errno.EPIPE, errno.EINVAL}


def lasting(stream: TextIO | None) -> TextIO:
    """Return a stream that writes to ``stream`` what can be written, and drops the rest.

    The work that is told of goes on, or ends in good order with everything saved. stream: None where there is none, as
    in a process without a console.
    """
    return cast(TextIO, _Lasting(stream))


class _Lasting:
    """The stream of ``lasting``."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` where that can be done, and return its length."""
        if self._stream is not None:
            try:
                self._stream.write(text)
            except OSError:
                pass
        return len(text)

    def flush(self) -> None:
        """Hand on what was written, where that can be done."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except OSError:
                pass

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show(text: str) -> None:
    """Print a result; raise BrokenPipeError where nobody reads it any more, ResourceError where there is no room."""
    try:
        print(text)
    except OSError as error:
        raise _fault(error) from error


def finish(code: int) -> int:
    """Flush both streams, as Python would complain at its end, and return the exit code.

    It is ``code``, but for a result that did not reach its place, such as a file on a full disk; that is then said.
    """
    found: Exception | None = None
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            found = found or _fault(error)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if code or not isinstance(found, ResourceError):
        return code
    lasting(sys.stderr).write(f"caml: {found}\n")
    return found.exit_code


def _fault(error: OSError) -> BrokenPipeError | ResourceError:
    if error.errno in _NOBODY_READS:
        return BrokenPipeError(error.errno, error.strerror)
    return ResourceError(f"What was found could not be printed ({error.strerror or error}); print it elsewhere.")
