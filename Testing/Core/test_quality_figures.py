"""Predicted Dice of the quality benchmark: no case knows itself, curves rise, thresholds reach what they promise."""

from __future__ import annotations

import argparse
import ast
import csv
import json
from pathlib import Path

import bench_quality
import numpy as np
import pytest
from bench_flag import read
from bench_flag import report as flag_report
from bench_quality import Weak
from calibration import (
    cross_fitted,
    cross_fitted_flags,
    flags_below,
    folds,
    isotonic,
    linear,
    mean,
    reliability,
    threshold_for,
)
from case_scores import auroc
from cohorts import LA_TRAINING, left_atria, refuse_learned
from quality_report import IN_USE, SIGNALS, Model, Pool, report
from quality_sets import SETS

from caml_core.data.cohort import load_cohort

ROOT = Path(__file__).resolve().parents[2]
FITS = (mean, linear, isotonic)
MODELS, CASES = 4, 20


def noisy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A signal and a true Dice that follows it, both [models, cases]."""
    random = np.random.default_rng(seed)
    signal = random.uniform(0.4, 1.0, (MODELS, CASES))
    return signal, np.clip(signal - 0.05 + random.normal(0, 0.04, signal.shape), 0, 1)


# Cross-fitting


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("source", ["all", "own", "others"])
def test_a_case_never_knows_its_own_fold(fit, source):
    signal, dice = noisy()
    fold = folds(CASES, 5)
    before = cross_fitted(fit, signal, dice, fold, source)
    poisoned = dice.copy()
    poisoned[:, 7] = 0.0  # of all models: what another model says of the case is no news of another case
    after = cross_fitted(fit, signal, poisoned, fold, source)
    same = fold == fold[7]
    assert np.array_equal(before[:, same], after[:, same])
    assert not np.array_equal(before[:, ~same], after[:, ~same])


@pytest.mark.parametrize("fit", FITS)
def test_a_model_knows_the_pairs_that_it_may(fit):
    signal, dice = noisy()
    fold = folds(CASES, 5)
    poisoned = dice.copy()
    poisoned[2] = 0.1
    for source, moved in (("own", {2}), ("others", {0, 1, 3}), ("all", {0, 1, 2, 3})):
        before, after = (cross_fitted(fit, signal, truth, fold, source) for truth in (dice, poisoned))
        assert {model for model in range(MODELS) if not np.array_equal(before[model], after[model])} == moved


def test_every_case_is_predicted_once_by_folds_of_like_size():
    fold = folds(CASES, 6)
    assert len(fold) == CASES and set(fold) == set(range(6))
    assert np.ptp(np.bincount(fold)) <= 1
    for count in (1, CASES + 1):
        with pytest.raises(ValueError, match="folds"):
            folds(CASES, count)
    signal, dice = noisy()
    with pytest.raises(ValueError, match="single model"):
        cross_fitted(mean, signal[:1], dice[:1], fold, "others")


def test_a_perfect_signal_leaves_no_error_and_the_trivial_predictor_the_spread():
    truth = np.random.default_rng(1).uniform(0.3, 0.95, (MODELS, CASES))
    fold = folds(CASES, 10)
    for signal in (truth, 2 * truth - 0.7):
        assert cross_fitted(linear, signal, truth, fold) == pytest.approx(truth, abs=1e-9)
    # The curve is level beyond what it knows and straight between: exact where pairs lie close.
    assert np.abs(cross_fitted(isotonic, truth**3, truth, fold) - truth).mean() < 0.01
    assert np.abs(cross_fitted(mean, truth, truth, fold) - truth).mean() > 0.1


def test_of_a_useless_signal_the_fits_make_the_mean():
    dice = np.random.default_rng(2).uniform(0.5, 0.9, (MODELS, CASES))
    signal, fold = np.full(dice.shape, 0.8), folds(CASES, 5)
    for fit in (linear, isotonic):
        assert cross_fitted(fit, signal, dice, fold) == pytest.approx(cross_fitted(mean, signal, dice, fold))


# Fits


def test_the_curve_rises_and_nothing_rising_is_closer():
    random = np.random.default_rng(3)
    signal = random.choice(np.linspace(0.2, 1.0, 12), 60)  # with ties
    dice = np.clip(signal**2 + random.normal(0, 0.15, 60), 0, 1)
    predict = isotonic(signal, dice)
    curve = predict(np.linspace(0.0, 1.2, 500))
    assert (np.diff(curve) >= 0).all() and np.ptp(curve) > 0.3
    assert dice.min() <= curve.min() and curve.max() <= dice.max()
    error = ((predict(signal) - dice) ** 2).sum()
    for power in (0.5, 1.0, 2.0, 3.0):
        assert error <= ((signal**power - dice) ** 2).sum()


def test_known_curves():
    values = np.array([0.1, 0.2, 0.3, 0.4, 9.0])
    pooled = isotonic(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.5, 0.8, 0.6, 0.9]))(values)
    assert pooled == pytest.approx([0.5, 0.7, 0.7, 0.9, 0.9])
    # Equal signals count once, with the weight of all: their mean is 0.4, and with the next one's three pairs 0.35.
    tied = isotonic(np.array([0.3, 0.1, 0.1, 0.1]), np.array([0.2, 0.3, 0.4, 0.5]))(np.array([0.1, 0.3]))
    assert tied == pytest.approx([0.35, 0.35])
    assert linear(np.array([0.0, 1.0]), np.array([0.5, 1.0]))(np.array([0.5, 3.0])) == pytest.approx([0.75, 1.0])


# Ranking and thresholds


def test_auroc_of_a_known_ranking():
    suspicion = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert auroc(suspicion, np.array([True, True, False, False, False])) == 1.0
    assert auroc(suspicion, np.array([False, False, False, True, True])) == 0.0
    assert auroc(suspicion, np.array([True, False, True, False, False])) == pytest.approx(5 / 6)
    assert auroc(np.ones(4), np.array([True, False, True, False])) == 0.5
    assert auroc(suspicion, np.zeros(5, bool)) is None


def test_the_threshold_is_the_lowest_that_finds_enough():
    random = np.random.default_rng(4)
    for _ in range(50):
        signal, failed = random.uniform(0, 1, 30).round(2), random.uniform(0, 1, 30) < 0.4
        if not failed.any():
            continue
        threshold = threshold_for(0.9, signal, failed)
        assert (signal[failed] < threshold).mean() >= 0.9
        lower = signal[signal < threshold].max()  # the next one down that would flag fewer
        assert (signal[failed] < lower).mean() < 0.9
    assert threshold_for(0.9, np.array([0.2, 0.4, 0.6]), np.array([True, False, False])) == pytest.approx(0.3)
    assert threshold_for(1.0, np.array([0.2, 0.4]), np.array([False, True])) > 0.4
    assert not (np.array([0.0]) < threshold_for(0.9, np.array([0.5]), np.array([False]))).any()


def test_flags_are_those_of_thresholds_that_have_not_seen_the_case():
    signal, dice = noisy()
    fold, failed = folds(CASES, 5), dice < 0.6
    flags = cross_fitted_flags(0.9, signal, failed, fold)
    assert len(flags.thresholds) == 5
    same = fold == fold[3]
    poisoned = signal.copy()
    poisoned[:, 3] = 1.0
    turned = failed.copy()
    turned[:, 3] = True
    after = cross_fitted_flags(0.9, poisoned, turned, fold)
    others = same & (np.arange(CASES) != 3)
    assert np.array_equal(flags.flagged[:, others], after.flagged[:, others])
    assert after.thresholds[fold[3]] == flags.thresholds[fold[3]]
    assert max(after.thresholds) > max(flags.thresholds)


def test_shares_are_counted_by_hand():
    signal = np.array([[0.7, 0.9, 0.85, 0.6], [0.75, 0.95, 0.9, 0.95]])
    failed = np.array([[True, False, True, False], [True, False, False, False]])
    flags = flags_below(0.8, signal, failed)
    assert flags.sensitivity.value == pytest.approx(2 / 3)  # 0.7 and 0.75 of them and 0.85
    assert flags.specificity.value == pytest.approx(4 / 5)  # 0.6 is flagged in vain
    assert flags.of([1]).sensitivity.value == 1.0 and flags.of([1]).specificity.value == 1.0
    assert flags_below(0.8, signal, np.zeros_like(failed)).sensitivity.value is None
    assert flags_below(0.8, signal, np.zeros_like(failed)).sensitivity.interval() is None


def test_the_interval_of_a_share_holds_it_and_takes_cases_whole():
    random = np.random.default_rng(5)
    failed = np.ones((1, 40), bool)
    signal = random.uniform(0, 1, (1, 40))
    share = flags_below(0.6, signal, failed).sensitivity
    low, high = share.interval()
    assert low < share.value < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share.value * (1 - share.value) / 40), rel=0.2)
    # The same cases once more, by further models that say the same, are no further evidence.
    many = flags_below(0.6, np.repeat(signal, 9, axis=0), np.repeat(failed, 9, axis=0)).sensitivity
    assert many.interval() == pytest.approx(share.interval())


def test_bins_hold_every_pair_once():
    predicted = np.array([[0.1, 0.5, 0.55], [0.85, 0.9, 1.0]])
    dice = np.array([[0.2, 0.4, 0.6], [0.8, 0.9, 0.95]])
    bins = reliability(predicted, dice, (0.0, 0.5, 0.85, 0.9, 1.0))
    assert [(held.low, held.high, held.count) for held in bins] == [
        (0.0, 0.5, 1),
        (0.5, 0.85, 2),
        (0.85, 0.9, 1),
        (0.9, 1.0, 2),
    ]
    assert bins[1].predicted == pytest.approx(0.525) and bins[1].true == pytest.approx(0.5)
    assert sum(held.count * held.true for held in bins) == pytest.approx(dice.sum())


# The report


def a_model(kind: str, level: float, seed: int, spread: float = 0.1) -> Model:
    """A model whose Dice(v, a) is its Dice and a little more, and whose map says nothing."""
    random = np.random.default_rng(seed)
    cases = {}
    for case in range(CASES):
        dice = float(np.clip(level + random.uniform(-spread, spread), 0, 1))
        figures = {"agreement": (1 + dice) / 2, "map": random.uniform(), "probability": dice}
        cases[f"case {case}"] = {"dice": dice, "found": True, **figures}
    return Model(kind, 4, 300, 210, seed, "spacing 1 x 1 x 1 mm", cases)


def rows(text: str, first: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(first)]


def test_the_report_tells_a_good_signal_from_a_bad_one():
    models = [a_model("strong", 0.9, 0, 0.06), *(a_model("weaker", 0.75, seed) for seed in (1, 2, 3))]
    text = report(models, 5, "python bench_quality.py", SETS["left-atria"])
    for model in models:
        bad = sum(figures["dice"] < 0.85 for figures in model.cases.values())
        assert rows(text, f"| {model.title} |")[0][4] == str(bad)
    (errors,) = rows(text, "| all models |")
    figures = [float(cell.split()[0]) for cell in errors[1:]]
    trivial, own, line, curve = figures[:4]
    assert line == pytest.approx(0, abs=0.01) and curve < 1.0 < own < trivial
    (good,), (bad,) = (rows(text, f"| {SIGNALS[name]} | all |") for name in ("agreement", "map"))
    assert good[5].startswith("1.00") and float(bad[5].split()[0]) < 0.7
    assert float(bad[4].split()[0]) > 5 * float(good[4].split()[0])
    assert "better than the model's own mean" in text
    # 0.925 is the agreement of a Dice of 0.85: the panel's threshold is too low for this signal, the fitted one is not.
    in_use, fitted = (rows(text, f"| {rule}")[0] for rule in ("0.90 (the panel's)", "fitted for 90 %"))
    assert float(in_use[3].split()[0]) < float(fitted[3].split()[0])
    assert all(0.85 < float(value) < 0.93 for value in fitted[1].split(" to "))


def test_a_report_of_one_kind_without_bad_cases_stands():
    text = report([a_model("strong", 0.93, 0, 0.04)], 5, "python bench_quality.py", SETS["left-atria"])
    assert "An AUROC needs cases of both kinds." in text
    assert rows(text, "| all models |") and not rows(text, "| strong models |")
    assert "nan" not in text


def test_cases_that_differ_are_refused():
    one, other = a_model("strong", 0.9, 0), a_model("weaker", 0.7, 1)
    del other.cases["case 3"]
    with pytest.raises(ValueError, match="different cases"):
        Pool.of([one, other], 5)


def test_cases_are_matched_by_name():
    one, other = a_model("strong", 0.9, 0), a_model("weaker", 0.7, 1)
    turned = Model("weaker", 4, 300, 210, 1, "", dict(reversed(other.cases.items())))
    assert np.array_equal(Pool.of([one, other], 5).dice, Pool.of([one, turned], 5).dice)


def test_the_threshold_in_use_is_the_panel_s():
    source = ROOT / "CAMLSegmentation" / "CAMLSegmentationLib" / "ResultTable.py"
    assigned = {
        target.id: node.value
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert ast.literal_eval(assigned["LOW_AGREEMENT"]) == IN_USE


# The benchmark


@pytest.fixture
def listed(tmp_path):
    """The list of 60 training and 20 held-out cases, of empty files."""
    names = [f"id{place:02d}" for place in range(80)]
    with (tmp_path / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("index", "case", "image", "label"), *((1, n, f"{n}_image.nii", f"{n}_label.nii") for n in names)]
        )
    for name in names:
        for part in ("image", "label"):
            (tmp_path / f"{name}_{part}.nii").touch()
    return left_atria(tmp_path / "cases.json", tmp_path, LA_TRAINING)


def test_seeds_draw_labelled_cases_and_hide_the_other_labels(listed, tmp_path):
    drawn = [load_cohort(bench_quality._drawn(tmp_path / f"{s}.json", listed, 4, s)) for s in (0, 1, 0)]
    ids = [{case.id for case in cohort.with_role("labeled")} for cohort in drawn]
    assert ids[0] == ids[2] != ids[1] and all(len(found) == 4 for found in ids)
    held_out = [case.id for case in load_cohort(listed).with_role("validation")]
    for cohort in drawn:
        assert len(cohort.with_role("unlabeled")) == LA_TRAINING - 4
        assert all(case.label is None for case in cohort.with_role("unlabeled"))
        assert [case.id for case in cohort.with_role("validation")] == held_out[:1]
        assert not {case.id for case in cohort.with_role("labeled", "unlabeled")} & set(held_out)


class Card:
    """What is asked of a model's card."""

    def __init__(self, cases):
        self.path = "model.caml"
        self.info = argparse.Namespace(provenance={"cases": cases})


