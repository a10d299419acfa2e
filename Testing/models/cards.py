"""A trained model's file with a full card, and what a file's card lacks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import REPOSITORY  # noqa: F401  finds the engine
from recipes import Recipe
from torch import Tensor
from wide_fields import COPY

from caml_core.errors import CamlError
from caml_core.metrics import summarize
from caml_core.model_file import LoadedModel, ModelInfo, load_model, save_model
from caml_core.serialization import read_json
from caml_core.training.run_folder import RunFolder

#: A file that every clone of the repository, and every installed extension, carries along.
MOST_BYTES = 12_000_000
#: Figures of the card. Both rules of the 95th percentile: of both directions pooled, and the larger of the two.
COLUMNS = ("dice", "jaccard", "hd95_pooled_mm", "hd95_mm", "assd_mm")

#: Values of a weight from which on it keeps so many significant bits. Four fifths of a network's values are in the few
#: kernels of its deepest stages, which decide least; eight bits is what prediction in bfloat16 keeps.
SIGNIFICANT = ((400_000, 2), (100_000, 3), (20_000, 5), (0, 8))
#: Significant bits of float32, the first one implied.
FLOAT_BITS = 24


def write_model(recipe: Recipe, trained: Path, figures: Path, held_out: str, target: Path) -> list[str]:
    """Write the model of the run folder ``trained`` to ``target`` with the recipe's card; return what it lacks.

    The file is packed and its weights are coarse, since the repository carries it twice: as it is and in its history.
    figures: run folder of the training that was scored on held-out cases, the same one or a twin's. held_out: which
    cases those are. Raises CamlError where a training has left no model or no figures.
    """
    model = load_model(RunFolder(trained).model)
    copies = sum(case.id.startswith(COPY) for case in RunFolder(trained).read_cohort().cases)
    info = _card(recipe, model, figures_of(figures, held_out), copies)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(target, spec=model.spec, state=coarse(model.state), info=info, packed=True)
    return faults(target)


def coarse(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's state with weights of two and more dimensions rounded to as many bits as ``SIGNIFICANT`` says.

    Rounding to n significant bits changes a value by 1 / 2**n of it at most. All others stay as they are.
    """
    return {
        name: _rounded(tensor) if tensor.is_floating_point() and tensor.dim() >= 2 else tensor
        for name, tensor in state.items()
    }


def _rounded(weights: Tensor) -> Tensor:
    bits = next(bits for values, bits in SIGNIFICANT if weights.numel() >= values)
    dropped = FLOAT_BITS - bits
    pattern = weights.to(torch.float32).contiguous().view(torch.int32)
    return (((pattern + (1 << (dropped - 1))) >> dropped) << dropped).view(torch.float32).to(weights.dtype)


def figures_of(run: Path, held_out: str) -> dict[str, Any]:
    """Return the held-out figures of a run folder: ``count``, ``of``, and sub-model -> segment -> metric -> spread."""
    scores = read_json(RunFolder(run).scores)
    cases: dict[str, dict[str, dict[str, dict[str, float]]]] = scores["cases"]
    summary: dict[str, dict[str, Any]] = {}
    for model, segments in next(iter(cases.values())).items():
        summary[model] = {name: _summary([case[model][name] for case in cases.values()]) for name in segments}
    return {"count": len(cases), "of": held_out, "summary": summary}


def faults(path: Path) -> list[str]:
    """Return what keeps a model file from being part of the project, each as one sentence; empty where nothing does."""
    found = []
    if path.stat().st_size > MOST_BYTES:
        found.append(f"It has {path.stat().st_size / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:.0f} are allowed.")
    try:
        model = load_model(path)
    except CamlError as error:
        return [*found, f"It cannot be opened: {error}"]
    return found + _missing_words(model.info) + _missing_figures(model) + _unfinished(model)


def _card(recipe: Recipe, model: LoadedModel, figures: Mapping[str, Any], copies: int) -> ModelInfo:
    """The card; a copy of a case in other surroundings is no case of its own."""
    return dataclasses.replace(
        model.info,
        labeled_cases=model.info.labeled_cases - copies,
        name=recipe.title,
        anatomy=recipe.anatomy,
        modality=recipe.modality,
        description=f"{recipe.about} {recipe.limits}",
        license=recipe.license,
        citation=recipe.citation,
        metrics={"held_out": dict(figures)},
        provenance={
            "data": recipe.data,
            "limits": recipe.limits,
            "reproduction": recipe.command(int(model.info.provenance["planned_iterations"])),
            **model.info.provenance,
        },
    )


def _summary(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: value for name, value in summarize(rows).items() if name in COLUMNS}


def _missing_words(info: ModelInfo) -> list[str]:
    words = {
        name: getattr(info, name) for name in ("name", "anatomy", "modality", "description", "license", "citation")
    }
    words |= {name: info.provenance.get(name) for name in ("data", "limits", "reproduction")}
    found = [f"The card says nothing of: {name}." for name, text in words.items() if not str(text or "").strip()]
    if info.provenance.get("limits") and info.provenance["limits"] not in info.description:
        found.append("The limits do not stand in the description, which is what the panel shows.")
    return found


def _missing_figures(model: LoadedModel) -> list[str]:
    """Counts, and Dice and surface distances of every segment on held-out cases, with whose they are."""
    info = model.info
    found = [] if info.labeled_cases > 0 else ["The card does not say on how many labelled cases it was trained."]
    held_out = info.metrics.get("held_out") or {}
    if not held_out.get("count") or not str(held_out.get("of") or "").strip():
        found.append("The card does not say on which held-out cases it was measured, and on how many.")
    summary = (held_out.get("summary") or {}).get("mean") or {}
    for segment in model.spec.segments:
        means = [(summary.get(segment.name) or {}).get(column, {}).get("mean") for column in COLUMNS]
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in means):
            found.append(f"The card lacks held-out figures of {segment.name}: {', '.join(COLUMNS)}.")
    return found


def _unfinished(model: LoadedModel) -> list[str]:
    found, origin = [], model.info.provenance
    if model.spec.labeled_only:
        found.append("It has sub-model v alone.")
    if not origin.get("planned_iterations") or origin.get("iterations") != origin["planned_iterations"]:
        found.append(f"It was not trained to its end ({origin.get('iterations')} iterations).")
    return found
