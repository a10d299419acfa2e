"""``caml phantom``: scans with known truth, to try everything without patient data."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import StopRequest, add_progress, add_seed, reporting, whole_number

HELP = "Make a cohort of procedural scans to try everything with: a left atrium in MRI, or coronary arteries in CT."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("kind", choices=("atrium", "coronary"), help="which anatomy to make")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="where to write the cohort")
    count = whole_number(0, 10000)
    parser.add_argument("--cases", type=count, default=18, metavar="N", help="cases in the cohort (default: 18)")
    parser.add_argument("--labeled", type=count, default=4, metavar="K", help="of which labelled (default: 4)")
    parser.add_argument("--validation", type=count, default=2, metavar="V", help="of which validation (default: 2)")
    parser.add_argument("--test", type=count, default=0, metavar="T", help="held-back cases in test/ (default: 0)")
    parser.add_argument("--size", choices=("small", "full"), default="small", help="size of the scans (default: small)")
    add_seed(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Write the cohort."""
    from ..phantom.cohort import CohortShape, write_cohort

    with reporting(args) as listener, StopRequest(args.stop_file, args.parent_pid) as stop:
        shape = CohortShape(args.cases, args.labeled, args.validation, args.test)
        listener("stage", {"name": "phantoms", "detail": f"{args.cases + args.test} of kind {args.kind}"})
        path = write_cohort(args.output, args.kind, shape, args.seed, args.size, listener, stop)
        listener("log", {"message": f"wrote {path}"})
        listener("finished", {"result": {"cohort": str(path)}})
    return 0
