"""Rounds: what they leave behind, how honest their figures are, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from round_tools import (
    QUICK,
    a_plan,
    a_start,
    baseline_plan,
    events_of,
    planned_round,
    result_of,
    row_of,
    table_of,
    work,
)
from synthetic import write_cohort

from caml_core.case_names import digest_of
from caml_core.config import Segment
from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import load_cohort
from caml_core.data.labels import read_labels
from caml_core.data.memos import Memos
from caml_core.errors import DataError, UsageError
from caml_core.events import silent
from caml_core.inference.batch import load_network
from caml_core.inference.predictor import Predictor
from caml_core.metrics import case_metrics
from caml_core.model_file import load_model, read_card
from caml_core.rounds import parts, pulse, result
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import Round, Surroundings, start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training.from_model import FINE_TUNING_RATE
from caml_core.training.held_out import seen_cases
from caml_core.training.request import Request
from caml_core.training.trainer import Outcome


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RoundFolder:
    """A round with everything, by the command: baseline, cross-validation, preview."""
    from caml_core.cli import main

    home = tmp_path_factory.mktemp("round")
    cohort = write_cohort(home / "cohort", labeled=3, unlabeled=2, validation=2)
    folder = RoundFolder(home / "project" / "001")
    options = ["--iterations", "12", "--baseline", "--folds", "2", "--preview", "case4", "--name", "Mine", *QUICK]
    options += ["--cache", str(home / "cache"), "--lock", str(home / "project" / "lock")]
    assert main(["round", str(cohort), "-o", str(folder.path), *options]) == 0
    return folder


@pytest.fixture
def a_cohort(tmp_path) -> Path:
    return write_cohort(tmp_path / "cohort", labeled=3, unlabeled=1, validation=1)


# A whole round


def test_the_result_has_its_rows_side_by_side(whole):
    found = result_of(whole)
    assert [row["name"] for row in found["rows"]] == ["labeled-only", "caml", "cross-validation"]
    assert (found["kind"], found["ended"]) == ("held-out", "finished")
    assert found["words"] == "2 cases: treat as indicative."
    assert (found["labeled"], found["unlabeled"], found["validation"]) == (3, 2, 2)
    caml, crossed = row_of(found, "caml"), row_of(found, "cross-validation")
    assert caml["iterations"] == 12 and caml["seconds"] > 0
    assert set(caml["cases"]) == {"case5", "case6"} and set(crossed["cases"]) == {"case0", "case1", "case2"}
    for row in (caml, crossed):
        assert row["count"] == len(row["cases"])
        for segment in found["segments"]:
            values = [case[segment]["dice"] for case in row["cases"].values()]
            assert set(row["summary"][segment]) == {"dice", "jaccard", "hd95_mm", "assd_mm"}
            assert row["summary"][segment]["dice"]["mean"] == pytest.approx(np.mean(values))
            assert row["summary"][segment]["dice"]["std"] == pytest.approx(np.std(values, ddof=1))


def test_the_difference_is_that_of_the_rows(whole):
    found = result_of(whole)
    mean = {
        row: [np.mean([s["dice"] for s in case.values()]) for case in row_of(found, row)["cases"].values()]
        for row in ("caml", "labeled-only")
    }
    gains = np.subtract(mean["caml"], mean["labeled-only"])
    assert found["difference"]["dice"] == pytest.approx(100 * gains.mean())
    assert (found["difference"]["better"], found["difference"]["cases"]) == (int((gains > 0).sum()), 2)


def test_the_figures_are_those_of_the_segmentations_that_are_kept(whole):
    found, cohort = result_of(whole), whole.read_cohort()
    for row in found["rows"]:
        for case, by_segment in row["cases"].items():
            ours = read_labels(whole.segmentations / row["name"] / f"{case}.seg.nrrd")
            theirs = read_labels(next(c.label for c in cohort.cases if c.id == case))
            wanted = case_metrics(ours.array, theirs.array, theirs.grid.spacing, ours.segments)
            for segment, metrics in by_segment.items():
                assert metrics["dice"] == pytest.approx(wanted[segment]["dice"])


def test_the_model_has_its_figures_on_its_card(whole):
    info, found = read_card(whole.model).info, result_of(whole)
    assert info.name == "Mine" and (info.labeled_cases, info.unlabeled_cases) == (3, 2)
    assert info.metrics["held_out"]["summary"]["mean"] == row_of(found, "caml")["summary"]
    assert info.metrics["cross_validation"]["summary"]["mean"] == row_of(found, "cross-validation")["summary"]
    ours, trained = load_model(whole.model), load_model(whole.part("caml").model)
    assert all(torch.equal(tensor, trained.state[name]) for name, tensor in ours.state.items())


def test_every_event_says_to_which_part_it_belongs(whole):
    events = events_of(whole)
    assert all("part" in fields and fields["pid"] > 0 for _, fields in events)
    trained = [f["part"] for kind, f in events if kind == "stage" and f["name"] == "training"]
    assert trained == ["caml", "labeled-only", "fold-1", "fold-2"]
    scored = [f["row"] for kind, f in events if kind == "scores"]
    assert scored == ["caml", "labeled-only", "fold-1", "fold-2", "cross-validation"]
    assert events[0][0] == "started" and events[-1][0] == "finished"
    assert events[-1][1]["result"] == {"result": str(whole.result), "model": str(whole.model)}


def test_the_preview_is_told_with_every_live_validation(whole):
    events = events_of(whole)
    validated = [f["iteration"] for kind, f in events if kind == "validation" and f["part"] == "caml"]
    assert [f["iteration"] for kind, f in events if kind == "preview"] == validated != []
    assert {f["case"] for kind, f in events if kind == "preview"} == {"case4"}
    assert read_labels(whole.preview).grid.size == (22, 18, 20)


def test_nothing_absolute_is_kept_where_it_can_be_relative(whole):
    for file in (whole.round, whole.cohort, *(whole.part(p).cohort for p in ("caml", "labeled-only", "fold-1"))):
        assert str(whole.path.parent.parent) not in file.read_text()


def test_what_nobody_goes_on_from_is_not_kept(whole):
    assert list(whole.path.rglob("checkpoint.pt")) == []


def test_a_finished_round_is_not_done_again(whole, caml):
    before = {p: p.stat().st_mtime_ns for p in whole.path.rglob("*") if p.is_file() and p != whole.events}
    code, _, _ = caml("round", "--resume", whole.path, "--progress", "none")
    assert code == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_the_report_shows_rows_cases_plan_and_words(whole):
    text, found = whole.report.read_text(encoding="utf-8"), result_of(whole)
    assert found["report"] == "report/index.html" and found["words"] in text
    for name in ("Labelled cases only", "CAML", "Cross-validation", "case5", "case0", "3 labelled, 2 unlabelled"):
        assert name in text
    dice = row_of(found, "caml")["summary"]["segment_1"]["dice"]
    assert f"{dice['mean']:.3f} +- {dice['std']:.3f}" in text
    assert text.count("<img") == 2 + 2  # curves, and the held-out cases
    assert "script" not in text and "http" not in text


# Heartbeats


def test_a_pulse_beats_while_something_long_is_done():
    told: list[tuple[str, dict]] = []
    with pulse.Pulse(lambda kind, fields: told.append((kind, fields)), seconds=0.01) as listener:
        listener("stage", {"name": "preparing", "part": "caml"})
        while len(told) < 3:  # pytest's own limit ends a pulse that does not beat
            pass
    assert {kind for kind, _ in told[1:]} == {"heartbeat"} and told[-1][1]["part"] == "caml"


def test_preparing_and_scoring_are_not_silent(a_cohort, tmp_path, monkeypatch, caml):
    monkeypatch.setattr(pulse, "SECONDS", 0.0)
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(2))
    assert caml("round", "--resume", folder.path, "--cache", tmp_path / "cache", "--progress", "none")[0] == 0
    beats, stage = dict.fromkeys(("preparing", "training", "scoring"), 0), ""
    for kind, fields in events_of(folder):
        stage = fields["name"] if kind == "stage" else stage
        if kind == "heartbeat" and stage in beats:
            beats[stage] += 1
    assert all(beats.values()), beats


# The start model


def _declared(cohort: Path, names: dict[str, int]) -> Path:
    """The cohort as JSON that names its labels' values."""
    listed = load_cohort(cohort)
    rows = [
        {"id": c.id, "image": str(c.images[0]), "role": c.role, **({"label": str(c.label)} if c.label else {})}
        for c in listed.cases
    ]
    path = cohort.with_suffix(".json")
    path.write_text(json.dumps({"cases": rows, "segments": [{"name": n, "label": v} for n, v in names.items()]}))
    return path


