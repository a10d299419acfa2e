"""Intervals, paired tests, lists of cases and tables of the accuracy benchmarks."""

from __future__ import annotations

import argparse
import csv
import re

import numpy as np
import pytest
from accuracy_report import Result, cases_table, comparison_table, conditions, curves, result, runs_table
from bench_accuracy import command_line, prepare, run_of, runs_of, section_of
from cohorts import left_atria
from intervals import mean_interval, paired
from trainings import Finished

from caml_core.data.cohort import load_cohort

CASES = [f"case {number}" for number in range(61, 81)]


def test_an_interval_holds_the_mean_and_shrinks_with_more_cases():
    values = np.random.default_rng(1).normal(90, 3, 20)
    low, high = mean_interval(values)
    assert low < values.mean() < high
    # 1.96 standard errors to both sides, as far as percentiles of draws from 20 values go.
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(20), rel=0.1)
    more = mean_interval(np.tile(values, 4))
    assert more[1] - more[0] == pytest.approx((high - low) / 2, rel=0.1)
    assert mean_interval(np.full(5, 7.0)) == (7.0, 7.0)
    assert mean_interval(values) == (low, high)


def test_a_paired_test_sees_a_small_gain_that_the_spread_hides():
    theirs = {case: float(value) for case, value in zip(CASES, np.random.default_rng(2).normal(80, 10, 20))}
    ours = {case: value + 0.5 + 0.01 * place for place, (case, value) in enumerate(theirs.items())}
    found = paired(ours, theirs)
    assert found.better == found.count == 20
    assert found.interval[0] > 0 and found.p_value < 1e-4
    turned = paired(theirs, ours)
    assert turned.mean == pytest.approx(-found.mean) and turned.better == 0
    assert turned.p_value == pytest.approx(found.p_value)


def test_equal_runs_do_not_differ_and_other_cases_are_refused():
    figures = dict.fromkeys(CASES, 88.0)
    found = paired(figures, figures)
    assert (found.mean, found.interval, found.better, found.p_value) == (0.0, (0.0, 0.0), 0, 1.0)
    with pytest.raises(ValueError, match="different cases"):
        paired(figures, {"another": 1.0})


@pytest.fixture
def scans(tmp_path):
    """A list of 80 cases in an order that is not that of their names."""
    rows = [(place, f"id{(place * 37) % 100:02d}") for place in range(1, 81)]
    with (tmp_path / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("index", "case", "image", "label"), *((i, n, f"{n}_image.nii", f"{n}_label.nii") for i, n in rows)]
        )
    for _, name in rows:
        for part in ("image", "label"):
            (tmp_path / f"{name}_{part}.nii").touch()
    return tmp_path, [name for _, name in rows]


def test_lists_keep_the_official_order_and_hide_labels(scans):
    source, names = scans
    cohort = load_cohort(left_atria(source / "out" / "twin.json", source, 8))
    roles = {role: [c.id for c in cohort.with_role(role)] for role in ("labeled", "unlabeled", "validation")}
    assert roles == {"labeled": names[:8], "unlabeled": names[8:60], "validation": names[60:]}
    assert all((case.label is None) == (case.role == "unlabeled") for case in cohort.cases)
    assert [segment.name for segment in cohort.segments] == ["Left atrium"]


def test_the_list_of_all_cases_holds_nothing_out(scans):
    source, names = scans
    cohort = load_cohort(left_atria(source / "final.json", source, 16, training=80))
    assert [c.id for c in cohort.with_role("labeled")] == names[:16]
    assert [c.id for c in cohort.with_role("unlabeled")] == names[16:]
    assert not cohort.with_role("validation")


def a_run(name: str, seed: int, dice: float, models=("mean", "v", "a"), attention="alone", **more: float) -> Result:
    """A run whose cases have ``dice`` and a little more each."""
    figures = {"jaccard": 0.8, "hd95_pooled_mm": 4.0, "hd95_mm": 5.0, "assd_mm": 1.0, **more}
    cases = {
        case: {model: {"Left atrium": {"dice": dice + 0.001 * place, **figures}} for model in models}
        for place, case in enumerate(CASES)
    }
    plan = {
        "iterations": 1000,
        "geometry": {"spacing": [1.25, 1.25, 1.25], "patch": [96, 64, 40]},
        "network": {"base_filters": 16, "attention_evaluation": attention},
        "numeric": {"dtype": "bf16"},
    }
    measured = {"training_seconds": 1200.0, "peak_mb": 2000.0, "parts": 2, "machine": "a machine"}
    return result(name, seed, Finished(None, plan, {"cases": cases}, measured))


