"""Pseudo-labels of the averaged network for unlabelled patches."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor

from ..model import CamlNetwork


@torch.no_grad()
def pseudo_labels(teacher: CamlNetwork, image: Tensor, *, largest_component: bool) -> Tensor:
    """Classes that the mean of both averaged sub-models gives to ``image`` [B, C, x, y, z] -> int64 [B, x, y, z].

    largest_component keeps of each class and patch only its largest connected part.
    """
    labels = teacher.probabilities(image).max(1).indices
    return keep_largest_components(labels) if largest_component else labels


def keep_largest_components(labels: Tensor) -> Tensor:
    """Zero all but the largest 6-connected component of each class of each sample, [B, x, y, z]."""
    result = labels.cpu().numpy().copy()
    for sample in result:
        for value in range(1, int(sample.max()) + 1):
            components, count = ndimage.label(sample == value)
            if count > 1:
                sizes = ndimage.sum_labels(components > 0, components, range(1, count + 1))
                sample[(components > 0) & (components != sizes.argmax() + 1)] = 0
    return torch.from_numpy(result).to(labels.device)
