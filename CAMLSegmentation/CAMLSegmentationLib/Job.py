"""What a run consists of, as plain values, and the command line that carries it out. Standard library only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import save_cohort

QUALITIES = ("fast", "balanced", "best")
SUB_MODELS = ("auto", "v", "a", "mean")
#: Keep the largest part of each segment alone: as the labels were that the model learned from, yes, no.
PARTS = ("auto", "largest", "all")
#: What happens where the volume already has a result of the same model.
EXISTING = ("update", "add")
#: Settings that are one of some words.
CHOICES = {"quality": QUALITIES, "subModel": SUB_MODELS, "parts": PARTS, "existing": EXISTING}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Settings:
    """How to segment. ``device``: "auto" or PyTorch's name; ``smallestIslandMl``: 0 keeps all parts."""

    device: str = "auto"
    quality: str = "balanced"
    subModel: str = "auto"
    parts: str = "auto"
    smallestIslandMl: float = 0.0
    fillHoles: bool = False
    disagreement: bool = True
    probability: bool = False
    existing: str = "update"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                msg = f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        if not 0.0 <= self.smallestIslandMl < float("inf"):
            msg = f"smallestIslandMl must be a volume in mL, got {self.smallestIslandMl!r}"
            raise ValueError(msg)

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Return settings with ``values``; a name that is none raises TypeError with those that are."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            msg = f"unknown setting {unknown[0]!r}; expected one of {', '.join(known)}"
            raise TypeError(msg)
        return cls(**values)


@dataclass(frozen=True)
class JobFiles:
    """Where the files of one worker lie, all below ``folder``."""

    folder: Path

    @property
    def inputs(self) -> Path:
        """Exported volumes."""
        return self.folder / "inputs"

    @property
    def outputs(self) -> Path:
        """What the worker writes."""
        return self.folder / "outputs"

    @property
    def regions(self) -> Path:
        """Where cases may be labelled, of those that are limited to a turned region."""
        return self.folder / "regions"

    def region(self, caseId: str) -> Path:
        """Return the label map of a case's region."""
        return self.regions / f"{caseId}.nrrd"

    def labels(self, caseId: str, outputs: Path | None = None, suffix: str = "nrrd") -> Path:
        """Return the label map of a case."""
        return (outputs or self.outputs) / f"{caseId}.{suffix}"

    def extra(self, caseId: str, kind: str) -> Path:
        """Return a map of ``kind`` ("disagreement", "probability") of a case."""
        return self.outputs / f"{caseId}_{kind}.nrrd"


def caseId(name: str, taken: Iterable[str]) -> str:
    """Return a file name for a volume called ``name`` that is none of ``taken``, ignoring case."""
    base = _UNSAFE.sub("_", name).strip("._-")[:60] or "volume"
    used = {other.casefold() for other in taken}
    candidate, number = base, 2
    while candidate.casefold() in used:
        candidate, number = f"{base}-{number}", number + 1
    return candidate


def writeCaseList(path: Path, images: Sequence[tuple[str, Sequence[Path]]]) -> None:
    """Write the list of (id, one image a channel) that ``caml predict`` reads."""
    cases = tuple(Case(name, tuple(paths), None, "unlabeled") for name, paths in images)
    save_cohort(Cohort(cases, path), path)


def predictArguments(
    model: Path,
    caseList: Path,
    outputs: Path,
    settings: Settings,
    *,
    stopFile: Path,
    segmentations: bool = False,
    within: Path | None = None,
) -> list[str]:
    """Return the arguments of ``caml`` for a list of cases.

    segmentations: write .seg.nrrd, not label maps. within: a folder that says where cases may be labelled.
    """
    arguments = ["predict", str(model), str(caseList), "-o", str(outputs)]
    arguments += ["--format", "seg.nrrd" if segmentations else "nrrd", "--measures", "--percent"]
    arguments += ["--device", settings.device, "--quality", settings.quality, "--sub-model", settings.subModel]
    arguments += ["--smallest-island", f"{settings.smallestIslandMl:g}"]
    arguments += ["--within", str(within)] if within is not None else []
    for wanted, option in (
        (settings.parts == "largest", "--largest-component"),
        (settings.parts == "all", "--no-largest-component"),
        (settings.fillHoles, "--fill-holes"),
        (settings.disagreement, "--uncertainty"),
        (settings.probability, "--probability"),
    ):
        arguments += [option] if wanted else []
    return arguments + commonArguments(stopFile)


def commonArguments(stopFile: Path) -> list[str]:
    """Return what every worker is told: to report in JSON lines, and when to end."""
    return ["--progress", "json", "--stop-file", str(stopFile), "--parent-pid", str(os.getpid())]
