"""Scans that the scene alone has, written one a turn of the event loop: the window stays alive, and Stop is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from caml_core.errors import CamlError

from .Cohort import Cohort

#: Seconds after which a turn ends in which nothing was written: volumes and files may have to be compared.
_TURN = 0.1


class ScanQueue:
    """Sees to it that the cases of a cohort have files, as ``Cohort.ensureFile`` does; one queue at a time."""

    def __init__(self) -> None:
        self._cohort: Cohort | None = None
        self._done: set[str] = set()
        self._written = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(0)

    @property
    def running(self) -> bool:
        """Whether scans are being written."""
        return self._cohort is not None

    def start(
        self,
        cohort: Cohort,
        cases: Callable[[], Sequence[str]],
        onText: Callable[[str], None],
        onFault: Callable[[str, CamlError], None],
        onEnd: Callable[[], None],
    ) -> None:
        """Begin; where no scan is known to lack its file all is done before this returns.

        cases: which of the cohort's there are to write; asked in each turn, as some may come or go. onText: how far it
        is. onFault: gets a case and what is wrong with it; the others go on unless it calls ``stop``. onEnd: all have
        been seen to.
        """
        self._cohort, self._cases, self._done, self._written = cohort, cases, set(), 0
        self._onText, self._onFault, self._onEnd = onText, onFault, onEnd
        self._timer.connect("timeout()", self._next)
        self._timer.start()
        if self._tell():
            return  # it is read before the first one is written
        self._next()

    def stop(self) -> None:
        """End; files that were written stay, whole, and the project knows them."""
        if self._cohort is not None:
            self._cohort = None
            self._timer.stop()
            self._timer.disconnect("timeout()", self._next)

    def _next(self) -> None:
        end, written = time.monotonic() + _TURN, self._written
        for case in self._left():
            self._write(case)
            if self._cohort is None:
                return
            if self._written > written or time.monotonic() >= end:
                self._tell()
                return
        self.stop()
        self._onEnd()

    def _left(self) -> list[str]:
        return [case for case in self._cases() if case not in self._done]

    def _write(self, case: str) -> None:
        self._done.add(case)
        if self._cohort is None or case not in self._cohort.project.cases:  # it went with its volume
            return
        project = self._cohort.project
        before = project.cases[case].images
        try:
            self._cohort.ensureFile(case)
            if project.cases[case].images != before:
                self._written += 1
                project.save()  # a file that the project does not know would be written once more
        except CamlError as error:
            self._onFault(case, error)

    def _tell(self) -> bool:
        """Say how far it is, and return whether there are scans of which it is known that they have no file."""
        cases = self._cohort.project.cases if self._cohort is not None else {}
        left = sum(case in cases and not cases[case].images for case in self._left())
        if left or self._written:
            text = _("Writing scans: {done} of {total}").format(done=self._written, total=self._written + left)
            self._onText(text)
        return bool(left)
