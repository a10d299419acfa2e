"""Both sub-models at the same time: the numbers are those of one after the other, every time."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from synthetic import prepared, tiny_plan
from torch import Tensor, nn

from caml_core.config import NumericMode, Plan
from caml_core.data.sampler import TwoStreamSampler
from caml_core.model import CamlNetwork, build_network
from caml_core.model.blocks import ChannelDropout
from caml_core.model.concurrency import at_once
from caml_core.training.engine import Engine


@pytest.fixture(autouse=True)
def threads_as_before():
    """Tests that follow have as many threads as those before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _gradients(network: CamlNetwork, image: Tensor, threads: int) -> tuple[Tensor, dict[str, Tensor]]:
    network.zero_grad()
    network.threads = threads
    torch.manual_seed(3)
    network.draw_from(torch.Generator().manual_seed(4))
    torch.set_num_threads(1)  # whatever the parts run on, sums have the same order
    output = network(image)
    loss = output.logits_v.square().mean() + (output.logits_a * output.embedding_a.mean()).mean()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


@pytest.mark.parametrize("stages", [0, 3])
@pytest.mark.parametrize("lower", [False, True])
def test_losses_and_gradients_are_those_of_one_after_the_other(stages: int, lower: bool) -> None:
    """Dropout included, which draws in the backward pass again where features are computed twice."""
    network = build_network(tiny_plan().network)
    network.recompute(stages)
    image = torch.randn(2, 1, 16, 16, 16)
    found = []
    for threads in (1, 2, 2):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            found.append(_gradients(network, image, threads))
    (loss, gradients), *others = found
    assert len(gradients) > 50 and "encoder2.block_one.conv.0.weight" in gradients
    for other_loss, other in others:
        assert torch.equal(loss, other_loss) and gradients.keys() == other.keys()
        assert all(torch.equal(gradients[name], other[name]) for name in gradients)


def test_what_goes_into_no_loss_gets_no_gradient() -> None:
    network = build_network(tiny_plan().network)
    network.threads = 2
    network(torch.randn(2, 1, 16, 16, 16)).logits_a.sum().backward()
    assert all(p.grad is None for p in network.decoder1.parameters())
    assert all(p.grad is not None for p in network.decoder2.parameters())


def test_a_thread_computes_as_its_caller_does() -> None:
    seen = {}

    def look(name: str) -> tuple[Tensor, ...]:
        seen[name] = (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_num_threads(),
            threading.get_ident(),
        )
        return ()

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        at_once(lambda: look("first"), lambda: look("second"), 4)
    assert seen["first"][:3] == seen["second"][:3] == (False, True, 2)
    assert seen["first"][3] == threading.get_ident() != seen["second"][3]


def test_threads_are_given_back_and_errors_come_through() -> None:
    def fail() -> tuple[Tensor, ...]:
        raise torch.OutOfMemoryError

    torch.set_num_threads(3)
    for works in ((fail, lambda: ()), (lambda: (), fail)):
        with pytest.raises(torch.OutOfMemoryError), torch.no_grad():
            at_once(*works, 2)
        assert torch.get_num_threads() == 3


def test_a_failure_waits_for_what_still_runs() -> None:
    """Nothing goes on computing with weights that the caller believes to be its own again."""
    release, finished = threading.Event(), []

    def slow() -> tuple[Tensor, ...]:
        release.wait(10)
        finished.append(True)
        return ()

    def fail() -> tuple[Tensor, ...]:
        threading.Timer(0.2, release.set).start()
        raise ValueError

    with pytest.raises(ValueError), torch.no_grad():  # noqa: PT011
        at_once(fail, slow, 2)
    assert finished == [True]


def _trained(plan: Plan) -> dict[str, Tensor]:
    labeled, unlabeled = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    sampler, engine = TwoStreamSampler(plan, labeled, unlabeled), Engine(plan, 3)
    for iteration in range(plan.iterations):
        assert engine.step(sampler.batch(iteration), iteration) is not None
    return engine.network.state_dict()


def test_a_training_is_the_same_every_time() -> None:
    """All phases: alone, with pseudo-labels side by side, and pasted."""
    plan = dataclasses.replace(tiny_plan(iterations=14), numeric=NumericMode(threads=2))
    first, second = _trained(plan), _trained(plan)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_dropout_of_channels_is_pytorch_s() -> None:
    x = torch.randn(3, 8, 4, 4, 4)
    ours, theirs = ChannelDropout(0.4), nn.Dropout3d(0.4)
    results = []
    for layer in (ours, theirs):
        torch.manual_seed(5)
        results.append(layer(x))
    assert torch.equal(*results) and 0 < float((results[0] == 0).float().mean()) < 1
    assert torch.equal(ours.eval()(x), x)
    ours.train().generator = torch.Generator().manual_seed(5)
    torch.manual_seed(6)
    assert torch.equal(ours(x), results[0])
