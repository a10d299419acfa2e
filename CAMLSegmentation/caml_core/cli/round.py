"""``caml round``: a training with all that is needed to judge it, resumable, followed through its events file."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CamlError, UsageError
from . import options
from .planning_options import (
    add_finish,
    add_planning,
    add_round,
    keep_written,
    refuse_beside_resume,
    refuse_finish,
    to_request,
    with_defaults,
)

if TYPE_CHECKING:
    from ..events import Listener
    from ..rounds.request import RoundRequest
    from ..rounds.round_folder import RoundFolder

HELP = "Train, score the model beside the one it started from and a baseline, and write a report; or go on with it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("cohort", type=Path, nargs="?", help="folder, CSV or JSON that lists the cases")
    parser.add_argument("-o", "--output", type=Path, metavar="ROUND_DIR", help="folder for the round; must be new")
    parser.add_argument("--resume", type=Path, metavar="ROUND_DIR", help="go on with a round that ended early")
    add_finish(parser)
    parser.add_argument("--name", default="", help="name of the model on its card")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="file that only one training at a time may hold")
    parser.add_argument(
        "--to-models",
        type=_file_title,
        metavar="TITLE",
        help="once there is a result, put the model as TITLE.caml into your models, where CAML Segmentation lists it",
    )
    add_round(parser)
    add_planning(parser, of_round=True)
    keep_written(parser, of_round=True)
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Run the round; returns 0 when finished, 130 when stopped with everything saved, 6 when the losses failed."""
    _check(args)
    args = with_defaults(args)
    from ..events import LateEventFile
    from ..locking import FileLock
    from ..rounds.pulse import Pulse
    from ..rounds.round import Round, Surroundings
    from ..rounds.round_folder import RoundFolder
    from .awake import awake

    folder = RoundFolder(args.resume or args.output)
    events = LateEventFile(folder.events, part="")
    with (
        options.StopRequest(args.stop_file, args.parent_pid) as stop,
        options.reporting(args, events) as tell,
        ExitStack() as held,
    ):
        if args.lock:
            refusal = "Another training of this project is running; wait for it, or stop it first."
            held.enter_context(FileLock(args.lock, refusal))
        _open(args, folder, held, tell)
        events.open()
        listener = held.enter_context(Pulse(tell))
        request = folder.read_request()
        cache = args.cache or folder.cache(request)
        device = args.device if args.resume else "auto"  # a new round's plan has it
        try:
            with awake():
                found = Round(folder, Surroundings(listener, stop, cache, device)).run(finish=args.finish)
        finally:  # what has a result has a model to use, though its report may be wanting
            _list_model(args.to_models, folder, listener)
        listener("finished", {"result": _paths(folder, found), "part": ""})
    return 0


def _check(args: argparse.Namespace) -> None:
    from ..training.request import check_of_round

    check_of_round(bool(args.labeled_only))
    if args.resume:
        if args.cohort or args.output:
            raise UsageError("--resume takes cohort and folder from the round; leave COHORT and -o away.")
        refuse_beside_resume(args, ("device", "cache"))
        return
    refuse_finish(args, "ROUND_DIR")
    if not args.cohort or not args.output:
        raise UsageError("Name a cohort and a new folder: caml round COHORT -o ROUND_DIR (or --resume ROUND_DIR).")


def _open(args: argparse.Namespace, folder: RoundFolder, held: ExitStack, listener: Listener) -> None:
    """Lock the round's folder and make a new round there, or see that there is one to go on with."""
    from ..rounds.round import start_round

    if args.resume:
        folder.read_request()
    held.enter_context(folder.lock())
    if not args.resume:
        start_round(folder, args.cohort, _request(args, listener), args.model, args.preview)


def _request(args: argparse.Namespace, listener: Listener) -> RoundRequest:
    from ..data.files import relative_to
    from ..rounds.request import RoundRequest

    cache = relative_to(args.cache, args.output) if args.cache else ""
    return RoundRequest(to_request(args, listener), args.baseline, args.folds, args.name, cache)


def _list_model(title: str | None, folder: RoundFolder, listener: Listener) -> None:
    """Put the model where panels look for it; whatever keeps it from there, the round is what it is."""
    if title is None:
        return
    from ..model_library import ModelLibrary
    from ..rounds.listing import put_into_models

    try:
        put_into_models(folder.path, title, ModelLibrary())
    except (CamlError, OSError) as error:
        message = f"The model could not be put into your models; open it in CAML Segmentation. {error}"
        listener("warning", {"message": message, "part": ""})


def _file_title(text: str) -> str:
    if not text.strip() or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"expected a file's name without ending and folder, got {text!r}")
    return text


def _paths(folder: RoundFolder, found: dict[str, Any]) -> dict[str, str]:
    return {"result": str(folder.result), "model": str(folder.path / found["model"])}
