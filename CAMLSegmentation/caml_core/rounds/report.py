"""The picture report of a round: rows side by side, curves, overlays of held-out cases, the plan and the notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import Plan
from ..data.case import Case, Cohort
from ..data.files import make_folder
from ..errors import Cancelled, DataError
from ..events import Listener
from ..report import figures, page
from ..report.cases import compare
from ..report.curves import RUNS_CAPTION, draw_curves, draw_runs
from ..report.overlays import draw_case
from ..report.report import KEY, file_slug
from .result import CAML, CROSS_VALIDATION, LABELED_ONLY, START
from .round_folder import BASELINE, MAIN, RoundFolder

NAMES = {
    START: "Start model",
    LABELED_ONLY: "Labelled cases only",
    CAML: "CAML",
    CROSS_VALIDATION: "Cross-validation",
}
_METRICS = (("dice", "Dice", 3), ("hd95_mm", "HD95 (mm)", 1), ("assd_mm", "ASSD (mm)", 2))
_MAIN_CAPTION = "Losses, validation and learning rate of the CAML training."
_NO_PICTURES = (
    "The report has no pictures, because matplotlib is not installed; for those of the next one enter "
    "slicer.util.pip_install('matplotlib') in Slicer's Python console, or outside of Slicer: pip install matplotlib."
)
#: Pictures of cases at most.
MOST_CASES = 20


def write_round_report(
    folder: RoundFolder, found: Mapping[str, Any], title: str, listener: Listener, stop: Callable[[], bool]
) -> Path:
    """Write report/index.html with its pictures beside it and return its path.

    Without matplotlib there are no pictures, and a warning. Raises Cancelled on ``stop``, ResourceError where the disk
    fails.
    """
    make_folder(folder.report.parent / "pictures")
    plan, cohort = folder.part(MAIN).read_plan(), folder.read_cohort()
    rows = [r for r in found["rows"] if r["count"]]
    listener("stage", {"name": "report", "detail": title})
    try:
        curves, pictures = _curves(folder), _overlays(folder, rows, plan, cohort, listener, stop)
    except ImportError:
        listener("warning", {"message": _NO_PICTURES})
        curves, pictures = [page.paragraph(_NO_PICTURES)], []
    parts = [
        page.heading(1, title),
        page.paragraph(found["words"], "verdict"),
        page.paragraph(_difference(found), "verdict"),
        page.section(page.heading(2, "Result"), _summary(rows, found["segments"]), *_tables(rows, found["segments"])),
        page.section(page.heading(2, "Training"), _trainings(found), *curves),
        page.section(page.heading(2, "Cases"), *pictures) if pictures else "",
        page.section(page.heading(2, "Plan"), page.table(("", ""), _facts(plan, found))),
        page.section(page.heading(2, "Notes"), *map(page.paragraph, found["notes"])) if found["notes"] else "",
    ]
    return page.write_page(folder.report, title, parts, f"Made by caml {__version__}. Not for clinical use.")


def _difference(found: Mapping[str, Any]) -> str:
    values = found["difference"]
    if values is None:
        return ""
    points, better, cases = values["dice"], values["better"], values["cases"]
    if abs(points) < 0.05:
        return f"CAML and the training on labelled cases only are level, over {cases} held-out cases."
    ahead = "ahead of" if points > 0 else "behind"
    return (
        f"CAML is {abs(points):.1f} points of Dice {ahead} the training on labelled cases only, and better in "
        f"{better} of {cases} held-out cases."
    )


def _summary(rows: Sequence[Mapping[str, Any]], segments: Sequence[str]) -> str:
    """Mean and spread of every row, segment by segment."""
    if not rows:
        return page.paragraph("There are no figures.")
    header = ["", "Cases", *(f"{title}, {segment}" for segment in segments for _, title, _ in _METRICS)]
    lines = []
    for row in rows:
        cells = [NAMES[row["name"]], str(row["count"])]
        for segment in segments:
            cells += [_spread(row["summary"].get(segment, {}).get(key), digits) for key, _, digits in _METRICS]
        lines.append([(cell, "") for cell in cells])
    return page.table(header, lines)


def _spread(values: Mapping[str, float] | None, digits: int) -> str:
    return "" if values is None else f"{values['mean']:.{digits}f} +- {values['std']:.{digits}f}"


def _tables(rows: Sequence[Mapping[str, Any]], segments: Sequence[str]) -> list[str]:
    """A table for each segment with a line a case: of the held-out cases, and of those of the cross-validation."""
    parts = []
    for together in (_held_out(rows), [row for row in rows if row["name"] == CROSS_VALIDATION]):
        cases = _figures(together)
        names = [NAMES[row["name"]] for row in together]
        for segment in segments if cases else ():
            title = segment if together[0]["name"] != CROSS_VALIDATION else f"{segment}, cross-validation"
            having = [name for name in names if all(segment in by_name[name] for by_name in cases.values())]
            lines = figures.rows(cases, having, segment)  # a start model may not have the segment
            parts.append(page.heading(3, title) + page.table(figures.header(having), lines, last_is_mean=True))
    return parts


def _held_out(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["name"] != CROSS_VALIDATION]


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Case -> name of the row -> segment -> metrics, of the cases that all rows have."""
    if not rows:
        return {}
    shared = [case for case in rows[-1]["cases"] if all(case in row["cases"] for row in rows)]
    return {case: {NAMES[row["name"]]: row["cases"][case] for row in rows} for case in shared}


