"""Is the suggested case the right one? The disagreement of the sub-models against the true error, on real scans.

Left atrium, LGE-MRI, cases 1-60: four labelled and a pool of others without labels, drawn by the seed; cases 61-80 are
held out. For each seed a base model and a weaker one (a quarter of the iterations) are trained from scratch. Then two
cases of the pool get their true labels, the two with the most disagreement or two drawn at random, and the base model
goes on with them; a third run goes on without. Finished parts in the output folder are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import caml, left_atria_folder, run, write_section
from suggestion_report import report

from caml_core.project.suggestion import disagreement, rank_at_random, rank_by_disagreement  # found by `common`

DRAWN_FROM, LABELED, ADDED = 60, 4, 2
ARMS = ("suggested", "random", "none")


def main() -> None:
    """Train, predict and score what is not there yet; write the tables."""
    options = _options()
    source = left_atria_folder()
    if source is None:
        return
    with (source / "cases.csv").open(newline="") as stream:
        cases = {row["case"]: row for row in csv.DictReader(stream)}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        work = {seed: Experiment(folder / f"seed-{seed}", seed, source, cases, options) for seed in options.seeds}
        for arms in (ARMS[:2], ARMS):  # what the question is about comes first
            seeds = {seed: experiment.measure(arms) for seed, experiment in work.items()}
    write_section("suggestion", report(seeds, options))


class Experiment:
    """Everything of one seed."""

    def __init__(
        self, folder: Path, seed: int, source: Path, cases: dict[str, dict[str, str]], options: argparse.Namespace
    ) -> None:
        self.folder, self.seed, self.source, self.cases, self.options = folder, seed, source, cases, options
        folder.mkdir(parents=True, exist_ok=True)
        names = list(cases)
        drawn = random.Random(seed).sample(names[:DRAWN_FROM], LABELED + options.pool)
        self.labeled, self.pool, self.held_out = drawn[:LABELED], drawn[LABELED:], names[DRAWN_FROM:]

    def measure(self, arms: Sequence[str]) -> dict[str, Any]:
        """Return the cases' figures for each model, and which cases were added in each of ``arms``."""
        start, weak = self.options.iterations, self.options.iterations // 4
        result = {
            "base": self._model("base", self.labeled, start, self.held_out + self.pool),
            "weak": self._model("weak", self.labeled, weak, self.held_out),
        }
        added = self._chosen(result["base"])
        for arm in arms:
            labeled = self.labeled + added[arm]
            result[arm] = self._model(arm, labeled, self.options.more, self.held_out, warm=True)
        return {**result, "added": added}

    def _chosen(self, base: dict[str, Any]) -> dict[str, list[str]]:
        agreement = {case: base[case]["agreement"] for case in self.pool}
        volumes = {case: base[case]["volumes_ml"] for case in self.pool}
        found = {case: any(value > 0 for value in volumes[case].values()) for case in self.pool}
        orders = (rank_by_disagreement(agreement, volumes), rank_at_random(found, self.seed))
        suggested, drawn = ([one.case for one in order[:ADDED]] for order in orders)
        return {"suggested": suggested, "random": drawn, "none": []}

    def _model(
        self, name: str, labeled: list[str], iterations: int, scored: list[str], warm: bool = False
    ) -> dict[str, Any]:
        """Train, predict ``scored`` and compare with the references; case -> figures."""
        folder = self.folder / name
        done = folder / "suggestion.json"
        if not done.is_file():
            cohort = self._cohort(self.folder / f"{name}.csv", labeled)
            self._train(cohort, folder, iterations, warm)
            figures = self._scored(folder, self._list(self.folder / f"{name}-scored.csv", scored))
            done.write_text(json.dumps(figures))
        return json.loads(done.read_text())

    def _train(self, cohort: Path, folder: Path, iterations: int, warm: bool) -> None:
        if (folder / "model.caml").is_file():
            return
        options = self.options
        if (folder / "plan.json").is_file():
            command = caml("train", "--resume", folder)
        else:
            size = ("--spacing", options.spacing, "--patch", options.patch, "--base-filters", options.base_filters)
            start = ("--model", self.folder / "base" / "model.caml")
            length = ("--iterations", iterations, "--seed", self.seed)
            command = caml("train", cohort, "-o", folder, *length, *(start if warm else size))
            command += ["--device", "cpu", "--threads", str(options.threads), "--dtype", options.dtype]
        cache = ["--cache", str(self.folder.parent / "cache")]
        run([*command, *cache, "--progress", "json"], folder.with_suffix(".log"))

    def _scored(self, folder: Path, cases: Path) -> dict[str, Any]:
        options, predictions = self.options, folder / "predictions"
        command = caml("predict", folder / "model.caml", cases, "-o", predictions, "--format", "nii", "--uncertainty")
        command += ["--device", "cpu", "--threads", str(options.threads), "--dtype", options.dtype]
        lines = run([*command, "--progress", "json"]).output.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        found = {event["case"]: event for event in events if event["event"] == "case"}
        evaluation = folder / "evaluation.json"
        run(caml("evaluate", predictions, cases, "-o", evaluation, "--progress", "json"))
        truth = json.loads(evaluation.read_text())["cases"]
        return {case: self._figures(found[case], predictions, truth[case]) for case in found}

    @staticmethod
    def _figures(event: dict[str, Any], predictions: Path, truth: dict[str, dict[str, float]]) -> dict[str, Any]:
        from caml_core.data.io import read_volume
        from caml_core.data.labels import read_labels

        labels = read_labels(predictions / f"{event['case']}.nii")
        found = labels.array > 0
        differing = read_volume(predictions / f"{event['case']}_disagreement.nii").array.astype(float) / 255.0
        (metrics,) = truth.values()
        step = float(np.prod(labels.grid.spacing)) ** (1 / 3)
        whole = disagreement(event["agreement"], event["volumes_ml"])
        return {
            "agreement": event["agreement"],
            "volumes_ml": event["volumes_ml"],
            "dice": metrics["dice"],
            "hd95_mm": metrics["hd95_mm"],
            "disagreement": 1.0 if whole is None else whole,
            "foreground": float(differing[found].mean()) if found.any() else 1.0,
            "per_volume": float(differing.sum() / max(np.count_nonzero(found), 1)),
            "per_surface": float(differing.sum() * step / max(_faces(found), 1)),  # mm: the width of the doubt
            "ml": sum(event["volumes_ml"].values()),
        }

    def _cohort(self, path: Path, labeled: list[str]) -> Path:
        """The pool's labels stay hidden. One held-out case is named, so that no labelled one is spared for it."""
        rows = [(case, "labeled") for case in labeled]
        rows += [(case, "unlabeled") for case in self.pool if case not in labeled]
        return self._write(path, [*rows, (self.held_out[0], "validation")])

    def _list(self, path: Path, cases: list[str]) -> Path:
        return self._write(path, [(case, "labeled") for case in cases])

    def _write(self, path: Path, rows: Sequence[tuple[str, str]]) -> Path:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "image", "label", "role"])
            for case, role in rows:
                row = self.cases[case]
                label = "" if role == "unlabeled" else self.source / row["label"]
                writer.writerow([case, self.source / row["image"], label, role])
        return path


def _faces(mask: np.ndarray) -> int:
    """Number of voxels of a mask that touch something else."""
    from scipy import ndimage

    return int(np.count_nonzero(mask & ~ndimage.binary_erosion(mask)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=800, help="of the base model; the weak one gets a quarter")
    parser.add_argument("--more", type=int, default=200, help="iterations of a round")
    parser.add_argument("--pool", type=int, default=20, help="unlabelled cases")
    parser.add_argument("--spacing", default="2,2,2")
    parser.add_argument("--patch", default="48,40,24")
    parser.add_argument("--base-filters", type=int, default=8)
    parser.add_argument("--dtype", default="fp32", help="fixed, so that no measurement decides")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="keep the runs in this folder, and go on with what it holds")
    return parser.parse_args()


if __name__ == "__main__":
    main()
