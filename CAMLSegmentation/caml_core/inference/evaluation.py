"""Predicted and reference label maps in pairs, and the table that compares them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..config import Segment
from ..data.cohort import load_cohort
from ..data.files import replacing
from ..data.io import grid_difference
from ..data.labels import LabelMap, is_segmentation, labels_on_grid, read_labels
from ..data.segments import conform, match_segments, plain_name
from ..errors import Cancelled, DataError, UsageError
from ..events import Listener, silent
from ..metrics import COLUMNS, case_metrics, summarize
from ..serialization import write_json

_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
_LABEL_ENDS = ("_label", "-label", "_labels", "-labels", "_seg", "-seg", "_segmentation", "-segmentation", "_mask")
_IMAGE_ENDS = ("_image", "-image", "_img", "_0000")
#: Maps that predictions leave beside their labels.
_EXTRA_ENDS = ("_disagreement", "_probability")
_LISTS = (".csv", ".tsv", ".txt", ".json")
#: Segment name -> metrics of one case.
CaseRow = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Pair:
    """Two label maps of a case. ``declared``: the classes of the references' list, with their values in it."""

    prediction: Path
    reference: Path
    declared: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """``cases``: case id -> segment -> metrics; ``summary``: segment -> column -> mean and std, or count."""

    cases: dict[str, CaseRow]
    summary: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def find_pairs(predictions: Path, references: Path) -> dict[str, Pair]:
    """Return case id -> prediction and reference. Two files are a pair whatever their names.

    In folders, names are compared without ``_label``, ``_image``, ``_seg`` and the suffix; a list (CSV, JSON) or a
    folder with sub-folders is read as a cohort, whose labels are the references. A prediction without a reference is
    an error, a reference without a prediction is not asked for. Raises DataError.
    """
    (ours, _), (theirs, declared) = _label_files(predictions), _label_files(references)
    if predictions.is_file() and references.is_file() and len(ours) == len(theirs) == 1:
        return {case: Pair(path, next(iter(theirs.values())), declared) for case, path in ours.items()}
    lacking = sorted(set(ours) - set(theirs))
    if lacking:
        raise DataError(
            f"There is no reference for {', '.join(lacking[:5])}{' and others' if len(lacking) > 5 else ''} in "
            f"{references}; name prediction and reference after the same case.",
            lacking[0],
        )
    return {case: Pair(path, theirs[case], declared) for case, path in sorted(ours.items())}


def evaluate_pairs(
    pairs: Mapping[str, Pair],
    *,
    stop: Callable[[], bool] = lambda: False,
    listener: Listener = silent,
) -> Evaluation:
    """Compare every pair on the reference's own grid; segments are matched by name, or by value without names.

    Where the references' list declares classes, the values of plain references are theirs. Those of a plain
    prediction may be, too, or else 1, 2, ... in the list's order, as ``caml predict`` writes them.
    A segment that no file of a case has, but other cases do, counts as found: both are empty. ``lines`` says so.
    """
    cases: dict[str, CaseRow] = {}
    for case, pair in pairs.items():
        if stop():
            raise Cancelled(f"Stopped after {len(cases)} of {len(pairs)} cases; nothing was written.")
        cases[case] = _compare(case, pair)
        listener("progress", {"done": len(cases), "total": len(pairs), "unit": "cases"})
    names = list(dict.fromkeys(name for row in cases.values() for name in row))
    if not names:
        raise DataError("All predictions and references are empty; there is nothing to compare.")
    nothing = case_metrics(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), (1.0, 1.0, 1.0), [Segment("none", 1)])["none"]
    whole = {case: {name: row.get(name, nothing) for name in names} for case, row in cases.items()}
    return Evaluation(whole, {name: summarize(row[name] for row in whole.values()) for name in names})


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write the whole table as JSON or CSV, by the suffix; atomic."""
    if path.suffix.lower() == ".json":
        with replacing(path) as temporary:
            write_json(temporary, {"cases": evaluation.cases, "summary": evaluation.summary})
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(_table(evaluation))
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def lines(evaluation: Evaluation, columns: Sequence[str] = ("dice", "jaccard", "hd95_mm", "assd_mm")) -> list[str]:
    """Return the table for the screen: the usual columns, with mean and standard deviation of each segment."""
    rows = [["case", "segment", *(c.replace("_", " ") for c in columns)]]
    for case, row in evaluation.cases.items():
        rows += [[case, name, *(_shown(c, metrics[c]) for c in columns)] for name, metrics in row.items()]
    for name, summary in evaluation.summary.items():
        means = [f"{_shown(c, summary[c]['mean'])} +- {_shown(c, summary[c]['std'])}" for c in columns]
        rows.append([f"mean of {len(evaluation.cases)}", name, *means])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return text + list(_remarks(evaluation))


def empty_remarks(cases: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Say of which segments a mean holds cases that have nothing of them: each counts as 1, and raises it.

    ``cases``: case -> segment -> metrics of ``case_metrics``, of which the volumes tell what is empty.
    """
    remarks = []
    for name in dict.fromkeys(name for row in cases.values() for name in row):
        rows = [row[name] for row in cases.values() if name in row]
        others = [row["dice"] for row in rows if row.get("prediction_ml") != 0.0 or row.get("reference_ml") != 0.0]
        if len(others) < len(rows):
            remark = (
                f"{name}: in {len(rows) - len(others)} of {len(rows)} case(s) neither reference nor segmentation has "
                "it, which counts as a Dice of 1"
            )
            remarks.append(
                f"{remark}; mean Dice of the other {len(others)}: {np.mean(others):.3f}." if others else f"{remark}."
            )
    return remarks


