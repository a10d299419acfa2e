"""What benchmarks leave out of the method is out, and nothing else is; trainings go on where their folder stands."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time

import caml_changed
import pytest
import torch
from caml_changed import Changes, apply
from synthetic import prepared, tiny_plan, write_cohort
from trainings import Training, planned, train
from variants import VARIANTS

from caml_core.config import ModelSpec
from caml_core.data.sampler import TwoStreamSampler
from caml_core.errors import UsageError
from caml_core.model import caml
from caml_core.model_file import load_model
from caml_core.presets import default_preset
from caml_core.serialization import from_json
from caml_core.training import engine, planner, trainer
from caml_core.training.scores import main_sub_model

TOUCHED = (
    (planner, "default_preset"),
    (ModelSpec, "second_opinion"),
    (caml, "cross_sample_attention"),
    (engine, "solo_losses"),
    (engine, "caml_losses"),
    (engine, "pseudo_labels"),
    (trainer, "validate"),
    (trainer.Trainer, "run"),
)
QUICK = ("--threads", "1", "--base-filters", "2", "--patch", "16,16,16", "--device", "cpu")


@pytest.fixture
def changed(monkeypatch):
    """``changed(...)`` applies changes; the engine is as it was after the test."""

    def make(**values):
        for home, name in TOUCHED:
            monkeypatch.setattr(home, name, vars(home)[name])
        apply(from_json(Changes, json.loads(json.dumps(values)), "changes"))

    return make


def steps(plan):
    """An engine after all steps of ``plan``, and its weights after the first in which both could learn."""
    learner, before = engine.Engine(plan, 3), {}
    sampler = TwoStreamSampler(plan, [prepared(i) for i in range(3)], [prepared(3 + i, "unlabeled") for i in range(3)])
    for iteration in range(plan.iterations):
        assert learner.step(sampler.batch(iteration), iteration) is not None
        if iteration == plan.solo_iterations:
            before = {name: value.detach().clone() for name, value in learner.network.named_parameters()}
    return learner, before


def moved(learner, before, beginning):
    """Whether any parameter whose name begins so has changed."""
    return any(
        not torch.equal(value, before[name])
        for name, value in learner.network.named_parameters()
        if name.startswith(beginning)
    )


ATTENTION = ("encoder2.intra_attention", "encoder2.inter_attention")
HEADS = ("projection_head", "prediction_head")


def test_every_variant_fits_the_preset():
    for variant in VARIANTS.values():
        changes = from_json(Changes, json.loads(json.dumps(dict(variant.changes))), "changes")
        preset = caml_changed.changed_preset(default_preset, changes, 2, 3, thin=True)
        assert preset.network.in_channels == 2 and preset.network.classes == 3
        assert preset.foreground_share == default_preset(2, 3, thin=True).foreground_share


def test_without_changes_the_preset_is_the_product_s():
    assert caml_changed.changed_preset(default_preset, Changes(), 1, 2) == default_preset(1, 2)


def test_the_paper_s_terms_are_the_paper_s():
    changes = from_json(Changes, json.loads(json.dumps(dict(VARIANTS["paper-losses"].changes))), "changes")
    preset, default = caml_changed.changed_preset(default_preset, changes, 1, 2), default_preset(1, 2)
    assert preset.losses.mixing == "none" and preset.losses.solo_share == 0 and not preset.losses.cosine
    assert (preset.network.upsampling_a, preset.network.attention_evaluation) == ("conv3", "skip")
    assert (preset.optimizer, preset.augmentation) == (default.optimizer, default.augmentation)


def test_a_field_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="attentions"):
        from_json(Changes, {"attentions": False}, "changes")
    with pytest.raises(TypeError, match="omnis"):
        caml_changed.changed_preset(default_preset, Changes(losses={"omnis": 0.0}), 1, 2)


def test_the_default_trains_everything():
    learner, before = steps(tiny_plan(40))
    for part in ("encoder1", "encoder2", "decoder2", *ATTENTION, *HEADS):
        assert moved(learner, before, part), part


def test_without_attention_it_neither_learns_nor_takes_part(changed):
    changed(attention=False)
    preset = planner.default_preset(1, 3)
    assert preset.network.attention_evaluation == "skip"
    plan = tiny_plan(40)
    plan = dataclasses.replace(plan, network=dataclasses.replace(plan.network, attention_evaluation="skip"))
    learner, before = steps(plan)
    assert not moved(learner, before, ATTENTION)
    assert moved(learner, before, "encoder2.block_four") and moved(learner, before, HEADS)
    # What the attention holds does not matter to what is predicted.
    network, image = learner.final_network.eval(), torch.randn(1, 1, 16, 16, 16)
    logits = network.forward_a(image)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.startswith(ATTENTION):
                value.normal_()
    assert torch.equal(network.forward_a(image), logits)
    assert plan.model_spec.second_opinion and main_sub_model(plan.model_spec) == "mean"
    assert not dataclasses.replace(plan.model_spec, labeled_only=True).second_opinion


def test_without_omni_correlation_the_heads_stay(changed):
    changed(**VARIANTS["no-occ"].changes)
    plan = dataclasses.replace(tiny_plan(40), losses=planner.default_preset(1, 3).losses)
    learner, before = steps(plan)
    assert not moved(learner, before, HEADS)
    assert moved(learner, before, "encoder2") and moved(learner, before, ATTENTION)


def test_a_mean_teacher_is_v_with_pseudo_labels_of_v(changed):
    changed(sub_model_a=False)
    plan = tiny_plan(40)
    learner, before = steps(plan)
    assert moved(learner, before, ("encoder1", "decoder1"))
    assert not moved(learner, before, ("encoder2", "decoder2", *HEADS))
    # Labels alone learn something else: the unlabelled cases take part.
    alone, _ = steps(dataclasses.replace(plan, labeled_only=True))
    pairs = zip(learner.network.encoder1.parameters(), alone.network.encoder1.parameters())
    assert any(not torch.equal(a, b) for a, b in pairs)
    # The teacher is v, whatever stands in a.
    teacher, image = learner.final_network.eval(), torch.randn(2, 1, 16, 16, 16)
    expected = teacher.forward_v(image).max(1).indices
    assert torch.equal(engine.pseudo_labels(teacher, image, largest_component=False), expected)


# Trainings in folders


@pytest.fixture
def a_training(tmp_path):
    cohort = write_cohort(tmp_path / "cohort")
    options = (*QUICK, "--iterations", "10", "--dtype", "fp32")
    return Training(tmp_path / "run", cohort, options, {"losses": {"consistency": 0.5}})


@pytest.mark.slow
def test_a_finished_training_is_read_and_another_is_refused(a_training):
    done = train(a_training)
    assert done.plan["losses"]["consistency"] == 0.5 and done.plan["iterations"] == 10
    assert done.scores is not None and set(done.scores["summary"]) == {"mean", "v", "a"}
    assert done.measured["parts"] == 1 and done.measured["training_seconds"] > 0
    made = (a_training.folder / "model.caml").stat().st_mtime_ns
    assert train(a_training) == done
    assert (a_training.folder / "model.caml").stat().st_mtime_ns == made
    for other in (
        dataclasses.replace(a_training, changes={}),
        dataclasses.replace(a_training, options=(*a_training.options, "--seed", "1")),
    ):
        with pytest.raises(SystemExit, match="other cases or options"):
            train(other)


@pytest.mark.slow
def test_a_training_that_was_ended_goes_on_with_its_changes(a_training, caml_environment):
    training = dataclasses.replace(a_training, changes={"sub_model_a": False})
    stop, plan = training.folder.with_name("stop"), training.folder / "plan.json"
    words = ("train", training.cohort, "-o", training.folder, *training.options, "--stop-file", stop)
    command = [sys.executable, caml_changed.__file__, json.dumps(dict(training.changes)), *map(str, words)]
    with subprocess.Popen(command, env=caml_environment, stderr=subprocess.PIPE, text=True) as process:
        while not plan.is_file() and process.poll() is None:  # before it, there is nothing to go on with
            time.sleep(0.005)
        stop.touch()
        _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told[-2000:]
    assert plan.is_file() and not (training.folder / "validation.json").exists()
    done = train(training)
    assert done.measured["parts"] == 2 and "cpu_seconds" not in done.measured  # a part's seconds would look like all
    assert done.scores is not None and set(done.scores["summary"]) == {"v"}
    assert load_model(training.folder / "model.caml").spec.labeled_only


def test_a_budget_is_measured_once(a_training, tmp_path):
    training = dataclasses.replace(a_training, options=QUICK)
    path = tmp_path / "plans" / "caml.json"
    plan = planned(path, training, "30s")
    assert plan["budget_seconds"] == 30 and plan["iterations"] > 10 and plan["losses"]["consistency"] == 0.5
    path.write_text(json.dumps({**plan, "iterations": 77}))
    assert planned(path, training, "30s")["iterations"] == 77
    wider = dataclasses.replace(training, options=(*QUICK, "--base-filters", "4"))
    with pytest.raises(SystemExit, match="measured for other"):
        planned(path, wider, "30s")
