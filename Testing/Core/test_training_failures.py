"""Trainings in which steps fail: losses that are not finite, and memory that does not suffice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import prepared, tiny_plan

from caml_core.config import NumericMode
from caml_core.data.sampler import Batch
from caml_core.errors import ResourceError
from caml_core.events import silent
from caml_core.model import CamlNetwork, CamlOutput
from caml_core.training import trainer as trainer_module
from caml_core.training.checkpoint import load_checkpoint
from caml_core.training.engine import Engine
from caml_core.training.measurement import bf16_gradients_are_right, random_batch
from caml_core.training.memory import smaller_plan
from caml_core.training.run_folder import RunFolder
from caml_core.training.trainer import Streams, Trainer


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "MEMORY_PAUSE_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Where a training may begin."""
    made = RunFolder(tmp_path / "run")
    made.check_writable()
    return made


def _streams() -> Streams:
    """Two labelled cases and one without a label."""
    return Streams([prepared(0), prepared(1)], [prepared(2)], [])


def test_losses_that_are_not_finite_end_it_with_the_last_good_weights(folder: RunFolder) -> None:
    image = np.full((1, 22, 18, 20), np.nan, np.float16)
    streams = Streams([prepared(0, image=image)], [], [])
    warnings: list[str] = []
    trainer = Trainer(
        tiny_plan(iterations=50),
        streams,
        folder,
        listener=lambda kind, fields: warnings.append(fields["message"]) if kind == "warning" else None,
        stop=lambda: False,
    )
    rate = trainer.engine.learning_rate(30)
    outcome = trainer.run()
    assert outcome.reason == "failed" and "last good weights are kept" in outcome.message
    assert len(warnings) == trainer_module.MOST_FAILURES and "lowered" in warnings[0]
    assert trainer.engine.learning_rate(30) == pytest.approx(rate * 0.5**trainer_module.MOST_FAILURES)
    fresh = Engine(tiny_plan(iterations=50), 1).network.state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in trainer.engine.network.state_dict().items())


def fp16_steps(overflows: range, steps: int) -> tuple[list[bool], Engine]:
    """Whether each step of fp16 was one, in a training whose gradients overflow in some of them."""
    plan = tiny_plan(iterations=50, numeric=NumericMode("fp16", threads=1))
    engine, at = Engine(plan, 1), 0
    first = next(iter(engine.network.parameters()))
    first.register_hook(lambda gradient: gradient * torch.inf if at in overflows else gradient)
    batch, went = random_batch(plan), []
    for at in range(steps):
        went.append(engine.step(batch, at) is not None)
    return went, engine


def test_fp16_gradients_that_overflow_at_any_scale_are_failures() -> None:
    went, engine = fp16_steps(range(50), 20)
    scale = int(np.log2(65_536))  # halvings down to one, which are the scaler's search
    assert went == [True] * scale + [False] * (20 - scale)
    fresh = Engine(tiny_plan(iterations=50), 1).network
    assert all(torch.equal(a, b) for a, b in zip(engine.network.parameters(), fresh.parameters()))


def test_fp16_gradients_that_overflow_at_a_high_scale_are_none() -> None:
    went, engine = fp16_steps(range(3), 6)
    assert all(went) and engine.scaler.get_scale() == 65_536 / 8
    fresh = Engine(tiny_plan(iterations=50), 1).network
    assert not all(torch.equal(a, b) for a, b in zip(engine.network.parameters(), fresh.parameters()))


@pytest.mark.parametrize("rests", [0, 2])
def test_a_lowered_rate_rises_again_after_good_steps(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, rests: int
) -> None:
    """Step by step up to the planned rate and no further, also where the training was interrupted in between."""
    monkeypatch.setattr(trainer_module, "RECOVERY_STEPS", 3)
    streams = _streams()
    scales: list[float] = []

    def trainer(steps: int) -> Trainer:
        """One that stops after so many steps; ``scales`` takes the rate before each."""
        end = len(scales) + steps

        def stop() -> bool:
            if len(scales) < end:
                scales.append(made.engine.rate_scale)
                return False
            return True

        made = Trainer(tiny_plan(iterations=12), streams, folder, listener=silent, stop=stop)
        return made

    begun = trainer(rests)
    begun.engine.rate_scale = 0.25  # as two failures leave it
    begun.run()
    resumed = trainer(10 - rests)
    resumed.resume()
    resumed.run()
    assert scales == [0.25] * 3 + [0.5] * 3 + [1.0] * 4


def test_out_of_device_memory_shrinks_the_batch_and_then_the_patch() -> None:
    plan = tiny_plan(batch_labeled=2, batch_unlabeled=2)
    half = smaller_plan(plan)
    assert half is not None and (half.batch_labeled, half.batch_unlabeled) == (1, 1)
    quarter = smaller_plan(half)
    assert quarter is not None and sorted(quarter.geometry.patch) == [8, 16, 16]


