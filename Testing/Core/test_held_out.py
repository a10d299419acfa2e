"""Held-out cases that the start model knows: avoided where others are there, and said wherever their figures stand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from round_tools import QUICK, a_plan, a_start, planned_round, work
from synthetic import write_cohort

from caml_core.case_names import digest_of
from caml_core.data.case_memo import scan_digest
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.data.memos import Memos
from caml_core.events import silent
from caml_core.model_file import learned_scans, load_model, read_card, save_model
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training.held_out import seen_cases, seen_note, start_notes
from caml_core.training.request import Request
from caml_core.training.run import survey
from caml_core.training.run_folder import RunFolder

SEGMENTS = a_plan().segments


def learnt(*cases: int) -> dict[str, dict[str, str]]:
    """What the card of a model says that has learnt from these cases of the synthetic cohort."""
    return {f"case{i}": {"role": "labeled"} for i in cases}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A model that has learnt from case0 and case1 of the synthetic cohort, and was measured by case3."""
    home = tmp_path_factory.mktemp("first")
    cohort = write_cohort(home / "cohort", labeled=2, unlabeled=1, validation=1)
    folder = planned_round(home / "round", cohort, a_plan(2))
    work(folder)
    return folder.model


def with_ids(cohort: Path, ids: dict[str, str]) -> Path:
    """The same files in a list that calls cases otherwise."""
    rows = cohort.read_text().splitlines()
    listed = cohort.with_name("renamed.csv")
    listed.write_text(
        "\n".join(f"{ids.get(row.split(',')[0], row.split(',')[0])},{row.split(',', 1)[1]}" for row in rows)
    )
    return listed


def held_out(cohort) -> list[str]:
    return [case.id for case in cohort.with_role("validation")]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_the_start_model_has_not_learnt_is_held_out(tmp_path: Path, seed: int) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=6, unlabeled=1, validation=0)
    start = a_start(tmp_path / "start.caml", SEGMENTS, learnt(0, 1, 3, 4, 5))
    request, told = Request(seed=seed), []
    found, _ = survey(cohort, request, lambda kind, fields: told.append(fields.get("message", "")), start_path=start)
    assert held_out(found) == ["case2"] and not any("too good" in message for message in told)
    begun = RoundFolder(tmp_path / "round")
    start_round(begun, cohort, RoundRequest(request), start)
    assert held_out(begun.read_cohort()) == ["case2"]


def test_the_split_is_that_of_before_where_the_start_has_learnt_from_others(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=6, unlabeled=1, validation=0)
    start = a_start(tmp_path / "start.caml", SEGMENTS, {"elsewhere": {"role": "labeled"}})
    plain, _ = survey(cohort, Request(), silent)
    assert survey(cohort, Request(), silent, start_path=start)[0] == plain


def test_a_training_says_it_keeps_its_split_and_its_card_says_it_too(tmp_path: Path, caml) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=6, unlabeled=1, validation=0)
    start, run = a_start(tmp_path / "start.caml", SEGMENTS, learnt(*range(6))), RunFolder(tmp_path / "run")
    options = [*QUICK[:-1], "json", "--cache", tmp_path / "cache"]
    code, out, _ = caml("train", cohort, "-o", run.path, "--model", start, "--iterations", "2", *options)
    (seen,) = held_out(run.read_cohort())
    words = f"labels of {seen}, held out here"
    assert code == 0 and any('"warning"' in line and words in line for line in out.splitlines())
    (remark,) = read_card(run.model).info.metrics["held_out"]["remarks"]
    assert "trained on the labels of a held-out case: figures" in remark and remark in caml("info", run.model)[1]
    code, _, err = caml("train", "--resume", run.path, "--cache", tmp_path / "cache", "--progress", "none")
    assert code == 0, err
    assert held_out(run.read_cohort()) == [seen]
    assert read_card(run.model).info.metrics["held_out"]["remarks"] == [remark]


def test_a_round_names_the_held_out_cases_that_its_start_has_seen_and_its_card_counts_them(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=2)
    start = a_start(tmp_path / "start.caml", SEGMENTS, learnt(0, 4))
    folder = planned_round(tmp_path / "round", cohort, a_plan(2, from_model=True), start=start)
    found = work(folder)
    (remark,) = read_card(folder.model).info.metrics["held_out"]["remarks"]
    assert "trained on the labels of a held-out case: figures" in remark
    assert found["words"].count("labels of case4, held out here") == 1 and remark not in found["words"]
    other = planned_round(tmp_path / "other", cohort, a_plan(2))
    work(other)
    assert read_card(other.model).info.metrics["held_out"]["remarks"] == []


