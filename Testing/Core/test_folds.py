"""Trainings of a cross-validation: what their labels decide is decided without those that they are judged by."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from round_tools import a_plan, a_start, planned_round, work
from synthetic import write_cohort

from caml_core.config import ChannelIntensity, Plan
from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.data.labels import read_labels, write_labels
from caml_core.data.memos import Memos
from caml_core.events import silent
from caml_core.model_file import read_card
from caml_core.rounds import parts
from caml_core.rounds.request import RoundRequest
from caml_core.training import planner
from caml_core.training.request import Request
from caml_core.training.run import survey


def fold_plans(plan: Plan, cohort: Cohort, folds: int, memos: Path) -> dict[tuple[str, ...], Plan]:
    """Held-out cases -> the plan of the fold that they are held out in."""
    return {
        tuple(case.id for case in own.with_role("validation")): parts.fold_plan(plan, 600, folds, own, Memos(memos))
        for own in parts.fold_cohorts(cohort, folds, plan.seed)
    }


def in_pieces(case: Case) -> None:
    """The first segment of a label becomes two specks in opposite corners."""
    assert case.label is not None
    label = read_labels(case.label)
    array = label.array.copy()
    array[array == 1] = 0
    array[:3, :3, :3] = array[-3:, -3:, -3:] = 1
    write_labels(case.label, array, label.grid, label.segments)


def test_a_fold_of_too_few_labels_keeps_all_parts(tmp_path: Path) -> None:
    cohort, found = survey(write_cohort(tmp_path, labeled=3), Request(), silent)
    assert found.one_component
    plan = a_plan(losses=dataclasses.replace(a_plan().losses, pseudo_largest_component=True))
    plans = fold_plans(plan, cohort, 3, tmp_path / "memos")
    assert [p.losses.pseudo_largest_component for p in plans.values()] == [False] * 3
    assert not any(p.model_spec.one_component for p in plans.values()), "their predictions are held to it, too"


def test_a_label_in_pieces_counts_where_it_is_learnt_from_alone(tmp_path: Path) -> None:
    path = write_cohort(tmp_path, labeled=4)
    odd = load_cohort(path).with_role("labeled")[3]
    in_pieces(odd)
    cohort, found = survey(path, Request(hold_out=0), silent)
    assert not found.one_component
    plans = fold_plans(a_plan(), cohort, 4, tmp_path / "memos")
    kept = {held_out: plan.losses.pseudo_largest_component for held_out, plan in plans.items()}
    assert len(kept) == 4 and [held_out for held_out, largest in kept.items() if largest] == [(odd.id,)]
    paper = fold_plans(dataclasses.replace(a_plan(), preset="paper"), cohort, 4, tmp_path / "memos")
    assert not any(p.losses.pseudo_largest_component for p in paper.values()), "it never keeps the largest part"


@pytest.mark.parametrize(("modality", "share"), [("MR", 0.15), ("CT", 0.0)])
def test_curves_depend_on_how_many_labels_a_fold_has(tmp_path: Path, modality: str, share: float) -> None:
    cohort = load_cohort(write_cohort(tmp_path, labeled=planner.FEW_LABELS + 1))
    plan = a_plan(channels=(ChannelIntensity(modality=modality),))
    assert plan.augmentation.remap == 0
    shares = [p.augmentation.remap for p in fold_plans(plan, cohort, 3, tmp_path / "memos").values()]
    assert shares == pytest.approx([share] * 3)


def test_folds_share_the_time_of_the_main_training(tmp_path: Path) -> None:
    losses, memos = dataclasses.replace(a_plan().losses, solo_share=0.25), Memos(tmp_path / "memos")
    cohort = load_cohort(write_cohort(tmp_path, labeled=2, unlabeled=1, validation=0))
    plan = a_plan(1000, losses=losses)
    number = [parts.fold_plan(plan, iterations, 3, cohort, memos).iterations for iterations in (200, 90)]
    assert number == [66, 50]
    assert parts.fold_plan(plan, 200, 3, cohort, memos).losses.solo_share == planner.MOST_SOLO
    alone = Cohort(cohort.with_role("labeled"), cohort.source)
    assert parts.fold_plan(plan, 200, 3, alone, memos).losses.solo_share == 1.0


def test_what_was_seen_of_the_cases_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, _ = survey(write_cohort(tmp_path / "cohort", labeled=3), Request(), silent, tmp_path / "cases")
    monkeypatch.setattr("caml_core.data.case_memo.look_at", lambda *_: pytest.fail("a case was read again"))
    assert len(fold_plans(a_plan(), cohort, 3, tmp_path / "cases" / "memos")) == 3


@pytest.mark.parametrize("held_out", [0, 1])
def test_what_the_start_model_has_to_do_with_labels_is_told(tmp_path: Path, monkeypatch, held_out: int) -> None:
    monkeypatch.setattr(parts, "LEAST_FOLD_ITERATIONS", 2)
    cohort = load_cohort(write_cohort(tmp_path / "cohort", labeled=2, unlabeled=0, validation=held_out))
    cases = [dataclasses.replace(c, label_began="correction" if c.id == "case1" else "") for c in cohort.cases]
    listed = tmp_path / "cohort" / "list.json"
    save_cohort(dataclasses.replace(cohort, cases=tuple(cases)), listed)
    start = a_start(tmp_path / "start.caml", a_plan().segments)
    request = RoundRequest(Request(hold_out=0), folds=2)
    folder = planned_round(tmp_path / "round", listed, a_plan(2, from_model=True), request, start)
    found = work(folder)
    told = "The labels of case1, held out here, began as predictions of a model"
    assert told in (" ".join(found["notes"]) if held_out else found["words"])
    assert (told in found["words"]) != bool(held_out), "the words are on the held-out case"
    (remark,) = read_card(folder.model).info.metrics["cross_validation"]["remarks"]
    assert remark.startswith("The labels of a held-out case began as predictions")
