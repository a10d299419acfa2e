"""``caml train``: from a cohort with a few labelled cases to a model file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import CamlError, UsageError
from ..events import Listener
from . import options
from .planning_options import (
    add_cache,
    add_finish,
    add_planning,
    keep_written,
    refuse_beside_resume,
    refuse_finish,
    to_request,
    with_defaults,
)

HELP = "Train on a cohort of a few labelled and many unlabelled cases, or resume a training."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, nargs="?", help="folder, CSV or JSON that lists the cases")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN_DIR", help="folder for the run; must be new")
    parser.add_argument("--resume", type=Path, metavar="RUN_DIR", help="go on with a run that ended early")
    add_finish(parser)
    parser.add_argument("--name", default="", help="name of the model on its card")
    add_cache(parser)
    add_planning(parser)
    keep_written(parser)
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Train; returns 0 when finished, 130 when stopped with everything saved, 6 when the losses failed."""
    folder_path = _folder(args)
    args = with_defaults(args)
    from ..data.files import as_argument
    from ..errors import Cancelled, TrainingError
    from ..events import EventFile
    from ..training.ending import is_ended
    from ..training.run import Session, resume_training, start_training
    from ..training.run_folder import RunFolder
    from .awake import awake

    folder = RunFolder(folder_path)
    folder.check_writable()
    with (
        options.StopRequest(args.stop_file, args.parent_pid) as stop,
        options.reporting(args, EventFile(folder.events)) as listener,
    ):
        command = f"caml train --resume {as_argument(folder_path)}"
        way_out = f"Or end it with what it has learnt so far: enter {command} --finish."
        session = Session(listener, stop, args.cache, args.name, way_out=way_out)
        with awake():
            if args.resume:
                outcome = resume_training(folder, session, args.device, finish=args.finish)
            else:
                outcome = start_training(args.cohort, folder, to_request(args, listener), session, args.model)
        _draw(folder_path, listener)
        if outcome.reason == "failed":
            raise TrainingError(outcome.message)
        if not is_ended(outcome, folder.read_cohort(), args.finish):
            raise Cancelled(f"Stopped at iteration {outcome.iteration} with everything saved; go on with: {command}")
        scores = outcome.scores
        result = {"model": str(folder.model), "iteration": outcome.iteration, "seconds": round(outcome.seconds, 1)}
        listener("finished", {"result": {**result, "validation_dice": None if scores is None else scores.dice}})
    return 0


def _draw(folder: Path, listener: Listener) -> None:
    """Pictures are a convenience: without matplotlib the table is still there."""
    from ..report.curves import draw_curves

    try:
        draw_curves(folder)
    except (ImportError, CamlError, OSError) as error:
        listener("warning", {"message": f"The curves were not drawn ({error}); metrics.csv holds them as numbers."})


def _folder(args: argparse.Namespace) -> Path:
    if args.resume:
        if args.cohort or args.output:
            raise UsageError("--resume takes cohort and folder from the run; leave COHORT and -o away.")
        refuse_beside_resume(args, ("device",))
        return args.resume
    refuse_finish(args, "RUN_DIR")
    if not args.cohort or not args.output:
        raise UsageError("Name a cohort and a new run folder: caml train COHORT -o RUN_DIR (or --resume RUN_DIR).")
    return args.output
