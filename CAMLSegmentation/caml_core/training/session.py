"""What surrounds a training: who listens, who may end it, where prepared cases are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache_location import user_cases_folder
from ..data.memos import Memos, memos_of
from ..errors import Cancelled
from ..events import Listener
from .trainer import Observer


def _kept_nowhere(sentence: str) -> None:
    """What is to be kept beside figures, where nobody keeps it."""


@dataclass(frozen=True)
class Session:
    """What surrounds a training: who listens, who may end it, where prepared cases are kept.

    ``observer`` is told of each live validation; ``keep`` is a folder for the held-out cases' segmentations; ``note``
    takes sentences that whoever sees the figures should know. ``way_out``: a sentence on what else may be done where a
    training that has learnt something cannot go on.
    """

    listener: Listener
    stop: Callable[[], bool]
    cache_folder: Path | None = None
    name: str = ""
    observer: Observer | None = None
    keep: Path | None = None
    note: Callable[[str], None] = _kept_nowhere
    way_out: str = ""

    def checking(self, kind: str, fields: dict[str, Any]) -> None:
        """Hand an event on, and end there where asked to: of work that only its events interrupt."""
        self.listener(kind, fields)
        self.check_stop()

    def check_stop(self) -> None:
        """Raise Cancelled where asked to stop: before the training, when nothing is to be resumed yet."""
        if self.stop():
            raise Cancelled("Stopped before the training began; start it again with the same command.")


def cases_folder(chosen: Path | None) -> Path:
    """Return where prepared cases are kept, and what was seen of them (``chosen`` None: the user's own place)."""
    return chosen or user_cases_folder()


def case_memos(cache_folder: Path | None) -> Memos:
    """Return what is known of cases that were looked at, in the cache ``cache_folder`` (None: the user's own)."""
    return memos_of(cases_folder(cache_folder))