def test_one_sample_of_the_smallest_patch_is_never_tried() -> None:
    """It is a single voxel in the deepest stage, of which there are no statistics."""
    smallest = dataclasses.replace(tiny_plan().geometry, patch=tiny_plan().network.divisor)
    four, two = (tiny_plan(geometry=smallest, batch_labeled=n, batch_unlabeled=n) for n in (4, 2))
    assert smaller_plan(four) == two and smaller_plan(two) is None
    alone = Engine(dataclasses.replace(two, batch_labeled=1, batch_unlabeled=1), 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        alone.step(random_batch(alone.plan), alone.plan.iterations - 1)


def test_patches_that_bf16_cannot_train_are_trained_in_float32() -> None:
    """The first axis has two voxels in the deepest stage; other devices and sizes stay with what is fastest."""
    bf16 = NumericMode("bf16", channels_last=True, threads=1)
    plan = tiny_plan(numeric=bf16, batch_labeled=1, batch_unlabeled=1)
    assert bf16_gradients_are_right(plan)
    smaller, on_a_gpu = smaller_plan(plan), smaller_plan(dataclasses.replace(plan, device="cuda:0"))
    assert smaller is not None and on_a_gpu is not None
    assert smaller.geometry.patch == on_a_gpu.geometry.patch == (8, 16, 16)
    assert smaller.numeric == dataclasses.replace(bf16, dtype="fp32") and on_a_gpu.numeric == bf16
    wide = smaller_plan(dataclasses.replace(plan, geometry=dataclasses.replace(plan.geometry, patch=(16, 32, 16))))
    assert wide is not None and wide.numeric == bf16


def _no_memory_on_a_gpu(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _no_memory_on_the_processor(*_: object, **__: object) -> None:
    torch.empty(2**46)  # more than a process can address


@pytest.mark.parametrize("fail", [_no_memory_on_a_gpu, _no_memory_on_the_processor])
def test_a_training_that_runs_out_of_memory_goes_on_with_less(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]
) -> None:
    """A step that has failed, and what was loaded ahead for the next one, are made anew by the smaller plan."""
    streams = _streams()
    plan = tiny_plan(iterations=4, batch_labeled=2, batch_unlabeled=2)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    trainer = Trainer(plan, streams, folder, listener=silent, stop=lambda: False)
    taken, step = [], trainer.engine.step

    def too_large(batch: Batch, iteration: int) -> dict[str, float] | None:
        if len(batch.labeled) > 1 and iteration == 2:
            fail()
        taken.append((iteration, len(batch.labeled)))
        return step(batch, iteration)

    monkeypatch.setattr(trainer.engine, "step", too_large)
    assert trainer.run().reason == "finished"
    assert taken == [(0, 2), (1, 2), (2, 1), (3, 1)]
    assert folder.read_plan().batch_labeled == 1


def test_memory_that_is_back_after_a_pause_leaves_the_training_as_it_is(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = _streams()
    plan = tiny_plan(iterations=4, batch_labeled=2, batch_unlabeled=2)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    folder.write_plan(plan)
    told: list[str] = []
    trainer = Trainer(plan, streams, folder, listener=lambda kind, _: told.append(kind), stop=lambda: False)
    taken, pauses, step = [], [], trainer.engine.step

    def held_until_a_pause(batch: Batch, iteration: int) -> dict[str, float] | None:
        if iteration in (1, 2) and len(pauses) < iteration:
            _no_memory_on_a_gpu()
        taken.append((iteration, len(batch.labeled)))
        return step(batch, iteration)

    monkeypatch.setattr(trainer.engine, "step", held_until_a_pause)
    monkeypatch.setattr(trainer_module.time, "sleep", pauses.append)
    assert trainer.run().reason == "finished"
    assert taken == [(0, 2), (1, 2), (2, 2), (3, 2)] and len(pauses) == 2
    assert folder.read_plan() == plan and "warning" not in told


def test_a_step_that_is_tried_again_finds_the_memory_bank_as_it_was(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out in the backward pass, when the step has stored its voxels already."""
    plan = tiny_plan(iterations=3)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))
    trainer = Trainer(plan, _streams(), folder, listener=silent, stop=lambda: False)
    bank, descend = trainer.engine.bank, trainer.engine._descend
    found: list[tuple[str, dict[str, object]]] = []

    def state() -> dict[str, object]:
        return {name: v.tolist() if isinstance(v, torch.Tensor) else v for name, v in bank.state_dict().items()}

    def seen(generator: torch.Generator) -> None:
        found.append(("before", state()))

    def held_once(loss: torch.Tensor) -> bool:
        found.append(("after", state()))
        if len(found) == 4:  # the second step, for the first time
            _no_memory_on_a_gpu()
        return descend(loss)

    monkeypatch.setattr(trainer_module, "_empty_cache", lambda: None)
    monkeypatch.setattr(trainer.engine.network, "draw_from", seen)
    monkeypatch.setattr(trainer.engine, "_descend", held_once)
    assert trainer.run().reason == "finished"
    assert [when for when, _ in found] == ["before", "after"] * 4
    (_, stored), (_, first), (_, tried), (_, again) = found[1:5]
    assert first == stored and tried != first, "the step had stored something when memory ran out"
    assert again == first


def test_a_training_that_was_moved_keeps_where_it_was_begun_when_it_shrinks(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the processor for this session alone: the next one may find the card again."""
    here = tiny_plan(iterations=2, batch_labeled=2, batch_unlabeled=2)
    begun = dataclasses.replace(here, device="cuda:0", numeric=NumericMode("fp16"))
    folder.write_plan(begun)
    trainer = Trainer(here, Streams([prepared(0), prepared(1)], [], []), folder, listener=silent, stop=lambda: False)
    step = trainer.engine.step
    monkeypatch.setattr(
        trainer.engine,
        "step",
        lambda batch, iteration: _no_memory_on_a_gpu() if trainer.plan is here else step(batch, iteration),
    )
    assert trainer.run().reason == "finished" and trainer.plan.device == "cpu"
    found = folder.read_plan()
    assert (found.device, found.numeric, found.batch_labeled) == ("cuda:0", begun.numeric, 1)


def test_where_there_is_room_for_one_patch_alone_every_step_takes_one(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps on the labels, on pasted and on unpasted cases: with a batch of one, none passes two patches."""
    passed: list[int] = []
    forward = CamlNetwork.forward_each

    def narrow(network: CamlNetwork, for_v: torch.Tensor, for_a: torch.Tensor, **more: bool) -> CamlOutput:
        if len(for_v) > 1:
            _no_memory_on_a_gpu()
        passed.append(len(for_v))
        return forward(network, for_v, for_a, **more)

    monkeypatch.setattr(CamlNetwork, "forward_each", narrow)
    plan = tiny_plan(iterations=20, batch_labeled=2, batch_unlabeled=2)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.3))
    streams = _streams()
    outcome = Trainer(plan, streams, folder, listener=silent, stop=lambda: False).run()
    assert (outcome.reason, outcome.iteration, passed) == ("finished", 20, [1] * 20)


def test_where_not_even_the_smallest_patch_fits_everything_is_saved(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = _streams()
    plan = tiny_plan(iterations=5)
    folder.write_plan(plan)
    trainer = Trainer(plan, streams, folder, listener=silent, stop=lambda: False)
    step, patches = trainer.engine.step, []

    def full(batch: Batch, iteration: int) -> dict[str, float] | None:
        if iteration < 3:
            return step(batch, iteration)
        patches.append(tuple(batch.labeled.shape[2:]))
        _no_memory_on_a_gpu()
        return None

    monkeypatch.setattr(trainer.engine, "step", full)
    with pytest.raises(ResourceError, match="smallest batch and patch.*--device cpu"):
        trainer.run()
    assert len(set(patches)) > 2 and min(patches) != (8, 8, 8), "smaller patches were tried, but no single deep voxel"
    assert load_checkpoint(folder.checkpoint)["iteration"] == 3
    assert folder.read_plan() == plan, "no step succeeded with less, and a resumed training has what it was begun with"
    resumed = Trainer(folder.read_plan(), streams, folder, listener=silent, stop=lambda: False)
    resumed.resume()
    assert resumed.run().iteration == 5


@pytest.mark.parametrize("fail", [_no_memory_on_a_gpu, _no_memory_on_the_processor])
def test_a_validation_that_runs_out_of_memory_says_so_and_loses_nothing(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None]
) -> None:
    streams = Streams([prepared(0), prepared(1)], [prepared(2)], [prepared(3, "validation")])
    made = [Trainer(tiny_plan(iterations=4), streams, folder, listener=silent, stop=lambda: False) for _ in range(2)]
    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="held-out cases"):
        patch.setattr(trainer_module, "validate", fail)
        made[0].run()
    made[1].resume()
    outcome = made[1].run()
    assert outcome.reason == "finished" and outcome.iteration == 4 and outcome.scores is not None


def test_an_error_that_is_not_about_memory_is_passed_on(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(tiny_plan(), Streams([prepared(0)], [], []), folder, listener=silent, stop=lambda: False)
    monkeypatch.setattr(trainer.engine, "step", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        trainer.run()
