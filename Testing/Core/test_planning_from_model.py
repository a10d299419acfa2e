"""What a training that starts from a model takes over of it, and what it does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from synthetic import tiny_plan, write_cohort

from caml_core.cli import main
from caml_core.config import Plan
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, save_model
from caml_core.serialization import from_json, read_json


@pytest.mark.parametrize("asked", [("--base-filters", "4"), ("--patch", "32,16,16"), ("--spacing", "2,2,2")])
def test_a_start_model_keeps_its_shape_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: tuple[str, str]
) -> None:
    plan, start = tiny_plan(), tmp_path / "start.caml"
    save_model(start, spec=plan.model_spec, state=build_network(plan.network).state_dict(), info=ModelInfo("start"))
    cohort = write_cohort(tmp_path / "cohort")
    same = ("--base-filters", "2", "--patch", "16,16,16", "--spacing", "1,1,1", "--dtype", "fp32", "--threads", "1")
    command = ["plan", str(cohort), "--model", str(start), "--iterations", "2", "--progress", "none"]
    assert main([*command, *same]) == 0
    capsys.readouterr()
    assert main([*command, *asked]) == 2
    said = capsys.readouterr().err
    assert asked[0] in said and "from scratch" in said


def test_a_start_model_of_the_published_kind_attends_as_the_preset_that_trains_it_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, start = tiny_plan(), tmp_path / "start.caml"
    network = dataclasses.replace(plan.network, attention_evaluation="skip", attention_dropout=0.5)
    spec = dataclasses.replace(plan.model_spec, network=network)
    save_model(start, spec=spec, state=build_network(network).state_dict(), info=ModelInfo("start"))
    cohort = write_cohort(tmp_path / "cohort")
    for preset, expected in (("default", ("alone", 0.0)), ("paper", ("skip", 0.5))):
        command = ["plan", str(cohort), "--model", str(start), "--iterations", "2", "--progress", "none"]
        assert main([*command, "--preset", preset, "--dtype", "fp32", "-o", str(tmp_path / f"{preset}.json")]) == 0
        planned = from_json(Plan, read_json(tmp_path / f"{preset}.json"), "plan").network
        assert (planned.attention_evaluation, planned.attention_dropout) == expected, preset
