"""``caml import-checkpoint``: a published .pth becomes a model file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..errors import UsageError
from . import options

HELP = "Turn a checkpoint of the published CAML code (.pth) into a model file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("checkpoint", type=Path, metavar="PUBLISHED.pth", help="the published checkpoint")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="MODEL.caml", help="the model file to write"
    )
    parser.add_argument("--name", default="", help="name on the model's card (default: the checkpoint's file name)")
    parser.add_argument(
        "--license", default="", help="licence on the model's card, as its authors state it (default: none stated)"
    )
    parser.add_argument(
        "--half", action="store_true", help="store the weights in half the space, at the cost of the last digits"
    )
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Read, check and write; say where the model lies."""
    with options.StopRequest(args.stop_file, args.parent_pid) as stop, options.reporting(args) as listener:
        _check_output(args.output, args.checkpoint)
        from dataclasses import replace

        from ..model_file import save_model
        from ..published import published_info, published_spec, read_published

        listener("stage", {"name": "load", "detail": args.checkpoint.name})
        state = read_published(args.checkpoint)
        info = replace(published_info(args.name or args.checkpoint.stem, args.checkpoint), license=args.license)
        options.check_stop(stop)
        listener("stage", {"name": "write", "detail": args.output.name})
        save_model(args.output, spec=published_spec(), state=state, info=info, half=args.half)
        listener("finished", {"result": {"output": str(args.output)}})
    if args.progress != "json":
        options.say(f"{args.output}: {len(state)} tensors, {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def _check_output(output: Path, checkpoint: Path) -> None:
    """Raise UsageError for a name that no model has, and for that of the checkpoint, which would be lost."""
    if output.suffix.lower() != ".caml":
        raise UsageError(f"{output} is no name of a model file; expected one ending in .caml.")
    if os.path.exists(output) and os.path.exists(checkpoint) and os.path.samefile(output, checkpoint):
        raise UsageError(f"{output} is the checkpoint itself; choose another name for the model file.")
