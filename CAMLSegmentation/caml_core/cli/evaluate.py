"""``caml evaluate``: compare segmentations with their references."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import UsageError
from . import options

HELP = "Compare segmentations with references: Dice, Jaccard, 95HD and ASSD, in mm and in voxels."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="a label map or a folder of them")
    parser.add_argument(
        "references", type=Path, metavar="REFERENCES", help="a label map, a folder of them, or a list of cases"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="TABLE", help="write all figures to this .csv or .json")
    parser.add_argument("--voxels", action="store_true", help="show distances in voxels, as published tables have them")
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print the table, and write it where asked."""
    if args.output and args.output.suffix.lower() not in (".csv", ".json"):
        raise UsageError(f"{args.output} is no table; expected a name ending in .csv or .json.")
    from ..inference.evaluation import evaluate_pairs, lines, write_evaluation
    from ..inference.pairs import find_pairs

    with options.StopRequest(args.stop_file, args.parent_pid) as stop, options.reporting(args) as listener:
        notes: list[str] = []
        pairs = find_pairs(args.predictions, args.references, notes)
        evaluation = evaluate_pairs(pairs, notes=notes, stop=stop, listener=listener)
        for note in evaluation.notes if args.progress == "json" else ():  # else they stand below the table
            listener("warning", {"message": note})
        if args.output:
            write_evaluation(args.output, evaluation)
        listener("finished", {"result": {"summary": evaluation.summary, "cases": len(evaluation.cases)}})
    if args.progress != "json":
        columns = ("dice", "jaccard", "hd95_pooled_voxel", "asd_voxel", "assd_voxel") if args.voxels else None
        text = lines(evaluation, columns) if columns else lines(evaluation)
        options.say("\n".join(text))
    return 0
