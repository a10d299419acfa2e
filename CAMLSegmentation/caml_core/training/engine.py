"""Networks, optimiser and memory bank of one training: everything that a checkpoint holds, and one step of it."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import NumericMode, OptimizerConfig, Plan
from ..data.sampler import Batch
from ..losses.ramps import gaussian_ramp, learning_rate_factor
from ..memory_bank import MemoryBank
from ..model import CamlNetwork, build_network
from ..model.attention import TransformerLayer
from ..seeding import generator_for, seed_torch, torch_generator_for
from .averaging import AveragedNetwork
from .mixing import Composite, half, paste_both_ways, paste_labeled, side_by_side
from .pseudo_labels import pseudo_labels
from .step import StepLosses, caml_losses, labeled_losses, solo_losses

#: The published code counts its ramp in units of 150 iterations.
PAPER_RAMP_UNIT = 150
#: Share of the steps in which cases are pasted into each other; the others see scans as they are.
PASTE_PROBABILITY = 0.5
#: fp16 losses are scaled so that their gradients neither vanish nor overflow; what overflows below this is not finite.
LEAST_SCALE = 1.0
TORCH_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Engine:
    """Holds the state of a training on one device and performs its steps.

    labeled_cases: number of labelled cases, which bounds the memory bank. start: state of a model to start from.
    """

    def __init__(self, plan: Plan, labeled_cases: int, start: Mapping[str, Tensor] | None = None) -> None:
        self.plan = plan
        self.device = torch.device(plan.device)
        seed_torch(plan.seed, "initial weights")
        self.network = build_network(plan.network)
        if start is not None:
            self.network.load_state_dict(dict(start))
        self.network.to(self.device).to(memory_format=_memory_format(plan.numeric))  # type: ignore[call-overload]
        self.network.train().recompute(plan.numeric.recompute)
        if self.device.type == "cpu":
            self.network.threads = plan.numeric.threads or torch.get_num_threads()
        ema = plan.optimizer.ema
        self.average = AveragedNetwork(self.network, ema, settled=plan.from_model) if ema > 0 else None
        self._fixed: CamlNetwork | None = None
        self.optimizer = _optimizer(self.network, plan.optimizer)
        self.bank = MemoryBank(
            labeled_cases,
            plan.network.classes,
            plan.network.head_features,
            plan.losses.memory_per_case,
            device=self.device,
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=plan.numeric.dtype == "fp16")
        self.rate_scale = 1.0
        #: Where the falling part of a "plateau" schedule begins and ends, once that is decided.
        self.annealing: tuple[int, int] | None = None
        self._buffers = [b.clone() for b in self.network.buffers()]

    @property
    def final_network(self) -> CamlNetwork:
        """The network to validate and save: averaged weights where there are any."""
        return self.network if self.average is None else self.average.network

    def learning_rate(self, iteration: int) -> float:
        """Learning rate at ``iteration`` (from 0), lowered after any failures."""
        optimizer = self.plan.optimizer
        factor = learning_rate_factor(
            iteration, self.plan.iterations, optimizer.schedule, optimizer.warmup, self.annealing
        )
        return optimizer.learning_rate * factor * self.rate_scale

    def ramp(self, iteration: int) -> float:
        """Share of the unsupervised terms' weights at ``iteration``."""
        losses, span = self.plan.losses, self.plan.span
        if losses.ramp_units > 0:
            return gaussian_ramp(iteration // PAPER_RAMP_UNIT, losses.ramp_units)
        begin = self.plan.solo_iterations
        return gaussian_ramp(max(iteration - begin, 0), losses.ramp_share * (span - begin))

    def step(self, batch: Batch, iteration: int) -> dict[str, float] | None:
        """Perform one iteration; return its losses, or None where they were not finite and nothing was changed."""
        seed_torch(self.plan.seed, "step", iteration)
        if self.device.type == "cpu":  # the sub-models run at once: their dropouts must not draw in turns
            self.network.draw_from(torch_generator_for(self.plan.seed, "dropout v", iteration))
        for group in self.optimizer.param_groups:
            group["lr"] = group["multiple"] * self.learning_rate(iteration)
        self._keep()
        losses = self._losses(batch.to(self.device), iteration)
        values = losses.values()
        if math.isfinite(values["total"]) and self._descend(losses.total):
            if self.average is not None:
                self.average.update(self.network, iteration)
            self.bank.keep()
            return values
        self._restore()
        return None

    def discard(self) -> None:
        """Forget a step that was broken off, as if it had not been begun."""
        self.optimizer.zero_grad(set_to_none=True)
        self._restore()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs besides the plan and the iteration."""
        return {
            "network": self.network.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "teacher": None if self._fixed is None else self._fixed.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "bank": self.bank.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rate_scale": self.rate_scale,
            "annealing": self.annealing,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.network.load_state_dict(state["network"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
            if state.get("teacher") is not None:  # checkpoints of older versions lack it
                self._fixed = copy.deepcopy(self.average.network)
                self._fixed.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        _lay_out_moments(self.optimizer)
        self.bank.load_state_dict(state["bank"])
        if state["scaler"]:  # empty after a session in other arithmetic: the scale is found anew
            self.scaler.load_state_dict(state["scaler"])
        self.rate_scale = float(state["rate_scale"])
        begin_and_end = state.get("annealing")  # checkpoints of older versions lack it
        self.annealing = None if begin_and_end is None else (int(begin_and_end[0]), int(begin_and_end[1]))

    def _losses(self, batch: Batch, iteration: int) -> StepLosses:
        plan, losses = self.plan, self.plan.losses
        alone = generator_for(plan.seed, "attention", iteration).random() < plan.network.attention_alone
        if iteration < plan.solo_iterations:
            v, a = (self._formatted(self._labeled(part, iteration, turn)) for turn, part in enumerate(batch.halves()))
            with autocast(plan.numeric, self.device):
                return solo_losses(self.network, v, a, losses, alone=alone)
        composite = self._formatted(self._compose(batch, iteration))
        with autocast(plan.numeric, self.device):
            if plan.labeled_only:
                return labeled_losses(self.network, composite, losses)
            return caml_losses(
                self.network,
                composite,
                self.bank,
                losses,
                ramp=self.ramp(iteration) if batch.unlabeled is not None else 0.0,
                generator=torch_generator_for(plan.seed, "voxels", iteration),
                alone=alone,
            )

    def _formatted(self, composite: Composite) -> Composite:
        if not self.plan.numeric.channels_last:
            return composite
        image = composite.image.contiguous(memory_format=torch.channels_last_3d)
        return dataclasses.replace(composite, image=image)

    def _compose(self, batch: Batch, iteration: int) -> Composite:
        losses = self.plan.losses
        if losses.mixing == "none":
            return side_by_side(batch)
        if batch.unlabeled is None or self.average is None:
            return self._labeled(batch, iteration)
        pasted, rng = self._mixing(iteration)
        if pasted or len(batch.labeled) == 1:  # beside each other they would be two samples, for which memory may lack
            return paste_both_ways(batch, self._pseudo_labels(batch), losses.pseudo_label, rng)
        batch = half(batch)
        return side_by_side(batch, self._pseudo_labels(batch), losses.pseudo_label)

    def _labeled(self, batch: Batch, iteration: int, turn: int = 0) -> Composite:
        """Labelled patches alone; ``turn`` tells several of an iteration apart."""
        if self.plan.losses.mixing == "none":
            return side_by_side(dataclasses.replace(batch, unlabeled=None, plain=None))
        rng = generator_for(self.plan.seed, "mixing", iteration, turn)
        return paste_labeled(batch, rng, PASTE_PROBABILITY)

    def pastes(self, iteration: int) -> bool:
        """Whether this iteration of mutual learning pastes cases into each other, if the plan has it at all."""
        return self.plan.losses.mixing != "none" and (self.plan.batch_labeled == 1 or self._mixing(iteration)[0])

    def _mixing(self, iteration: int) -> tuple[bool, np.random.Generator]:
        """Whether to paste, and the generator that then draws where."""
        rng = generator_for(self.plan.seed, "mixing", iteration)
        return bool(rng.random() < PASTE_PROBABILITY), rng

    def _pseudo_labels(self, batch: Batch) -> Tensor:
        image = batch.unlabeled if batch.plain is None else batch.plain
        assert image is not None
        with autocast(self.plan.numeric, self.device):
            return pseudo_labels(
                self._teacher(),
                image.contiguous(memory_format=_memory_format(self.plan.numeric)),
                largest_component=self.plan.losses.pseudo_largest_component,
            )

    def _teacher(self) -> CamlNetwork:
        """The network that makes the pseudo-labels."""
        assert self.average is not None
        if self.plan.losses.teacher == "moving":
            return self.average.network
        if self._fixed is None:
            self._fixed = copy.deepcopy(self.average.network)
        return self._fixed

    def _descend(self, loss: Tensor) -> bool:
        """Backward and optimiser step; False, with nothing changed, where the gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.scaler.is_enabled():
            # fp16's scaler skips overflowing steps by itself and lowers its scale: that is no failure of the run, as
            # long as there was a scale to blame.
            before = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return self.scaler.get_scale() >= min(before, LEAST_SCALE)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            return False
        if 0 < self.plan.optimizer.gradient_clip < float(norm):
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.plan.optimizer.gradient_clip, norm)
        self.optimizer.step()
        return True

    def _keep(self) -> None:
        """The forward pass changes running statistics and the bank already; a failed step must not leave them so."""
        self.bank.mark()
        for kept, value in zip(self._buffers, self.network.buffers()):
            kept.copy_(value)

    def _restore(self) -> None:
        self.bank.undo()
        for kept, value in zip(self._buffers, self.network.buffers()):
            value.copy_(kept)


