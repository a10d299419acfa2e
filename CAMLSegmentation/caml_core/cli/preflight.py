"""``caml preflight``: whether a training fits this machine, what it would do, and how long it would take."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import options
from .planning_options import add_planning, add_round, to_request

HELP = "Say whether a training fits this machine, what was found in the cohort, and how long it would take."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, help="folder, CSV or JSON that lists the cases")
    parser.add_argument("-o", "--output", type=Path, metavar="ROUND_DIR", help="where the training will lie")
    add_round(parser)
    add_planning(parser, of_round=True)
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Look, plan and print the verdict; what does not fit is an answer, too, and no error."""
    from ..training.preflight import Extras, preflight

    with (
        options.StopRequest(args.stop_file, args.parent_pid) as stop,
        options.reporting(args) as told,
    ):
        listener = options.stoppable(told, stop)
        left_aside: list[str] = []

        def choosing(kind: str, fields: dict[str, Any]) -> None:
            listener(kind, fields)
            if kind == "warning":
                left_aside.append(str(fields["message"]))

        extras = Extras(args.baseline, args.folds, args.output, args.cache)
        result = preflight(args.cohort, to_request(args, choosing), listener, args.model, extras)
        for key in ("notes", "cautions"):  # a device that is busy now may make the difference of a night
            result[key] = [*left_aside, *result[key]]
        told("finished", {"result": result})
        if args.progress != "json":
            more = [note for note in result["notes"] if note not in result["text"]]
            lines = [result["text"], *_needs(result), *(f"note         {note}" for note in more), result["sentence"]]
            options.say("\n".join(filter(None, lines)))
    return 0


def _needs(result: Mapping[str, Any]) -> list[str]:
    """Lines on time and room; none where nothing could be planned."""
    if not result["seconds"]:
        return []
    minutes = max(round(result["seconds"] / 60), 1)
    time = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    free = f", {result['disk_free_mb']} free" if result["disk_free_mb"] else ""
    return [
        f"in all       about {time}, with preparing, validating and all that was asked for beside the training",
        f"disk         {result['disk_mb']} MB{free}",
    ]
