"""Quality control without a reference: how well does a case's Dice follow from what the sub-models say of each other?

Left atria (LGE-MRI), hippocampi (T1) or vessel trees (CT), by --set. A strong model (--model, such as that of a
finished run of bench_accuracy, else trained here) and weaker ones, with fewer labels and iterations so that bad cases
exist, have learned from the training cases at most. All predict the held-out cases at full resolution. Signals of a
prediction are turned into a predicted Dice by cross-fitting over these cases; a Dice below 0.85 counts as "needs
correction". With --output nothing that is finished there is repeated.

    python Testing/benchmarks/bench_quality.py --model build/accuracy/la-8/caml-seed-0/model.caml --output build/quality
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_accuracy import command_line
from cohorts import refuse_learned, write_list
from common import caml, run, shared_folder, write_section
from quality_report import Model, report
from quality_sets import SETS
from trainings import Training, train

from caml_core.config import Plan
from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort
from caml_core.model_file import read_card
from caml_core.project.suggestion import disagreement
from caml_core.serialization import from_json

#: Changes with what is kept of a case, so that figures of an earlier form are made anew.
FIGURES = 1


class Weak(NamedTuple):
    """Labelled cases and iterations of a weaker model."""

    labels: int
    iterations: int

    def __str__(self) -> str:
        return f"{self.labels}:{self.iterations}"


WEAK = (Weak(2, 150), Weak(4, 250), Weak(8, 400))


def main() -> None:
    """Train, predict and compare what is not there yet; write the section."""
    options = _options()
    chosen, shared = SETS[options.set], shared_folder()
    if shared is None or not (shared / chosen.folder).is_dir():
        print(f"No {chosen.folder} folder: set CAML_SHARED. Nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        cases = chosen.list(folder / "cases.json", shared / chosen.folder, chosen.training)
        # A model that must not be used is refused before others are trained for hours.
        given = {f"strong-{place}": path for place, path in enumerate(options.model or (), 1)}
        for path in given.values():
            refuse_learned(read_card(path), load_cohort(cases))
        strong = given or {"strong": _trained_strong(folder, cases, options)}
        models = [_measured(file, folder / name, cases, "strong", options) for name, file in strong.items()]
        for weak in options.weak:
            for seed in options.seeds:
                name = f"weak-{weak.labels}-labels-{weak.iterations}-seed-{seed}"
                cohort = _drawn(folder / f"{name}.json", cases, weak.labels, seed)
                words = (*_words(options), "--iterations", str(weak.iterations), "--seed", str(seed))
                file = _model(Training(folder / name, cohort, words))
                models.append(_measured(file, folder / name, cases, "weaker", options))
    text = report(models, options.folds, _command(options), chosen)
    print(text) if options.show else write_section(chosen.section, text)


def _trained_strong(folder: Path, cases: Path, options: argparse.Namespace) -> Path:
    training = load_cohort(cases).with_role("labeled")
    first = {case.id for case in training[: SETS[options.set].labels]}
    cohort = _labelled(folder / "strong.json", cases, first)
    words = (*_words(options), "--iterations", str(options.iterations), "--seed", "0")
    return _model(Training(folder / "strong", cohort, words))


def _drawn(path: Path, cases: Path, labels: int, seed: int) -> Path:
    """The training cases with ``labels`` of them labelled, drawn by ``seed``."""
    training = load_cohort(cases).with_role("labeled")
    return _labelled(path, cases, {case.id for case in random.Random(seed).sample(training, labels)})


def _labelled(path: Path, cases: Path, drawn: Set[str]) -> Path:
    """The training cases with the labels of those ``drawn`` alone.

    One held-out case is named, so that no labelled one is spared for it; nothing is chosen by it.
    """
    cohort = load_cohort(cases)
    training, held_out = cohort.with_role("labeled"), cohort.with_role("validation")
    listed = [
        case if case.id in drawn else dataclasses.replace(case, label=None, role="unlabeled") for case in training
    ]
    return write_list(path, [*listed, held_out[0]], cohort.segments)


def _words(options: argparse.Namespace) -> tuple[str, ...]:
    """Options of all trainings."""
    words: tuple[str, ...] = ("--device", "cpu")
    for option in ("base_filters", "spacing", "patch", "dtype", "threads"):
        if (value := getattr(options, option)) is not None:
            words = (*words, f"--{option.replace('_', '-')}", str(value))
    return words


def _model(training: Training) -> Path:
    done = train(training)
    minutes = done.measured["training_seconds"] / 60
    print(f"{done.folder.name}: {done.plan['iterations']} iterations in {minutes:.1f} minutes", flush=True)
    return done.folder / "model.caml"


def _measured(file: Path, folder: Path, cases: Path, kind: str, options: argparse.Namespace) -> Model:
    """The model's figures, made now or as ``folder`` has kept them for these very weights."""
    card, kept = read_card(file), folder / "quality.json"
    refuse_learned(card, load_cohort(cases))
    asked = {"model": card.sha256, "dtype": options.dtype, "figures": FIGURES}
    found = json.loads(kept.read_text()) if kept.is_file() else {}
    if found.get("asked") != asked:
        folder.mkdir(parents=True, exist_ok=True)
        found = {"asked": asked, "cases": _predicted(file, folder, cases, options)}
        kept.write_text(json.dumps(found))
    provenance = card.info.provenance
    plan = None if card.info.plan is None else from_json(Plan, card.info.plan, str(file))
    return Model(
        kind=kind,
        labels=card.info.labeled_cases,
        iterations=int(provenance["iterations"]),
        alone=None if plan is None else plan.solo_iterations,
        seed=int(provenance["seed"]),
        grid="" if plan is None else _grid(plan),
        cases=found["cases"],
    )


