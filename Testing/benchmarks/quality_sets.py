"""The anatomies of bench_quality.py: their cases, who is held out, and how the page names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cohorts import HIPPOCAMPI_TRAINING, LA_TRAINING, VESSEL_UNLABELED, hippocampi, left_atria, vessels


@dataclass(frozen=True)
class QualitySet:
    """``list``: writes the list of all cases, those that may be trained on labelled; of the shared folder's ``folder``.

    ``training``: so many may be trained on; ``labels``: of a strong model that is trained here; ``trained_on``,
    ``held_out`` and ``averaged``: for the page's sentences.
    """

    title: str
    folder: str
    section: str
    list: Callable[[Path, Path, int], Path]
    training: int
    labels: int
    trained_on: str
    held_out: str
    averaged: str = ""


SETS = {
    "left-atria": QualitySet(
        "left atria", "la2018", "quality", left_atria, LA_TRAINING, 8, "left atria 1-60", "held-out cases 61-80"
    ),
    "hippocampi": QualitySet(
        "hippocampi",
        "hippocampus",
        "quality-hippocampi",
        hippocampi,
        HIPPOCAMPI_TRAINING,
        8,
        f"the first {HIPPOCAMPI_TRAINING} hippocampi, by name,",
        "held-out ones",
        ", averaged over both segments, as is their agreement",
    ),
    "vessels": QualitySet(
        "vessel trees",
        "vessels",
        "quality-vessels",
        vessels,
        VESSEL_UNLABELED,
        4,
        f"vessel trees 1-{VESSEL_UNLABELED}",
        "held-out ones",
    ),
}
