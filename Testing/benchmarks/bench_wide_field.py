"""Wider fields of view than the crops that a left-atrium model is measured on, with synthesised surroundings.

    python Testing/benchmarks/bench_wide_field.py --models build/models/left-atrium/twin/model.caml

Each held-out left atrium of la2018 (61-80) is segmented as it is published, and laid anywhere into wider fields that
are filled with tissue of another held-out case (surroundings.py): as wide as those that models learn from, and as wide
as whole slices. Models must not have been trained on these cases. Several models are compared side by side. ``--quick``
takes two cases and leaves the page alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cohorts import LA_TRAINING, left_atria, refuse_learned
from common import left_atria_folder, machine, table, write_section
from wide_fields import ACROSS, WHOLE_WITHIN, WITHIN, Scan, read_scan, widened

from caml_core.config import NumericMode
from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort
from caml_core.data.grid import Grid
from caml_core.data.io import Volume
from caml_core.inference.batch import load_network
from caml_core.inference.postprocessing import PostProcessing, clean
from caml_core.inference.predictor import Predictor
from caml_core.metrics import case_metrics
from caml_core.model_file import LoadedModel, load_model, read_card

FIELDS = ("as published", "wide", "whole slices")
#: What is kept of a segmentation.
PARTS = ("all", "largest")
#: Below this a case counts as lost.
LOST = 0.7
Figures = dict[str, float]
Found = dict[tuple[str, str], list[Figures]]


def main() -> None:
    """Segment every case in each field with each model, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="FILE.caml")
    parser.add_argument("--quick", action="store_true", help="two cases; nothing is written")
    options = parser.parse_args()
    source = left_atria_folder()
    if source is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        cohort = load_cohort(left_atria(Path(scratch) / "list.json", source, LA_TRAINING))
    for path in options.models:
        refuse_learned(read_card(path), cohort)
    cases, models = cohort.with_role("validation"), [load_model(path) for path in options.models]
    rows = [figures(model, cases[: 2 if options.quick else None], cases) for model in models]
    text = section(models, rows)
    print(text) if options.quick else write_section("wide-field", text)


def figures(model: LoadedModel, cases: Sequence[Case], donors: Sequence[Case]) -> Found:
    """(field, parts) -> figures of each case, in their order."""
    numeric, all_parts = NumericMode("fp32", channels_last=True), PostProcessing(largest_component=False)
    predictor = Predictor(load_network(model), model.spec, numeric=numeric, cleaning=all_parts)
    found: Found = {(field, parts): [] for field in FIELDS for parts in PARTS}
    for number, case in enumerate(cases, LA_TRAINING + 1):
        for field in FIELDS:
            scan, grid = _scan(case, donors, field)
            labels = predictor.predict([Volume(scan.image, grid)]).labels
            for parts in PARTS:
                if parts == "largest":
                    clean(labels, grid.voxel_ml, model.spec.segments, PostProcessing(largest_component=True))
                truth = scan.mask.astype(np.uint8)
                (row,) = case_metrics(labels, truth, grid.spacing, model.spec.segments, case.id).values()
                found[field, parts].append(row)
        print(f"case {number}:", *(f"{100 * rows[-1]['dice']:.1f}" for rows in found.values()), flush=True)
    return found


def _scan(case: Case, donors: Sequence[Case], field: str) -> tuple[Scan, Grid]:
    return read_scan(case) if field == FIELDS[0] else widened(case, donors, whole=field == FIELDS[2])


def section(models: Sequence[LoadedModel], rows: Sequence[Found]) -> str:
    """The text with its table."""
    body = []
    for model, found in zip(models, rows):
        for (field, parts), figures_of_cases in found.items():
            dice = np.array([row["dice"] for row in figures_of_cases])
            distance = np.array([row["hd95_mm"] for row in figures_of_cases])
            spread = f"{100 * dice.mean():.2f} +- {100 * dice.std(ddof=1):.2f}"
            lost = f"{int((dice < LOST).sum())} of {len(dice)}"
            body.append(
                (model.info.name, field, parts, spread, f"{100 * dice.min():.1f}", lost, f"{distance.mean():.2f}")
            )
    below = f"below {100 * LOST:.0f} %"
    header = ("model", "field of view", "parts kept", "Dice %", "lowest", below, "95HD mm (MONAI)")
    return (
        "### Left atria in a wider field of view\n\n"
        + table(header, body)
        + f"\n\n{len(rows[0][FIELDS[0], PARTS[0]])} held-out cases (61-80), mean of both sub-models, labels on the "
        "scans' grids. The wide fields are **synthesised**: each crop is laid anywhere into the tissue of another "
        "held-out case, whose atrium is filled with what lies around it and which is mirrored at its faces, with lungs "
        f"and air darkened into it; they are {WITHIN[0]:g} to {WITHIN[1]:g} times larger within the slices and "
        f"{ACROSS[0]:g} to {ACROSS[1]:g} times across them, whole slices {WHOLE_WITHIN[0]:g} to {WHOLE_WITHIN[1]:g} "
        "times as large. Real wide scans look different. A model whose labels were in one piece keeps the largest part "
        f"unless told otherwise.\n\n{machine()}"
    )


if __name__ == "__main__":
    main()
