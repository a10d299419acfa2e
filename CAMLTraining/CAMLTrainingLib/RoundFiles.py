"""What the files of a round tell without a process: whether it can go on, and whether there is something to finish."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from caml_core import events
from caml_core.data.files import disk_error, replacing
from caml_core.locking import is_locked
from caml_core.rounds.round_folder import MAIN, RoundFolder

#: File in the folder of a round that was stopped before it had learnt anything.
GIVEN_UP = "given-up"
#: Bytes at the end of the events that hold the last one.
_TAIL = 2**16


def isOpen(folder: Path) -> bool:
    """Whether a round was begun and neither ended nor was given up; between result and report it is open still."""
    files = RoundFolder(folder)
    if not os.path.isfile(files.round) or os.path.exists(folder / GIVEN_UP):
        return False
    if not os.path.isfile(files.result):
        return True
    # A round whose report failed has ended, too, and has said so.
    return _lastEvent(files.events) != "finished" and (files.read_result() or {}).get("report") is None


def toFollow(folders: Sequence[Path], atWork: bool) -> Path | None:
    """Return which of a project's rounds is at work or waits to go on, else the newest one; None where there is none.

    atWork: whether the project's lock is held. Who holds it has that of its round as well, be it an older one; the
    newest round may have taken the project's alone so far, and said nothing yet.
    """
    if atWork:
        waiting = [f for f in folders if is_locked(RoundFolder(f).lock().path)] or list(folders[-1:])
    else:
        waiting = [folder for folder in folders if isOpen(folder)]
    told = [f for f in folders if os.path.isfile(RoundFolder(f).events) and not os.path.exists(f / GIVEN_UP)]
    return next(iter((waiting or told)[-1:]), None)


def setPreviewCase(folder: Path, case: str) -> None:
    """Tell a round on which case it is to show its progress; raise ResourceError."""
    if os.path.isdir(folder):
        with replacing(folder / "preview-case.txt") as temporary:
            temporary.write_text(case, encoding="utf-8")


def hasResult(folder: Path) -> bool:
    """Whether there are figures and a model, be the report there or not."""
    return os.path.isfile(RoundFolder(folder).result)


def learnt(folder: Path) -> bool:
    """Whether the main training has made a step, so that there is something to finish."""
    main = RoundFolder(folder).part(MAIN)
    if os.path.isfile(main.outcome):  # its checkpoint went when it ended; baseline or folds may be at work
        return True
    return os.path.isfile(main.checkpoint) and _hasSavedStep(folder)


def giveUp(folder: Path) -> None:
    """Mark a round so that it is not taken up again; raise ResourceError where its folder cannot be written."""
    mark = folder / GIVEN_UP
    try:
        mark.touch()
    except OSError as error:
        raise disk_error(error, mark) from error


def _hasSavedStep(folder: Path) -> bool:
    """Whether a checkpoint was written after a step; the first one is written before any."""
    try:
        with RoundFolder(folder).events.open("rb") as stream:
            saves = [events.decode(line.decode("utf-8", "replace")) for line in stream if b'"checkpoint"' in line]
    except OSError:
        return False
    return any(
        kind == "checkpoint" and fields.get("part") == MAIN and int(fields.get("iteration") or 0) > 0
        for kind, fields in filter(None, saves)
    )


def _lastEvent(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    found = (events.decode(line) for line in reversed(lines))
    return next((event[0] for event in found if event is not None), "")
