"""What a few labels of another site are worth: a model of one site fine-tuned to a shifted cohort.

The model that everything starts from is trained on cases 1-30 of la2018, all of them labelled. The other site is
simulated (another_site.py) from cases 31-60, the first four labelled and the others without labels; held out are cases
61-80, shifted alike. Compared are the start model as it is, and fine-tuning by labels alone and by CAML with the same
time. What --output keeps, and the other options, as in bench_accuracy.py.

    python Testing/benchmarks/bench_fine_tuning.py --budgets 10m 60m --output build/fine-tuning
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from accuracy_report import Result, comparison_table, conditions, curves, machines, result, runs_table, words_of_runs
from another_site import rescanned
from bench_accuracy import PLAIN, Seeded, add_training_options, command_line, side_by_side, words_of_options
from cohorts import LA_TRAINING, left_atria, write_list
from common import left_atria_folder, machine, write_section
from trainings import Finished, Training, length, planned, threads_of_each, train, train_all
from variants import VARIANTS

from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort
from caml_core.events import silent
from caml_core.model_file import load_model
from caml_core.serialization import read_json, write_json
from caml_core.training.run_folder import RunFolder
from caml_core.training.scores import Scoring, start_model_scores

#: Cases that the start model learns from, and labelled ones of the other site.
START_CASES, LABELED = 30, 4
BEFORE = "before"


def main() -> None:
    """Train the start model, plan and train what follows from it, and write the section."""
    options = _options()
    source = left_atria_folder()
    if source is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        start = _start(folder, source, options)
        cohort = other_site(folder / "other-site", source)
        jobs = {
            (budget.name, name, seed): _job(
                folder / budget.name, cohort, start.folder / "model.caml", name, seed, options
            )
            for budget in options.budgets
            for seed in budget.seeds or options.seeds
            for name in PLAIN
        }
        if options.plan_only:
            return
        done = train_all(jobs, options.at_once)
        before = _before(folder / f"{BEFORE}.json", start, cohort)
        results = {
            budget: [before, *(result(name, seed, one) for (of, name, seed), one in done.items() if of == budget)]
            for budget in dict.fromkeys(of for of, _, _ in jobs)
        }
        text = report(results, options)
        if options.show:
            print(text)
            return
        own = {f"{budget}, {name}, seed {seed}": finished for (budget, name, seed), finished in done.items()}
        write_section("fine-tuning", f"{text}\n\n{curves(own, 'fine-tuning')}")


def other_site(folder: Path, source: Path) -> Path:
    """Write the other site's scans and their list into ``folder`` and return the list."""
    training = load_cohort(left_atria(folder / "originals.json", source, LA_TRAINING)).cases
    labeled, unlabeled = training[START_CASES:][:LABELED], training[START_CASES + LABELED : LA_TRAINING]
    cases: list[Case] = [rescanned(case, folder / "scans") for case in (*labeled, *unlabeled, *training[LA_TRAINING:])]
    for place, case in enumerate(cases):
        if LABELED <= place < LA_TRAINING - START_CASES:
            cases[place] = dataclasses.replace(case, label=None, role="unlabeled")
    return write_list(folder / "cohort.json", cases, load_cohort(folder / "originals.json").segments)


def _start(folder: Path, source: Path, options: argparse.Namespace) -> Finished:
    cohort = left_atria(folder / "start.json", source, START_CASES, training=START_CASES, held_out=0)
    training = Training(folder / "start", cohort, (*words_of_options(options), "--hold-out", "0"))
    steps = _steps(folder / "plans" / f"start-{options.start_budget}.json", training, options.start_budget, options)
    return train(dataclasses.replace(training, options=(*training.options, *steps)))


def _job(folder: Path, cohort: Path, start: Path, name: str, seed: int, options: argparse.Namespace) -> Training:
    variant = VARIANTS[name]
    training = Training(
        folder / f"{name}-seed-{seed}", cohort, (*words_of_options(options), *variant.options, "--model", str(start))
    )
    steps = _steps(folder / "plans" / f"{name}.json", training, folder.name, options)
    if options.at_once > 1:
        steps = (*steps, "--threads", str(threads_of_each(options.at_once)))
    return dataclasses.replace(training, options=(*training.options, *steps, "--seed", str(seed)))


def _steps(plan: Path, training: Training, budget: str, options: argparse.Namespace) -> tuple[str, ...]:
    if options.iterations is not None:
        return "--iterations", str(options.iterations)
    made = planned(plan, training, budget)
    print(
        f"{plan.parent.parent.name}, {plan.stem}: {made['iterations']} iterations of "
        f"{made['seconds_per_iteration']:.2f} s",
        flush=True,
    )
    return length(made) if options.dtype is None else length(made)[:2]


def _before(table: Path, start: Finished, cohort: Path) -> Result:
    """The start model on the held-out scans of the other site, before it has seen any scan of it."""
    if not table.is_file():
        cases, plan = load_cohort(cohort), RunFolder(start.folder).read_plan()
        scoring = Scoring(silent, lambda: False)
        model = load_model(start.folder / "model.caml")
        scores = start_model_scores(model, plan, cases.with_role("validation"), cases.segments, scoring)
        write_json(table, {"scores": scores, "machine": machine(plan.numeric.threads)})
    content = read_json(table)
    measured = {"training_seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0, "machine": content["machine"]}
    return result(BEFORE, 0, Finished(start.folder, {**start.plan, "iterations": 0}, content["scores"], measured))


def report(results: dict[str, list[Result]], options: argparse.Namespace) -> str:
    """The section's text."""
    every = [one for group in results.values() for one in group]
    unlabeled = LA_TRAINING - START_CASES - LABELED
    parts = [
        f"### Fine-tuning to another site, {LABELED} labelled + {unlabeled} unlabelled cases",
        f"    {command_line('bench_fine_tuning.py', options)}",
        f"The start model was trained on left atria 1-{START_CASES}, all labelled. The other site is "
        f"**simulated** from cases {START_CASES + 1}-{LA_TRAINING}: blood no longer brightest, a coil's shading, "
        "Rician noise, voxels of 1 x 1 x 2.5 mm, up to 15 % cut off each side. Held out: cases 61-80, changed alike. "
        "Mean and standard deviation at the scans' resolution, averaged weights of the last iteration"
        f"{side_by_side(options)}. {conditions(every)}",
    ]
    for budget, group in results.items():
        length_ = budget if options.iterations is None else f"{options.iterations} iterations"
        parts += [f"**{length_}**", runs_table(group), comparison_table(group)]
    trained = words_of_runs([one for one in every if one.name != BEFORE])
    parts += [f"- {BEFORE}: the start model as it is.\n{trained}"]
    parts += ["Intervals: 10,000 bootstrap draws of the cases.", machines(every)]
    return "\n\n".join(parts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budgets",
        nargs="+",
        type=Seeded.parse,
        default=[Seeded("10m"), Seeded("60m")],
        metavar="TIME[:SEEDS]",
        help="of fine-tuning, as caml train has them; with seeds of its own as 10m:0,1",
    )
    parser.add_argument("--start-budget", default="20m", help="of the start model (default: 20m)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--iterations", type=int, help="of every training instead of a budget, to try the benchmark")
    add_training_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
