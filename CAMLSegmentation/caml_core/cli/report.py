"""``caml report``: the curves of trainings, and a page that compares them on test cases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .options import StopRequest, add_progress, reporting

if TYPE_CHECKING:
    from ..report.description import Description

HELP = "Draw the curves of trainings and compare them on a page with pictures."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN_DIR", help="folders that caml train has made")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: RUN_DIR/report)")
    parser.add_argument("--title", default="", help="title of the page")
    parser.add_argument(
        "--cases", type=Path, metavar="COHORT", help="test cases with labels, to judge the segmentations by"
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="segmentations of the test cases, one folder for each RUN_DIR in the same order",
    )
    parser.add_argument(
        "--description", type=Path, metavar="REPORT.json", help="several comparisons at once, instead of RUN_DIR"
    )
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Write the report."""
    description = _describe(args)
    output = args.output or _default_output(args)
    from ..report.report import write_report

    with reporting(args) as listener, StopRequest(args.stop_file, args.parent_pid) as stop:
        path = write_report(description, output, listener, stop)
        listener("log", {"message": f"wrote {path}"})
        listener("finished", {"result": {"report": str(path)}})
    return 0


def _describe(args: argparse.Namespace) -> Description:
    from ..report.description import Description, ReportedRun, Section, read_description

    if args.description is not None:
        if args.runs or args.cases or args.predictions:
            raise UsageError("--description tells all there is to compare; leave RUN_DIR and the like away.")
        return read_description(args.description)
    if not args.runs:
        raise UsageError("Name at least one RUN_DIR, or give --description.")
    if bool(args.cases) != bool(args.predictions) or (args.predictions and len(args.predictions) != len(args.runs)):
        raise UsageError("--cases and --predictions go together, with one folder of predictions for each RUN_DIR.")
    predictions = args.predictions or [None] * len(args.runs)
    names = _names(args.runs)
    runs = tuple(ReportedRun(name, run, found) for name, run, found in zip(names, args.runs, predictions))
    title = args.title or f"Training of {', '.join(names)}"
    return Description(title, (Section("Comparison" if len(runs) > 1 else "Training", runs, cases=args.cases),))


def _default_output(args: argparse.Namespace) -> Path:
    if len(args.runs) != 1:
        raise UsageError("Name the folder of the report with -o; only a report of one run has a place of its own.")
    return Path(args.runs[0]) / "report"


def _names(runs: list[Path]) -> list[str]:
    """The folders' names; their whole paths where the names alone are not unique."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
