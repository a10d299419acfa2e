"""Held-out cases that the start model knows: avoided where others are there, and said wherever their figures stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from round_tools import QUICK, a_plan, a_start, planned_round, work
from synthetic import write_cohort

from caml_core.events import silent
from caml_core.model_file import read_card
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training.request import Request
from caml_core.training.run import survey
from caml_core.training.run_folder import RunFolder

SEGMENTS = a_plan().segments


def learnt(*cases: int) -> dict[str, dict[str, str]]:
    """What the card of a model says that has learnt from these cases of the synthetic cohort."""
    return {f"case{i}": {"role": "labeled"} for i in cases}


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
    assert any(words in remark for remark in read_card(run.model).info.metrics["held_out"]["remarks"])
    assert words in caml("info", run.model)[1]
    assert caml("train", "--resume", run.path, *options)[0] == 0
    assert held_out(run.read_cohort()) == [seen]
    assert any(words in remark for remark in read_card(run.model).info.metrics["held_out"]["remarks"])


def test_the_card_of_a_round_names_the_held_out_cases_that_its_start_has_seen(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=2)
    start = a_start(tmp_path / "start.caml", SEGMENTS, learnt(0, 4))
    folder = planned_round(tmp_path / "round", cohort, a_plan(2, from_model=True), start=start)
    found = work(folder)
    (remark,) = read_card(folder.model).info.metrics["held_out"]["remarks"]
    assert "labels of case4, held out here" in remark
    assert found["words"].count(remark) == 1
    other = planned_round(tmp_path / "other", cohort, a_plan(2))
    work(other)
    assert read_card(other.model).info.metrics["held_out"]["remarks"] == []
