"""Predicted and reference label maps compared: the table of figures, and what is to be said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..config import Segment
from ..data.cells import csv_text
from ..data.files import replacing
from ..data.io import grid_difference
from ..data.labels import LabelMap, is_segmentation, labels_on_grid, read_labels
from ..data.placement import joined
from ..data.segments import conform, match_segments, named_as_references, plain_name, plain_value, taken_note
from ..data.structures import read_structures
from ..errors import Cancelled, DataError
from ..events import Listener, silent
from ..metrics import COLUMNS, case_metrics, summarize
from ..serialization import write_json
from .pairs import Pair

#: Segment name -> metrics of one case.
CaseRow = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """``cases``: case id -> segment -> metrics; ``summary``: segment -> column -> mean and std, or count.

    ``notes``: sentences on what label maps lost when they were read, such as overlaps, and on values that were taken
    for others.
    """

    cases: dict[str, CaseRow]
    summary: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def evaluate_pairs(
    pairs: Mapping[str, Pair],
    *,
    notes: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    listener: Listener = silent,
) -> Evaluation:
    """Compare every pair on the reference's own grid; segments are matched by name, or by value without names.

    ``notes``: what is to be said of the pairs already; these come first.

    Where the references' list declares classes, the values of plain references are theirs. Those of a plain prediction
    may be the same, or else 1, 2, ... in this order, as ``caml predict`` writes them; DataError where both may be and
    differ. Where nothing is declared, a class of a plain reference is called after its value, and so is one of a plain
    prediction: that references lack a value may be chance. Only where all references and all predictions hold a single
    structure it is the same, whatever its value (masks of 255). A note says which values were taken for others.
    A segment that no file of a case has, but other cases do, counts as found: both are empty. ``lines`` says so.
    """
    cases: dict[str, CaseRow] = {}
    remarks = list(notes)
    naming = _Naming.of(pairs, stop)
    for case, pair in pairs.items():
        if stop():
            raise Cancelled(f"Stopped after {len(cases)} of {len(pairs)} cases; nothing was written.")
        cases[case], told = _compare(case, pair, naming)
        remarks += told
        listener("progress", {"done": len(cases), "total": len(pairs), "unit": "cases"})
    names = list(dict.fromkeys(name for row in cases.values() for name in row))
    if not names:
        raise DataError("All predictions and references are empty; there is nothing to compare.")
    nothing = case_metrics(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), (1.0, 1.0, 1.0), [Segment("none", 1)])["none"]
    whole = {case: {name: row.get(name, nothing) for name in names} for case, row in cases.items()}
    summary = {name: summarize(row[name] for row in whole.values()) for name in names}
    return Evaluation(whole, summary, (*remarks, *taken_note(naming.taken), *_numbering_note(cases)))


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write the whole table as JSON or CSV, by the suffix; atomic. Notes are in JSON alone."""
    if path.suffix.lower() == ".json":
        with replacing(path) as temporary:
            write_json(temporary, evaluation)
        return
    with replacing(path) as temporary:
        temporary.write_text(csv_text(_table(evaluation)), encoding="utf-8")


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
    return text + figure_remarks(evaluation.cases) + list(evaluation.notes)


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


def figure_remarks(cases: Mapping[str, CaseRow]) -> list[str]:
    """Say of which segments means hold distances of cases that have nothing of them on one side, or on both.

    ``cases``: case -> segment -> metrics of ``case_metrics``.
    """
    remarks = []
    for name in dict.fromkeys(name for row in cases.values() for name in row):
        for flag, meaning in (("missed", "has none of it where the reference does"), ("invented", "alone has it")):
            if count := sum(row[name][flag] > 0 for row in cases.values() if name in row):
                remarks.append(
                    f"{name}: the prediction {meaning} in {count} case(s); their distances are the image's diagonal."
                )
    return remarks + empty_remarks(cases)


def _numbering_note(cases: Mapping[str, CaseRow]) -> tuple[str, ...]:
    """Say so where values of plain label maps may have been numbered anew, as ``caml predict`` writes them."""
    volumes: dict[str, np.ndarray] = {}
    for row in cases.values():
        for name, figures in row.items():
            own = np.array([figures["prediction_ml"], figures["reference_ml"]])
            volumes[name] = volumes.get(name, 0.0) + own
    missed = [name for name, (predicted, _) in volumes.items() if plain_value(name) is not None and not predicted]
    invented = [name for name, (_, referred) in volumes.items() if plain_value(name) is not None and not referred]
    if not (missed and invented):
        return ()
    return (
        f"No prediction has {', '.join(missed)} and no reference has {', '.join(invented)}: label maps without names "
        "are compared by their values. Where the classes were numbered anew, list them with the references' values in "
        "a JSON cohort, or save segmentations as .seg.nrrd.",
    )


