"""Where evaluation skips the attention that sub-model a was trained with, v alone predicts and is scored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from round_tools import a_plan
from synthetic import prepared, write_cohort
from test_predictor import CONFIG, FP32, SPEC, a_network, a_volume

from caml_core.cli import info as info_command
from caml_core.config import Plan
from caml_core.data.cohort import load_cohort
from caml_core.events import silent
from caml_core.inference.predictor import Predictor
from caml_core.model import build_network
from caml_core.model_file import LoadedModel, ModelInfo
from caml_core.published import published_spec
from caml_core.rounds import result
from caml_core.training.scores import Scoring, held_out_scores, start_model_scores
from caml_core.training.validation import validate

SKIPPING = dataclasses.replace(CONFIG, attention_evaluation="skip")
SPEC_OF_PAPER = dataclasses.replace(SPEC, network=SKIPPING)


def paper_plan(**changes: object) -> Plan:
    """The tiny plan with a network that skips its attention in evaluation."""
    plan = a_plan(**changes)
    return dataclasses.replace(plan, network=dataclasses.replace(plan.network, attention_evaluation="skip"))


def test_the_published_network_predicts_with_v_and_with_others_on_request() -> None:
    spec = published_spec()
    network = build_network(spec.network)
    for quality in ("fast", "balanced", "best"):
        assert Predictor(network, spec, quality=quality).use == ("v",)
    for sub_model, use in (("v", ("v",)), ("a", ("a",)), ("mean", ("v", "a"))):
        assert Predictor(network, spec, sub_model=sub_model).use == use


@pytest.mark.parametrize(("sub_model", "compared"), [("auto", False), ("v", False), ("a", True), ("mean", True)])
def test_nobody_is_told_of_a_disagreement_with_a_unless_a_is_asked_for(sub_model, compared) -> None:
    told: list[str] = []

    def listen(kind: str, fields: dict[str, object]) -> None:
        told.extend([str(fields["message"])] if kind == "warning" else [])

    predictor = Predictor(a_network(SKIPPING), SPEC_OF_PAPER, numeric=FP32, sub_model=sub_model, listener=listen)
    prediction = predictor.predict([a_volume()], uncertainty=True)
    assert (prediction.disagreement is not None) == bool(prediction.agreement) == compared
    assert [("no second opinion" in words) for words in told] == ([] if compared else [True])
    assert set(np.unique(prediction.labels)) == {0, 1, 2}


def test_the_row_and_the_card_of_such_a_training_are_v_s(tmp_path) -> None:
    plan, cohort = paper_plan(), load_cohort(write_cohort(tmp_path, labeled=1, unlabeled=1, validation=2))
    network, cases = a_network(plan.network), cohort.with_role("validation")
    scoring = Scoring(silent, lambda: False, tmp_path / "kept")
    scores = held_out_scores(network, plan, cases, cohort.segments, scoring)
    assert list(scores["summary"]) == ["v", "mean", "a"]
    row = result.row("caml", scores)
    for case, models in scores["cases"].items():
        for segment in ("dim", "bright"):
            assert row["cases"][case][segment]["dice"] == models["v"][segment]["dice"]
    assert scores["summary"]["v"] != scores["summary"]["mean"] and row["summary"] == scores["summary"]["v"]
    shown = list(info_command._figures({"count": 2, "summary": scores["summary"]}))
    assert all("(sub-model v)" in line for line in shown) and len(shown) == 2
    start = LoadedModel(plan.model_spec, network.state_dict(), ModelInfo("start"), tmp_path / "start.caml")
    assert list(start_model_scores(start, plan, cases, cohort.segments, scoring)["summary"]) == ["v"]


def test_live_validation_decides_by_v() -> None:
    for plan, by_v in ((paper_plan(), True), (a_plan(), False)):
        network = a_network(plan.network)
        cases = [prepared(0, "validation"), prepared(1, "validation")]
        scores = validate(network, plan, cases, stop=lambda: False, device=torch.device("cpu"))
        assert scores is not None and scores.dice_a is not None
        assert (scores.dice == scores.dice_v) == by_v
        assert np.mean(list(scores.segments.values())) == pytest.approx(scores.dice)
