"""Thin vessels: Dice and centreline Dice of CAML and of labels alone with the same budget.

Simulated CTA of real vessel trees: cases 001-004 labelled, 005-024 without labels, 025-032 held out. The plan that
suits thin structures is the planner's own. Options, and what --output keeps, as in bench_accuracy.py.

    python Testing/benchmarks/bench_vessels.py --budget 20m --output build/vessels
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from accuracy_report import (
    DICE,
    DISTANCES,
    Column,
    Result,
    cases_table,
    comparison_table,
    conditions,
    curves,
    machines,
    main_sub_model,
    result,
    runs_table,
    words_of_runs,
)
from bench_accuracy import PLAIN, add_options, command_line, prepare, runs_of, side_by_side
from centreline import centreline
from cohorts import VESSEL_LABELED, VESSEL_UNLABELED, vessels
from common import caml, run, shared_folder, write_section
from trainings import Finished, train_all

CL_DICE = Column("cl_dice", "clDice %", 100)
COLUMNS = (
    DICE,
    CL_DICE,
    Column("cl_precision", "of its centreline within the vessel, %", 100),
    Column("cl_sensitivity", "of the vessel's centreline found, %", 100),
    *DISTANCES,
)


def main() -> None:
    """Plan, train and score what is not there yet; write the section."""
    options = _options()
    shared = shared_folder()
    if shared is None or not (shared / "vessels").is_dir():
        print("No vessels folder: set CAML_SHARED. Nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        cohort = vessels(folder / "cohort.json", shared / "vessels")
        runs = {(name, seed): prepare(folder, cohort, name, seed, options) for name, seed in runs_of(options)}
        if options.plan_only:
            return
        done = train_all(runs, options.at_once)
        results = [
            result(name, seed, finished, _centrelines(name, finished, cohort))
            for (name, seed), finished in done.items()
        ]
        text = report(results, options)
        if options.show:
            print(text)
            return
        own = {f"{name}, seed {seed}": finished for (name, seed), finished in done.items()}
        write_section("vessels", f"{text}\n\n{curves(own, 'vessels')}")


def _centrelines(name: str, finished: Finished, cohort: Path) -> dict[str, dict[str, float]]:
    """Segment the held-out cases with the run's model and compare centrelines; case -> figures."""
    done = finished.folder / "centrelines.json"
    if not done.is_file():
        predictions = finished.folder / "predictions"
        command = caml("predict", finished.folder / "model.caml", cohort, "--role", "validation", "-o", predictions)
        numeric = finished.plan["numeric"]
        options = ("--format", "nii.gz", "--device", "cpu", "--dtype", numeric["dtype"])
        options = (*options, "--sub-model", main_sub_model(name, finished))
        run([*command, *options, "--threads", str(numeric["threads"]), "--progress", "json"])
        done.write_text(json.dumps(_compared(predictions, cohort)))
    return json.loads(done.read_text())


def _compared(predictions: Path, cohort: Path) -> dict[str, dict[str, float]]:
    from caml_core.data.cohort import load_cohort
    from caml_core.data.labels import read_labels

    figures = {}
    for case in load_cohort(cohort).with_role("validation"):
        assert case.label is not None
        found, truth = (read_labels(path).array > 0 for path in (predictions / f"{case.id}.nii.gz", case.label))
        lines = centreline(found, truth)
        figures[case.id] = {
            "cl_dice": lines.dice,
            "cl_precision": lines.precision,
            "cl_sensitivity": lines.sensitivity,
        }
    return figures


def report(results: Sequence[Result], options: argparse.Namespace) -> str:
    """The section's text."""
    budget = options.budget if options.iterations is None else f"{options.iterations} iterations"
    return "\n\n".join(
        (
            f"### Thin vessels, {VESSEL_LABELED} labelled + {VESSEL_UNLABELED - VESSEL_LABELED} unlabelled cases, "
            f"{budget} from scratch",
            f"    {command_line('bench_vessels.py', options)}",
            runs_table(results, COLUMNS),
            f"Mean and standard deviation over {len(results[0].cases)} held-out cases (025-032) at full resolution, "
            "averaged weights of the last iteration; centrelines of the predictions that stand for the run (clDice: "
            "Shit et al., CVPR 2021; skeletons by scikit-image). The budget was fixed as iterations, by a measurement "
            f"before all runs{side_by_side(options)}. {conditions(results)}",
            words_of_runs(results),
            comparison_table(results),
            comparison_table(results, CL_DICE),
            "Each case counts with the mean over its run's seeds, in a difference over those that both have. "
            "Intervals: 10,000 bootstrap draws of the cases; with so few cases they are indicative.",
            cases_table(results, CL_DICE),
            machines(results),
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, PLAIN)
    return parser.parse_args()


if __name__ == "__main__":
    main()
