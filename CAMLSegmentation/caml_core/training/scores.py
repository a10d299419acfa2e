"""The figures of a model's card: held-out cases segmented on their own grids and compared with their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelSpec, Plan, Segment
from ..data.case import Case, some_names
from ..data.grid import Grid
from ..data.io import read_case
from ..data.labels import read_case_labels, write_labels
from ..data.segments import conform
from ..errors import CamlError, DataError
from ..events import Listener
from ..inference.batch import load_network
from ..inference.evaluation import empty_remarks
from ..inference.predictor import Predictor, SubModel
from ..metrics import case_metrics, summarize
from ..model import CamlNetwork
from ..model_file import LoadedModel
from .warm_start import known_labels

#: What is reported of each sub-model.
COLUMNS = ("dice", "jaccard", "hd95_mm", "assd_mm")
#: What no file name may hold; segmentations of such a case are not kept.
_NOT_IN_NAMES = set('/\\:*?"<>|')


@dataclass(frozen=True)
class Scoring:
    """What surrounds the scoring. ``keep``: folder for the segmentations, CASE.seg.nrrd, or None.

    passes_over: go on without cases that cannot be read, with a warning; else they raise DataError.
    """

    listener: Listener
    stop: Callable[[], bool]
    keep: Path | None = None
    passes_over: bool = False


def main_sub_model(spec: ModelSpec) -> SubModel:
    """Return the sub-model whose figures stand for the whole model, as ``balanced`` predicts."""
    return "mean" if spec.second_opinion else "v"


def held_out_scores(
    network: CamlNetwork, plan: Plan, cases: Sequence[Case], declared: Sequence[Segment], scoring: Scoring
) -> dict[str, Any]:
    """Return figures of ``cases`` at full resolution, as JSON values.

    ``summary``: sub-model -> segment -> metric -> mean and spread; ``cases``: case -> sub-model -> segment -> metrics;
    ``remarks``: of which segments cases without any raise the first sub-model's mean; ``unread``: the ids of cases that
    were passed over. ``count`` is 0 and ``summary`` empty where all were.
    The sub-models are "mean" (of both), "v" and "a", the main one first; only "v" when trained on labels only.
    Raises Cancelled when asked to stop, DataError for a case that cannot be read and is not passed over.
    """
    spec = plan.model_spec
    every: tuple[SubModel, ...] = ("v",) if plan.labeled_only else ("mean", "v", "a")
    sub_models = tuple(dict.fromkeys((main_sub_model(spec), *every)))
    return _score(network, spec, sub_models, _Known(plan.segments), plan, cases, declared, scoring)


def start_model_scores(
    start: LoadedModel, plan: Plan, cases: Sequence[Case], declared: Sequence[Segment], scoring: Scoring
) -> dict[str, Any]:
    """Return the figures of the model that a training starts from, on the training's segments.

    Segments are matched by name; one that the start model does not have is missing in its segmentations and in the
    figures, and its name stands in ``absent``: to be right wherever a label lacks it would be no merit. Where it has
    none of them, no case is scored. Otherwise as ``held_out_scores``, of the main sub-model alone.
    """
    labels = known_labels(start.spec.segments, plan.segments)
    table = np.zeros(256, np.uint8)
    for ours, theirs in labels.items():
        table[theirs] = ours
    known = _Known(tuple(s for s in plan.segments if s.label in labels), table)
    sub_models = (main_sub_model(start.spec),)
    shown = cases if labels else ()
    scores = _score(load_network(start), start.spec, sub_models, known, plan, shown, declared, scoring)
    return {**scores, "absent": [s.name for s in plan.segments if s.label not in labels]}


@dataclass(frozen=True, eq=False)
class _Known:
    """Segments of the plan that a model has, and its own labels -> the plan's, uint8 [256]; None: they are the same."""

    segments: tuple[Segment, ...]
    table: np.ndarray | None = None


def _score(
    network: CamlNetwork,
    spec: ModelSpec,
    sub_models: Sequence[SubModel],
    known: _Known,
    plan: Plan,
    cases: Sequence[Case],
    declared: Sequence[Segment],
    scoring: Scoring,
) -> dict[str, Any]:
    predictors = {
        name: Predictor(network, spec, numeric=plan.numeric, device=plan.device, sub_model=name, stop=scoring.stop)
        for name in sub_models
    }
    rows: dict[str, Any] = {}
    notes: list[str] = []
    unread: list[str] = []
    for done, case in enumerate(cases, 1):
        try:
            rows[case.id], told = _score_case(predictors, known, plan, case, declared, scoring)
            notes += told
        except DataError as error:
            if not scoring.passes_over:
                raise
            unread.append(case.id)
            scoring.listener("warning", {"message": f"A held-out case is not measured. {error}", "case": case.id})
        scoring.listener("progress", {"done": done, "total": len(cases), "unit": "cases"})
    summary = {
        name: {s.name: summary_of([row[name][s.name] for row in rows.values()]) for s in known.segments}
        for name in sub_models
        if rows
    }
    remarks = [*empty_remarks({case: row[sub_models[0]] for case, row in rows.items()}), *notes]
    scores = {"count": len(rows), "summary": summary, "remarks": remarks, "cases": rows, "unread": unread}
    remarks += filter(None, [unread_remark(scores)])
    return scores


def unread_remark(scores: Mapping[str, Any], named: bool = True) -> str:
    """Say of ``held_out_scores`` how many cases were passed over, and which, where ``named``; empty where none was."""
    unread: Sequence[str] = scores.get("unread", ())  # scores of older versions lack it
    if not unread:
        return ""
    which = f" ({some_names(unread)})" if named else ""
    if not scores["count"]:
        return f"How good the model is was not measured: no held-out case could be read{which}."
    return (
        f"{len(unread)} of {len(unread) + scores['count']} held-out cases could not be read and are not in the figures"
        f"{which}."
    )


def _score_case(
    predictors: Mapping[SubModel, Predictor],
    known: _Known,
    plan: Plan,
    case: Case,
    declared: Sequence[Segment],
    scoring: Scoring,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures by sub-model and segment, and what the label lost when it was read."""
    volumes = read_case(case, plan.network.in_channels)
    found = read_case_labels(case, volumes[0].grid, declared)
    reference = conform(found.array, found.segments, plan.segments, case.id)
    row: dict[str, Any] = {}
    for position, (name, predictor) in enumerate(predictors.items()):
        prediction = predictor.predict(volumes)
        labels = prediction.labels if known.table is None else known.table[prediction.labels]
        row[name] = case_metrics(labels, reference, prediction.grid.spacing, known.segments, case.id)
        if position == 0:
            _keep(labels, prediction.grid, plan, case, scoring)
    return row, found.notes


def _keep(labels: np.ndarray, grid: Grid, plan: Plan, case: Case, scoring: Scoring) -> None:
    """Write a segmentation where that is wanted and can be done; its figures count without it, too."""
    if scoring.keep is None or _NOT_IN_NAMES & set(case.id):
        return
    try:
        write_labels(scoring.keep / f"{case.id}.seg.nrrd", labels, grid, plan.segments)
    except (CamlError, OSError) as error:
        message = f"The segmentation of the held-out case {case.id} is not kept: {error}"
        scoring.listener("warning", {"message": message})


def summary_of(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean and spread of the reported metrics over rows of ``case_metrics``."""
    return {name: value for name, value in summarize(rows).items() if name in COLUMNS}