def test_a_model_that_knows_a_held_out_case_is_refused(listed):
    refuse_learned(Card({"id00": {"role": "labeled"}, "id60": {"role": "validation"}}), load_cohort(listed))
    for role in ("labeled", "unlabeled"):
        with pytest.raises(SystemExit, match="has learned from 1 of the held-out cases"):
            refuse_learned(Card({"id00": {"role": "labeled"}, "id60": {"role": role}}), load_cohort(listed))
    with pytest.raises(SystemExit, match="does not say"):
        refuse_learned(Card({}), load_cohort(listed))


def test_weaker_models_are_named_by_labels_and_iterations():
    assert bench_quality._weak("4:250") == Weak(4, 250) and str(Weak(4, 250)) == "4:250"
    for text in ("4", "4:", ":250", "0:250", "4:0", "4:2.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="LABELS:ITERATIONS"):
            bench_quality._weak(text)


def test_the_command_names_no_path(tmp_path):
    options = argparse.Namespace(
        model=[tmp_path / "model.caml"], iterations=1500, weak=[Weak(2, 9)], seeds=[0, 1], output=tmp_path, show=True
    )
    command = bench_quality._command(options)
    assert command.endswith("bench_quality.py --weak 2:9 --seeds 0 1 --model FILE.caml")
    assert str(tmp_path) not in command
    options.model = None
    assert "--iterations 1500" in bench_quality._command(options)


def test_figures_are_those_of_the_files(tmp_path):
    """Half of four voxels found, one in vain: a prediction's figures, by hand."""
    import SimpleITK as sitk

    from caml_core.data.case import Case

    def write(name: str, values: list[int]) -> Path:
        array = np.zeros((3, 3, 3), np.uint8)
        array.reshape(-1)[: len(values)] = values
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
        return tmp_path / name

    label = write("truth.nii", [1, 1, 1, 1, 0])
    write("one.nii", [1, 1, 0, 0, 1])
    write("one_disagreement.nii", [0, 51, 255, 255, 102])
    write("one_probability.nii", [255, 204, 0, 0, 153])
    case = Case("one", (label,), label, "validation")
    event = {"case": "one", "agreement": {"Left atrium": 0.75}, "volumes_ml": {"Left atrium": 0.003}}
    found = bench_quality._figures(event, tmp_path, case, [1])
    expected = {"dice": 4 / 7, "found": True, "agreement": 0.75, "map": 0.8, "probability": 0.8}
    assert found == pytest.approx(expected)
    assert json.loads(json.dumps(found)) == found
    write("one.nii", [])
    nothing = bench_quality._figures({**event, "agreement": {"Left atrium": 1.0}}, tmp_path, case, [1])
    assert nothing == {"dice": 0.0, "found": False, "agreement": 0.0, "map": 0.0, "probability": 0.0}


def test_the_dice_of_a_case_is_the_mean_of_its_segments(tmp_path):
    import SimpleITK as sitk

    from caml_core.data.case import Case

    for name, values in {
        "truth.nii": [1, 1, 2, 2, 0],
        "one.nii": [1, 2, 2, 2, 0],
        "one_disagreement.nii": [0, 51, 0, 0, 0],
        "one_probability.nii": [255, 255, 255, 255, 0],
    }.items():
        array = np.zeros((3, 3, 3), np.uint8)
        array.reshape(-1)[:5] = values
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name))
    case = Case("one", (tmp_path / "truth.nii",), tmp_path / "truth.nii", "validation")
    event = {"case": "one", "agreement": {"a": 0.6, "b": 0.8}, "volumes_ml": {"a": 0.001, "b": 0.003}}
    found = bench_quality._figures(event, tmp_path, case, [1, 2])
    assert found["dice"] == pytest.approx((2 / 3 + 4 / 5) / 2) and found["agreement"] == pytest.approx(0.7)


