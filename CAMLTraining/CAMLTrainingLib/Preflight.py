"""Looking before training: the engine's verdict on cohort and machine, and how it is put to the user."""

from __future__ import annotations

import html
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from CAMLSegmentationLib import Colors
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess
from slicer.i18n import tr as _

from .EngineCall import EngineCall
from .ScanQueue import ScanQueue

#: Key of a budget -> what ``caml`` is told.
BUDGETS: dict[str, tuple[str, ...]] = {
    "10m": ("--budget", "10m"),
    "1h": ("--budget", "1h"),
    "overnight": ("--budget", "10h"),
    "better": ("--until-better",),
}


@dataclass(frozen=True)
class TrainingSettings:
    """What the user chose. ``startModel``: a model file, None for a start from scratch. ``iterations``: for scripts,
    in place of the budget. ``renamed``: old and new names of segments, from the project where this is left out.
    """

    startModel: Path | None = None
    budget: str = "1h"
    iterations: int | None = None
    baseline: bool = False
    folds: int = 0
    device: str = "auto"
    seed: int = 0
    name: str = ""
    previewCase: str = ""
    renamed: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            msg = f"budget must be one of {', '.join(BUDGETS)}, got {self.budget!r}"
            raise ValueError(msg)

    def withNames(self, names: Mapping[str, str]) -> TrainingSettings:
        """Return these settings, with new names of segments by those that the start model may have for them."""
        pairs = [pair for pair in names.items() if not any(name.startswith("-") for name in pair)]  # no options
        return replace(self, renamed=self.renamed or tuple(pairs))

    def planning(self) -> list[str]:
        """Return the arguments that ``caml preflight`` and ``caml round`` share."""
        arguments = ["--iterations", str(self.iterations)] if self.iterations else list(BUDGETS[self.budget])
        arguments += ["--model", str(self.startModel)] if self.startModel is not None else []
        if self.startModel is not None:
            for pair in self.renamed:
                arguments += ["--renamed", *pair]
        arguments += ["--baseline"] if self.baseline else []
        arguments += ["--folds", str(self.folds)] if self.folds else []
        # The project has its split already (``Cohort.fixSplit``), also where it is to have none.
        return [*arguments, "--hold-out", "0", "--device", self.device, "--seed", str(self.seed)]

    def training(self) -> list[str]:
        """Return the arguments of ``caml round`` besides cohort and folder.

        They name no case: other users of the computer may read them. The one of the preview is told in a file.
        """
        # In one word: a name that begins with a dash would be taken for an option.
        return self.planning() + ([f"--name={self.name}"] if self.name else [])


@dataclass(frozen=True)
class Verdict:
    """The engine's answer. ``kind``: "fits", "smaller-patch", "does-not-fit", or "fault" where it had none."""

    kind: str
    sentence: str
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def mayTrain(self) -> bool:
        """Whether pressing Train makes sense."""
        return self.kind in ("fits", "smaller-patch")

    @property
    def notes(self) -> list[str]:
        """What the user may read."""
        return [str(note) for note in self.result.get("notes") or []]

    @property
    def cautions(self) -> list[str]:
        """What the user should read before anything runs: outliers, and what this cohort cannot give."""
        return [str(note) for note in self.result.get("cautions") or []]

    def cautioned(self, sentence: str) -> Verdict:
        """Return this verdict with one more sentence to be read before anything runs."""
        more = {"notes": [sentence, *self.notes], "cautions": [sentence, *self.cautions]}
        return replace(self, result={**self.result, **more})