def _trainings(found: Mapping[str, Any]) -> str:
    lines = [
        [(NAMES[row["name"]], ""), (str(row["iterations"]), ""), (f"{row['seconds'] / 60:.1f}", "")]
        for row in found["rows"]
        if row["name"] != START
    ]
    return page.table(("Training", "Iterations", "Minutes"), lines)


def _curves(folder: RoundFolder) -> list[str]:
    runs = {NAMES[row]: folder.part(part).path for row, part in ((CAML, MAIN), (LABELED_ONLY, BASELINE))}
    runs = {name: path for name, path in runs.items() if (path / "metrics.csv").is_file()}
    curves = draw_curves(folder.part(MAIN).path)
    parts = [page.picture(curves, folder.report, _MAIN_CAPTION)]
    if len(runs) > 1:
        together = draw_runs(runs, folder.report.parent / "pictures" / "curves.png")
        parts.append(page.picture(together, folder.report, RUNS_CAPTION))
    return parts


def _overlays(
    folder: RoundFolder,
    rows: Sequence[Mapping[str, Any]],
    plan: Plan,
    cohort: Cohort,
    listener: Listener,
    stop: Callable[[], bool],
) -> list[str]:
    shown = _held_out(rows) or list(rows)
    by_case = _figures(shown)
    cases = [case for case in cohort.cases if case.id in by_case][:MOST_CASES]
    parts = []
    for done, case in enumerate(cases, 1):
        if stop():
            raise Cancelled("Stopped while the report was made; the result itself is complete.")
        folders = {NAMES[row["name"]]: folder.segmentations / row["name"] for row in shown}
        parts.append(_overlay(folder, done, case, folders, by_case[case.id], plan, cohort, listener))
        listener("progress", {"done": done, "total": len(cases), "unit": "cases"})
    return parts


def _overlay(
    folder: RoundFolder,
    number: int,
    case: Case,
    folders: Mapping[str, Path],
    values: dict[str, Any],
    plan: Plan,
    cohort: Cohort,
    listener: Listener,
) -> str:
    try:
        compared = compare(case, folders, plan.segments, cohort.segments, values)
    except DataError as error:
        listener("warning", {"message": f"There is no picture of case {case.id}: {error}", "case": case.id})
        return ""
    path = draw_case(compared, folder.report.parent / "pictures" / f"{number}_{file_slug(case.id)}.png")
    return page.picture(path, folder.report, case.id, KEY)


def _facts(plan: Plan, found: Mapping[str, Any]) -> list[list[tuple[str, str]]]:
    batch = f"{plan.patches_of_a_step(found['unlabeled'])} patches a step"
    facts = {
        "Cases": f"{found['labeled']} labelled, {found['unlabeled']} unlabelled, {found['validation']} held out",
        "Segments": ", ".join(found["segments"]),
        "Channels": ", ".join(f"{c.called} {c.kind}" for c in plan.channels),
        "Grid": " x ".join(f"{s:g}" for s in plan.geometry.spacing) + " mm",
        "Patch": " x ".join(map(str, plan.geometry.patch)) + f" voxels, {batch}",
        "Network": f"{plan.network.base_filters} base filters, {plan.network.classes} classes",
        "Arithmetic": f"{plan.numeric.dtype}, {plan.numeric.threads} threads, {plan.device}",
        "Step": f"{plan.seconds_per_iteration:.2f} s, peak memory {plan.peak_memory_mb:.0f} MB",
        "Iterations": f"{'at most ' if plan.horizon else ''}{plan.iterations}, validated every {plan.validate_every}",
        "Preset and seed": f"{plan.preset}, {plan.seed}",
    }
    return [[(name, ""), (text, "")] for name, text in facts.items()]