def saved_network(plan: Plan, state: Mapping[str, Any]) -> CamlNetwork:
    """Return the ``final_network`` of what ``Engine.state_dict`` gave, on the CPU: all that who takes no step needs."""
    with torch.device("meta"):  # no random weights are drawn first
        network = build_network(plan.network)
    network.load_state_dict(state["network" if state["average"] is None else "average"], assign=True)
    return network.eval()


def autocast(numeric: NumericMode, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a numeric mode."""
    return torch.autocast(device.type, TORCH_DTYPE[numeric.dtype], enabled=numeric.dtype != "fp32")


def _memory_format(numeric: NumericMode) -> torch.memory_format:
    return torch.channels_last_3d if numeric.channels_last else torch.contiguous_format


def _optimizer(network: CamlNetwork, config: OptimizerConfig) -> torch.optim.Optimizer:
    # Fused: one pass over all parameters instead of one a tensor and operation.
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups = _parameter_groups(network, config)
    if config.kind == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=config.momentum, **common)
        # The heads may get their first gradient later than the rest, which torch's fused form cannot take; starting
        # from zero momentum is the same.
        for parameter in network.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.AdamW(groups, **common)


def _lay_out_moments(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their weights, which a session on another device may have had otherwise.

    Fused steps go through both as they lie in memory: on a processor each weight would get another one's moments, and
    on a GPU torch refuses them.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _parameter_groups(network: CamlNetwork, config: OptimizerConfig) -> list[dict[str, Any]]:
    """A group for each multiple of the learning rate.

    AdamW moves every weight by about the rate. In front of a norm that is a turn whatever the weight's size, but the
    logits' scale, which norms and output layers set, would take thousands of steps to grow; and attention is driven to
    give every voxel the same token.
    """
    multiples = dict.fromkeys(map(id, network.parameters()), 1.0)
    for name, module in network.named_modules():
        if isinstance(module, TransformerLayer):
            multiples |= dict.fromkeys(map(id, module.parameters()), config.attention_rate)
        elif isinstance(module, nn.BatchNorm3d) or name.endswith("out_conv"):
            multiples |= dict.fromkeys(map(id, module.parameters()), config.scale_rate)
    return [
        {"params": [p for p in network.parameters() if multiples[id(p)] == multiple], "multiple": multiple}
        for multiple in dict.fromkeys((1.0, config.scale_rate, config.attention_rate))
    ]
