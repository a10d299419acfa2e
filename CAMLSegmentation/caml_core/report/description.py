"""What a report is made of, as values that travel as JSON. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..serialization import from_json, read_json


@dataclass(frozen=True)
class ReportedRun:
    """A training, and the folder of its segmentations of the section's cases where there is one."""

    name: str
    run: Path
    predictions: Path | None = None


@dataclass(frozen=True)
class Section:
    """Trainings to show side by side; ``cases`` lists scans with references to judge their segmentations by."""

    title: str
    runs: tuple[ReportedRun, ...]
    text: str = ""
    cases: Path | None = None

    def __post_init__(self) -> None:
        names = [run.name for run in self.runs]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"The report's section {self.title!r} needs runs of different names, got {names}.")
        if self.cases is not None and any(run.predictions is None for run in self.runs):
            raise UsageError(
                f"The report's section {self.title!r} lists cases; name the folder of each run's segmentations."
            )


@dataclass(frozen=True)
class Description:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]
    text: str = ""


def read_description(path: Path) -> Description:
    """Read a description; its paths are relative to the file."""
    return relative_to(from_json(Description, read_json(path), path.name), path.parent)


def relative_to(description: Description, folder: Path) -> Description:
    """Return the description with its paths taken from ``folder``."""

    def section(old: Section) -> Section:
        runs = tuple(
            dataclasses.replace(r, run=folder / r.run, predictions=r.predictions and folder / r.predictions)
            for r in old.runs
        )
        return dataclasses.replace(old, runs=runs, cases=old.cases and folder / old.cases)

    return dataclasses.replace(description, sections=tuple(map(section, description.sections)))
