"""Mutual consistency L_c: each sub-model follows the other's sharpened prediction (paper, equation of L_c)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sharpen(logits: Tensor, temperature: float) -> Tensor:
    """p^(1/T) / sum(p^(1/T)) of p = softmax(logits) over axis 1, which is softmax(logits / T), in a stable form."""
    return torch.softmax(logits / temperature, dim=1)


def mutual_consistency(logits_v: Tensor, logits_a: Tensor, temperature: float = 0.1, *, detach: bool = False) -> Tensor:
    """MSE(p_v, sharpen(p_a)) + MSE(p_a, sharpen(p_v)) over all voxels and classes.

    Both inputs [B, K, x, y, z]. ``detach`` stops gradients through the sharpened targets (not in the paper's code).
    """
    target_v, target_a = sharpen(logits_v, temperature), sharpen(logits_a, temperature)
    if detach:
        target_v, target_a = target_v.detach(), target_a.detach()
    return F.mse_loss(torch.softmax(logits_v, 1), target_a) + F.mse_loss(torch.softmax(logits_a, 1), target_v)
