"""One step of Correlation-Aware Mutual Learning, to be read beside the paper: no files, no loop, no optimiser.

L = 0.5 * (L_s(v) + L_s(a)) + lambda_c(t) * L_c(v, a) + lambda_o(t) * L_o(v, a)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import LossConfig
from ..losses.consistency import mutual_consistency
from ..losses.correlation import (
    class_anchor,
    correlation_matrix,
    most_confident,
    omni_correlation,
    random_confident,
)
from ..losses.supervised import cross_entropy, dice_loss
from ..memory_bank import Memory, MemoryBank
from ..model import CamlNetwork, CamlOutput
from .mixing import Composite


@dataclass(frozen=True)
class StepLosses:
    """Terms of one step, scalars; ``total`` carries the gradient."""

    total: Tensor
    supervised: Tensor
    consistency: Tensor
    omni: Tensor

    def values(self) -> dict[str, float]:
        """The four terms as numbers."""
        return {name: float(getattr(self, name).detach()) for name in ("total", "supervised", "consistency", "omni")}


def caml_losses(
    network: CamlNetwork,
    composite: Composite,
    bank: MemoryBank,
    config: LossConfig,
    *,
    ramp: float,
    generator: torch.Generator,
    alone: bool = False,
) -> StepLosses:
    """Forward ``composite`` through both sub-models and return all terms; updates the memory bank.

    ramp: lambda_c(t) and lambda_o(t) as a share of their final weights. generator: on the CPU, for all draws.
    alone: each sample attends to itself alone.
    """
    output = network(composite.image, alone=alone)
    # Losses are sums over millions of voxels: always in float32, whatever the convolutions run in.
    output = CamlOutput(output.logits_v.float(), output.logits_a.float(), output.embedding_v, output.embedding_a)
    supervised = _supervised(output.logits_v, composite, config) + _supervised(output.logits_a, composite, config)
    consistency = mutual_consistency(
        output.logits_v, output.logits_a, config.sharpening_temperature, detach=config.detach_targets
    )
    omni = _omni_correlation_term(network, output, composite, bank, config, generator)
    total = 0.5 * supervised + ramp * (config.consistency * consistency + config.omni * omni)
    return StepLosses(total, supervised, consistency, omni)


def solo_losses(
    network: CamlNetwork, for_v: Composite, for_a: Composite, config: LossConfig, *, alone: bool = False
) -> StepLosses:
    """The supervised terms of both sub-models, each from labelled patches of its own. alone: as in ``caml_losses``."""
    output = network.forward_each(for_v.image, for_a.image, alone=alone)
    supervised = _supervised(output.logits_v.float(), for_v, config) + _supervised(
        output.logits_a.float(), for_a, config
    )
    zero = supervised.detach() * 0
    return StepLosses(0.5 * supervised, supervised, zero, zero)


def labeled_losses(network: CamlNetwork, composite: Composite, config: LossConfig) -> StepLosses:
    """The labelled-only baseline: sub-model v and the supervised term."""
    supervised = _supervised(network.forward_v(composite.image).float(), composite, config)
    zero = supervised.detach() * 0
    return StepLosses(supervised, supervised, zero, zero)


def _supervised(logits: Tensor, composite: Composite, config: LossConfig) -> Tensor:
    """L_s: Dice (and cross entropy) of the voxels that have a label, or with its weight a pseudo-label."""
    loss = logits.new_zeros(())
    rows = composite.weight.flatten(1).amax(1) > 0  # whole samples without supervision cost nothing here
    logits, target, weight = logits[rows], composite.target[rows], composite.weight[rows]
    if config.dice > 0:
        probabilities = torch.softmax(logits, 1)
        loss = loss + config.dice * dice_loss(probabilities, target, weight, over_batch=config.dice_batch)
    if config.cross_entropy > 0:
        loss = loss + config.cross_entropy * cross_entropy(logits, target, weight)
    return loss


def _omni_correlation_term(
    network: CamlNetwork,
    output: CamlOutput,
    composite: Composite,
    bank: MemoryBank,
    config: LossConfig,
    generator: torch.Generator,
) -> Tensor:
    """L_o: both sub-models relate the same unlabelled voxels to the memory of labelled ones alike."""
    if config.omni <= 0:
        return output.logits_v.new_zeros(())
    classes = output.logits_v.shape[1]
    with torch.no_grad():
        confidence, label_v = torch.softmax(output.logits_v, 1).max(1)
        agreed = label_v == output.logits_a.max(1).indices  # many times faster than argmax on CPUs
        correct = agreed & (label_v == composite.target)
        remembered = _remember(network, output, composite, correct, bank, config, generator)
        voxels = _queries(confidence, label_v, agreed & ~composite.labeled, config, classes, generator)
        memory = bank.draw(config.memory_per_class, generator, whole_classes=not config.separate_banks)
    loss = output.logits_v.new_zeros(())
    if not bool(memory.valid.any()):
        return loss
    if len(voxels) > 1:  # one voxel has no batch statistics
        loss = loss + _agreement(*_correlations(network, output, voxels, memory, config), config)
    if config.anchor > 0 and len(remembered) > 1:
        own = composite.target.flatten()[remembered]
        columns = torch.arange(classes, device=own.device).repeat_interleave(config.memory_per_class)
        for correlation in _correlations(network, output, remembered, memory, config):
            loss = loss + 0.5 * config.anchor * class_anchor(correlation, own, columns)
    return loss


def _correlations(
    network: CamlNetwork, output: CamlOutput, voxels: Tensor, memory: Memory, config: LossConfig
) -> tuple[Tensor, Tensor]:
    """Correlation matrices of both sub-models between ``voxels`` (flat indices [n]) and the memory."""
    query_v = _project(network.projection_head1, network.prediction_head1, _gather(output.embedding_v, voxels))
    query_a = _project(network.projection_head2, network.prediction_head2, _gather(output.embedding_a, voxels))
    temperature, cosine = config.correlation_temperature, config.cosine
    with torch.autocast(query_v.device.type, enabled=False):  # a softmax over hundreds of columns needs float32
        return (
            correlation_matrix(query_v, memory.v, temperature, valid=memory.valid, cosine=cosine),
            correlation_matrix(query_a, memory.a, temperature, valid=memory.valid, cosine=cosine),
        )


def _agreement(correlation_v: Tensor, correlation_a: Tensor, config: LossConfig) -> Tensor:
    loss = omni_correlation(correlation_v, correlation_a, detach=config.detach_targets)
    if not config.symmetric:
        return loss
    return 0.5 * (loss + omni_correlation(correlation_a, correlation_v, detach=config.detach_targets))


def _queries(
    confidence: Tensor,
    label: Tensor,
    eligible: Tensor,
    config: LossConfig,
    classes: int,
    generator: torch.Generator,
) -> Tensor:
    """Flat indices of the unlabelled voxels that are compared with the memory."""
    flat = torch.nonzero(eligible.flatten()).squeeze(1)
    confidence, labels = confidence.flatten()[flat], label.flatten()[flat]
    if config.query_selection == "confident":
        return flat[most_confident(confidence, labels, classes, config.queries_per_class)]
    near = near_boundary(label).flatten()[flat]
    chosen = random_confident(
        confidence,
        labels,
        near,
        classes,
        config.queries_per_class,
        threshold=config.query_confidence,
        boundary_share=config.boundary_share,
        generator=generator,
    )
    return flat[chosen]


def near_boundary(label: Tensor) -> Tensor:
    """Voxels with another class within two voxels; label: int64 [B, x, y, z] -> bool of the same shape."""
    values = label.float().unsqueeze(1)
    extremes = torch.cat([values, -values], dim=1)
    for axis in range(3):  # one axis at a time: 15 comparisons a voxel instead of 125
        window = [5 if a == axis else 1 for a in range(3)]
        extremes = F.max_pool3d(extremes, window, stride=1, padding=[w // 2 for w in window])
    return extremes[:, 0] != -extremes[:, 1]


@torch.no_grad()
def _remember(
    network: CamlNetwork,
    output: CamlOutput,
    composite: Composite,
    correct: Tensor,
    bank: MemoryBank,
    config: LossConfig,
    generator: torch.Generator,
) -> Tensor:
    """Store projections of labelled voxels that both sub-models classify rightly, sampled before projecting.

    Returns their flat indices.
    """
    voxels_per_sample, stored = correct[0].numel(), []
    for sample, case in enumerate(composite.cases):
        if case < 0:
            continue
        kept = (correct[sample] & composite.labeled[sample]).flatten()
        target = composite.target[sample].flatten()
        for label in range(output.logits_v.shape[1]):
            index = torch.nonzero(kept & (target == label)).squeeze(1)
            if len(index) > bank.capacity:  # drawn singly: a permutation of two million voxels would take longer
                draw = torch.randint(len(index), (bank.capacity,), generator=generator)
                index = index[draw.to(index.device)]
            voxels = index + sample * voxels_per_sample
            if len(voxels) == 0:
                continue
            v = _frozen(network.projection_head1, _gather(output.embedding_v, voxels))
            a = _frozen(network.projection_head2, _gather(output.embedding_a, voxels))
            if not config.separate_banks:
                v = a = 0.5 * (v + a)
            # One step that is not finite must not spoil all later ones that draw from the bank.
            finite = torch.isfinite(v).all(1) & torch.isfinite(a).all(1)
            bank.store(case, label, v[finite], a[finite])
            stored.append(voxels[finite])
    return torch.cat(stored) if stored else torch.zeros(0, dtype=torch.int64, device=correct.device)


def _gather(embedding: Tensor, voxels: Tensor) -> Tensor:
    """Rows of ``embedding`` [B, F, x, y, z] at flat voxel indices [n] -> float32 [n, F]."""
    if embedding.is_contiguous(memory_format=torch.channels_last_3d):
        return embedding.permute(0, 2, 3, 4, 1).flatten(0, 3)[voxels].float()  # a view: nothing is copied
    size = embedding[0, 0].numel()
    return embedding.flatten(2)[voxels // size, :, voxels % size].float()


def _project(projection: nn.Module, prediction: nn.Module, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return prediction(projection(features))


def _frozen(head: nn.Module, features: Tensor) -> Tensor:
    """Projection with running statistics, as the memory bank's entries are made."""
    head.eval()
    try:
        with torch.autocast(features.device.type, enabled=False):
            return head(features)
    finally:
        head.train()
