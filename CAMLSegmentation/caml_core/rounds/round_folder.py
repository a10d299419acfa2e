"""The folder of one round: its files, and what may happen to it. Imports no PyTorch: a panel reads rounds, too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..data.case import Cohort
from ..data.cohort import load_cohort, save_cohort
from ..data.files import relative_to, replacing
from ..errors import TrainingError, UsageError
from ..locking import FileLock
from ..serialization import from_json, read_json, to_json, write_json
from ..training.run_folder import RunFolder
from .request import RoundRequest

FORMAT = 1
#: Parts of a round, as events name them, and as their folders are called. Folds are "fold-1", "fold-2", ...
MAIN, BASELINE, FOLD = "caml", "labeled-only", "fold-"


class RoundFolder:
    """Paths within a round's folder, and reading and writing of what it begins with."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.round = self.path / "round.json"
        self.cohort = self.path / "cohort.json"
        self.events = self.path / "events.jsonl"
        self.start = self.path / "start.caml"
        self.preview_case = self.path / "preview-case.txt"
        self.preview = self.path / "preview.seg.nrrd"
        self.start_scores = self.path / "start-scores.json"
        self.notes = self.path / "notes.json"
        self.result = self.path / "result.json"
        self.report = self.path / "report" / "index.html"
        self.model = self.path / "model.caml"
        #: Segmentations of the held-out cases, a folder for each row of the result.
        self.segmentations = self.path / "held-out"

    def part(self, name: str) -> RunFolder:
        """Return the folder of one of the round's trainings."""
        return RunFolder(self.path / name)

    def lock(self) -> FileLock:
        """Return the lock that keeps a second process out of this round."""
        return FileLock(
            self.path / "lock", f"Another process is at work on the round in {self.path}; wait for it, or stop it."
        )

    @property
    def exists(self) -> bool:
        """Whether there is a round in the folder."""
        return os.path.isfile(self.round)  # Path's raises where a network drive is gone for a moment

    def create(self, cohort: Cohort, request: RoundRequest, start: Path | None) -> None:
        """Write what the round is made of; ``round.json`` comes last and makes it a round.

        Raises UsageError where the folder holds a round, ResourceError where it cannot be written.
        """
        if self.exists:
            raise UsageError(f"{self.path} already holds a round; resume it with --resume, or name another folder.")
        save_cohort(cohort, self.cohort)
        if start is not None:  # a resumed round must not depend on a model that was moved meanwhile
            with replacing(self.start) as temporary:
                shutil.copyfile(start, temporary)
        save_json(self.round, {"format": FORMAT, "cohort": relative_to(cohort.source, self.path), "request": request})

    def read_request(self) -> RoundRequest:
        """Return what was asked for; raise TrainingError where there is no round, or one of a newer version."""
        if not self.exists:
            raise TrainingError(f"{self.path} holds no round; name a folder that caml round has made.")
        content = read_json(self.round)
        if not isinstance(content, dict) or not isinstance(content.get("format"), int):
            raise TrainingError(f"{self.round} is damaged; start the round anew in another folder.")
        if content["format"] > FORMAT:
            raise TrainingError(f"{self.path} was made by a newer version; update the extension to resume it.")
        return from_json(RoundRequest, content.get("request"), "request")

    def cache(self, request: RoundRequest) -> Path | None:
        """Return where prepared cases are kept; None: the user's own place."""
        return self.path / request.cache if request.cache else None

    def read_cohort(self) -> Cohort:
        """Return the cohort with the roles that were fixed at the start; its files need not be there any more."""
        return load_cohort(self.cohort, files=False)

    def read_result(self) -> dict[str, Any] | None:
        """Return the round's result, None where there is none yet."""
        return read_object(self.result)

    def add_notes(self, notes: Iterable[str]) -> None:
        """Keep sentences that the report shows; each once."""
        kept = list(dict.fromkeys([*self.read_notes(), *notes]))
        save_json(self.notes, {"notes": kept})

    def read_notes(self) -> list[str]:
        """Return the sentences kept so far."""
        return [str(note) for note in (read_object(self.notes) or {}).get("notes", [])]


def save_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; raise ResourceError where the disk fails."""
    with replacing(path) as temporary:
        write_json(temporary, to_json(value))


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a file; None where there is no file, or none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
