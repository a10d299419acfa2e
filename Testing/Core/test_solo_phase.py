"""The sub-models learn alone first; then both learn from each other."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from synthetic import prepared, tiny_plan
from torch import Tensor

from caml_core.config import Plan
from caml_core.data.sampler import Batch, TwoStreamSampler
from caml_core.model import build_network
from caml_core.model.attention import TransformerLayer, cross_sample_attention
from caml_core.model.blocks import ConvStage
from caml_core.model.caml import moments_after_activation
from caml_core.presets import default_preset
from caml_core.training.averaging import AveragedNetwork
from caml_core.training.engine import Engine
from caml_core.training.measurement import early_share
from caml_core.training.planner import with_phases
from caml_core.training.pseudo_labels import pseudo_labels

ALONE = 4


@pytest.fixture
def a_batch() -> Batch:
    """Two labelled and two unlabelled patches."""
    labeled, unlabeled = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    plan = tiny_plan()
    return TwoStreamSampler(plan, labeled, unlabeled).batch(plan.solo_iterations)


def _plan(**changes: Any) -> Plan:
    """Ten iterations, in the first four of which the sub-models learn alone."""
    plan = tiny_plan(iterations=10)
    losses = dataclasses.replace(plan.losses, solo_share=0.4)
    return dataclasses.replace(plan, losses=losses, **changes)


def _state(engine: Engine) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in engine.network.state_dict().items()}


def _parts(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}


def test_each_learns_alone_from_patches_of_its_own(a_batch: Batch) -> None:
    """v's weights do not depend on a's patches, nor a's on v's."""
    states = []
    for changed in (None, 0, 1):
        engine = Engine(_plan(), 3)
        assert engine.plan.solo_iterations == ALONE
        labels = a_batch.labels.clone()
        if changed is not None:
            labels[changed] = 1 - labels[changed].clamp(max=1)
        before = _state(engine)
        for iteration in range(ALONE):
            values = engine.step(dataclasses.replace(a_batch, labels=labels), iteration)
            assert values is not None and values["consistency"] == values["omni"] == 0
        states.append(_state(engine))
        assert _parts(before, states[-1]) == {"encoder1", "decoder1", "encoder2", "decoder2"}
    assert _parts(states[0], states[1]) == {"encoder1", "decoder1"}
    assert _parts(states[0], states[2]) == {"encoder2", "decoder2"}


def test_labelled_patches_are_drawn_for_each_and_the_order_of_cases_goes_on() -> None:
    plan = _plan()
    labeled = [prepared(i) for i in range(3)]
    sampler = TwoStreamSampler(plan, labeled, [prepared(3, "unlabeled")])
    batches = [sampler.batch(iteration) for iteration in range(7)]
    assert [len(batch.labeled) for batch in batches] == [4] * ALONE + [2] * 3
    drawn = [case for batch in batches for case in batch.cases]
    assert len(drawn) == 22 and all(sorted(drawn[i : i + 3]) == [0, 1, 2] for i in range(0, 21, 3))
    v, a = batches[0].halves()
    assert torch.equal(torch.cat([v.labeled, a.labeled]), batches[0].labeled) and v.cases + a.cases == batches[0].cases


def test_unlabelled_cases_do_not_matter_while_the_labels_teach(a_batch: Batch) -> None:
    states = []
    for unlabeled in (a_batch.unlabeled, torch.zeros_like(a_batch.labeled)):
        engine = Engine(_plan(), 3)
        for iteration in range(ALONE):
            engine.step(dataclasses.replace(a_batch, unlabeled=unlabeled), iteration)
        states.append(_state(engine))
    assert _parts(*states) == set()


def test_pseudo_labels_come_from_the_patch_as_it_was(a_batch: Batch) -> None:
    engine = Engine(_plan(), 3)
    assert engine.average is not None
    engine.average.network.decoder1.out_conv.bias.zero_()  # or fresh weights give every voxel the same class
    images = [torch.randn_like(a_batch.labeled) for _ in range(2)]
    found = [
        engine._pseudo_labels(dataclasses.replace(a_batch, unlabeled=student, plain=teacher))
        for student, teacher in (
            (images[0], images[0]),
            (images[1], images[0]),
            (images[0], images[1]),
            (images[1], None),
        )
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])


def test_a_takes_over_what_v_has_learnt() -> None:
    """Where a start model has v alone."""
    network = Engine(_plan(), 3).network
    network.take_over()
    named = dict(network.named_parameters())
    pairs = [
        (value, named[name.replace("2.", "1.", 1)])
        for name, value in named.items()
        if name.startswith(("encoder2.block", "decoder2.block", "decoder2.out")) and "_up." not in name
    ]
    assert len(pairs) > 40 and all(torch.equal(a, v) for a, v in pairs)
    for stage in ("five", "six", "seven", "eight"):
        a, v = (named[f"decoder{n}.block_{stage}_up.conv.0.weight"] for n in (2, 1))
        assert torch.allclose(a[:, :, 0, 0, 0], v.mean((2, 3, 4)).T)


def test_both_learn_after_it_and_what_is_resumed_is_the_same(a_batch: Batch) -> None:
    whole, first = Engine(_plan(), 3), Engine(_plan(), 3)
    for iteration in range(ALONE):
        whole.step(a_batch, iteration)
        first.step(a_batch, iteration)
    resumed = Engine(_plan(), 3)
    resumed.load_state_dict(first.state_dict())  # interrupted where they begin to learn from each other
    before = _state(whole)
    for iteration in range(ALONE, ALONE + 2):
        assert whole.step(a_batch, iteration) is not None
        resumed.step(a_batch, iteration)
    assert _parts(_state(whole), _state(resumed)) == set()
    assert {"encoder1", "decoder1", "encoder2", "decoder2"} <= _parts(before, _state(whole))


def test_a_fixed_teacher_stays_what_it_was_when_they_began_to_learn_from_each_other(a_batch: Batch) -> None:
    plan = _plan()
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, teacher="fixed"))
    whole = Engine(plan, 3)
    for iteration in range(ALONE):
        whole.step(a_batch, iteration)
    assert whole.average is not None
    learnt = {name: value.clone() for name, value in whole.average.network.state_dict().items()}
    whole.step(a_batch, ALONE)
    resumed = Engine(plan, 3)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for engine in (whole, resumed):
        engine.step(a_batch, ALONE + 1)
        teacher = engine._teacher().state_dict()
        assert all(torch.equal(value, teacher[name]) for name, value in learnt.items())
        assert engine.average is not None
        moved = engine.average.network.state_dict()
        assert not all(torch.equal(value, moved[name]) for name, value in learnt.items()), "the average goes on"
    assert _parts(_state(whole), _state(resumed)) == set()


def test_pseudo_labels_are_those_of_the_teacher(a_batch: Batch) -> None:
    """They change with the average where the teacher moves with it, and do not where it is fixed."""
    made = {}
    for teacher in ("moving", "fixed"):
        plan = _plan()
        engine = Engine(dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, teacher=teacher)), 3)
        before = engine._pseudo_labels(a_batch)
        assert engine.average is not None
        with torch.no_grad():  # the average has come to call all of it by another class
            for decoder in (engine.average.network.decoder1, engine.average.network.decoder2):
                decoder.out_conv.bias.copy_(torch.tensor([0.0, 0.0, 1e6]))
        made[teacher] = (before, engine._pseudo_labels(a_batch))
    assert torch.equal(*made["fixed"])
    assert bool((made["moving"][1] > 0).any()) and not torch.equal(*made["moving"])


def test_labels_alone_know_no_such_phase(a_batch: Batch) -> None:
    plan = _plan(labeled_only=True)
    assert plan.solo_iterations == 0
    engine = Engine(plan, 3)
    before = _state(engine)
    for iteration in range(ALONE + 2):
        engine.step(dataclasses.replace(a_batch, unlabeled=None), iteration)
    assert _parts(before, _state(engine)) == {"encoder1", "decoder1"}


def test_pseudo_labels_are_of_both(a_batch: Batch) -> None:
    network = Engine(_plan(), 3).final_network
    assert a_batch.unlabeled is not None
    with torch.no_grad():
        both = [f(a_batch.unlabeled).argmax(1) for f in (network.forward_v, network.probabilities)]
    assert not torch.equal(*both)
    assert torch.equal(pseudo_labels(network, a_batch.unlabeled, largest_component=False), both[1])


def test_the_ramp_begins_with_the_mutual_learning() -> None:
    engine = Engine(_plan(), 3)
    assert engine.ramp(0) == engine.ramp(ALONE) < 0.01
    assert engine.ramp(ALONE + 1) > engine.ramp(ALONE)
    assert engine.ramp(9) == 1.0


@pytest.mark.parametrize("settled", [True, False])
def test_averages_of_a_trained_network_are_not_forgotten_at_once(settled: bool) -> None:
    network = Engine(_plan(), 3).network
    average = AveragedNetwork(network, 0.99, settled=settled)
    start = next(network.encoder1.parameters()).detach().clone()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    average.update(network, 0)
    moved = float((next(average.network.encoder1.parameters()) - start).mean())
    assert moved == pytest.approx(0.01 if settled else 0.9, abs=1e-4)


def test_attention_that_begins_as_identity_keeps_what_has_its_scale() -> None:
    torch.manual_seed(0)
    layer = TransformerLayer(16, 4, 0.0)
    tokens = torch.nn.functional.layer_norm(torch.randn(30, 2, 16), (16,)) * 0.7 + 0.4
    assert float((layer(tokens) - tokens).detach().abs().mean()) > 0.1
    layer.begin_as_identity(0.4, 0.7)
    assert torch.allclose(layer(tokens), tokens, atol=1e-3)
    layer(tokens).square().mean().backward()
    assert float(layer.encoder_layers.self_attn.out_proj.weight.grad.abs().sum()) > 0  # and it can learn


@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_moments_behind_a_stage_are_those_of_its_output(slope: float) -> None:
    torch.manual_seed(1)
    stage = ConvStage(1, 2, 6, slope)
    torch.nn.init.normal_(stage.conv[1].weight, 1.0, 0.3)
    torch.nn.init.normal_(stage.conv[1].bias, 0.0, 0.5)
    with torch.no_grad():
        output = stage(torch.randn(4, 2, 16, 16, 16))
    assert moments_after_activation(stage) == pytest.approx((float(output.mean()), float(output.std())), abs=0.02)


def test_a_agrees_with_v_where_it_begins(a_batch: Batch) -> None:
    """With trained features the two sub-models draw nearly the same once a has taken over."""
    plan = dataclasses.replace(_plan(labeled_only=True), iterations=60)
    engine = Engine(plan, 3)
    for iteration in range(60):
        engine.step(dataclasses.replace(a_batch, unlabeled=None), iteration)
    network = engine.final_network
    agreement = []
    for _ in range(2):
        with torch.no_grad():
            v, a = (torch.softmax(f(a_batch.labeled), 1) for f in (network.forward_v, network.forward_a))
        agreement.append(float((v - a).abs().mean()))
        network.take_over()
    assert agreement[1] < 0.5 * agreement[0]


@pytest.mark.parametrize(
    ("iterations", "labeled", "share"),
    [
        (100, 4, 0.7),  # at most so much
        (2000, 1, 0.5),
        (2000, 8, 0.5),
        (4000, 12, 0.3),
        (20_000, 8, 0.1),  # at least so much
        (5000, 80, 0.3),
    ],
)
def test_they_learn_alone_long_enough_for_their_labels(iterations: int, labeled: int, share: float) -> None:
    losses = with_phases(_plan().losses, iterations, labeled, 1)
    assert losses.solo_share == pytest.approx(share)
    without = dataclasses.replace(losses, solo_share=0.0)
    assert with_phases(without, iterations, labeled, 0) == without
    assert with_phases(_plan().losses, iterations, labeled, 0).solo_share == 1.0


def test_norms_and_outputs_learn_faster_attention_slower_and_everything_learns_once() -> None:
    plan = _plan()
    optimizer = dataclasses.replace(plan.optimizer, scale_rate=5.0, attention_rate=0.1)
    engine = Engine(dataclasses.replace(plan, optimizer=optimizer), 3)
    groups = engine.optimizer.param_groups
    multiples = {id(p): group["multiple"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(multiples) == len(list(engine.network.parameters()))
    named = dict(engine.network.named_parameters())
    assert (
        multiples[id(named["decoder1.out_conv.weight"])] == multiples[id(named["encoder2.block_one.conv.1.bias"])] == 5
    )
    assert multiples[id(named["decoder1.block_nine.conv.0.weight"])] == 1
    attention = {multiples[id(p)] for name, p in named.items() if "_attention." in name}
    assert attention == {0.1}


def test_attention_gives_the_same_in_training_as_in_evaluation() -> None:
    """Else the norm behind it counts noise in training that evaluation does not have, and a fails there alone."""
    network = build_network(dataclasses.replace(default_preset(1, 2).network, base_filters=4))
    feature = torch.randn(2, 32, 3, 4, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for training in (True, False):
        encoder = network.encoder2.train(training)
        attentions = encoder.intra_attention, encoder.inter_attention
        found.append(cross_sample_attention(feature, *attentions, alone=True))
    assert torch.allclose(*found, atol=1e-5)


def test_no_segment_starves_behind_dead_activations() -> None:
    """Features that are zero in the whole of a segment get a gradient all the same, with a slope."""
    plan = tiny_plan()
    for slope in (0.0, 0.1):
        network = build_network(dataclasses.replace(plan.network, negative_slope=slope))
        torch.nn.init.constant_(network.decoder1.block_nine.conv[-2].bias, -100.0)
        network.forward_v(torch.randn(2, 1, 16, 16, 16)).square().mean().backward()
        gradient = network.decoder1.block_nine.conv[0].weight.grad
        assert (float(gradient.abs().sum()) > 0) == (slope > 0)


def test_without_unlabelled_cases_each_learns_alone_to_the_end_also_where_that_is_open() -> None:
    losses = dataclasses.replace(tiny_plan().losses, solo_share=1.0)
    plan = tiny_plan(1000, horizon=200, losses=losses)
    assert plan.solo_iterations == 1000 and early_share(plan) == 1.0


def test_the_time_of_an_open_training_counts_the_cheap_steps_once() -> None:
    losses = dataclasses.replace(tiny_plan().losses, solo_share=0.5)
    plan = tiny_plan(1000, horizon=200, losses=losses)
    assert plan.solo_iterations == 100 and early_share(plan) == pytest.approx(0.1)
