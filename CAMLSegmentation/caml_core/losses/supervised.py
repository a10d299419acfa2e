"""Supervised terms: foreground Dice and cross entropy, with a weight for every voxel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8


def dice_loss(
    probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    over_batch: bool = True,
    epsilon: float = EPSILON,
) -> Tensor:
    """1 - mean over foreground classes of 2 I / (P + T).

    probabilities: [B, K, x, y, z] after softmax; target: [B, x, y, z], 0 is background; weight: [B, x, y, z].
    ``over_batch`` pools the whole batch before the ratio (paper); otherwise each sample has its own ratio.
    ``epsilon`` is added to numerator and denominator, so that a class absent from both counts as right.
    """
    axes = (0, 2, 3, 4) if over_batch else (2, 3, 4)
    scores = []
    for label in range(1, probabilities.shape[1]):
        p = probabilities[:, label : label + 1]
        t = (target == label).unsqueeze(1).to(p.dtype)
        w = torch.ones_like(p) if weight is None else weight.unsqueeze(1)
        intersection = (w * p * t).sum(axes)
        scores.append((2 * intersection + epsilon) / ((w * p).sum(axes) + (w * t).sum(axes) + epsilon))
    return 1.0 - torch.stack(scores).mean()


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross entropy of ``logits`` [B, K, x, y, z] and ``target`` [B, x, y, z], weighted by voxel."""
    if weight is None:
        return F.cross_entropy(logits, target.long())
    loss = F.cross_entropy(logits, target.long(), reduction="none")
    return (weight * loss).sum() / weight.sum().clamp_min(1.0)