def _compare(case: str, pair: Pair) -> CaseRow:
    prediction, reference, declared = pair.prediction, pair.reference, pair.declared
    theirs = read_labels(reference, case, declared)
    ours = _named_by(declared, read_labels(prediction, case), prediction, case)
    ours, theirs = _on_one_grid(case, ours, prediction, theirs, reference)
    found = {"prediction": ours.segments, "reference": theirs.segments}
    if not any(found.values()):
        return {}
    try:
        segments = match_segments({name: s for name, s in found.items() if s}, declared)
    except DataError as error:
        raise DataError(f"Case {case}: prediction and reference have different segments. {error}", case) from error
    array = conform(ours.array, ours.segments, segments, f"Case {case}: {prediction.name}")
    truth = conform(theirs.array, theirs.segments, segments, f"Case {case}: {reference.name}")
    if declared:  # a list may declare more than there is in any case
        segments = tuple(s for s in segments if (array == s.label).any() or (truth == s.label).any())
    return case_metrics(array, truth, theirs.grid.spacing, segments, case)


def _named_by(declared: Sequence[Segment], found: LabelMap, path: Path, case: str) -> LabelMap:
    """Give a plain prediction the names of the declared classes, by the list's values or by those of a model."""
    if not declared or not found.segments or any(s.name != plain_name(s.label) for s in found.segments):
        return found
    values = [s.label for s in found.segments]
    by_list = {s.label: s for s in declared}
    by_model = dict(enumerate(declared, 1))
    ways = [[way[v].name for v in values] for way in (by_list, by_model) if all(v in way for v in values)]
    if not ways:
        raise DataError(
            f"Case {case}: {path.name} has the label values {values}; expected those of the list ({_values(by_list)}) "
            f"or of caml predict ({_values(by_model)}).",
            case,
        )
    if ways[0] != ways[-1]:
        raise DataError(
            f"Case {case}: the label values {values} of {path.name} may be those of the list ({_values(by_list)}) or "
            f"of caml predict ({_values(by_model)}); save the prediction as .seg.nrrd, which holds the names.",
            case,
        )
    named = tuple(replace(s, name=name) for s, name in zip(found.segments, ways[0]))
    return replace(found, segments=named, named=True)


def _values(classes: Mapping[int, Segment]) -> str:
    return ", ".join(f"{value} {segment.name}" for value, segment in classes.items())


