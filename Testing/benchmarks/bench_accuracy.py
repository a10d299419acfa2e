"""Held-out accuracy on real scans: CAML against labels alone, from scratch, with the same budget.

Left atrium, LGE-MRI: the first K of cases 1-60 labelled, the rest of them without labels; validation on 61-80.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from common import caml, machine, run, shared_folder, table, write_section

TRAINING_CASES = 60


def main() -> None:
    """Train both, score both on the scans' own grids, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--labels", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="keep the runs in this folder")
    options = parser.parse_args()
    shared = shared_folder()
    if shared is None or not (shared / "la2018" / "cases.csv").is_file():
        print("No la2018 folder: set CAML_SHARED. Nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        cohort = write_cohort(shared / "la2018", folder / "cohort.csv", options.labels)
        results = {
            name: train(cohort, folder / name, options, more)
            for name, more in (("caml", ()), ("labeled-only", ("--labeled-only",)))
        }
    write_section(f"accuracy-la-{options.labels}", report(results, options))


def write_cohort(source: Path, path: Path, labels: int) -> Path:
    """Write the list of cases with their roles."""
    with (source / "cases.csv").open(newline="") as stream:
        cases = list(csv.DictReader(stream))
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "image", "label", "role"])
        for index, case in enumerate(cases):
            role = "labeled" if index < labels else "unlabeled" if index < TRAINING_CASES else "validation"
            label = "" if role == "unlabeled" else source / case["label"]
            writer.writerow([case["case"], source / case["image"], label, role])
    return path


def train(cohort: Path, folder: Path, options: argparse.Namespace, more: tuple[str, ...]) -> dict[str, Any]:
    """Train one run, or take the finished one of this name; return scores, plan, seconds and peak memory."""
    measured = folder / "measured.json"
    if not measured.is_file():
        command = caml("train", cohort, "-o", folder, "--budget", options.budget, "--seed", options.seed)
        finished = run([*command, "--device", "cpu", "--progress", "json", *more], folder.with_suffix(".log"))
        figures = {"seconds": finished.seconds, "cpu_seconds": finished.cpu_seconds, "peak_mb": finished.peak_mb}
        measured.write_text(json.dumps(figures))
    return {
        "scores": json.loads((folder / "validation.json").read_text()),
        "plan": json.loads((folder / "plan.json").read_text())["plan"],
        **json.loads(measured.read_text()),
    }


def report(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """The section's text."""
    rows, names = [], {"mean": "mean of both sub-models", "v": "sub-model v", "a": "sub-model a"}
    for run_name, result in results.items():
        for sub_model, summary in result["scores"]["summary"].items():
            (metrics,) = summary.values()
            cells = (
                _spread(metrics["dice"], 100),
                _spread(metrics["jaccard"], 100),
                _spread(metrics["hd95_mm"], 1),
                _spread(metrics["assd_mm"], 1),
            )
            plan = result["plan"]
            minutes = f"{result['seconds'] / 60:.1f} ({result['cpu_seconds'] / 60:.1f})"
            rows.append((f"{run_name}, {names[sub_model]}", *cells, plan["iterations"], minutes))
    plan = results["caml"]["plan"]
    paired = _paired(results)
    peaks = ", ".join(f"{name} {result['peak_mb']:.0f} MB" for name, result in results.items())
    return (
        f"### Left atrium, {options.labels} labelled + {TRAINING_CASES - options.labels} unlabelled cases, "
        f"{options.budget} from scratch\n\n"
        + table(
            ("run", "Dice %", "Jaccard %", "95HD mm", "ASSD mm", "iterations", "minutes in all (of processor)"), rows
        )
        + f"\n\nMean and standard deviation over 20 held-out cases (61-80) at full resolution, final averaged weights, "
        f"one seed ({options.seed}); minutes include reading, preparing, measuring and scoring. Spacing "
        f"{plan['geometry']['spacing']} mm, patch {plan['geometry']['patch']}, {plan['numeric']['dtype']}. {paired} "
        f"Peak memory: {peaks}.\n\n{machine()}"
    )


def _spread(metric: dict[str, float], factor: float) -> str:
    return f"{factor * metric['mean']:.2f} +- {factor * metric['std']:.2f}"


def _paired(results: dict[str, dict[str, Any]]) -> str:
    """CAML's mean against labels alone, case by case."""
    from scipy import stats

    def dice(name: str, sub_model: str) -> dict[str, float]:
        cases = results[name]["scores"]["cases"]
        return {case: next(iter(rows[sub_model].values()))["dice"] for case, rows in cases.items()}

    ours, theirs = dice("caml", "mean"), dice("labeled-only", "v")
    gains = [100 * (ours[case] - theirs[case]) for case in ours]
    test = stats.wilcoxon(gains)
    better = sum(g > 0 for g in gains)
    return (
        f"Paired difference of Dice, CAML minus labels alone: {sum(gains) / len(gains):+.2f} points, better in "
        f"{better} of {len(gains)} cases (Wilcoxon signed-rank p = {test.pvalue:.3f})."
    )


if __name__ == "__main__":
    main()
