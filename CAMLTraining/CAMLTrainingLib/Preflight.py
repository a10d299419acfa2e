"""Looking before training: the engine's verdict on cohort and machine, and how it is put to the user."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from CAMLSegmentationLib.Job import commonArguments
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess, newStopFile
from slicer.i18n import tr as _

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
    in place of the budget.
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

    def __post_init__(self) -> None:
        if self.budget not in BUDGETS:
            msg = f"budget must be one of {', '.join(BUDGETS)}, got {self.budget!r}"
            raise ValueError(msg)

    def planning(self) -> list[str]:
        """Return the arguments that ``caml preflight`` and ``caml round`` share."""
        arguments = ["--iterations", str(self.iterations)] if self.iterations else list(BUDGETS[self.budget])
        arguments += ["--model", str(self.startModel)] if self.startModel is not None else []
        arguments += ["--baseline"] if self.baseline else []
        arguments += ["--folds", str(self.folds)] if self.folds else []
        return [*arguments, "--device", self.device, "--seed", str(self.seed)]

    def training(self) -> list[str]:
        """Return the arguments of ``caml round`` besides cohort and folder."""
        arguments = self.planning()
        arguments += ["--name", self.name] if self.name else []
        return arguments + (["--preview", self.previewCase] if self.previewCase else [])


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


class PreflightRun:
    """Asks the engine in the background; ``onEnd`` gets the verdict, ``onProgress`` a text."""

    def __init__(
        self,
        onEnd: Callable[[Verdict], None],
        onProgress: Callable[[str], None],
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._onEnd, self._onProgress = onEnd, onProgress
        self._worker = workerFactory(self)
        self._result: dict[str, Any] | None = None
        self._fault, self._last, self._cancelled = "", "", False

    @property
    def running(self) -> bool:
        """Whether the engine is at work."""
        return self._worker.running

    def start(self, cohort: Path, settings: TrainingSettings, folder: Path, rounds: Path) -> None:
        """Begin; ``folder`` takes the stop file, ``rounds`` is where the training will lie."""
        self._result, self._fault, self._last, self._cancelled = None, "", "", False
        self._stopFile = newStopFile(folder)
        arguments = ["preflight", str(cohort), "-o", str(rounds), *settings.planning()]
        arguments += commonArguments(self._stopFile)
        self._worker.start(arguments, self._stopFile)

    def cancel(self) -> None:
        """Stop looking."""
        self._cancelled = True
        self._worker.stop()

    def end(self) -> None:
        """End at once."""
        self._cancelled = True
        self._worker.end()

    def wait(self) -> None:
        """Let it report, in a script without an event loop."""
        self._worker.wait(50)

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the engine."""
        if kind == "finished":
            self._result = fields.get("result") or {}
        elif kind == "error":
            self._fault = str(fields.get("message") or "")
        elif kind == "stage":
            names = {"reading": _("Reading the cases"), "measuring": _("Measuring this computer")}
            self._onProgress(names.get(str(fields.get("name")), str(fields.get("name"))))
        elif kind == "progress":
            done, total = fields.get("done"), fields.get("total")
            self._onProgress(_("Reading the cases: {done} of {total}").format(done=done, total=total))

    def onWorkerLog(self, text: str) -> None:
        """The last line may tell why it died."""
        self._last = text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Hand over the verdict."""
        self._stopFile.unlink(missing_ok=True)
        if self._result is not None:
            kind = str(self._result.get("verdict") or "fault")
            self._onEnd(Verdict(kind, str(self._result.get("sentence") or ""), self._result))
        elif self._cancelled:
            self._onEnd(Verdict("fault", _("The check was cancelled.")))
        else:
            self._onEnd(Verdict("fault", self._fault or self._died(crashed)))

    def _died(self, crashed: bool) -> str:
        if "No module named" in self._last:
            return missingPackage(self._last)
        if "could not be started" in self._last:
            return self._last
        if crashed:
            return _("The check was ended by the system, most likely for want of memory; close other programs.")
        return _("The check ended unexpectedly: {line}").format(line=self._last or "-")


def missingPackage(line: str) -> str:
    """Return the sentence for a worker whose last line says that a package is missing."""
    return _("A Python package is missing ({name}); press Install in the module CAML Segmentation.").format(
        name=line.rpartition(" ")[2]
    )


def verdictHtml(verdict: Verdict) -> str:
    """Return the verdict, the plan and what was found, for a panel 450 pixels wide."""
    colors = {"fits": "#2e7d32", "smaller-patch": "#b26a00"}
    color = colors.get(verdict.kind, "#b71c1c")
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
