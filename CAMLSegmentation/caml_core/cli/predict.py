"""``caml predict``: segment scans with a model file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Triple
from ..errors import DataError, UsageError
from . import options

if TYPE_CHECKING:
    from ..inference.batch import CaseResult, Output
    from ..inference.predictor import Predictor

HELP = "Segment scans with a model file: one image, a folder, a DICOM folder or a list of cases."
FORMATS = ("seg.nrrd", "nrrd", "nii.gz", "nii", "mha")
_LISTS = (".csv", ".tsv", ".txt", ".json")
#: Suffixes that nobody gives to a folder.
_FILES = (
    *_LISTS,
    *(".mhd", ".nhdr", ".hdr", ".img", ".raw", ".dcm", ".gz", ".zip", ".caml", ".npy", ".npz", ".mat", ".h5"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".stl", ".vtk", ".vtp", ".vti", ".obj", ".ply"),
    *(".mrb", ".mrml", ".pdf", ".html", ".xls", ".xlsx", ".log"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", type=Path, metavar="MODEL.caml", help="the model file")
    parser.add_argument(
        "images",
        type=Path,
        nargs="+",
        metavar="IMAGE",
        help="image files, folders of images or of DICOM slices, or CSV/JSON lists of cases; a model of several "
        "channels takes single files in groups, in the order of its channels (caml info)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="the label map to write (.seg.nrrd, .nrrd, .nii, .nii.gz, .mha) or, for several cases, a folder "
        "outside of that of the scans",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="seg.nrrd", help="of files in a folder OUT (default: seg.nrrd)"
    )
    parser.add_argument(
        "--role",
        action="append",
        choices=("labeled", "unlabeled", "validation"),
        default=[],
        help="take only cases of this role from lists and folders (may be repeated)",
    )
    parser.add_argument(
        "--csv",
        type=Path,
        help="table of volumes, agreement, seconds, errors (default: in a folder OUT); its rows of other cases stay, "
        "and beside a table with other columns a numbered one is written",
    )
    _add_method(parser)
    _add_results(parser)
    options.add_device(parser)
    options.add_progress(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; 0 when every case was segmented, the first failure's code when some were not, 130 when stopped."""
    with (
        options.StopRequest(args.stop_file, args.parent_pid) as stop,
        options.reporting(args) as listener,
    ):
        _check(args)
        listener("stage", {"name": "load", "detail": args.model.name})
        # After "started": importing PyTorch takes a second or two, and whoever waits should know why.
        from ..device import choose_device, use_threads
        from ..inference.batch import find_cases, load_network, run_cases
        from ..inference.numeric import choose_numeric
        from ..inference.postprocessing import PostProcessing
        from ..inference.predictor import Predictor, Protocol
        from ..inference.table import NAME, table_for
        from ..model_file import load_model

        model = load_model(args.model)
        notes: list[str] = []
        titles = [channel.title for channel in model.spec.channels]
        cases = find_cases(args.images, len(titles), args.role, notes, titles)
        for note in notes:
            listener("warning", {"message": note})
        output = _output(args)
        device = choose_device(args.device, listener)
        use_threads(args.threads)
        network = load_network(model)
        numeric = choose_numeric(
            network, model.spec.network, device, dtype=args.dtype, threads=args.threads, listener=listener
        )
        predictor = Predictor(
            network,
            model.spec,
            numeric=numeric,
            device=device,
            quality=args.quality,
            sub_model=args.sub_model,
            cleaning=PostProcessing(args.largest_component, args.smallest_island, args.fill_holes),
            protocol=Protocol(args.stride, args.window_weights or "uniform") if args.stride else None,
            stop=stop,
            listener=listener,
        )
        table = args.csv or (None if output.is_file else output.path / NAME)
        if table is not None:
            table = table_for(table, [segment.name for segment in model.spec.segments])
        rows = run_cases(
            predictor,
            cases,
            output,
            table=table,
            within=args.within,
            sources=args.images,
            info=model.info,
            stop=stop,
            listener=listener,
        )
        _raise_failures(rows, table)
        listener("finished", {"result": _result(rows, table, predictor)})
    return 0


