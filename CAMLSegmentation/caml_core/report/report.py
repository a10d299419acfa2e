"""A whole report: an HTML page with tables, curves and overlays, and the same figures as report.json."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.case import Cohort
from ..data.cohort import load_cohort
from ..data.files import make_folder, replacing
from ..errors import Cancelled, ResourceError
from ..events import Listener, silent
from ..inference.evaluation import figure_remarks
from ..serialization import write_json
from . import figures, page
from .cases import ComparedCase, compare, judged, reference_segments, with_one_structure
from .curves import RUNS_CAPTION, draw_curves, draw_runs
from .description import Description, Section
from .overlays import draw_case
from .run_facts import RUN_FACTS, run_facts
from .style import PREDICTION, REFERENCE

#: What the colours of an overlay mean.
KEY = ((REFERENCE, "reference, or missed"), (PREDICTION, "segmentation, or too much"))


def write_report(
    description: Description, folder: Path, listener: Listener = silent, stop: Callable[[], bool] = lambda: False
) -> Path:
    """Write ``folder``/index.html with its pictures beside it and return its path.

    Raises DataError where a run, a case or a segmentation is missing, Cancelled on ``stop``.
    """
    make_folder(folder / "pictures")
    index = folder / "index.html"
    parts = [page.heading(1, description.title), page.paragraph(description.text)]
    results = []
    for number, section in enumerate(description.sections, 1):
        listener("stage", {"name": "report", "detail": section.title})
        html, result = _section(section, index, f"{number}_{file_slug(section.title)}", listener, stop)
        parts.append(html)
        results.append(result)
    with replacing(folder / "report.json") as temporary:
        write_json(temporary, {"title": description.title, "sections": results})
    return page.write_page(index, description.title, parts, f"Made by caml {__version__}. Not for clinical use.")


def _section(
    section: Section, index: Path, slug: str, listener: Listener, stop: Callable[[], bool]
) -> tuple[str, dict[str, Any]]:
    pictures = index.parent / "pictures"
    for run in section.runs:
        with suppress(ResourceError):  # a folder that may only be read; the page has a picture of its own
            draw_curves(run.run)
    curves = draw_runs({run.name: run.run for run in section.runs}, pictures / f"{slug}_curves.png")
    verdicts: list[str] = []
    shown: list[str] = []
    result: dict[str, Any] = {"title": section.title}
    if section.cases is not None:
        verdicts, shown, result["cases"] = _cases(section, load_cohort(section.cases), index, slug, listener, stop)
        result["verdicts"] = verdicts
    html = page.section(
        page.heading(2, section.title),
        page.paragraph(section.text),
        *(page.paragraph(text, "verdict") for text in verdicts),
        *shown[:1],
        page.heading(3, "Training"),
        _trainings(section, index),
        page.picture(curves, index, RUNS_CAPTION),
        *shown[1:],
    )
    return html, result


def _cases(
    section: Section, cohort: Cohort, index: Path, slug: str, listener: Listener, stop: Callable[[], bool]
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return the verdicts, the parts (tables first, then pictures), and the figures by case."""
    segments = reference_segments(cohort)
    names = [run.name for run in section.runs]
    folders = {run.name: run.predictions for run in section.runs if run.predictions is not None}
    found: dict[str, Any] = {}
    drawn = [page.heading(3, "Test cases")]
    cases = judged(cohort)
    notes: list[str] = []

    def check(done: int = 0) -> None:
        if stop():
            raise Cancelled(f"Stopped after {done} of {len(cases)} cases; the report is not complete.")

    single = with_one_structure(cohort, folders, segments, check)
    for done, case in enumerate(cases, 1):
        check(done - 1)
        compared = compare(case, folders, segments, cohort.segments, single=single)
        found[case.id] = compared.figures
        drawn.append(_drawn_case(compared, index, f"{slug}_{done}"))
        notes += compared.notes
        listener("progress", {"done": done, "total": len(cases), "unit": "case"})
    tables = []
    for segment in segments:
        title = page.heading(3, segment.name) if len(segments) > 1 else ""
        rows = figures.rows(found, names, segment.name)
        tables.append(title + page.table(figures.header(names), rows, last_is_mean=True))
    verdicts = [figures.verdict(found, names, segment.name) for segment in segments]
    for name in names:
        by_case = {case: by_training[name] for case, by_training in found.items()}
        verdicts += [f"{name}: {remark}" for remark in figure_remarks(by_case)]
    return verdicts + list(dict.fromkeys(notes)), ["".join(tables), *drawn], found


def _drawn_case(case: ComparedCase, index: Path, slug: str) -> str:
    """``slug`` must be the case's own: of other scripts and of long names ``file_slug`` leaves the same for many."""
    path = draw_case(case, index.parent / "pictures" / f"{slug}_{file_slug(case.id)}.png")
    return page.picture(path, index, case.id, KEY)


def _trainings(section: Section, index: Path) -> str:
    """A table of what each run did, and links to the models."""
    rows = [[(text, "") for text in (run.name, *run_facts(run.run))] for run in section.runs]
    models = [(run.name, run.run / "model.caml") for run in section.runs if (run.run / "model.caml").is_file()]
    links = ", ".join(page.link(path, index, name) for name, path in models)
    return page.table(RUN_FACTS, rows) + (f"<p>Model files: {links}</p>" if links else "")


def file_slug(text: str) -> str:
    """Return ``text`` as part of a file's name; different texts may give the same."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40] or "section"
