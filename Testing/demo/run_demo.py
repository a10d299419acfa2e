"""The demo: two small cohorts of phantoms, CAML against labelled cases alone, and a report with pictures.

Everything goes through the command line that users have; each step prints the command it runs. `make demo` calls this.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = ".caml-demo"
#: Name in the report -> more options for caml train.
TRAININGS = {"Labelled only": ("--labeled-only",), "CAML": ()}


@dataclass(frozen=True)
class Study:
    """One anatomy of the demo."""

    kind: str
    title: str
    text: str
    labeled: int
    unlabeled: int
    validation: int
    test: int


STUDIES = (
    Study(
        "atrium",
        "Left atrium in MRI",
        "Procedural late-enhancement MRI: the atrium with its pulmonary veins and appendage, among chambers and "
        "vessels that are as bright. Every scan has another size, spacing, orientation, contrast, shading and noise.",
        labeled=4,
        unlabeled=12,
        validation=2,
        test=4,
    ),
    Study(
        "coronary",
        "Coronary arteries in CT angiography",
        "Procedural CT in Hounsfield units: the left coronary artery where it divides, one to four millimetres wide, "
        "beside aorta and chambers full of contrast, calcium, and a vein. Thin branches are hard for a training this "
        "short.",
        labeled=4,
        unlabeled=12,
        validation=2,
        test=4,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and say where the report is."""
    args = _parse(arguments)
    began = time.monotonic()
    output: Path = args.output.resolve()
    _make_place(output)
    demo = Demo(output, args)
    try:
        sections = [demo.study(study) for study in STUDIES if args.only in (None, study.kind)]
        demo.report(sections)
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo ended early: the command above failed with exit code {error.returncode}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was interrupted; `make demo` starts it anew.", file=sys.stderr)
        return 130
    _conclude(output, time.monotonic() - began)
    return 0


class Demo:
    """The steps of the demo, all below ``output``."""

    def __init__(self, output: Path, args: argparse.Namespace) -> None:
        self._output = output
        length = ("--iterations", args.iterations) if args.iterations else ("--budget", args.budget)
        self._training = (*length, *(("--base-filters", args.base_filters) if args.base_filters else ()))
        self._seed = args.seed
        self._began = time.monotonic()

    def study(self, study: Study) -> dict:
        """Make the cohort of one anatomy, train on it in two ways, and segment its test cases; for the report."""
        folder = self._output / study.kind
        cohort = folder / "cohort"
        cases = study.labeled + study.unlabeled + study.validation
        self._step(
            f"{study.title}: make {cases} scans, {study.labeled} of them labelled, and {study.test} for the test"
        )
        numbers = ("--cases", cases, "--labeled", study.labeled, "--validation", study.validation, "--test", study.test)
        self._caml("phantom", study.kind, "-o", cohort, *numbers, "--seed", self._seed)
        runs = []
        for name, options in TRAININGS.items():
            run = folder / name.lower().replace(" ", "-")
            self._step(f"{study.title}: train, {name}")
            cache = ("--cache", self._output / "cache")
            self._caml(
                "train", cohort, "-o", run, *self._training, "--seed", self._seed, "--name", name, *cache, *options
            )
            self._step(f"{study.title}: segment the test cases, {name}")
            found = run / "test"
            self._caml("predict", run / "model.caml", cohort / "test.csv", "-o", found)
            self._caml("evaluate", found, cohort / "test" / "labels", "-o", run / "test.csv")
            runs.append({"name": name, "run": self._relative(run), "predictions": self._relative(found)})
        cases_list = self._relative(cohort / "test.csv")
        return {"title": study.title, "text": study.text, "cases": cases_list, "runs": runs}

    def report(self, sections: list[dict]) -> None:
        """Write demo/index.html."""
        self._step("Report")
        description = self._output / "report-description.json"
        text = (
            "Both trainings of a section had the same time, the same labelled scans and the same seed; CAML also saw "
            "the unlabelled ones. The test scans were held back from both. A real training takes an hour or more: this "
            "is a trial of the whole chain, and its figures are what they are."
        )
        content = {"title": "CAML: few labels, many scans", "text": text, "sections": sections}
        description.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")
        self._caml("report", "--description", description, "-o", self._output)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._output).as_posix()

    def _step(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"\n[{minutes}:{seconds:02d}] {text}", flush=True)

    def _caml(self, *arguments: object) -> None:
        words = [str(a) for a in arguments]
        print("  caml " + shlex.join(words), flush=True)
        path = os.pathsep.join(filter(None, [str(REPOSITORY / "CAMLSegmentation"), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-m", "caml_core", *words], env=environment, check=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run_demo.py", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "demo", help="where to put it (default: demo)")
    parser.add_argument("--budget", default="75s", help="time of each of the four trainings (default: 75s)")
    parser.add_argument("--iterations", type=int, help="iterations instead of a time")
    parser.add_argument("--base-filters", type=int, help="width of the networks (default: the planner's)")
    parser.add_argument("--only", choices=[study.kind for study in STUDIES], help="one anatomy alone")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes another demo (default: 1)")
    return parser.parse_args(arguments)


def _make_place(output: Path) -> None:
    """Empty the folder of an earlier demo; never touch a folder that is something else."""
    if output.exists() and any(output.iterdir()):
        if not (output / MARK).is_file():
            sys.exit(f"{output} holds something else; name another folder with --output.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / MARK).touch()


def _conclude(output: Path, seconds: float) -> None:
    figures = json.loads((output / "report.json").read_text(encoding="utf-8"))
    print(f"\nDone in {seconds / 60:.1f} minutes.")
    for section in figures["sections"]:
        for verdict in section.get("verdicts", ()):
            print(f"  {verdict}")
    print(f"\nThe report with pictures: {(output / 'index.html').as_uri()}")


if __name__ == "__main__":
    sys.exit(main())