def test_the_start_model_is_scored_by_the_names_of_its_segments(a_cohort, tmp_path):
    start = a_start(tmp_path / "start.caml", (Segment("other", 1), Segment("BRIGHT", 2), Segment("third", 3)))
    cohort = _declared(a_cohort, {"dim": 1, "bright": 2})
    folder = planned_round(tmp_path / "round", cohort, a_plan(2), start=start)
    found = work(folder)
    row = row_of(found, "start")
    (case,) = folder.read_cohort().with_role("validation")
    theirs = read_labels(case.label)
    model = load_model(start)
    predictor = Predictor(load_network(model), model.spec, numeric=a_plan().numeric)
    from caml_core.data.io import read_case

    labels = predictor.predict(read_case(case)).labels
    wanted = case_metrics((labels == 2).astype(np.uint8), theirs.array == 2, (1.0, 1.0, 1.0), [Segment("bright", 1)])
    assert row["cases"][case.id]["bright"]["dice"] == pytest.approx(wanted["bright"]["dice"])
    assert list(row["cases"][case.id]) == list(row["summary"]) == ["bright"]
    assert any("does not know dim" in note for note in found["notes"])
    assert (row["iterations"], row["count"]) == (0, 1)
    assert folder.start.read_bytes() == start.read_bytes()


