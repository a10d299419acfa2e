"""Omni-correlation consistency (OCC): both sub-models relate unlabelled voxels to labelled memory alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-8


def correlation_matrix(
    queries: Tensor,
    memory: Tensor,
    temperature: float = 0.1,
    *,
    valid: Tensor | None = None,
    cosine: bool = False,
) -> Tensor:
    """Softmax over memory entries of (query . memory / T); rows sum to one.

    queries: [N, D]; memory: [M, D]; valid: [M] booleans, columns that are not valid get probability 0.
    ``cosine`` normalises both sides first, so that T alone sets the sharpness; the paper takes plain dot products.
    """
    if cosine:
        queries, memory = F.normalize(queries, dim=1), F.normalize(memory, dim=1)
    similarity = (queries / temperature) @ memory.T
    if valid is not None and not bool(valid.all()):
        similarity = similarity.masked_fill(~valid, float("-inf"))
    return torch.softmax(similarity, dim=1)


def omni_correlation(correlation_v: Tensor, correlation_a: Tensor, *, detach: bool = False) -> Tensor:
    """Mean over queries of the cross entropy with a's matrix [N, M] as target and v's as prediction.

    ``detach`` keeps the target from being pulled towards the prediction (the published code lets it).
    """
    target = correlation_a.detach() if detach else correlation_a
    return -(target * torch.log(correlation_v + EPSILON)).sum(1).mean()


def class_anchor(correlation: Tensor, label: Tensor, column_label: Tensor) -> Tensor:
    """-log of the share of a voxel's correlation that falls on memory of its own class, mean over voxels.

    correlation: [N, M]; label: [N]; column_label: [M]. Without it a detached target never trains the heads of the
    sub-model that it comes from, and both matrices agree by being uniform (docs/method.md).
    """
    own = (correlation * (label[:, None] == column_label[None, :])).sum(1)
    return -torch.log(own + EPSILON).mean()


def most_confident(confidence: Tensor, label: Tensor, classes: int, count: int) -> Tensor:
    """Indices of the ``count`` most confident voxels of each class, class by class, descending (paper).

    confidence, label: [N]. Classes with fewer voxels give all they have.
    """
    chosen = []
    for value in range(classes):
        index = torch.nonzero(label == value).squeeze(1)
        order = torch.argsort(confidence[index], descending=True, stable=True)
        chosen.append(index[order[:count]])
    return torch.cat(chosen)


def random_confident(
    confidence: Tensor,
    label: Tensor,
    boundary: Tensor,
    classes: int,
    count: int,
    *,
    threshold: float,
    boundary_share: float,
    generator: torch.Generator,
) -> Tensor:
    """Indices of ``count`` random voxels of each class above ``threshold``, a share of them near the boundary.

    confidence, label: [N]; boundary: [N] booleans. The most confident voxels are saturated interior ones, from
    which nothing is left to learn (docs/method.md).
    """
    chosen = []
    for value in range(classes):
        eligible = (label == value) & (confidence >= threshold)
        near = _random_choice(eligible & boundary, round(count * boundary_share), generator)
        far = _random_choice(eligible & ~boundary, count - len(near), generator)
        chosen += [near, far]
    return torch.cat(chosen)


def _random_choice(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    index = torch.nonzero(mask).squeeze(1)
    if len(index) <= count:
        return index
    # Drawing with replacement costs the same however many voxels there are; repeats are rare and harmless.
    draw = torch.randint(len(index), (count,), generator=generator, device=generator.device)
    return index[draw.to(index.device)]
