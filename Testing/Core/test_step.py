"""One CAML step: what supervises what, where gradients go, and what the memory bank takes up."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from synthetic import STRIDES, prepared, tiny_plan

from caml_core.config import LossConfig, NetworkConfig
from caml_core.data.sampler import Batch, TwoStreamSampler
from caml_core.memory_bank import MemoryBank
from caml_core.model import CamlNetwork, build_network
from caml_core.presets import paper_preset
from caml_core.training.engine import Engine
from caml_core.training.mixing import paste_both_ways, paste_labeled, side_by_side
from caml_core.training.pseudo_labels import keep_largest_components
from caml_core.training.step import StepLosses, _remember, caml_losses, near_boundary


@pytest.fixture
def a_batch() -> Batch:
    """Two labelled and two unlabelled patches."""
    labeled, unlabeled = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    plan = tiny_plan()
    return TwoStreamSampler(plan, labeled, unlabeled).batch(plan.solo_iterations)


@pytest.fixture
def a_network() -> CamlNetwork:
    """A tiny network for three classes."""
    torch.manual_seed(0)
    return build_network(NetworkConfig(classes=3, base_filters=2, strides=STRIDES, upsampling_a="conv1"))


def _losses(network: CamlNetwork, batch: Batch, config: LossConfig, ramp: float = 1.0) -> StepLosses:
    bank = MemoryBank(3, 3, 32, 64)
    generator = torch.Generator().manual_seed(0)
    return caml_losses(network, side_by_side(batch), bank, config, ramp=ramp, generator=generator)


def _gradient(network: CamlNetwork, prefix: str) -> float:
    return sum(
        float(p.grad.abs().sum()) for n, p in network.named_parameters() if n.startswith(prefix) and p.grad is not None
    )


def test_total_is_the_weighted_sum_of_the_terms(a_network: CamlNetwork, a_batch: Batch) -> None:
    config = LossConfig(consistency=0.7, omni=0.3, queries_per_class=64, memory_per_class=32)
    losses = _losses(a_network, a_batch, config, ramp=0.4)
    v = losses.values()
    assert v["total"] == pytest.approx(0.5 * v["supervised"] + 0.4 * (0.7 * v["consistency"] + 0.3 * v["omni"]))
    assert v["omni"] > 0 and v["consistency"] > 0


def test_without_ramp_only_the_labelled_half_teaches(a_network: CamlNetwork, a_batch: Batch) -> None:
    a_network.eval()  # batch statistics would couple the samples
    reference = _losses(a_network, a_batch, LossConfig(omni=0.0), ramp=0.0).values()["total"]
    assert a_batch.unlabeled is not None
    other = dataclasses.replace(a_batch, unlabeled=a_batch.unlabeled.flip(2) + 1)
    assert _losses(a_network, other, LossConfig(omni=0.0), ramp=0.0).values()["total"] == pytest.approx(reference)
    wrong = dataclasses.replace(a_batch, labels=(a_batch.labels + 1) % 3)
    assert _losses(a_network, wrong, LossConfig(omni=0.0), ramp=0.0).values()["total"] != pytest.approx(reference)


def test_omni_correlation_trains_both_projections_only_with_anchor_or_attached_target(
    a_network: CamlNetwork, a_batch: Batch
) -> None:
    sizes = {"consistency": 0.0, "omni": 1.0, "queries_per_class": 64, "memory_per_class": 32}
    detached = LossConfig(detach_targets=True, **sizes)  # type: ignore[arg-type]
    anchored = dataclasses.replace(detached, symmetric=True, anchor=1.0, separate_banks=True)
    for config, trains_a in ((detached, False), (LossConfig(**sizes), True), (anchored, True)):  # type: ignore[arg-type]
        a_network.zero_grad()
        _losses(a_network, a_batch, config).omni.backward()
        assert _gradient(a_network, "projection_head1") > 0
        assert (_gradient(a_network, "projection_head2") > 0) == trains_a


def test_missing_classes_do_not_disturb_the_step(a_network: CamlNetwork, a_batch: Batch) -> None:
    empty = dataclasses.replace(a_batch, labels=torch.zeros_like(a_batch.labels))
    losses = _losses(a_network, empty, LossConfig(queries_per_class=64, memory_per_class=32, cross_entropy=1.0))
    losses.total.backward()
    assert all(np.isfinite(v) for v in losses.values().values())


@pytest.mark.parametrize("separate", [True, False])
def test_a_memory_that_holds_them_all_takes_each_correct_voxel_once(a_network, a_batch, separate) -> None:
    composite = side_by_side(a_batch)
    correct = torch.rand(composite.target.shape, generator=torch.Generator().manual_seed(1)) < 0.05
    bank = MemoryBank(3, 3, 32, 10_000)
    config, generator = LossConfig(separate_banks=separate), torch.Generator().manual_seed(0)
    taken = _remember(a_network, a_network(composite.image), composite, correct, bank, config, generator)
    kept = (correct & composite.labeled).flatten()
    assert sorted(taken.tolist()) == torch.nonzero(kept).squeeze(1).tolist()
    few = MemoryBank(3, 3, 32, 5)
    taken = _remember(a_network, a_network(composite.image), composite, correct, few, config, generator)
    assert 0 < len(taken) <= 2 * 3 * 5 and bool(kept[taken].all())


def test_bidirectional_paste_takes_each_voxel_from_one_stream(a_batch: Batch) -> None:
    assert a_batch.unlabeled is not None
    pseudo = torch.full(a_batch.labels.shape, 2, dtype=torch.int64)
    mixed = paste_both_ways(a_batch, pseudo, 0.5, np.random.default_rng(0))
    for sample in range(2):
        known = mixed.labeled[sample]
        assert 0.15 < float(known.float().mean()) < 0.85
        assert torch.equal(mixed.image[sample][:, known], a_batch.labeled[sample][:, known])
        assert torch.equal(mixed.image[sample][:, ~known], a_batch.unlabeled[sample][:, ~known])
        assert torch.equal(mixed.target[sample][known], a_batch.labels[sample][known].long())
        assert (mixed.target[sample][~known] == 2).all() and (mixed.weight[sample][~known] == 0.5).all()
        assert (mixed.weight[sample][known] == 1).all()
    assert torch.equal(mixed.labeled[0], ~mixed.labeled[1])  # one inside the box, one outside


def test_pasting_labelled_cases_keeps_every_voxel_supervised(a_batch: Batch) -> None:
    mixed = paste_labeled(a_batch, np.random.default_rng(0), probability=1.0)
    pasted = ~mixed.labeled
    assert pasted.any() and (mixed.weight == 1).all()
    for sample in range(2):
        theirs = pasted[sample]
        assert torch.equal(mixed.target[sample][theirs], a_batch.labels[1 - sample][theirs].long())
        assert torch.equal(mixed.image[sample][:, theirs], a_batch.labeled[1 - sample][:, theirs])


def test_largest_component_of_each_class_is_kept() -> None:
    labels = torch.zeros((1, 8, 8, 8), dtype=torch.int64)
    labels[0, :3, :3, :3] = 1
    labels[0, 6:, 6:, 6:] = 1
    labels[0, 5, 0, 0] = 2
    kept = keep_largest_components(labels)
    assert int((kept == 1).sum()) == 27 and int((kept == 2).sum()) == 1 and kept[0, 7, 7, 7] == 0


def test_boundary_is_within_two_voxels_of_another_class() -> None:
    labels = torch.zeros((1, 12, 6, 6), dtype=torch.int64)
    labels[:, 6:] = 1
    assert near_boundary(labels)[0, :, 3, 3].tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_a_step_that_is_not_finite_changes_nothing(a_batch: Batch) -> None:
    engine = Engine(tiny_plan(), 3)
    assert engine.step(a_batch, 0) is not None
    before = {k: v.clone() for k, v in engine.network.state_dict().items()}
    average = {k: v.clone() for k, v in engine.final_network.state_dict().items()}
    spoiled = dataclasses.replace(a_batch, labeled=a_batch.labeled * float("nan"))
    assert engine.step(spoiled, 1) is None
    assert all(torch.equal(v, before[k]) for k, v in engine.network.state_dict().items())
    assert all(torch.equal(v, average[k]) for k, v in engine.final_network.state_dict().items())


def test_a_mutual_step_that_is_not_finite_leaves_the_memory_bank_as_it_was(a_batch: Batch) -> None:
    """NaN logits have the background as their largest, which most voxels are: such voxels look rightly classified."""
    plan = tiny_plan()
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    engine = Engine(plan, 3)
    assert engine.step(a_batch, 0) is not None
    before = copy.deepcopy(engine.bank.state_dict())
    spoiled = dataclasses.replace(a_batch, labeled=a_batch.labeled * float("nan"))
    assert engine.step(spoiled, 1) is None
    after = engine.bank.state_dict()
    for name, value in before.items():
        same = torch.equal(after[name], value) if isinstance(value, torch.Tensor) else after[name] == value
        assert same, name
    assert engine.step(a_batch, 2) is not None


def test_labelled_only_leaves_sub_model_a_alone(a_batch: Batch) -> None:
    engine = Engine(tiny_plan(labeled_only=True), 3)
    before = {k: v.clone() for k, v in engine.network.state_dict().items()}
    engine.step(dataclasses.replace(a_batch, unlabeled=None), 0)
    changed = {k.split(".")[0] for k, v in engine.network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"encoder1", "decoder1"}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_all_parts_of_the_network_are_trained(a_batch: Batch, preset: str) -> None:
    plan = tiny_plan()
    if preset == "paper":
        paper = paper_preset(1, 3, 8)
        losses = dataclasses.replace(paper.losses, memory_per_class=8)  # a class with fewer takes no part
        plan = dataclasses.replace(plan, preset="paper", losses=losses, optimizer=paper.optimizer)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    engine = Engine(plan, 3)
    before = {k: v.clone() for k, v in engine.network.named_parameters()}
    for iteration in range(30):  # the heads learn once both sub-models agree on a voxel of some segment
        assert engine.step(a_batch, iteration) is not None
    changed = {k.split(".")[0] for k, v in engine.network.named_parameters() if not torch.equal(v, before[k])}
    assert changed == {
        *("encoder1", "encoder2", "decoder1", "decoder2"),
        *("projection_head1", "projection_head2", "prediction_head1", "prediction_head2"),
    }


def test_recomputing_stages_changes_no_gradient_and_no_statistic(a_batch: Batch) -> None:
    states = []
    for stages in (0, 3):
        plan = tiny_plan()
        plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
        engine = Engine(plan, 3)
        engine.network.recompute(stages)
        for iteration in range(2):
            assert engine.step(a_batch, iteration) is not None
        states.append(engine.network.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