def parse_stride(text: str) -> Triple:
    """Argparse type of ``18,18,4``."""
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three whole numbers such as 18,18,4, got {text!r}") from None
    if min(x, y, z) < 1:
        raise argparse.ArgumentTypeError(f"strides must be positive, got {text!r}")
    return x, y, z


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quality",
        choices=("fast", "balanced", "best"),
        default="balanced",
        help="fast: fewest windows, labels by sub-model v alone; balanced: both sub-models, a quarter of overlap; "
        "best: half an overlap, and mirrored views where the model was trained with them (default: balanced)",
    )
    parser.add_argument(
        "--sub-model",
        choices=("auto", "v", "a", "mean"),
        default="auto",
        help="which of the two networks make the labels (default: auto, by --quality and by what was trained)",
    )
    parser.add_argument(
        "--stride",
        type=parse_stride,
        metavar="X,Y,Z",
        help="windows of exactly the training patch at this stride, equally weighted, without mirrored views; with "
        "--sub-model v and 18,18,4 the published protocol",
    )
    parser.add_argument(
        "--window-weights", choices=("uniform", "gaussian"), default=None, help="with --stride (default: uniform)"
    )
    parser.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "fp16"),
        help="arithmetic (default: the fastest of a short measurement, remembered for the machine)",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--uncertainty", action="store_true", help="also write where the sub-models disagree, 0 to 255 for 0 to 1"
    )
    parser.add_argument(
        "--probability", action="store_true", help="also write the foreground's probability, 0 to 255 for 0 to 1"
    )
    parser.add_argument(
        "--measures",
        action="store_true",
        help="also measure each segment's surface (mm2) and count its components, in the table and the events",
    )
    parser.add_argument("--percent", action="store_true", help="write these maps as 0 to 100 instead of 0 to 255")
    parser.add_argument(
        "--largest-component",
        action=argparse.BooleanOptionalAction,
        help="keep the largest part of each segment alone, or all parts (default: the largest where the labels that "
        "the model learned from were all in one piece)",
    )
    parser.add_argument(
        "--within",
        type=Path,
        metavar="FOLDER",
        help="label nothing outside the label map CASE.nrrd (.nii.gz, ...) of this folder, which lies on the image's "
        "grid; cases without one are segmented as a whole",
    )
    parser.add_argument(
        "--smallest-island", type=_volume, default=0.0, metavar="ML", help="remove parts of a segment below this volume"
    )
    parser.add_argument("--fill-holes", action="store_true", help="fill background that a segment encloses")


def _volume(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a volume in mL, got {text!r}")
    return value


def _check(args: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before the model is read."""
    if args.within is not None and not args.within.is_dir():
        raise UsageError(
            f"The folder {args.within} is not there; give --within a folder of label maps named after the cases."
        )
    if args.window_weights and not args.stride:
        raise UsageError("--window-weights goes with --stride; without it windows are weighted by a Gaussian.")
    if args.stride and args.quality == "best":
        raise UsageError(
            "--quality best is more overlap and mirrored views, and --stride fixes the windows, without mirrors; leave "
            "one of them away."
        )


def _output(args: argparse.Namespace) -> Output:
    from ..inference.batch import Output

    if _names_other_file(args.output, args.images) and not args.output.is_dir():
        raise UsageError(
            f"{args.output} is no format for label maps; expected a folder or a name ending in {', '.join(FORMATS)}."
        )
    maps = (args.uncertainty, args.probability, args.measures)
    return Output(args.output, args.format, *maps, args.percent)


def _names_other_file(output: Path, images: list[Path]) -> bool:
    """Whether a name is that of a file which is no label map.

    Where the results of many scans go, a name with dots may well be a folder, "2024.05.12-segmentations": there only
    the usual suffixes of files speak against it.
    """
    if not output.suffix or output.name.lower().endswith(FORMATS):
        return False
    single = len(images) == 1 and images[0].is_file() and images[0].suffix.lower() not in _LISTS
    return single or output.suffix.lower() in _FILES


def _raise_failures(rows: tuple[CaseResult, ...], table: Path | None) -> None:
    failed = [row for row in rows if row.error]
    if not failed:
        return
    if len(rows) == 1:
        message = failed[0].error
    else:
        where = f"; {table} has the reasons" if table else ""
        shown = ", ".join(row.case for row in failed[:5]) + (" and others" if len(failed) > 5 else "")
        message = f"{len(failed)} of {len(rows)} cases could not be segmented ({shown}){where}."
    error = DataError(message, failed[0].case)
    error.exit_code = failed[0].exit_code
    raise error


def _result(rows: tuple[CaseResult, ...], table: Path | None, predictor: Predictor) -> dict[str, Any]:
    return {
        "cases": len(rows),
        "outputs": [row.output for row in rows],
        "table": str(table) if table else None,
        "dtype": predictor.numeric.dtype,  # what it came to: an image may have needed float32
        "device": predictor.device,
        "seconds": round(sum(row.seconds for row in rows), 2),
    }
