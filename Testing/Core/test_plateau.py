"""Training until it stops improving: when that is, and how it ends."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from round_tools import QUICK, StopAt, a_plan, events_of, planned_round, result_of, row_of, table_of, work
from synthetic import write_cohort

from caml_core.case_names import digest_of
from caml_core.config import Plan
from caml_core.errors import Cancelled
from caml_core.losses.ramps import learning_rate_factor
from caml_core.model_file import read_card
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training import trainer as trainer_module
from caml_core.training.plateau import Plateau, annealing, must_anneal


@pytest.fixture
def a_hopeless_cohort(tmp_path) -> Path:
    """The held-out case is noise, with two voxels in a corner for a label: its Dice stays next to nothing."""
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=1)
    image = np.random.default_rng(5).normal(100, 10, (20, 18, 22)).astype(np.float32)
    label = np.zeros((20, 18, 22), np.uint8)
    label[0, 0, 0], label[0, 0, 1] = 1, 2
    for name, array in (("image", image), ("label", label)):
        volume = sitk.GetImageFromArray(array)
        volume.SetSpacing((1.0, 1.0, 1.0))
        sitk.WriteImage(volume, str(cohort.parent / f"case3_{name}.nrrd"))
    return cohort


def _open_plan(iterations: int = 300) -> Plan:
    optimizer = dataclasses.replace(a_plan().optimizer, schedule="plateau", warmup=2)
    plan = a_plan(iterations, optimizer=optimizer, horizon=40, validate_every=4)
    assert plan.solo_iterations == 16  # validations up to there say nothing about the plateau
    return plan


# When


def test_five_validations_without_a_gain_are_a_plateau_but_not_before_the_eighth():
    early, late = Plateau(), Plateau()
    assert [early.add(0.5) for _ in range(9)] == [False] * 7 + [True, True]
    rising = [0.1 * i for i in range(6)]
    assert [late.add(dice) for dice in (*rising, *[0.5] * 6)] == [False] * 10 + [True, True]


def test_a_gain_below_the_least_one_does_not_count_and_adds_up():
    plateau = Plateau()
    for index in range(30):  # a point of Dice in ten validations
        assert not plateau.add(0.5 + 0.001 * index)
    noise = Plateau()
    assert [noise.add(0.5 + 0.0015 * (index % 2)) for index in range(8)][-1]


def test_a_plateau_survives_its_way_into_a_checkpoint():
    plateau = Plateau()
    for dice in (0.1, 0.3, 0.3):
        plateau.add(dice)
    assert Plateau(**plateau.to_dict()) == plateau


def test_the_rate_is_constant_and_then_falls_to_zero():
    span = annealing(100, 1000)
    assert span == (100, 130) and annealing(100, 110) == (100, 110)
    factors = [learning_rate_factor(i, 1000, "plateau", 10, span) for i in range(131)]
    assert factors[0] == pytest.approx(1 / 11) and factors[10:101] == [1.0] * 91
    assert all(a > b for a, b in zip(factors[100:], factors[101:])) and factors[-1] == pytest.approx(0)
    assert learning_rate_factor(900, 1000, "plateau", 10) == 1
    assert must_anneal(1000, 1300) and not must_anneal(999, 1300)


# How


@pytest.mark.slow
def test_a_training_that_cannot_improve_ends_by_itself_at_a_rate_of_zero(a_hopeless_cohort, tmp_path):
    folder = planned_round(tmp_path / "round", a_hopeless_cohort, _open_plan())
    found = work(folder)
    assert found["ended"] == "plateau" and row_of(found, "caml")["iterations"] == 48 + 15
    table = table_of(folder)
    rates = [float(row["learning_rate"]) for row in table]
    full = _open_plan().optimizer.learning_rate
    assert rates[2:48] == [pytest.approx(full)] * 46 and rates[-1] < 0.05 * full
    assert sum(bool(row["validation_dice"]) for row in table) == 12 + 4
    totals = [f["total"] for kind, f in events_of(folder) if kind == "step"]
    assert totals[-1] == 63
    description = read_card(folder.model).info.description
    assert "until it no longer improved" in description
    assert all("held-out cases also decided when to stop" in text for text in (description, found["words"]))
    assert read_card(folder.model).info.provenance["stopped_by"] == [digest_of("case3")]
    # Rounds of a fixed length that go on from there are measured by the case that was chosen by.
    for number in ("2", "3"):
        folder = planned_round(tmp_path / number, a_hopeless_cohort, a_plan(2, from_model=True), start=folder.model)
        words, card = work(folder)["words"], read_card(folder.model).info
        remarks = " ".join(card.metrics["held_out"]["remarks"])
        assert "ended when case3, held out here, no longer improved" in words
        assert "ended when a held-out case no longer improved" in remarks
        assert card.provenance["stopped_by"] == [digest_of("case3")]


@pytest.mark.slow
def test_its_state_survives_being_stopped(a_hopeless_cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
    whole = planned_round(tmp_path / "whole", a_hopeless_cohort, _open_plan())
    parts = planned_round(tmp_path / "parts", a_hopeless_cohort, _open_plan())
    wanted = work(whole)
    for iteration in (21, 44, 55):  # before the plateau, in the validation before it, while the rate falls
        stop = StopAt("step", iteration=iteration)
        with pytest.raises(Cancelled):
            work(parts, listener=stop.listen, stop=stop)
    found = work(parts)
    assert table_of(parts) == table_of(whole)
    assert (found["ended"], row_of(found, "caml")["cases"]) == ("plateau", row_of(wanted, "caml")["cases"])


@pytest.mark.slow
def test_it_does_not_end_before_the_unlabelled_cases_were_learnt_from(a_hopeless_cohort, tmp_path):
    """The Dice is level from the start; while each learns alone that says nothing about CAML."""
    losses = dataclasses.replace(a_plan().losses, solo_share=0.7)
    plan = dataclasses.replace(_open_plan(), losses=losses, horizon=60)
    assert plan.solo_iterations == 42
    folder = planned_round(tmp_path / "round", a_hopeless_cohort, plan)
    found = work(folder)
    plateau = 44 + 7 * 4  # the eighth validation after they have begun to learn from each other
    assert (found["ended"], row_of(found, "caml")["iterations"]) == ("plateau", plateau + math.ceil(0.3 * plateau))


def test_a_training_that_improves_to_the_end_comes_to_rest_as_well(tmp_path, a_hopeless_cohort):
    folder = planned_round(tmp_path / "round", a_hopeless_cohort, _open_plan(26))
    found = work(folder)
    assert found["ended"] == "finished" and row_of(found, "caml")["iterations"] == 26
    assert "decided" not in found["words"]
    rates = [float(row["learning_rate"]) for row in table_of(folder)]
    assert rates[19] == pytest.approx(_open_plan().optimizer.learning_rate) and rates[-1] < 0.1 * rates[19]


@pytest.mark.slow
def test_the_command_plans_with_an_open_end(a_hopeless_cohort, tmp_path, caml):
    folder = RoundFolder(tmp_path / "round")
    options = ("--until-better", "--iterations", "60", "--cache", tmp_path / "cache", *QUICK)
    assert caml("round", a_hopeless_cohort, "-o", folder.path, *options)[0] == 0
    plan = folder.part("caml").read_plan()
    assert plan.optimizer.schedule == "plateau" and plan.horizon == 60 and plan.span == 60
    assert result_of(folder)["ended"] in ("plateau", "finished")
