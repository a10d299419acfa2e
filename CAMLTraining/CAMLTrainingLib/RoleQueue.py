"""Many labels checked one after the other, a case a turn of the event loop: the window stays alive meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import qt

from caml_core.errors import CamlError

from .Cohort import Cohort

#: After so many cases the project is written: what was checked must not be lost with Slicer.
SAVE_EVERY = 5


class RoleQueue:
    """Gives cases a role and saves their project; ``onProgress(done, total)`` after each, ``onEnd(sentences)`` with
    what is wrong.
    """

    def __init__(self, onProgress: Callable[[int, int], None], onEnd: Callable[[list[str]], None]) -> None:
        self._onProgress, self._onEnd = onProgress, onEnd
        self._cohort: Cohort | None = None
        self._waiting: list[str] = []
        self._total, self._role, self._asPredicted, self._unsaved = 0, "", False, 0
        self._faults: dict[str, str] = {}
        self._unwritten = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._next)

    @property
    def running(self) -> bool:
        """Whether cases are being checked."""
        return self._cohort is not None

    def start(self, cohort: Cohort, cases: Sequence[str], role: str, asPredicted: bool = False) -> None:
        """Begin; what is checked when another project is opened belongs to this one still."""
        self._cohort, self._waiting, self._role, self._asPredicted = cohort, list(cases), role, asPredicted
        self._total, self._faults, self._unsaved, self._unwritten = len(cases), {}, 0, ""
        self._timer.start()

    def save(self) -> None:
        """Write what was checked to its own project, whichever is open; a fault is told at the end."""
        if self._cohort is None or not self._unsaved:
            return
        try:
            self._cohort.project.save()
            self._unsaved, self._unwritten = 0, ""
        except CamlError as error:
            self._unwritten = str(error)

    def follow(self, cohort: Cohort) -> None:
        """Go on with a project that was read anew meanwhile: two copies of one would not let each other save."""
        if self._cohort is not None and self._cohort.project.folder == cohort.project.folder:
            self._cohort = cohort

    def close(self) -> None:
        """Stop; what was checked is kept."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._next)
        self.save()
        if self._unwritten:
            logging.warning("CAML: roles could not be saved: %s", self._unwritten)
        self._cohort = None

    def _next(self) -> None:
        if self._cohort is None:
            return
        if not self._waiting:
            self._end()
            return
        self._faults |= self._cohort.setRole([self._waiting.pop(0)], self._role, self._asPredicted)
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save()
        self._onProgress(self._total - len(self._waiting), self._total)

    def _end(self) -> None:
        self._timer.stop()
        self.save()
        self._cohort = None
        self._onEnd([*self._faults.values(), *([self._unwritten] if self._unwritten else [])])