def _on_one_grid(
    case: str, ours: LabelMap, prediction: Path, theirs: LabelMap, reference: Path
) -> tuple[LabelMap, LabelMap]:
    """Bring both maps onto the larger grid: Slicer crops a segmentation to its segments."""
    if not grid_difference(ours.grid, theirs.grid):
        return ours, theirs
    larger = ours.grid if math.prod(ours.grid.size) > math.prod(theirs.grid.size) else theirs.grid
    placed = []
    for label_map, path in ((ours, prediction), (theirs, reference)):
        if (
            not is_segmentation(path)
            and label_map.grid is not larger
            and label_map.array.size != math.prod(larger.size)
        ):
            raise DataError(
                f"Case {case}: {path.name} lies on another grid than its counterpart "
                f"({grid_difference(label_map.grid, larger)}); compare label maps of the same image.",
                case,
            )
        array = labels_on_grid(label_map, larger, path, case)
        if np.count_nonzero(array) != np.count_nonzero(label_map.array):
            raise DataError(f"Case {case}: {path.name} reaches beyond its counterpart's image; save both whole.", case)
        placed.append(replace(label_map, array=array, grid=larger))
    return placed[0], placed[1]


def _label_files(path: Path) -> tuple[dict[str, Path], tuple[Segment, ...]]:
    """Case id -> label map of a file, a folder or a list, and the classes that a list declares."""
    if not path.exists():
        raise DataError(f"{path} does not exist; give label maps, folders of them or a list of cases.")
    if path.is_file() and path.suffix.lower() not in _LISTS:
        return {_case_id(path): path}, ()
    files = _plain_files(path) if path.is_dir() else []
    if not files:
        cohort = load_cohort(path)
        listed = {case.id: case.label for case in cohort.cases if case.label is not None}
        if not listed:
            raise DataError(f"There is no label map in {path}.")
        return listed, cohort.segments
    named = [file for file in files if _is_named_label(file)]
    taken = {_case_id(file) for file in named}
    result: dict[str, Path] = {}
    for file in [*named, *(f for f in files if f not in named and _case_id(f) not in taken)]:
        case = _case_id(file)
        if case in result:
            raise UsageError(f"Both {result[case].name} and {file.name} in {path} belong to case {case}; keep one.")
        result[case] = file
    return result, ()


def _is_named_label(file: Path) -> bool:
    """Whether the name tells a label map from the case's image."""
    return is_segmentation(file) or _stem(file).lower().endswith(_LABEL_ENDS)


def _plain_files(folder: Path) -> list[Path]:
    found = (p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith("."))
    others = (*_EXTRA_ENDS, *_IMAGE_ENDS)
    return [p for p in found if p.name.lower().endswith(_SUFFIXES) and not _stem(p).lower().endswith(others)]


def _case_id(path: Path) -> str:
    stem = _stem(path)
    for _ in range(2):  # X_image_seg, X_label.seg
        end = next((e for e in (*_LABEL_ENDS, *_IMAGE_ENDS) if stem.lower().endswith(e) and len(stem) > len(e)), "")
        stem = stem[: len(stem) - len(end)]
    return stem


def _stem(path: Path) -> str:
    suffix = next((s for s in _SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name[: len(path.name) - len(suffix)]


def _table(evaluation: Evaluation) -> Iterable[list[str]]:
    columns = (*COLUMNS, "prediction_ml", "reference_ml", "missed", "invented")
    yield ["case", "segment", *columns]
    for case, row in evaluation.cases.items():
        for name, metrics in row.items():
            yield [case, name, *(f"{metrics[column]:.6g}" for column in columns)]
    for statistic in ("mean", "std"):
        for name, summary in evaluation.summary.items():
            # Of the flags it is their number that counts.
            figures = (summary[c].get(statistic, summary[c].get("count", 0.0)) for c in columns)
            yield [statistic, name, *(f"{figure:.6g}" for figure in figures)]


def _remarks(evaluation: Evaluation) -> Iterable[str]:
    for name, summary in evaluation.summary.items():
        for flag, meaning in (("missed", "has none of it where the reference does"), ("invented", "alone has it")):
            if count := int(summary[flag]["count"]):
                yield f"{name}: the prediction {meaning} in {count} case(s); their distances are the image's diagonal."
    yield from empty_remarks(evaluation.cases)


def _shown(column: str, value: float) -> str:
    return f"{value:.4f}" if column in ("dice", "jaccard") else f"{value:.2f}"
