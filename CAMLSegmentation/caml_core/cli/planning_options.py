"""Options that ``caml plan`` and ``caml train`` share, and the request that they make."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import PRESETS
from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..events import Listener
    from ..training.request import Request


def add_planning(parser: argparse.ArgumentParser, of_round: bool = False) -> None:
    """Add everything that shapes a plan. of_round: what cannot be asked of a round is not shown, and refused later."""
    parser.add_argument("--model", type=Path, metavar="START.caml", help="model to start from (default: from scratch)")
    parser.add_argument(
        "--renamed",
        nargs=2,
        action="append",
        default=[],
        metavar=("OLD", "NEW"),
        help="name of a segment in the start model, and its name in the cohort (may be given several times)",
    )
    parser.add_argument("--preset", choices=PRESETS, default="default", help="default, or the published method: paper")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--budget",
        type=options.duration,
        metavar="90m",
        help="time to train for (default: 60m; with --preset paper 15,000 iterations)",
    )
    length.add_argument("--iterations", type=options.whole_number(1, 10**7), metavar="N", help="instead of a budget")
    alone = argparse.SUPPRESS if of_round else "baseline: one network (sub-model v) on the labelled cases alone"
    parser.add_argument("--labeled-only", action="store_true", help=alone)
    parser.add_argument(
        "--hold-out",
        type=options.whole_number(0, 10**6),
        metavar="N",
        help="labelled cases to spare for validation where the list names none (default: a fifth of five or more)",
    )
    parser.add_argument("--patch", type=_triple, metavar="X,Y,Z", help="voxels of a patch (default: planned)")
    parser.add_argument(
        "--spacing",
        type=_spacing,
        metavar="X,Y,Z",
        help="spacing of the grid that the networks compute on, in mm (default: planned)",
    )
    parser.add_argument(
        "--base-filters",
        type=options.whole_number(1, 64),
        metavar="N",
        help="filters of the networks' first stage (default: 16, or the start model's)",
    )
    parser.add_argument(
        "--batch",
        type=options.whole_number(1, 64),
        metavar="N",
        help="labelled patches a step, and as many unlabelled ones (default: 2)",
    )
    parser.add_argument(
        "--dtype", choices=("fp32", "bf16", "fp16"), help="arithmetic (default: the fastest of a short measurement)"
    )
    options.add_device(parser)
    options.add_seed(parser)


def add_round(parser: argparse.ArgumentParser) -> None:
    """Add what makes more of a training: a baseline, a cross-validation, an open end, a preview."""
    parser.add_argument("--baseline", action="store_true", help="also train on the labels alone for as long")
    parser.add_argument(
        "--folds", type=options.whole_number(2, 100), default=0, metavar="K", help="also cross-validate in K trainings"
    )
    parser.add_argument(
        "--until-better",
        action="store_true",
        help="train until the validated Dice no longer rises; --budget is then the most (default: 12h)",
    )
    parser.add_argument("--preview", default="", metavar="CASE", help="case to segment at each live validation")
    add_cache(parser)


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache`` (``args.cache``)."""
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where prepared cases are kept (default: in CAML_CACHE_DIR, else in the user's cache)",
    )


def add_finish(parser: argparse.ArgumentParser) -> None:
    """Add ``--finish`` (``args.finish``)."""
    parser.add_argument("--finish", action="store_true", help="with --resume: train no further, score what there is")


def keep_written(parser: argparse.ArgumentParser, of_round: bool = False) -> None:
    """Let ``parser`` give None for those options that shape a plan, and a round, that were not written.

    Their defaults are in ``args.defaults``; ``with_defaults`` fills them in. Beside --resume an option counts as given
    also where its value is the default one.
    """
    shaping = argparse.ArgumentParser()
    if of_round:
        add_round(shaping)
    add_planning(shaping, of_round)
    defaults = vars(shaping.parse_args([])) | ({"name": ""} if of_round else {})
    parser.set_defaults(**dict.fromkeys(defaults), defaults=defaults)


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """Return what a parser with ``keep_written`` found, complete."""
    unwritten = {name: default for name, default in args.defaults.items() if getattr(args, name) is None}
    return argparse.Namespace(**{**vars(args), **unwritten})


def refuse_beside_resume(args: argparse.Namespace, kept: Collection[str]) -> None:
    """Raise UsageError that names the options of ``keep_written`` that were written beside --resume.

    kept: the names in ``args`` of those that count there, too.
    """
    given = [name for name in args.defaults if name not in kept and getattr(args, name) is not None]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(
            f"--resume goes on with the options that the training was begun with; leave {names} away, or begin "
            "another one in a new folder."
        )


def refuse_finish(args: argparse.Namespace, folder: str) -> None:
    """Raise UsageError where --finish was given without --resume ``folder``."""
    if args.finish:
        raise UsageError(f"--finish goes with --resume {folder}: there is nothing to finish yet.")


def to_request(args: argparse.Namespace, listener: Listener) -> Request:
    """Return the planner's request; asks for the device, and tells of those that are left aside."""
    from ..device import choose_device
    from ..training.request import Request

    return Request(
        preset=args.preset,
        device=choose_device(args.device, listener),
        threads=args.threads,
        seed=args.seed,
        labeled_only=args.labeled_only,
        budget_seconds=args.budget,
        iterations=args.iterations,
        spacing=args.spacing,
        patch=args.patch,
        base_filters=args.base_filters,
        dtype=args.dtype,
        batch=args.batch,
        until_better=getattr(args, "until_better", False),
        preview=bool(getattr(args, "preview", "")),
        hold_out=args.hold_out,
        renamed=tuple((old, new) for old, new in args.renamed),
    )


def _triple(text: str) -> tuple[int, int, int]:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three whole numbers such as 80,64,48, got {text!r}") from None
    if min(x, y, z) < 1:
        raise argparse.ArgumentTypeError(f"expected positive sides, got {text!r}")
    return x, y, z


def _spacing(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers such as 1.25,1.25,1.25, got {text!r}") from None
    if not all(0.01 <= s <= 100 for s in (x, y, z)):
        raise argparse.ArgumentTypeError(f"expected spacings from 0.01 to 100 mm, got {text!r}")
    return x, y, z


def require_json(path: Path) -> Path:
    """Check the name of a plan that is to be written."""
    if path.suffix.lower() != ".json":
        raise UsageError(f"The plan is written as JSON; name it PLAN.json instead of {path}.")
    return path
