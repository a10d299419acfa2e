"""What a run consists of, as plain values, the command line that carries it out, and what runs wrote into a folder.

Standard library only.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import save_cohort
from caml_core.data.files import replacing
from caml_core.errors import CamlError
from caml_core.serialization import read_json, write_json

QUALITIES = ("fast", "balanced", "best")
SUB_MODELS = ("auto", "v", "a", "mean")
#: Keep the largest part of each segment alone: as the labels were that the model learned from, yes, no.
PARTS = ("auto", "largest", "all")
#: What happens where the volume already has a result of the same model.
EXISTING = ("update", "add")
#: Settings that are one of some words.
CHOICES = {"quality": QUALITIES, "subModel": SUB_MODELS, "parts": PARTS, "existing": EXISTING}
#: Beside the results of a folder: what was written into them.
_RECORD = ".caml-written.json"
#: What is known of a file that no run wrote.
_UNKNOWN = (0, 0, "", "")
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

    def labels(self, caseId: str) -> Path:
        """Return the label map of a case."""
        return self.outputs / f"{caseId}.nrrd"

    def extra(self, caseId: str, kind: str) -> Path:
        """Return a map of ``kind`` ("disagreement", "probability") of a case."""
        return self.outputs / f"{caseId}_{kind}.nrrd"


class FolderResults:
    """The result files of a folder, and which of them are still what a run of a model wrote.

    Size, time and digest of what was written, and by which model, stand in a hidden file beside the results: on another
    computer, and after an update of the module, a corrected result is still known. model: the SHA-256 of the model
    whose results may be updated; empty: those of all models.
    """

    def __init__(self, folder: Path, model: str = "") -> None:
        self.folder, self._model = folder, model
        self._written = self._read()

    def path(self, caseId: str) -> Path:
        """Return the segmentation file of a case."""
        return self.folder / f"{caseId}.seg.nrrd"

    def place(self, caseId: str, others: Collection[str], existing: str, overwrite: bool) -> tuple[str, Path | None]:
        """Return the name for a case's next result, and the changed file that it is to spare, if there is one.

        The model's newest of CASE, CASE-2, CASE-3, ... is updated; a name beside them is taken where ``existing`` says
        so, where all are another model's, or where the file was changed and ``overwrite`` is False. others: names
        (casefolded) that belong to other cases.
        """
        numbered = (f"{caseId}-{number}" for number in itertools.count(2))
        found: list[str] = []
        for name in itertools.chain([caseId], (name for name in numbered if name.casefold() not in others)):
            if not self.path(name).exists():
                break
            found.append(name)
        newest = self._newest(found)
        if newest and existing == "update":
            if overwrite or not self.isChanged(self.path(newest)):
                return newest, None
            return name, self.path(newest)
        return name, None

    def _newest(self, names: Sequence[str]) -> str:
        """The last of some results that may be the model's; empty where there is none."""
        made = [self._written.get(self.path(name).name, _UNKNOWN)[3] for name in names]
        if names and made[-1] == "":  # by hand, or a run of an earlier version: whose it was cannot be told
            return names[-1]
        return next((name for name, model in zip(names[::-1], made[::-1]) if self._model in ("", model)), "")

    def isChanged(self, path: Path) -> bool:
        """Whether a file is not, or no longer, what a run wrote; what cannot be told counts as changed."""
        known = self._written.get(path.name)
        try:
            stat = path.stat()
            # Copying a folder may change the times; reading all files each time would take long on a network drive.
            return known is None or (known[:2] != [stat.st_size, stat.st_mtime_ns] and known[2] != _digest(path))
        except OSError:
            return True

    def note(self, path: Path, model: str = "") -> None:
        """Remember a file as a run of a model (its SHA-256) wrote it.

        Where that fails the result is good, and is asked about the next time.
        """
        try:
            stat = path.stat()
            self._written = {**self._read(), path.name: [stat.st_size, stat.st_mtime_ns, _digest(path), model]}
            with replacing(self.folder / _RECORD) as temporary:
                write_json(temporary, self._written)
        except (CamlError, OSError):
            pass

    def _read(self) -> dict[str, list[Any]]:
        try:
            found = read_json(self.folder / _RECORD)
        except CamlError:  # there is none yet, or it was damaged
            return {}
        entries = found.items() if isinstance(found, dict) else ()
        known = {name: entry for name, entry in entries if isinstance(entry, list) and len(entry) in (3, 4)}
        return {name: [*entry, ""][:4] for name, entry in known.items()}  # earlier versions noted no model


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def caseId(name: str, taken: Iterable[str]) -> str:
    """Return a file name for a volume called ``name`` that is none of ``taken``, ignoring case."""
    base = _UNSAFE.sub("_", name).strip("._-")[:60] or "volume"
    used = {other.casefold() for other in taken}
    candidate, number = base, 2
    while candidate.casefold() in used:
        candidate, number = f"{base}-{number}", number + 1
    return candidate


def writeCaseList(path: Path, images: Sequence[tuple[str, Sequence[Path]]], titles: Sequence[str] = ()) -> None:
    """Write the list of (id, one image a channel) that ``caml predict`` reads. ``titles``: what the channels are."""
    cases = tuple(Case(name, tuple(paths), None, "unlabeled") for name, paths in images)
    save_cohort(Cohort(cases, path, channels=tuple(titles)), path)


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