def cells(table: str, first: str) -> list[str]:
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_tables_compare_case_by_case_over_seeds():
    results = [a_run("caml", 0, 0.90), a_run("labeled-only", 0, 0.88, ("v",)), a_run("caml", 1, 0.92)]
    results += [a_run("no-occ", 2, 0.92)]
    text = comparison_table(results)
    ours, theirs, unpaired = (cells(text, name) for name in ("caml", "labeled-only", "no-occ"))
    assert ours[1] == "0, 1" and ours[2].startswith("91.95 [") and ours[3:] == ["-"] * 4
    assert theirs[1] == "0" and theirs[2].startswith("88.95 [")
    assert theirs[3:6] == ["+2.00 [+2.00, +2.00]", "0", "20 of 20"] and float(theirs[6]) < 0.001, "seed 0 of both"
    assert unpaired[3:] == ["-"] * 4, "no seed of both"
    assert cells(cases_table(results), "case 61")[1:] == ["91.0", "88.0", "92.0"]


def test_a_command_names_each_run_with_its_seeds(tmp_path):
    options = argparse.Namespace(labels=8, runs=[run_of("caml:0,1"), run_of("labeled-only:0")], seeds=[7])
    assert runs_of(options) == [("caml", 0), ("labeled-only", 0), ("caml", 1)]
    options.runs.append(run_of("no-occ"))
    assert ("no-occ", 7) in runs_of(options)
    assert "--runs caml:0,1 labeled-only:0 no-occ --seeds 7" in command_line("bench_accuracy.py", options)
    for wrong in ("camel", "caml:first", "caml:0@many"):
        with pytest.raises(argparse.ArgumentTypeError):
            run_of(wrong)


def test_a_run_may_have_a_length_of_its_own(tmp_path):
    runs = [run_of("caml"), run_of("paper-losses:0@1500")]
    options = argparse.Namespace(runs=runs, seeds=[0], iterations=4000, budget="20m", at_once=1, dtype="fp32")
    options.base_filters = options.threads = options.patch = None
    steps = {}
    for name, seed in runs_of(options):
        words = prepare(tmp_path, tmp_path / "cohort.json", name, seed, options).options
        steps[name] = words[words.index("--iterations") + 1]
    assert steps == {"caml": "4000", "paper-losses": "1500"}
    assert "--runs caml paper-losses:0@1500 --seeds 0 --iterations 4000" in command_line("bench_accuracy.py", options)


def test_runs_made_apart_have_a_section_of_their_own():
    assert section_of(8, None) == "accuracy-la-8" and section_of(8, "fp32") == "accuracy-la-8-fp32"


def test_the_table_of_runs_shows_both_rules_of_the_95th_percentile():
    text = runs_table([a_run("caml", 0, 0.9), a_run("no-occ", 0, 0.9)])
    row = cells(text, "caml, sub-model a")
    assert "4.00 +- 0.00" in row and "5.00 +- 0.00" in row
    assert row[-3:] == ["1000", "20.0 (-)", "2000"]  # a resumed run's processor seconds are not known
    assert "no-occ, mean of both sub-models" in text and "no-occ, sub-model v" not in text


def test_the_paper_s_terms_are_judged_by_v():
    """Its sub-model a lacks in evaluation what it was trained with; where it never had it, it lacks nothing."""
    paper, without = (a_run(name, 0, 0.9, attention="skip") for name in ("paper-losses", "no-cma"))
    assert (paper.main, without.main, a_run("caml", 0, 0.9).main) == ("v", "mean", "mean")
    paper.sub_models["v"]["case 61"]["dice"] = 0.2
    assert cells(cases_table([paper, without]), "case 61")[1:] == ["20.0", "90.0"]
    text = runs_table([paper])
    assert "paper-losses, sub-model v" in text and "mean of both" not in text


def test_conditions_name_what_differs():
    one, other = a_run("caml", 0, 0.9), a_run("paper-losses", 0, 0.9)
    assert conditions([one, other]).startswith("All with spacing 1.25 x 1.25 x 1.25 mm")
    other.plan["numeric"]["dtype"] = "fp32"
    assert "caml: " in conditions([one, other]) and "paper-losses: " in conditions([one, other])


def test_curves_lie_beside_the_page_and_the_page_shows_them(tmp_path):
    done = {}
    for name in ("caml", "labeled-only"):
        folder = tmp_path / name
        folder.mkdir()
        rows = ["iteration,seconds,loss_supervised,validation_dice", "1,60,0.5,0.6", "2,120,0.3,0.8"]
        (folder / "metrics.csv").write_text("\n".join(rows))
        done[f"{name}, seed 0"] = Finished(folder, {}, None, {})
    line = curves(done, "accuracy-la-8", tmp_path / "benchmarks.md")
    (picture,) = re.findall(r"\(([^)]+)\)", line)
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