def test_a_round_knows_the_segments_of_its_start_model_under_their_new_names(a_cohort, tmp_path):
    start = a_start(tmp_path / "start.caml", (Segment("before", 1), Segment("bright", 2)))
    request = RoundRequest(Request(renamed=(("before", "dim"),)))
    cohort = _declared(a_cohort, {"dim": 1, "bright": 2})
    found = work(planned_round(tmp_path / "round", cohort, a_plan(2), request, start=start))
    assert set(row_of(found, "start")["summary"]) == {"dim", "bright"}
    assert not any("does not know" in note for note in found["notes"])


@pytest.mark.slow
def test_what_the_start_model_has_seen_is_said(a_cohort, tmp_path):
    seen = {"case0": {"role": "labeled"}, "case1": {"role": "unlabeled"}, "case4": {"role": "labeled"}}
    start = a_start(tmp_path / "start.caml", (Segment("segment_1", 1), Segment("segment_2", 2)), seen)
    folder = RoundFolder(tmp_path / "round")
    request = Request(iterations=2, base_filters=2, patch=(16, 16, 16), threads=1, dtype="fp32")
    start_round(folder, a_cohort, RoundRequest(request, folds=2), start)
    found = work(folder)
    text = " ".join(found["notes"])
    assert "labels of case4, held out here" in text and "from scratch" in text
    assert "labels of case4, held out here" in found["words"]
    main, fold = (folder.part(name).read_plan() for name in ("caml", "fold-1"))
    assert (main.from_model, fold.from_model) == (True, False), "a fold starts from random weights, and trains so"
    assert fold.optimizer.learning_rate == pytest.approx(main.optimizer.learning_rate / FINE_TUNING_RATE)
    assert (main.losses.teacher, fold.losses.teacher) == ("fixed", "moving")
    origin = load_model(folder.model).info.provenance
    assert origin["start_model"] == "start" and {digest_of("case0"), digest_of("case4")} <= set(origin["learned"])
    labeled = {name for name, entry in origin["cases"].items() if entry["role"] == "labeled"}
    assert digest_of("case4") not in labeled and labeled < set(origin["learned"])
    held_out = [Case("case4", (Path("x"),), None, "validation")]
    memos = Memos(tmp_path / "memos")
    assert seen_cases(load_model(folder.model), held_out, memos) == ("case4",), "its start has seen it, and so it has"


# Parts


