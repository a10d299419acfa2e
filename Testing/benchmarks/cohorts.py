"""Lists of cases of the real scans that benchmarks and models train on: who is labelled, unlabelled, held out."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from common import REPOSITORY  # noqa: F401  finds the engine

from caml_core.anatomy import LEFT_ATRIUM
from caml_core.case_names import as_digest, digest_of
from caml_core.config import Segment
from caml_core.data.case import Case, Cohort, Role
from caml_core.data.cohort import save_cohort
from caml_core.model_file import ModelCard, learned_cases

#: Left atria that are trained on where the others are held out, and all that there are.
LA_TRAINING, LA_CASES = 60, 80
#: Vessels: the last labelled, the last unlabelled and the last held-out case.
VESSEL_LABELED, VESSEL_UNLABELED, VESSEL_CASES = 4, 24, 32
LUMEN = Segment("Vessel lumen", 1)
#: Hippocampi that are trained on where the others are held out, and all that there are.
HIPPOCAMPI_TRAINING, HIPPOCAMPI = 120, 160
HIPPOCAMPUS = (Segment("Anterior hippocampus", 1), Segment("Posterior hippocampus", 2))


def left_atria(path: Path, source: Path, labeled: int, training: int = LA_TRAINING, held_out: int = 20) -> Path:
    """Write the list ``path`` of the cases in ``source``, in their official order, and return it.

    The first ``labeled`` are labelled, the others up to case ``training`` are not (their labels stay unnamed), and
    ``held_out`` ones from case 61 on are for validation, where the training ends before them.
    """
    with (source / "cases.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    cases = [
        _case(row["case"], source / row["image"], source / row["label"], "labeled" if place < labeled else "unlabeled")
        for place, row in enumerate(rows[:training])
    ]
    for row in rows[LA_TRAINING : LA_TRAINING + held_out] if training <= LA_TRAINING else ():
        cases.append(_case(row["case"], source / row["image"], source / row["label"], "validation"))
    return write_list(path, cases, (LEFT_ATRIUM,))


def vessels(path: Path, source: Path, labeled: int = VESSEL_LABELED) -> Path:
    """Write the list ``path`` of the simulated CTAs of real vessel trees in ``source``, and return it."""
    cases = []
    for number in range(1, VESSEL_CASES + 1):
        role: Role = "validation"
        if number <= VESSEL_UNLABELED:
            role = "labeled" if number <= labeled else "unlabeled"
        name = f"vessel_{number:03d}"
        cases.append(_case(name, source / f"{name}_image.nii.gz", source / f"{name}_label.nii.gz", role))
    return write_list(path, cases, (LUMEN,))


def hippocampi(path: Path, source: Path, labeled: int) -> Path:
    """Write the list ``path`` of the hippocampi in ``source``, by name, and return it; the last 40 are held out."""
    cases = []
    for place, image in enumerate(sorted((source / "images").glob("*.nii.gz"))):
        role: Role = "validation"
        if place < HIPPOCAMPI_TRAINING:
            role = "labeled" if place < labeled else "unlabeled"
        cases.append(_case(image.name.removesuffix(".nii.gz"), image, source / "labels" / image.name, role))
    return write_list(path, cases, HIPPOCAMPUS)


def write_list(path: Path, cases: Sequence[Case], segments: Sequence[Segment]) -> Path:
    """Write the list ``path`` (JSON) and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_cohort(Cohort(tuple(cases), path.parent, tuple(segments)), path)
    return path


def refuse_learned(card: ModelCard, cohort: Cohort) -> None:
    """End the program where a model has learned from a case that it is to be judged by."""
    held_out = {digest_of(case.id) for case in cohort.with_role("validation")}
    listed = card.info.provenance.get("cases") or {}
    if not listed:
        sys.exit(f"{card.path} does not say which cases it has learned from; give a model that caml train has made.")
    met = {as_digest(case) for case, about in listed.items() if about["role"] != "validation"}
    met |= set(learned_cases(card.info))
    if learned := met & held_out:
        sys.exit(f"{card.path} has learned from {len(learned)} of the held-out cases; give one of cases 1-60 alone.")


def _case(name: str, image: Path, label: Path, role: Role) -> Case:
    return Case(name, (image,), None if role == "unlabeled" else label, role)
