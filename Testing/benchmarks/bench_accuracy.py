"""Held-out accuracy on real scans: CAML, labels alone, and what each part of CAML is worth, with the same budget.

Left atrium, LGE-MRI: the first K of cases 1-60 labelled, the rest of them without labels; validation on 61-80. All
runs are planned first, from a short measurement each, which wants a quiet machine; then they are trained one after the
other, or with --at-once side by side on a share of the processors each: the iterations stay those of the budget on all
of them. With --output nothing that is finished there is repeated, and a run that was ended goes on.

    python Testing/benchmarks/bench_accuracy.py --labels 8 --budget 20m --output build/accuracy
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accuracy_report import (
    Result,
    cases_table,
    comparison_table,
    conditions,
    curves,
    machines,
    result,
    runs_table,
    words_of_runs,
)
from cohorts import LA_TRAINING, left_atria
from common import left_atria_folder, write_section
from trainings import Training, length, planned, threads_of_each, train_all
from variants import VARIANTS

PLAIN = ("caml", "labeled-only")
#: Dice in % and 95HD in mm (9.76, 8.76 and 6.11 voxels) of the published CAML with 4, 8 and 16 labels.
PUBLISHED = {4: (87.3, 6.10), 8: (89.6, 5.48), 16: (90.8, 3.82)}


def main() -> None:
    """Plan, train and score what is not there yet; write a section for each number of labels."""
    options = _options()
    source = left_atria_folder()
    if source is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        jobs = {labels: _jobs(folder / f"la-{labels}", source, labels, options) for labels in options.labels}
        together = {(labels, *key): training for labels, runs in jobs.items() for key, training in runs.items()}
        if options.plan_only:
            return
        done = train_all(together, options.at_once)
        for labels in jobs:
            results = [result(name, seed, finished) for (of, name, seed), finished in done.items() if of == labels]
            text = report(results, labels, options)
            if options.show:
                print(text)
                continue
            own = {f"{name}, seed {seed}": finished for (of, name, seed), finished in done.items() if of == labels}
            section = section_of(labels, options.part)
            write_section(section, f"{text}\n\n{curves(own, section)}")


def section_of(labels: int, part: str | None) -> str:
    """Name of the page's section; runs that were made apart, on another machine or in other arithmetic, have their own.

    Figures of one section are compared with one another, so that they have to come from like conditions.
    """
    return "-".join(filter(None, ("accuracy-la", str(labels), part)))


def _jobs(folder: Path, source: Path, labels: int, options: argparse.Namespace) -> dict[tuple[str, int], Training]:
    """All trainings with their lengths, in the order in which they are done: every name with the first seed first."""
    cohort = left_atria(folder / "cohort.json", source, labels)
    return {(name, seed): prepare(folder, cohort, name, seed, options) for name, seed in runs_of(options)}


def runs_of(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Names with their seeds, every name with its first seed first."""
    wanted = [(run.name, run.seeds or options.seeds) for run in options.runs]
    longest = max(len(seeds) for _, seeds in wanted)
    return [(name, seeds[place]) for place in range(longest) for name, seeds in wanted if place < len(seeds)]


class Seeded(NamedTuple):
    """A variant's name, or a budget, its seeds, None for those of --seeds, and its own number of iterations.

    Written NAME, NAME:0,1 or NAME:0,1@1594.
    """

    name: str
    seeds: tuple[int, ...] | None = None
    iterations: int | None = None

    @classmethod
    def parse(cls, text: str) -> Seeded:
        """Raise ArgumentTypeError where a seed, or the number of iterations, is no number."""
        words, _, iterations = text.partition("@")
        name, _, seeds = words.partition(":")
        try:
            numbers = tuple(int(seed) for seed in seeds.split(",")) if seeds else None
            return cls(name, numbers, int(iterations) if iterations else None)
        except ValueError as error:
            msg = f"{text!r}: write seeds and iterations as {name}:0,1@1500"
            raise argparse.ArgumentTypeError(msg) from error

    def __str__(self) -> str:
        seeds = "" if self.seeds is None else f":{','.join(map(str, self.seeds))}"
        return f"{self.name}{seeds}{'' if self.iterations is None else f'@{self.iterations}'}"


def run_of(text: str) -> Seeded:
    """Return a variant with its seeds; raise ArgumentTypeError where there is no such one, or a seed is no number."""
    run = Seeded.parse(text)
    if run.name not in VARIANTS:
        msg = f"{run.name!r} is none of {', '.join(VARIANTS)}"
        raise argparse.ArgumentTypeError(msg)
    return run