@pytest.mark.parametrize(("labeled", "folds", "number"), [(7, 3, 3), (3, 10, 3), (2, 2, 2)])
def test_every_labelled_case_is_held_out_in_one_fold(labeled, folds, number):
    roles = ["labeled"] * labeled + ["unlabeled"] * 3 + ["validation"] * 2
    cases = [Case(f"c{i}", (Path("x"),), None, role) for i, role in enumerate(roles)]
    cohort = Cohort(tuple(cases), Path())
    made = parts.fold_cohorts(cohort, folds, seed=4)
    assert len(made) == number
    held_out = [case.id for fold in made for case in fold.with_role("validation")]
    assert sorted(held_out) == sorted(c.id for c in cohort.with_role("labeled"))
    for fold in made:
        assert len(fold.with_role("labeled")) + len(fold.with_role("validation")) == labeled
        assert [c.id for c in fold.with_role("unlabeled")] == [c.id for c in cohort.with_role("unlabeled")]
        assert len(fold.with_role("excluded")) == 2
    random.Random(1).shuffle(cases)
    again = parts.fold_cohorts(Cohort(tuple(cases), Path()), folds, seed=4)
    assert [{c.id for c in f.with_role("validation")} for f in again] == [
        {c.id for c in f.with_role("validation")} for f in made
    ]


def test_the_baseline_gets_the_same_time(monkeypatch):
    """Half of our steps take twice as long as its, half four times (an input of the machine): it gets three times."""
    monkeypatch.setattr(parts, "seconds_in_turn", lambda plan, alone, _: (0.4, 0.8, 0.2))
    optimizer = dataclasses.replace(a_plan().optimizer, schedule="plateau")
    losses = dataclasses.replace(a_plan().losses, solo_share=0.25)
    plan = a_plan(1000, validate_every=50, optimizer=optimizer, horizon=400, losses=losses)
    alone = parts.labeled_only_plan(plan, 200, labeled_cases=3)
    assert (alone.iterations, alone.validate_every, alone.horizon) == (600, 150, 0)
    assert alone.labeled_only and alone.optimizer.schedule == "cosine"
    remapping = dataclasses.replace(alone, augmentation=dataclasses.replace(alone.augmentation, remap=0.15))
    assert remapping.remapped_iterations == 300, "random curves in half of the steps, as in ours: 100 of 200"


def test_a_fold_does_not_know_of_the_labels_that_it_is_judged_by(whole):
    """Three labels tell that segments are in one piece; two of them, or one, do not."""
    plans = [whole.part(part).read_plan() for part in ("caml", "labeled-only", "fold-1", "fold-2")]
    assert [plan.losses.pseudo_largest_component for plan in plans] == [True, True, False, False]
    assert [note for note in result_of(whole)["notes"] if note.startswith("2 of 2 trainings of the cross-validation")]


# The result


def test_the_words_tell_how_far_to_trust():
    assert result.words("none", 0) == "No case was held out: the model's accuracy is not known."
    assert result.words("held-out", 1) == "1 case: treat as indicative."
    assert result.words("held-out", 25) == "25 cases."
    assert result.words("cross-validation", 4).endswith("4 cases: treat as indicative.")


def test_a_part_that_had_less_than_the_others_is_named(a_cohort, tmp_path):
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(2))
    work = Round(folder, Surroundings(silent, lambda: False))
    work._note_failed("caml", Outcome("failed", 1, 1.0, None))
    assert folder.read_notes() == [], "how the main training ended is told elsewhere"
    work._note_failed("labeled-only", Outcome("failed", 1, 1.0, None))
    assert "labeled-only ended early" in folder.read_notes()[0]


