"""What one step trains on: labelled and unlabelled patches side by side, or pasted into each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.sampler import Batch

#: Share of each side of the patch that the pasted box takes (Bai et al., CVPR 2023: 2/3).
BOX_SHARE = 2 / 3


@dataclass(frozen=True)
class Composite:
    """Images with what is known of each voxel.

    image: float32 [B, C, x, y, z]; target: int64 [B, x, y, z]; weight: float32 [B, x, y, z], 0 where nothing
    supervises; labeled: bool [B, x, y, z], voxels of the labelled case ``cases[b]`` (-1: the sample has none).
    """

    image: Tensor
    target: Tensor
    weight: Tensor
    labeled: Tensor
    cases: tuple[int, ...]


def side_by_side(batch: Batch, pseudo_labels: Tensor | None = None, weight: float = 0.0) -> Composite:
    """Labelled samples first, unlabelled ones behind: as in the paper, or with pseudo-labels of the unlabelled ones.

    pseudo_labels: int64 [Bu, x, y, z]; ``weight`` is their weight against true labels.
    """
    target, count = batch.labels.long(), 0
    image = batch.labeled
    if batch.unlabeled is not None:
        count = len(batch.unlabeled)
        image = torch.cat([image, batch.unlabeled])
        behind = target.new_zeros((count, *target.shape[1:])) if pseudo_labels is None else pseudo_labels
        target = torch.cat([target, behind])
    labeled = torch.zeros_like(target, dtype=torch.bool)
    labeled[: len(batch.labels)] = True
    weights = torch.where(labeled, 1.0, 0.0 if pseudo_labels is None else weight).float()
    return Composite(image, target, weights, labeled, batch.cases + (-1,) * count)


def half(batch: Batch) -> Batch:
    """The first half of both streams, at least one sample of each: side by side they are as many as pasted ones."""
    count = max(len(batch.labeled) // 2, 1)
    unlabeled, plain = (None if t is None else t[: max(len(t) // 2, 1)] for t in (batch.unlabeled, batch.plain))
    return Batch(batch.labeled[:count], batch.labels[:count], batch.cases[:count], unlabeled, plain)


def paste_labeled(batch: Batch, rng: np.random.Generator, probability: float) -> Composite:
    """Labelled samples, with boxes exchanged among them in a share of the steps; all voxels are supervised."""
    image, target = batch.labeled, batch.labels.long()
    labeled = torch.ones_like(target, dtype=torch.bool)
    if len(image) > 1 and rng.random() < probability:
        box = _random_box(tuple(target.shape[1:]), rng).to(target.device)
        image = torch.where(box, image.roll(1, 0), image)
        target = torch.where(box, target.roll(1, 0), target)
        labeled = labeled & ~box
    return Composite(image, target, torch.ones_like(target, dtype=torch.float32), labeled, batch.cases)


def paste_both_ways(batch: Batch, pseudo_labels: Tensor, weight: float, rng: np.random.Generator) -> Composite:
    """Bidirectional copy-paste: every sample is part labelled, part unlabelled.

    pseudo_labels: int64 [Bu, x, y, z] of ``batch.unlabeled``; ``weight`` is their weight against true labels.
    Even samples carry the labelled case outside the box, odd ones inside it.
    """
    if batch.unlabeled is None:
        msg = "copy-paste between the streams needs unlabelled patches"
        raise ValueError(msg)
    count = len(batch.labeled)
    order = [i % len(batch.unlabeled) for i in range(count)]
    box = _random_box(tuple(batch.labels.shape[1:]), rng).to(batch.labels.device)
    odd = (torch.arange(count) % 2 == 1).reshape(-1, 1, 1, 1).to(box.device)
    labeled = torch.where(odd, box, ~box)
    image = torch.where(labeled[:, None], batch.labeled, batch.unlabeled[order])
    target = torch.where(labeled, batch.labels.long(), pseudo_labels[order])
    return Composite(image, target, torch.where(labeled, 1.0, weight).float(), labeled, batch.cases)


def _random_box(patch: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    box = torch.zeros(patch, dtype=torch.bool)
    sides = [max(round(n * BOX_SHARE), 1) for n in patch]
    start = [int(rng.integers(0, n - s, endpoint=True)) for n, s in zip(patch, sides)]
    x, y, z = (slice(a, a + s) for a, s in zip(start, sides))
    box[x, y, z] = True
    return box