class PreflightRun(EngineCall):
    """Asks the engine in the background; ``onEnd`` gets the verdict, ``onProgress`` a text.

    ``scans`` writes what it is asked about; as long as it does, the check is running.
    """

    def __init__(
        self,
        onEnd: Callable[[Verdict], None],
        onProgress: Callable[[str], None],
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        def answer(result: dict[str, Any] | None, sentence: str) -> None:
            found = result or {"verdict": "fault", "sentence": sentence}
            onEnd(Verdict(str(found.get("verdict") or "fault"), str(found.get("sentence") or ""), result or {}))

        super().__init__(answer, lambda kind, fields: _tell(kind, fields, onProgress), workerFactory)
        self.scans = ScanQueue()

    @property
    def running(self) -> bool:
        """Whether the engine is at work, or scans are being written for it."""
        return self.scans.running or super().running

    def cancel(self) -> None:
        """Ask for an end."""
        if not self._endWriting():
            super().cancel()

    def end(self) -> None:
        """End at once."""
        if not self._endWriting():
            super().end()

    def _endWriting(self) -> bool:
        writing = self.scans.running
        self.scans.stop()
        if writing:
            self._onEnd(None, _("Cancelled."))
        return writing

    def look(self, cohort: Path, settings: TrainingSettings, folder: Path, rounds: Path) -> None:
        """Begin; ``folder`` takes the stop file, ``rounds`` is where the training will lie."""
        self.start(["preflight", str(cohort), "-o", str(rounds), *settings.planning()], folder)


def _tell(kind: str, fields: dict[str, Any], onProgress: Callable[[str], None]) -> None:
    if kind == "stage":
        names = {"reading": _("Reading the cases"), "measuring": _("Measuring this computer")}
        onProgress(names.get(str(fields.get("name")), str(fields.get("name"))))
    elif kind == "progress":
        done, total = fields.get("done"), fields.get("total")
        onProgress(_("Reading the cases: {done} of {total}").format(done=done, total=total))


def verdictHtml(verdict: Verdict) -> str:
    """Return the verdict, the plan and what was found, for a panel 450 pixels wide."""
    color = Colors.wordColor({"fits": "good", "smaller-patch": "caution"}.get(verdict.kind, "bad"))
    parts = [f'<p><span style="color:{color}"><b>{html.escape(verdict.sentence)}</b></span></p>']
    rows = [(title, text) for title, text in _rows(verdict.result) if text]
    if rows:
        cells = "".join(
            f"<tr><td><i>{html.escape(a)}</i>&nbsp;&nbsp;</td><td>{html.escape(b)}</td></tr>" for a, b in rows
        )
        parts.append(f"<table cellspacing=2>{cells}</table>")
    if verdict.notes:
        weighty = set(verdict.cautions)
        lines = [
            f"<li><b>{html.escape(note)}</b></li>" if note in weighty else f"<li>{html.escape(note)}</li>"
            for note in verdict.notes
        ]
        parts.append("<ul>" + "".join(lines) + "</ul>")
    return "".join(parts)


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    plan = result.get("plan") or {}
    geometry, numeric = plan.get("geometry") or {}, plan.get("numeric") or {}
    cases = result.get("cases") or []
    roles = {role: sum(c.get("role") == role for c in cases) for role in ("labeled", "unlabeled", "validation")}
    memory = _("about {need} MB of {free} MB free").format(
        need=_whole(result.get("memory_mb")), free=_whole(result.get("memory_free_mb"))
    )
    disk = _("about {need} MB of {free} MB free").format(
        need=_whole(result.get("disk_mb")), free=_whole(result.get("disk_free_mb"))
    )
    return [
        (
            _("Cases"),
            _("{labeled} labelled, {unlabeled} unlabelled, {validation} held out").format(**roles) if cases else "",
        ),
        *_cohortRows(cases, plan.get("channels") or []),
        (_("Segments kept"), ", ".join(result.get("kept_segments") or [])),
        (_("New segments"), ", ".join(result.get("new_segments") or [])),
        (
            _("Grid"),
            _("{spacing} mm, patch {patch}").format(
                spacing=_times(geometry.get("spacing")), patch=_times(geometry.get("patch"))
            )
            if geometry
            else "",
        ),
        (_("Iterations"), str(result.get("iterations") or "")),
        (_("Time"), duration(float(result.get("seconds") or 0.0)) if result.get("seconds") else ""),
        (_("Memory"), memory if result.get("memory_mb") else ""),
        (_("Disk"), disk if result.get("disk_mb") else ""),
        (_("Computes on"), f"{plan.get('device')}, {numeric.get('dtype')}" if plan else ""),
    ]


def _cohortRows(cases: Sequence[dict[str, Any]], channels: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What the scans are like, and what is done to their grey values (``channels`` of the plan, empty without one)."""
    stored = Counter(str(case.get("orientation") or "") for case in cases)
    return [
        (_("Spacing"), _range([c.get("spacing") or () for c in cases], ".3g", _("mm"))),
        (_("Size"), _range([c.get("size") or () for c in cases], ".0f", _("voxels"))),
        *_greyValues(cases, channels),
        (_("Orientation"), _counted(stored)),
    ]


def _range(rows: Sequence[Sequence[float]], digits: str, unit: str) -> str:
    """What is the same in all cases, else the median of each axis and how far it ranges."""
    columns = list(zip(*rows))
    if not columns:
        return ""
    low, middle, high = (
        " x ".join(format(of(column), digits) for column in columns) for of in (min, statistics.median, max)
    )
    text = _("{middle} {unit} in all cases") if low == high else _("median {middle} {unit}, from {low} to {high}")
    return text.format(middle=middle, unit=unit, low=low, high=high)


def _greyValues(cases: Sequence[dict[str, Any]], channels: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """A row for each channel: what it looks like, the usual range, and how it is brought to the network's."""
    rows = []
    for index, ends in enumerate(zip(*(case.get("grey_values") or () for case in cases))):
        low, high = (f"{statistics.median(values):.4g}" for values in zip(*ends))
        looks = _counted(Counter(str(case["modality"][index]) for case in cases))
        text = _("{modality}, about {low} to {high}").format(modality=looks, low=low, high=high)
        if index < len(channels):
            text += "; " + _scaling(channels[index])
        title = str(channels[index].get("title") or "") if index < len(channels) else ""
        several = len(cases[0]["grey_values"]) > 1
        row = _("Grey values {channel}").format(channel=index + 1) if several else _("Grey values")
        rows.append((f"{row} ({title})" if title else row, text))
    return rows


def _scaling(channel: dict[str, Any]) -> str:
    if channel.get("kind") == "window":
        return _("cut to {low} to {high}").format(low=f"{channel['lower']:.4g}", high=f"{channel['upper']:.4g}")
    return _("each scan scaled by its own mean and spread")


def _counted(found: Counter[str]) -> str:
    """What there is, the most frequent first, with how many of each where they differ."""
    if len(found) < 2:
        return "".join(found)
    return ", ".join(f"{text} ({count})" for text, count in found.most_common())


def duration(seconds: float) -> str:
    """Return a time for people, coarse: it is a forecast."""
    minutes = seconds / 60
    if minutes < 1.5:
        return _("about {seconds} s").format(seconds=max(1, round(seconds)))
    if minutes < 90:
        return _("about {minutes} min").format(minutes=round(minutes))
    return _("about {hours} h").format(hours=f"{minutes / 60:.1f}")


def _whole(value: Any) -> str:
    return str(round(float(value))) if isinstance(value, (int, float)) else "?"


def _times(values: Sequence[float] | None) -> str:
    return " x ".join(f"{v:g}" for v in values or ())