def test_a_scan_is_known_under_another_name(tmp_path: Path, trained: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=6, unlabeled=1, validation=0)
    listed = with_ids(cohort, {"case0": "p01", "case1": "p02"})
    request = RoundRequest(Request(hold_out=5))
    start_round(RoundFolder(tmp_path / "round"), listed, request, trained)
    cases = RoundFolder(tmp_path / "round").read_cohort()
    (left,) = cases.with_role("labeled")
    assert left.id in ("p01", "p02"), "they are held out last"
    memos, card = Memos(tmp_path / "memos"), read_card(trained)
    assert seen_cases(card, cases.cases, memos) == ("p01", "p02")
    (other,) = {"p01", "p02"} - {left.id}
    assert f"labels of {other}, held out here" in seen_note(card, cases, memos)


def test_another_scan_of_a_known_name_is_another_scan(tmp_path: Path, trained: Path) -> None:
    cohort = load_cohort(
        with_ids(
            write_cohort(tmp_path / "cohort", labeled=4, unlabeled=1, validation=0),
            {"case0": "a", "case1": "b", "case2": "case0", "case3": "case1"},
        )
    )
    memos, card = Memos(tmp_path / "memos"), read_card(trained)
    assert seen_cases(card, cohort.cases, memos) == ("a", "b")
    gone = dataclasses.replace(cohort.cases[2], images=(tmp_path / "gone.nrrd",))
    assert seen_cases(card, [gone], memos) == ("case0",), "where the scan cannot be read its name counts"


def test_cards_of_before_know_cases_by_their_names(tmp_path: Path) -> None:
    cohort = load_cohort(write_cohort(tmp_path / "cohort", labeled=3, unlabeled=1, validation=0))
    card = read_card(a_start(tmp_path / "old.caml", SEGMENTS, learnt(0), learned=["case2", "elsewhere"]))
    memos = Memos(tmp_path / "memos")
    assert seen_cases(card, cohort.cases, memos) == ("case0", "case2")
    assert not memos.folder.exists(), "and no scan is read for it"


def test_what_was_learnt_is_carried_on_over_rounds(tmp_path: Path, trained: Path) -> None:
    old = load_model(trained)
    origin = {**old.info.provenance, "learned": [*old.info.provenance["learned"], "by name alone"]}
    start = tmp_path / "start.caml"
    info = dataclasses.replace(old.info, provenance=origin)
    save_model(start, spec=old.spec, state=old.state, info=info)
    cohort = write_cohort(tmp_path / "cohort", labeled=5, unlabeled=1, validation=1)
    listed = with_ids(cohort, {"case0": "x", "case1": "y", "case6": "case0"})
    rows = [row.replace("labeled", "excluded") if row[0] in "xy" else row for row in listed.read_text().splitlines()]
    listed.write_text("\n".join(rows))
    folder = planned_round(tmp_path / "round", listed, a_plan(2, from_model=True), start=start)
    assert "too good" not in work(folder)["words"], "case0 is the name of another scan here"
    memos, card = Memos(tmp_path / "memos"), read_card(folder.model)
    names = {digest_of(name) for name in ("case0", "case1", "case2", "by name alone")}
    assert names <= set(card.info.provenance["learned"])
    assert (digest_of("by name alone"), "") in learned_scans(card.info)
    every = load_cohort(with_ids(cohort, {f"case{i}": f"new{i}" for i in range(7)}))
    assert seen_cases(card, every.cases, memos) == tuple(f"new{i}" for i in range(5))


def test_cases_that_ended_the_start_models_training_are_named_and_no_others(tmp_path: Path) -> None:
    cohort = load_cohort(write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=2))
    memos = Memos(tmp_path / "memos")
    digest = scan_digest(cohort.cases[4], memos)
    for name, scans, named in (("case3", [], "case3"), ("then", [["then", digest]], "case4"), ("case1", [], "")):
        start = a_start(tmp_path / "start.caml", SEGMENTS, stopped_by=[name], stopped_by_scans=scans)
        notes = start_notes(read_card(start), cohort, memos)
        assert [named in note for note in notes] == ([True] if named else [])
        assert start_notes(read_card(start), cohort, memos, stopped=True) == (), "said of this training already"


def test_labels_that_began_as_predictions_are_told_with_the_figures(tmp_path: Path) -> None:
    cohort = load_cohort(write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=2))
    began = {"case1": "prediction", "case4": "correction"}
    cases = tuple(dataclasses.replace(c, label_began=began.get(c.id, "")) for c in cohort.cases)
    listed = tmp_path / "cohort" / "list.json"
    save_cohort(dataclasses.replace(cohort, cases=cases), listed)
    assert load_cohort(listed).cases == cases
    start = a_start(tmp_path / "start.caml", SEGMENTS)
    folder = planned_round(tmp_path / "round", listed, a_plan(2, from_model=True), start=start)
    found, (remark,) = work(folder), read_card(folder.model).info.metrics["held_out"]["remarks"]
    assert "The labels of case4, held out here, began as predictions" in found["words"]
    assert remark.startswith("The labels of a held-out case began as predictions")
    assert start_notes(None, load_cohort(listed), Memos(tmp_path / "memos")) == (), "nobody started from a model"
