"""Cases that have nothing of a segment, neither labelled nor found, count as 1: whoever reads a mean is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from round_tools import a_plan, planned_round, work
from synthetic import write_cohort

from caml_core.config import Plan, Segment
from caml_core.data.cohort import load_cohort
from caml_core.events import silent
from caml_core.model import CamlNetwork, build_network
from caml_core.model_file import ModelInfo, read_card, save_model
from caml_core.rounds import result
from caml_core.rounds.request import RoundRequest
from caml_core.training.request import Request
from caml_core.training.run import survey
from caml_core.training.scores import Scoring, held_out_scores


def write_cases(folder: Path, *lacking: int, **numbers: int) -> Path:
    """A cohort in which the cases ``lacking`` have no label of the bright segment."""
    cohort = write_cohort(folder, **numbers)
    for case in lacking:
        path = str(cohort.parent / f"case{case}_label.nrrd")
        label = sitk.ReadImage(path)
        sitk.WriteImage(sitk.Mask(label, label == 1), path)
    return cohort


def a_blind_network(plan: Plan) -> CamlNetwork:
    """A network that finds nothing at all."""
    network = build_network(plan.network)
    with torch.no_grad():
        for decoder in (network.decoder1, network.decoder2):
            decoder.out_conv.bias[0] += 100
    return network


def scores_of(cohort_path: Path) -> dict[str, Any]:
    plan, cohort = a_plan(), load_cohort(cohort_path)
    cases, scoring = cohort.with_role("validation"), Scoring(silent, lambda: False)
    return held_out_scores(a_blind_network(plan), plan, cases, cohort.segments, scoring)


def test_scores_and_result_tell_of_empty_cases(tmp_path):
    cohort = write_cases(tmp_path / "cohort", 2, 3, labeled=1, unlabeled=1, validation=3)
    scores = scores_of(cohort)
    assert scores["summary"]["mean"]["bright"]["dice"]["mean"] == pytest.approx(2 / 3)
    (remark,) = scores["remarks"]
    assert remark.startswith("bright: in 2 of 3 case(s)") and remark.endswith("mean Dice of the other 1: 0.000.")
    found = result.make_result(load_cohort(cohort), ["dim", "bright"], "finished", [result.row("caml", scores)], [])
    assert found["words"] == f"3 cases: treat as indicative. {remark}"


def test_nothing_is_said_where_every_case_has_every_segment(tmp_path):
    cohort = write_cases(tmp_path / "cohort", labeled=1, unlabeled=1, validation=2)
    scores = scores_of(cohort)
    assert scores["remarks"] == []
    found = result.make_result(load_cohort(cohort), ["dim", "bright"], "finished", [result.row("caml", scores)], [])
    assert found["words"] == "2 cases: treat as indicative."


@pytest.mark.slow
def test_the_cards_figures_come_with_the_remarks(tmp_path):
    cohort = write_cases(tmp_path / "cohort", 0, 3, labeled=2, unlabeled=1, validation=1)
    optimizer = dataclasses.replace(a_plan().optimizer, learning_rate=1e-9)  # it stays blind
    plan = a_plan(2, optimizer=optimizer, from_model=True)
    start = tmp_path / "start.caml"
    save_model(start, spec=plan.model_spec, state=a_blind_network(plan).state_dict(), info=ModelInfo("blind"))
    folder = planned_round(tmp_path / "round", cohort, plan, RoundRequest(Request(), folds=2), start)
    work(folder)
    metrics = read_card(folder.model).info.metrics
    (held_out,), (crossed,) = (metrics[name]["remarks"] for name in ("held_out", "cross_validation"))
    assert held_out.startswith("bright: in 1 of 1 case(s)") and "other" not in held_out
    assert crossed.startswith("bright: in 1 of 2 case(s)")


def a_start(folder: Path, *names: str) -> Path:
    """A model that finds nothing, with these segments."""
    segments = tuple(Segment(name, label) for label, name in enumerate(names, 1))
    plan = a_plan()
    plan = dataclasses.replace(
        plan, segments=segments, network=dataclasses.replace(plan.network, classes=len(segments) + 1)
    )
    path = folder / "start.caml"
    save_model(path, spec=plan.model_spec, state=a_blind_network(plan).state_dict(), info=ModelInfo("start"))
    return path


def test_a_start_model_is_not_right_about_a_segment_that_it_does_not_have(tmp_path):
    """The bright segment was added after the held-out labels had been accepted: the start model cannot find it."""
    cohort = write_cases(tmp_path / "cohort", 2, 3, labeled=2, unlabeled=0, validation=2)
    folder = planned_round(tmp_path / "round", cohort, a_plan(2), start=a_start(tmp_path, "dim"))
    found = work(folder)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows["caml"]["summary"]) == ["dim", "bright"]
    assert list(rows["start"]["summary"]) == ["dim"] and rows["start"]["count"] == 2
    assert all(list(case) == ["dim"] for case in rows["start"]["cases"].values())
    assert [note for note in found["notes"] if "does not know bright" in note and "other segments" in note]
    text = folder.report.read_text(encoding="utf-8")
    assert text.count("Dice, Start model") == 1 and text.count("Dice, CAML") == 2
    assert any("'segment_2' is not drawn in 2 of 2" in note for note in survey(cohort, Request(), silent)[1].notes)


def test_a_start_model_that_has_none_of_the_segments_has_no_figures(tmp_path):
    cohort = write_cases(tmp_path / "cohort", labeled=2, unlabeled=0, validation=1)
    folder = planned_round(tmp_path / "round", cohort, a_plan(2), start=a_start(tmp_path, "other"))
    found = work(folder)
    (row,) = [row for row in found["rows"] if row["name"] == "start"]
    assert (row["count"], row["summary"], row["cases"]) == (0, {}, {})
    assert [note for note in found["notes"] if note == "The start model does not know dim, bright: it has no figures."]
