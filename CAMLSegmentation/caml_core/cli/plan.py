"""``caml plan``: what a training would do, before anything is done."""

from __future__ import annotations

import argparse
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

    with (
        options.StopRequest(args.stop_file, args.parent_pid) as stop,
        options.reporting(args) as told,
    ):
        listener = options.stoppable(told, stop)
        request = to_request(args, listener)
        cohort, found = survey(args.cohort, request, listener, start_path=args.model)
        plan, _ = plan_training(cohort, found, request, listener, args.model, lambda: options.check_stop(stop))
        options.check_stop(stop)
        if output is not None:
            with replacing(output) as temporary:
                write_json(temporary, plan)
        told("finished", {"result": to_json(plan)})
        if args.progress != "json":
            options.say(describe(plan, found))
    return 0
