"""The figures of a model's card: held-out cases segmented on their own grids and compared with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config import ModelSpec, Plan, Segment
from ..data.case import Case
from ..data.io import read_case
from ..data.labels import read_case_labels
from ..data.segments import conform
from ..events import Listener
from ..inference.predictor import Predictor, SubModel
from ..metrics import case_metrics, summarize
from ..model import CamlNetwork

#: What is reported of each sub-model.
COLUMNS = ("dice", "jaccard", "hd95_mm", "assd_mm")


def held_out_scores(
    network: CamlNetwork,
    plan: Plan,
    cases: Sequence[Case],
    declared: Sequence[Segment],
    *,
    listener: Listener,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Return figures of ``cases`` at full resolution, as JSON values.

    ``summary``: sub-model -> segment -> metric -> mean and spread; ``cases``: case -> sub-model -> segment -> metrics.
    The sub-models are "mean" (of both, as ``balanced`` predicts), "v" and "a"; only "v" when trained on labels only.
    Raises Cancelled when asked to stop.
    """
    rows: dict[str, Any] = {}
    sub_models: tuple[SubModel, ...] = ("v",) if plan.labeled_only else ("mean", "v", "a")
    predictors = {name: _predictor(network, plan.model_spec, plan, name, stop) for name in sub_models}
    for done, case in enumerate(cases, 1):
        volumes = read_case(case, plan.network.in_channels)
        found = read_case_labels(case, volumes[0].grid, declared)
        reference = conform(found.array, found.segments, plan.segments, case.id)
        rows[case.id] = {}
        for name, predictor in predictors.items():
            prediction = predictor.predict(volumes)
            rows[case.id][name] = case_metrics(
                prediction.labels, reference, prediction.grid.spacing, plan.segments, case.id
            )
        listener("progress", {"done": done, "total": len(cases), "unit": "cases"})
    summary = {
        name: {s.name: _summary([row[name][s.name] for row in rows.values()]) for s in plan.segments}
        for name in sub_models
        if rows
    }
    return {"count": len(rows), "summary": summary, "cases": rows}


def _predictor(
    network: CamlNetwork, spec: ModelSpec, plan: Plan, sub_model: SubModel, stop: Callable[[], bool]
) -> Predictor:
    return Predictor(network, spec, numeric=plan.numeric, device=plan.device, sub_model=sub_model, stop=stop)


def _summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: value for name, value in summarize(rows).items() if name in COLUMNS}