@pytest.mark.parametrize("name", SETS)
def test_sets_hold_their_cases_out(name, tmp_path, shared_folder):
    chosen = SETS[name]
    if not (shared_folder / chosen.folder).is_dir():
        pytest.skip(f"needs shared/{chosen.folder}")
    cohort = load_cohort(chosen.list(tmp_path / "cases.json", shared_folder / chosen.folder, chosen.training))
    held_out = {case.id for case in cohort.with_role("validation")}
    training = [case.id for case in cohort.with_role("labeled")]
    assert (
        len(training) == chosen.training
        and len(held_out) == {"la2018": 20, "hippocampus": 40, "vessels": 8}[chosen.folder]
    )
    assert not held_out & set(training)
    fewer = load_cohort(chosen.list(tmp_path / "fewer.json", shared_folder / chosen.folder, chosen.labels))
    assert [case.id for case in fewer.with_role("labeled")] == training[: chosen.labels]
    assert {case.id for case in fewer.with_role("validation")} == held_out


def test_one_threshold_is_counted_in_each_anatomy(tmp_path):
    pairs = {"left-atria": [(0.7, 0.83), (0.8, 0.95), (0.9, 0.91), (0.95, 0.85)], "hippocampi": [(0.9, 0.5)]}
    found = {}
    for name, figures in pairs.items():
        (tmp_path / name / "model").mkdir(parents=True)
        cases = {f"case {place}": {"dice": d, "agreement": a} for place, (d, a) in enumerate(figures)}
        (tmp_path / name / "model" / "quality.json").write_text(json.dumps({"cases": cases}))
        found[name] = read(tmp_path / name)
    text = flag_report(found)
    assert rows(text, "| **0.90** |")[0][1:] == ["50 % (1 of 2)", "50 % (1 of 2)", "-", "0 % (0 of 1)"]
    assert rows(text, "| 0.80 |")[0][1:3] == ["0 % (0 of 2)", "100 % (2 of 2)"]
    with pytest.raises(SystemExit, match="holds no figures"):
        read(tmp_path)
