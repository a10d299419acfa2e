"""The rounds of a project, as they lie in its folder. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULT = "result.json"


@dataclass(frozen=True)
class Row:
    """One line of a result.

    ``dice`` and ``hd95_mm`` are segment -> (mean, spread), ``cases`` is case -> segment -> metrics.
    """

    name: str
    count: int
    dice: dict[str, tuple[float, float]]
    hd95_mm: dict[str, tuple[float, float]]
    iterations: int = 0
    seconds: float = 0.0
    cases: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    @property
    def mean_dice(self) -> float | None:
        """Mean over the segments."""
        return sum(mean for mean, _ in self.dice.values()) / len(self.dice) if self.dice else None


@dataclass(frozen=True)
class Round:
    """One training. ``finished`` tells whether there is a result; ``words`` says how far its figures go."""

    number: int
    folder: Path
    finished: bool
    labeled: int = 0
    unlabeled: int = 0
    validation: int = 0
    minutes: float = 0.0
    words: str = ""
    ended: str = ""
    rows: tuple[Row, ...] = ()

    def row(self, name: str) -> Row | None:
        """Return the row "start", "labeled-only", "caml" or "cross-validation"."""
        return next((row for row in self.rows if row.name == name), None)

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / "model.caml"

    @property
    def report(self) -> Path:
        """The picture report."""
        return self.folder / "report" / "index.html"


def read_rounds(folder: Path) -> tuple[Round, ...]:
    """Return the rounds below ``folder`` by number; what cannot be read is a round without a result."""
    try:
        found = sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())
    except OSError:
        return ()
    return tuple(read_round(path) for path in found)


def read_round(folder: Path) -> Round:
    """Return one round."""
    number = int(folder.name) if folder.name.isdigit() else 0
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        rows = tuple(_row(row) for row in content["rows"])
        main = next((row for row in rows if row.name == "caml"), None)
        return Round(
            number,
            folder,
            True,
            int(content.get("labeled") or 0),
            int(content.get("unlabeled") or 0),
            int(content.get("validation") or 0),
            main.seconds / 60 if main is not None else 0.0,
            str(content.get("words") or ""),
            str(content.get("ended") or ""),
            rows,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Round(number, folder, False)


def _row(content: Mapping[str, Any]) -> Row:
    def column(name: str) -> dict[str, tuple[float, float]]:
        return {
            segment: (float(metrics[name]["mean"]), float(metrics[name]["std"]))
            for segment, metrics in (content.get("summary") or {}).items()
            if isinstance(metrics.get(name), Mapping)
        }

    return Row(
        str(content["name"]),
        int(content.get("count") or 0),
        column("dice"),
        column("hd95_mm"),
        int(content.get("iterations") or 0),
        float(content.get("seconds") or 0.0),
        content.get("cases") or {},
    )