def _grid(plan: Plan) -> str:
    spacing, patch = (" x ".join(f"{n:g}" for n in numbers) for numbers in (plan.geometry.spacing, plan.geometry.patch))
    return f"spacing {spacing} mm, patch {patch}, {plan.network.base_filters} base filters, {plan.numeric.dtype}"


def _predicted(file: Path, folder: Path, cases: Path, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Case -> figures. Predictions go when they are compared: with their maps they take a hundred megabytes."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="predictions-") as scratch:
        command = caml("predict", file, cases, "--role", "validation", "-o", scratch, "--format", "nii")
        command += ["--uncertainty", "--probability", "--quality", "balanced", "--sub-model", "mean", "--device", "cpu"]
        for option in ("dtype", "threads"):
            if (value := getattr(options, option)) is not None:
                command += [f"--{option}", str(value)]
        lines = run([*command, "--progress", "json"], folder / "predict.log").output.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        found = {event["case"]: event for event in events if event["event"] == "case"}
        cohort = load_cohort(cases)
        values = [segment.label for segment in cohort.segments]
        held_out = cohort.with_role("validation")
        return {case.id: _figures(found[case.id], Path(scratch), case, values) for case in held_out}


def _figures(event: dict[str, Any], predictions: Path, case: Case, values: Sequence[int]) -> dict[str, Any]:
    """True Dice, the mean over the segments of label ``values``, and signals, which are higher for a better case.

    All are 0 where nothing was found.
    """
    from caml_core.data.io import read_volume
    from caml_core.data.labels import read_labels
    from caml_core.metrics import dice

    assert case.label is not None
    labels, truth = read_labels(predictions / f"{case.id}.nii").array, read_labels(case.label).array
    found = labels > 0
    differing, probability = (
        read_volume(predictions / f"{case.id}_{kind}.nii").array.astype(np.float32)[found] / 255.0
        for kind in ("disagreement", "probability")
    )
    differ = disagreement(event["agreement"], event["volumes_ml"])
    return {
        "dice": float(np.mean([dice(labels == value, truth == value) for value in values])),
        "found": bool(found.any()),
        "agreement": 1.0 - differ if differ is not None and found.any() else 0.0,
        "map": 1.0 - float(differing.mean()) if found.any() else 0.0,
        "probability": float(probability.mean()) if found.any() else 0.0,
    }


def _command(options: argparse.Namespace) -> str:
    """The command that writes the section anew, without the paths of this machine."""
    named = {name: value for name, value in vars(options).items() if name != "model"}
    if options.model:
        del named["iterations"]  # of a model that is not trained here
    words = command_line("bench_quality.py", argparse.Namespace(**named))
    return f"{words} --model {' '.join(['FILE.caml'] * len(options.model))}" if options.model else words


def _weak(text: str) -> Weak:
    labels, _, iterations = text.partition(":")
    if not (labels.isdecimal() and iterations.isdecimal() and int(labels) and int(iterations)):
        raise argparse.ArgumentTypeError(f"expected LABELS:ITERATIONS such as 4:250, got {text!r}")
    return Weak(int(labels), int(iterations))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="left-atria", help="(default: left-atria)")
    parser.add_argument(
        "--model", type=Path, nargs="+", metavar="FILE.caml", help="strong models that know no held-out case"
    )
    parser.add_argument("--iterations", type=int, default=1500, help="of a strong model that is trained here")
    parser.add_argument(
        "--weak",
        type=_weak,
        nargs="+",
        default=list(WEAK),
        metavar="LABELS:ITERATIONS",
        help=f"weaker models, each with every seed (default: {' '.join(map(str, WEAK))})",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the weaker models and their labels")
    parser.add_argument("--folds", type=int, default=10, help="groups of cases that predict each other's Dice")
    parser.add_argument("--base-filters", type=int, default=8, help="width of the networks")
    parser.add_argument("--spacing", help="of the network's grid, mm (default: the planner's)")
    parser.add_argument("--patch", help="voxels of a patch (default: the planner's)")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="arithmetic (default: measured)")
    parser.add_argument("--threads", type=int, help="processor threads (default: PyTorch's)")
    parser.add_argument("--output", type=Path, help="keep the runs in this folder, and go on with what it holds")
    parser.add_argument("--show", action="store_true", help="print the section, and leave the page as it is")
    options = parser.parse_args()
    if too_many := [weak for weak in options.weak if weak.labels > SETS[options.set].training]:
        parser.error(f"--weak {too_many[0]}: {options.set} has {SETS[options.set].training} cases to train on")
    return options


if __name__ == "__main__":
    main()