def prepare(folder: Path, cohort: Path, name: str, seed: int, options: argparse.Namespace) -> Training:
    """The training of a variant with a seed; all seeds of a variant get the iterations that were planned for it."""
    variant = VARIANTS[name]
    words = words_of_options(options, variant.options)
    own = next((run.iterations for run in options.runs if run.name == name), None)
    if (iterations := own or options.iterations) is not None:
        steps: tuple[str, ...] = ("--iterations", str(iterations))
    else:
        training = Training(folder / name, cohort, words, variant.changes)
        plan = planned(folder / "plans" / f"{name}-{options.budget}.json", training, options.budget)
        steps = length(plan) if options.dtype is None else length(plan)[:2]
        seconds = plan["seconds_per_iteration"]
        print(f"{folder.name}, {name}: {plan['iterations']} iterations of {seconds:.2f} s", flush=True)
    if options.at_once > 1:
        steps = (*steps, "--threads", str(threads_of_each(options.at_once)))
    return Training(folder / f"{name}-seed-{seed}", cohort, (*words, *steps, "--seed", str(seed)), variant.changes)


def words_of_options(options: argparse.Namespace, more: Sequence[str] = ()) -> tuple[str, ...]:
    """Options of ``caml train`` that a benchmark hands on, ``more`` first."""
    words: tuple[str, ...] = ("--device", "cpu", *more)
    for option in ("base_filters", "threads", "patch", "dtype"):
        if (value := getattr(options, option)) is not None:
            words = (*words, f"--{option.replace('_', '-')}", str(value))
    return words


def report(results: Sequence[Result], labels: int, options: argparse.Namespace) -> str:
    """The section's text."""
    held_out = list(results[0].cases)
    numbers = {case: str(LA_TRAINING + place) for place, case in enumerate(held_out, 1)}
    budget = options.budget if options.iterations is None else f"{options.iterations} iterations"
    dice, distance = PUBLISHED[labels]
    return "\n\n".join(
        (
            f"### Left atrium, {labels} labelled + {LA_TRAINING - labels} unlabelled cases, {budget} from scratch",
            f"    {command_line('bench_accuracy.py', options)}",
            runs_table(results),
            f"Mean and standard deviation over the {len(held_out)} held-out cases (61-80) at full resolution, averaged "
            "weights of the last iteration. The budget was fixed as iterations, by a measurement before all runs; "
            f"minutes are those of steps and live validations{side_by_side(options)}. {conditions(results)} The "
            f"published CAML has {dice} % and {distance:.2f} mm with {labels} labels, on other held-out cases.",
            words_of_runs(results),
            comparison_table(results),
            "Each case counts with the mean over its run's seeds, in a difference over those that both have. "
            "Intervals: 10,000 bootstrap draws of the cases, which know nothing of what another seed would have given.",
            cases_table(results, titles=numbers),
            machines(results),
        )
    )


def side_by_side(options: argparse.Namespace) -> str:
    """How many trainings ran at once, where it was more than one."""
    if options.at_once == 1:
        return ""
    return f" with {options.at_once} trainings side by side on a share of the processors each"


def command_line(script: str, options: argparse.Namespace) -> str:
    """The command that writes the section anew, as far as it is not the default."""
    words = [f"python Testing/benchmarks/{script}"]
    for name, value in vars(options).items():
        superseded = (name, value) == ("at_once", 1) or (name == "budget" and options.iterations is not None)
        if value is not None and not superseded and not isinstance(value, (bool, Path)):
            words.append(
                f"--{name.replace('_', '-')} {' '.join(map(str, value if isinstance(value, list) else [value]))}"
            )
    return " ".join(words)


def add_options(parser: argparse.ArgumentParser, runs: Sequence[str]) -> None:
    """Options that both accuracy benchmarks have."""
    chosen = [Seeded(name) for name in runs]
    form = "NAME[:SEEDS][@ITERATIONS]"
    parser.add_argument("--runs", nargs="+", type=run_of, default=chosen, metavar=form, help=_names())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    length_ = parser.add_mutually_exclusive_group()
    length_.add_argument("--budget", default="20m", help="of each run, as caml train has it (default: 20m)")
    length_.add_argument("--iterations", type=int, help="of each run instead of a budget, to try the benchmark")
    add_training_options(parser)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Options that everything has which trains for a comparison."""
    parser.add_argument("--base-filters", type=int, help="width of the networks (default: the planner's)")
    parser.add_argument("--patch", help="voxels of a patch (default: the planner's)")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="arithmetic (default: measured)")
    parser.add_argument("--threads", type=int, help="processor threads (default: PyTorch's)")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="trainings side by side (default: 1)")
    parser.add_argument("--output", type=Path, help="keep the runs in this folder, and go on with what it holds")
    parser.add_argument("--plan-only", action="store_true", help="measure and plan all runs, and train none")
    parser.add_argument("--show", action="store_true", help="print the section, and leave the page as it is")


def _names() -> str:
    return f"what to compare, of: {', '.join(VARIANTS)}; with seeds and a length of its own as NAME:0,1@1500"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", choices=PUBLISHED, default=[8], help="labelled cases")
    parser.add_argument("--part", metavar="NAME", help="write a section of its own, for runs that were made apart")
    add_options(parser, PLAIN)
    return parser.parse_args()


if __name__ == "__main__":
    main()