@pytest.mark.slow
def test_without_held_out_cases_the_folds_are_what_is_known(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    folder = planned_round(tmp_path / "round", cohort, a_plan(2), RoundRequest(Request(), folds=2))
    found = work(folder)
    assert found["kind"] == "cross-validation" and row_of(found, "cross-validation")["count"] == 2
    assert row_of(found, "caml")["count"] == 0 and found["difference"] is None
    other = planned_round(tmp_path / "other", cohort, a_plan(2))
    assert work(other)["kind"] == "none"


def test_without_matplotlib_there_is_a_page_without_pictures(a_cohort, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [m for m in sys.modules if m.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(2))
    warnings: list[str] = []
    work(folder, listener=lambda kind, fields: warnings.append(fields["message"]) if kind == "warning" else None)
    text = folder.report.read_text(encoding="utf-8")
    assert "<img" not in text and "case4" in text and "1 case: treat as indicative." in text
    assert any("matplotlib" in message for message in warnings)
    assert "slicer.util.pip_install" in text, "the page says how to get them"


# What goes wrong


def test_options_that_do_not_fit_are_refused(a_cohort, tmp_path, caml):
    new = tmp_path / "new"
    for arguments, words in (
        ((), "Name a cohort"),
        ((a_cohort, "-o", new, "--finish"), "nothing to finish"),
        ((a_cohort, "--resume", new), "leave COHORT"),
        ((a_cohort, "-o", new, "--preview", "nobody"), "'nobody'"),
        (("--resume", new), "holds no round"),
    ):
        code, _, err = caml("round", *arguments, "--progress", "none")
        assert code in (2, 6) and words in err and err.count("\n") == 1
    assert not (new / "round.json").exists() and not (new / "events.jsonl").exists()
    with pytest.raises(UsageError, match="folds"):
        RoundRequest(Request(), folds=1)


def test_training_until_it_stops_improving_needs_a_validation_case(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    with pytest.raises(UsageError, match="validation case"):
        start_round(RoundFolder(tmp_path / "r"), cohort, RoundRequest(Request(until_better=True)))
    with pytest.raises(UsageError, match="two labelled"):
        one = write_cohort(tmp_path / "one", labeled=1, unlabeled=1, validation=1)
        start_round(RoundFolder(tmp_path / "r"), one, RoundRequest(Request(), folds=2))
    assert not (tmp_path / "r").exists()


def test_a_round_of_labels_alone_is_refused_and_leaves_nothing(a_cohort, tmp_path, caml):
    """Its result and report would call them CAML."""
    output = tmp_path / "rounds" / "001"
    for command in ("round", "preflight"):
        code, _, err = caml(command, a_cohort, "-o", output, "--labeled-only", *QUICK)
        assert code == 2 and "--baseline" in err and "caml train --labeled-only" in err
        assert "--labeled-only" not in caml(command, "--help")[1]
    with pytest.raises(UsageError, match="labels alone"):
        start_round(RoundFolder(output), a_cohort, RoundRequest(Request(labeled_only=True)))
    assert not output.parent.exists()
    assert "--labeled-only" in caml("train", "--help")[1]


def test_a_round_of_a_newer_version_is_refused_untouched(a_cohort, tmp_path, caml):
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(2))
    content = json.loads(folder.round.read_text())
    folder.round.write_text(json.dumps({**content, "format": 99}))
    before = sorted(p.name for p in folder.path.iterdir())
    code, _, err = caml("round", "--resume", folder.path, "--progress", "none")
    assert code == 6 and "made by a newer version" in err and err.count("\n") == 1
    assert sorted(p.name for p in folder.path.iterdir()) == before


def test_a_second_round_does_not_overwrite_the_first(whole, tmp_path, caml):
    before = whole.events.read_bytes()
    code, _, err = caml("round", whole.cohort, "-o", whole.path, "--progress", "none")
    assert code == 2 and "already holds a round" in err
    assert whole.events.read_bytes() == before


def test_a_scan_that_is_gone_is_named(a_cohort, tmp_path):
    folder = planned_round(tmp_path / "round", a_cohort, a_plan(2))
    (a_cohort.parent / "case1_image.nrrd").unlink()
    with pytest.raises(DataError, match="case1"):
        work(folder)


def test_a_project_that_was_moved_goes_on(tmp_path):
    cohort = write_cohort(tmp_path / "project" / "scans", labeled=2, unlabeled=1, validation=1)
    planned_round(tmp_path / "project" / "rounds" / "001", cohort, a_plan(2))
    (tmp_path / "project").rename(tmp_path / "elsewhere")
    assert work(RoundFolder(tmp_path / "elsewhere" / "rounds" / "001"))["ended"] == "finished"


def test_losses_that_fail_leave_a_result_and_an_error(a_cohort, tmp_path, caml):
    losses = dataclasses.replace(a_plan().losses, dice=3e38, cross_entropy=3e38)  # their sum is no number any more
    plan = a_plan(40, losses=losses)
    folder = planned_round(tmp_path / "round", a_cohort, plan, RoundRequest(Request(), baseline=True))
    folder.part("labeled-only").create(baseline_plan(a_plan(2)), folder.read_cohort())
    code, _, err = caml("round", "--resume", folder.path, "--cache", tmp_path / "cache", "--progress", "none")
    assert code == 6 and "not finite" in err
    found = result_of(folder)
    assert found["ended"] == "failed" and [row["name"] for row in found["rows"]] == ["caml"]
    assert len(table_of(folder)) == row_of(found, "caml")["iterations"] - 1 == 4
    assert caml("round", "--resume", folder.path, "--progress", "none")[0] == 6  # and says so again