def _compare(case: str, pair: Pair, naming: _Naming) -> tuple[CaseRow, tuple[str, ...]]:
    prediction, reference = pair.prediction, pair.reference
    theirs, ours = read_labels(reference, case, pair.declared), read_labels(prediction, case)
    declared = pair.declared or naming.implied(ours, theirs)
    if declared and not pair.declared:
        theirs = read_labels(reference, case, declared)
    if declared and not ours.named:
        ours = naming.named(ours, declared, f"Case {case}: {prediction.name}")
    notes = (*ours.notes, *theirs.notes)
    ours, theirs = _on_one_grid(case, ours, prediction, theirs, reference)
    found = {"prediction": ours.segments, "reference": theirs.segments}
    if not any(found.values()):
        return {}, notes
    try:
        segments = match_segments({name: s for name, s in found.items() if s}, declared)
    except DataError as error:
        raise DataError(f"Case {case}: prediction and reference have different segments. {error}", case) from error
    array = conform(ours.array, ours.segments, segments, f"Case {case}: {prediction.name}")
    truth = conform(theirs.array, theirs.segments, segments, f"Case {case}: {reference.name}")
    if declared:  # a list may declare more than there is in any case
        segments = tuple(s for s in segments if (array == s.label).any() or (truth == s.label).any())
    return case_metrics(array, truth, theirs.grid.spacing, segments, case), notes


@dataclass(frozen=True)
class _Naming:
    """What values mean in label maps without names.

    ``predicted``: values of all plain predictions beside declared references. ``lone``: where nothing is declared, the
    only structure that both sides hold, with its value in plain references. ``taken``: value of predictions -> that of
    references for which it was taken so far.
    """

    predicted: frozenset[int]
    lone: Segment | None
    taken: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Mapping[str, Pair], stop: Callable[[], bool]) -> _Naming:
        """Look at all files, where one alone may lack a class."""

        def check() -> None:
            if stop():
                raise Cancelled("Stopped before the first case; nothing was written.")

        plain = {c: p.prediction for c, p in pairs.items() if p.declared and not is_segmentation(p.prediction)}
        predicted = read_structures(plain, check).values
        undeclared = {case: pair for case, pair in pairs.items() if not pair.declared}
        theirs = read_structures({case: pair.reference for case, pair in undeclared.items()}, check)
        if len(theirs.values) != 1 or not theirs.single:
            return cls(predicted, None)
        ours = read_structures({case: pair.prediction for case, pair in undeclared.items()}, check)
        (value,) = theirs.values
        name = next(iter(ours.names.values()), plain_name(value))
        return cls(predicted, Segment(name, value) if ours.single else None)

    def implied(self, ours: LabelMap, theirs: LabelMap) -> tuple[Segment, ...]:
        """The classes of a plain reference where it is not its values alone that tell."""
        if theirs.named:
            return ()
        if self.lone is not None:
            if plain_value(self.lone.name) != self.lone.label:
                self.taken.update({s.label: self.lone.label for s in ours.segments})
            return (self.lone,)
        values = [plain_value(segment.name) for segment in ours.segments] if ours.named else [None]
        known = {value for value in values if value is not None}
        if len(known) < len(values):
            return ()
        return tuple(Segment(plain_name(v), v) for v in sorted(known | {s.label for s in theirs.segments}))

    def named(self, ours: LabelMap, declared: Sequence[Segment], who: str) -> LabelMap:
        """A plain prediction with the names of its segments."""
        if self.lone is not None:
            named = tuple(replace(s, name=declared[0].name) for s in ours.segments)
        else:
            named = named_as_references(ours.segments, {s.label: s for s in declared}, who, self.predicted)
        value = {s.name: s.label for s in declared}
        self.taken.update({s.label: value[s.name] for s in named})
        return replace(ours, segments=named, named=True)


def _on_one_grid(
    case: str, ours: LabelMap, prediction: Path, theirs: LabelMap, reference: Path
) -> tuple[LabelMap, LabelMap]:
    """Bring both maps onto the larger grid, or onto what two segmentations cover together: Slicer may crop each of them
    to its segments, which lie where they lie.
    """
    if not grid_difference(ours.grid, theirs.grid):
        return ours, theirs
    larger = ours.grid if math.prod(ours.grid.size) > math.prod(theirs.grid.size) else theirs.grid
    if is_segmentation(prediction) and is_segmentation(reference):
        larger = joined(larger, ours.grid if larger is theirs.grid else theirs.grid) or larger
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


def _shown(column: str, value: float) -> str:
    return f"{value:.4f}" if column in ("dice", "jaccard") else f"{value:.2f}"
