"""Many labels checked one after the other, a case a turn of the event loop: the window stays alive meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt

from .Cohort import Cohort


class RoleQueue:
    """Gives cases a role; ``onProgress(done, total)`` after each, ``onEnd(faults)`` with the sentences by case."""

    def __init__(self, onProgress: Callable[[int, int], None], onEnd: Callable[[dict[str, str]], None]) -> None:
        self._onProgress, self._onEnd = onProgress, onEnd
        self._cohort: Cohort | None = None
        self._waiting: list[str] = []
        self._total, self._role = 0, ""
        self._faults: dict[str, str] = {}
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._next)

    @property
    def running(self) -> bool:
        """Whether cases are being checked."""
        return self._cohort is not None

    def start(self, cohort: Cohort, cases: Sequence[str], role: str) -> None:
        """Begin; what is checked when another project is opened belongs to this one still."""
        self._cohort, self._waiting, self._role = cohort, list(cases), role
        self._total, self._faults = len(cases), {}
        self._timer.start()

    def close(self) -> None:
        """Stop."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._next)
        self._cohort = None

    def _next(self) -> None:
        if self._cohort is None:
            return
        if not self._waiting:
            self._timer.stop()
            self._cohort = None
            self._onEnd(self._faults)
            return
        self._faults |= self._cohort.setRole([self._waiting.pop(0)], self._role)
        self._onProgress(self._total - len(self._waiting), self._total)
