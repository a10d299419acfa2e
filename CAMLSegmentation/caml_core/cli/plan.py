"""``caml plan``: what a training would do, before anything is done."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import options
from .planning_options import add_planning, require_json, to_request

HELP = "Say what a training would do: grid, patch, network, arithmetic, memory, time and iterations."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, help="folder, CSV or JSON that lists the cases")
    parser.add_argument("-o", "--output", type=Path, metavar="PLAN.json", help="also write the plan to this file")
    add_planning(parser)
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, print, and write the plan where asked."""
    output = require_json(args.output) if args.output else None
    from ..data.files import replacing
    from ..serialization import to_json, write_json
    from ..training.planner import describe
    from ..training.run import plan_training, survey

    with options.reporting(args) as listener:
        request = to_request(args, listener)
        cohort, found = survey(args.cohort, request, listener, start_path=args.model)
        plan, _ = plan_training(cohort, found, request, listener, args.model)
        if output is not None:
            with replacing(output) as temporary:
                write_json(temporary, plan)
        listener("finished", {"result": to_json(plan)})
        if args.progress != "json":
            print(describe(plan, found), file=sys.stdout)
    return 0
