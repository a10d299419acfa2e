"""Train the models that ship with the extension, and those for measuring; each to a file with a full card.

    python Testing/models/train_models.py left-atrium --budget 100m

A model of real scans is trained twice with the same plan: a twin on cases 1-60, whose figures on cases 61-80 the card
carries, then the model itself on all 80. Everything stays in OUTPUT/NAME: lists of cases, the plan's measurement
(which wants a quiet machine), both run folders with their logs, and NAME.caml. The same command goes on where an
earlier one ended; `caml train --resume OUTPUT/NAME/twin` (or .../final) goes on with one training alone. A training of
bench_accuracy.py with the same cases is a twin, too: --twin takes its length, grid and figures instead of another.

The left-atrium model starts from the model with 8 labels. So does its twin, from a training with the same 8 labels and
cases 1-60 alone, which is made first, as long as that model was trained; or --start names one of bench_accuracy.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from cards import MOST_BYTES, write_model
from common import REPOSITORY, shared_folder
from recipes import RECIPES, MissingScansError, Recipe
from trainings import Finished, Training, finished, length, planned, train

from caml_core.data.cohort import load_cohort
from caml_core.errors import CamlError
from caml_core.locking import FileLock
from caml_core.model_file import read_card
from caml_core.serialization import read_json
from caml_core.training.run_folder import RunFolder

OUTPUT = REPOSITORY / "build" / "models"
#: So that a file holds both sub-models in 10 MB.
BASE_FILTERS = 8
#: To see that everything fits together, in a minute.
TRIAL = ("--patch", "32,32,16", "--spacing", "1.6,1.6,1.6", "--dtype", "fp32")
TRIAL_ITERATIONS = 10
TRIAL_DATA = "A few cases and iterations, to see that everything fits together; of no use."
#: Nothing is spared for validation: all labels count.
ALL_LABELS = ("--hold-out", "0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make one model after the other."""
    options = _options(arguments)
    try:
        with FileLock(options.output / "lock", f"Models are being trained in {options.output} already."):
            for name in options.models:
                make(RECIPES[name], options)
    except (CamlError, MissingScansError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        last = (error.output or "").strip().splitlines()[-3:]
        print("\n".join(["A command ended early; give the same command again to go on.", *last]), file=sys.stderr)
        return 1
    return 0


def make(recipe: Recipe, options: argparse.Namespace) -> Path:
    """Train what is not trained yet and write the model's file; raise CamlError where it must not be installed."""
    folder = options.output / (f"{recipe.name}-trial" if options.trial else recipe.name)
    if options.trial:
        recipe = dataclasses.replace(recipe, title=f"{recipe.title} (trial)", data=TRIAL_DATA)
    cohorts = recipe.cohorts(folder, shared_folder(), options.trial)
    words, start = _words(recipe, options), _start(recipe, options)
    if options.twin is None:
        first = Training(folder / ("final" if cohorts.twin is None else "twin"), cohorts.twin or cohorts.final, words)
        # Of a start model its shape alone decides how long a step takes, and that of the twin's is the same.
        measured = dataclasses.replace(first, options=(*words, *start))
        steps = _length(folder, measured, recipe, options)
        if options.plan_only:
            return folder
        own = _start_of_twin(recipe, folder, options) if start else ()
        done = _trained(dataclasses.replace(first, options=(*words, *own, *steps)))
    else:
        done = finished_twin(options.twin, cohorts.twin, from_model=bool(start))
    if cohorts.twin is not None:
        grid = () if start else _grid(done.plan, words)
        words = (*words, *start, *length(done.plan), *grid, *ALL_LABELS)
        _trained(Training(folder / "final", cohorts.final, words))
    target = folder / f"{recipe.name}.caml"
    lacking = write_model(recipe, folder / "final", done.folder, cohorts.held_out, target)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB{''.join(f' {fault}' for fault in lacking)}", flush=True)
    if options.install:
        print(f"Installed as {install(target, recipe.home, lacking)}", flush=True)
    return target


def _start(recipe: Recipe, options: argparse.Namespace) -> tuple[str, ...]:
    """Options that let the model's own training start from another; a trial, which has a grid of its own, does not."""
    return () if recipe.start is None or options.trial else ("--model", str(RECIPES[recipe.start].file))


def _start_of_twin(recipe: Recipe, folder: Path, options: argparse.Namespace) -> tuple[str, ...]:
    """Options that let the twin start from the start model's own twin: that of --start, or one trained here."""
    assert recipe.start is not None
    before = RECIPES[recipe.start]
    cohort = before.cohorts(folder / "start", shared_folder(), False).twin
    if options.start is not None:
        return "--model", str(RunFolder(finished_twin(options.start, cohort).folder).model)
    card = read_card(before.file)
    assert cohort is not None and card.info.plan is not None
    words = (*_words(before, options), "--iterations", str(card.info.provenance["planned_iterations"]))
    done = _trained(Training(folder / "start" / "twin", cohort, (*words, *_grid(card.info.plan, words))))
    return "--model", str(RunFolder(done.folder).model)


def finished_twin(folder: Path, cohort: Path | None, from_model: bool = False) -> Finished:
    """Return a training of CAML that came to its end elsewhere, on the cases of the list ``cohort`` in the same roles.

    from_model: whether it has to have started from a model. Raises CamlError where it is something else.
    """
    run = RunFolder(folder)
    asked, measured = folder / "asked.json", folder / "measured.json"
    if not all(path.is_file() for path in (run.plan, run.model, run.scores, asked, measured)):
        raise CamlError(f"{folder} is no finished and scored training of a benchmark; let bench_accuracy.py end it.")
    if cohort is None or _roles(run.cohort) != _roles(cohort):
        raise CamlError(
            f"{folder} trained on other cases than the twin has, or in other roles; name a run with as many labels."
        )
    done = finished(folder)
    if read_json(asked)["changes"] or done.plan["labeled_only"]:
        raise CamlError(f"{folder} did not train CAML as it is; name a run called caml-seed-N.")
    if done.plan["from_model"] != from_model:
        ways = ("from a model", "from scratch")
        began, due = ways if not from_model else ways[::-1]
        raise CamlError(f"{folder} was trained {began}, and is to be trained {due}; name another run.")
    return done


def _roles(cohort: Path) -> dict[str, str]:
    return {case.id: case.role for case in load_cohort(cohort).cases}


def install(model: Path, home: Path, lacking: Sequence[str]) -> Path:
    """Copy a finished model to where it ships from and return the copy; raise CamlError where it lacks something."""
    if model.stat().st_size > MOST_BYTES or lacking:
        size = f"{model.stat().st_size / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.0f} are allowed"
        raise CamlError(f"{model} is not installed ({size}). {' '.join(lacking)}".strip())
    return Path(shutil.copyfile(model, home / model.name))


def _words(recipe: Recipe, options: argparse.Namespace) -> tuple[str, ...]:
    """Options of both trainings of a model."""
    words: tuple[str, ...] = ("--device", "cpu", "--seed", str(options.seed))
    if not _start(recipe, options):
        words = (*words, "--base-filters", str(options.base_filters))
    if options.threads is not None:
        words = (*words, "--threads", str(options.threads))
    return (*words, *(TRIAL if options.trial else recipe.options))


def _length(folder: Path, training: Training, recipe: Recipe, options: argparse.Namespace) -> tuple[str, ...]:
    iterations = TRIAL_ITERATIONS if options.trial else options.iterations
    if iterations is not None:
        return "--iterations", str(iterations)
    budget = options.budget or recipe.budget
    plan = planned(folder / f"plan-{budget}.json", training, budget)
    print(
        f"{recipe.name}: {plan['iterations']} iterations of {plan['seconds_per_iteration']:.2f} s, "
        f"{plan['numeric']['dtype']}, spacing {plan['geometry']['spacing']}, patch {plan['geometry']['patch']}",
        flush=True,
    )
    return length(plan)


def _grid(plan: Mapping[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    """The twin's grid, so that twenty more cases do not shift it; nothing where ``words`` have one already."""
    if "--spacing" in words:
        return ()
    geometry = plan["geometry"]
    spacing, patch = (",".join(f"{value:g}" for value in geometry[key]) for key in ("spacing", "patch"))
    return "--spacing", spacing, "--patch", patch


def _trained(training: Training) -> Finished:
    done = train(training)
    minutes, name = done.measured["training_seconds"] / 60, f"{training.folder.parent.name}/{training.folder.name}"
    print(f"{name}: {done.plan['iterations']} iterations in {minutes:.1f} minutes", flush=True)
    return done


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=RECIPES, metavar="MODEL", help=f"of: {', '.join(RECIPES)}")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--budget", help="of each training, as caml train has it (default: 100m)")
    amount.add_argument("--iterations", type=int, help="of each training instead of a budget")
    amount.add_argument("--twin", type=Path, help="a finished training of bench_accuracy.py that is the twin")
    parser.add_argument("--start", type=Path, help="a finished training of bench_accuracy.py that the twin starts from")
    amount.add_argument("--trial", action="store_true", help="a few iterations on a few cases; never to be installed")
    parser.add_argument("--base-filters", type=int, default=BASE_FILTERS, help=f"(default: {BASE_FILTERS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="processor threads (default: PyTorch's)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where everything is kept (default: build/models)")
    parser.add_argument("--plan-only", action="store_true", help="write the lists, measure, and train nothing")
    parser.add_argument(
        "--install", action="store_true", help=f"copy to where it ships from; refused above {MOST_BYTES / 1e6:.0f} MB"
    )
    options = parser.parse_args(arguments)
    if options.install and options.trial:
        parser.error("a trial is not installed")
    if (options.twin or options.start) is not None and len(options.models) > 1:
        parser.error("--twin and --start belong to one model")
    if options.start is not None and (options.trial or options.twin or RECIPES[options.models[0]].start is None):
        parser.error("--start is for the twin of a model that starts from another, where it is not there yet")
    return options


if __name__ == "__main__":
    sys.exit(main())
