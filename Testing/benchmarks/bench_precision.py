"""What reduced precision costs: the same model and the same scans predicted in bf16 and in fp32.

    python Testing/benchmarks/bench_precision.py --model MODEL.caml

MODEL.caml is a model of the left atrium that has been trained; with random weights the comparison would say nothing.
The cases are la2018's held-out ones, 61-80. ``--quick`` takes the first and leaves the page alone.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from cohorts import LA_TRAINING, left_atria, refuse_learned
from common import left_atria_folder, machine, table, write_section

from caml_core.config import DTypeName, NumericMode
from caml_core.data.cohort import load_cohort
from caml_core.data.io import read_volume
from caml_core.inference.batch import load_network
from caml_core.inference.predictor import OVERLAPS, Predictor, Quality
from caml_core.metrics import dice
from caml_core.model_file import LoadedModel, ModelCard, load_model, read_card

MODES: tuple[DTypeName, DTypeName] = ("fp32", "bf16")
LEAST = 0.998


@dataclass(frozen=True)
class Row:
    """One segment of one case: Dice of both modes' labels (None: neither found it), and of each with the reference."""

    case: str
    segment: str
    between: float | None
    reference: tuple[float, ...]


def main() -> None:
    """Predict all cases in both modes, compare, write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE.caml", help="a trained model")
    parser.add_argument("--quality", choices=tuple(OVERLAPS), default="balanced")
    parser.add_argument("--quick", action="store_true", help="one case; nothing is written")
    options = parser.parse_args()
    source = left_atria_folder()
    if source is None:
        return
    cases = held_out(source)[: 1 if options.quick else None]
    model = load_model(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        cohort = load_cohort(left_atria(Path(scratch) / "list.json", source, LA_TRAINING))
    refuse_learned(read_card(options.model), cohort)
    text = section(compared(model, options.quality, cases), model, read_card(options.model), options.quality)
    if options.quick:
        print(text)
    else:
        write_section("precision", text)


def held_out(folder: Path) -> list[tuple[str, Path, Path]]:
    """Number, image and label of the cases that no benchmark trains on."""
    with (folder / "cases.csv").open(newline="") as stream:
        listed = list(csv.DictReader(stream))[LA_TRAINING:]
    return [(case["index"], folder / case["image"], folder / case["label"]) for case in listed]


def compared(model: LoadedModel, quality: Quality, cases: Sequence[tuple[str, Path, Path]]) -> list[Row]:
    """Predict every case in both modes."""
    network = load_network(model)
    predictors = [
        Predictor(network, model.spec, numeric=NumericMode(mode, channels_last=True), quality=quality) for mode in MODES
    ]
    rows = []
    for name, image, label in cases:
        volume, reference = read_volume(image), np.asarray(read_volume(label).array)
        labels = [predictor.predict([volume]).labels for predictor in predictors]
        for segment in model.spec.segments:
            one, other = (found == segment.label for found in labels)
            between = dice(one, other) if one.any() or other.any() else None
            scores = tuple(dice(found == segment.label, reference == segment.label) for found in labels)
            rows.append(Row(name, segment.name, between, scores))
            told = "nothing found" if between is None else round(between, 5)
            print(f"case {name}, {segment.name}: {told}", flush=True)
    if [predictor.numeric.dtype for predictor in predictors] != list(MODES):
        msg = "a mode was not precise enough for these scans and was given up on the way: nothing was compared"
        raise ArithmeticError(msg)
    return rows


def section(rows: Sequence[Row], model: LoadedModel, card: ModelCard, quality: Quality) -> str:
    """The text with its table."""
    body = []
    for segment in model.spec.segments:
        own = [row for row in rows if row.segment == segment.name]
        known = [row.between for row in own if row.between is not None]
        references = [f"{100 * mean(row.reference[mode] for row in own):.3f}" for mode in range(len(MODES))]
        between = (f"{mean(known):.5f}", f"{min(known):.5f}") if known else ("-", "-")
        body.append((segment.name, len(own) - len(known), *between, *references))
    values = [row.between for row in rows if row.between is not None]
    count = len({row.case for row in rows})
    verdict = "met in every one" if all(value >= LEAST for value in values) else "missed in at least one"
    header = ("segment", "cases without", "Dice of bf16 and fp32, mean", "lowest", "fp32: Dice %", "bf16: Dice %")
    return (
        "### What bf16 costs\n\n"
        + table(header, body)
        + f"\n\nModel {model.info.name!r} (weights {card.sha256[:8]}), quality {quality}, {count} held-out left atria "
        "(la2018), labels on the scans' grids. Cases without: neither mode found the segment, which says nothing and "
        f"does not count. The last two columns are against the reference. Aim: at least {LEAST} between the two, "
        f"{verdict if values else 'of which nothing is known'}.\n\n{machine()}"
    )


if __name__ == "__main__":
    main()
