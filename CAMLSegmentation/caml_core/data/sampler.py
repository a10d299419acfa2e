"""Two-stream batches: labelled and unlabelled patches, as functions of (seed, iteration) alone.

A resumed run repeats the batches bit for bit, whatever loads them and however many workers do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import AugmentationConfig, Plan
from ..seeding import generator_for
from .augmentation import augment_intensities, place_patch, sample_patch
from .cache import PreparedCase


@dataclass(frozen=True)
class Batch:
    """Patches of one iteration. Images float32 [B, C, x, y, z], labels uint8 [B, x, y, z].

    While the sub-models learn alone, the first half of the labelled ones is for v, the second for a.
    ``cases``: index of each labelled sample's case. ``unlabeled`` is None where nothing but labels is learnt from.
    ``plain``: the unlabelled patches before their intensities were changed, of which the teacher makes pseudo-labels
    (None: of ``unlabeled``).
    """

    labeled: Tensor
    labels: Tensor
    cases: tuple[int, ...]
    unlabeled: Tensor | None
    plain: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        unlabeled, plain = (None if t is None else t.to(device) for t in (self.unlabeled, self.plain))
        return Batch(self.labeled.to(device), self.labels.to(device), self.cases, unlabeled, plain)

    def halves(self) -> tuple[Batch, Batch]:
        """The labelled patches for v and those for a."""
        middle = len(self.labeled) // 2
        first, second = slice(None, middle), slice(middle, None)
        v, a = (Batch(self.labeled[part], self.labels[part], self.cases[part], None) for part in (first, second))
        return v, a


def labeled_patches(plan: Plan, iteration: int) -> tuple[int, int]:
    """How many labelled patches ``iteration`` has, and how many all before it had."""
    solo, count = plan.solo_iterations, plan.batch_labeled
    if iteration < solo:
        return 2 * count, 2 * count * iteration
    return count, count * (solo + iteration)


class TwoStreamSampler:
    """Draws every case of a stream once before any a second time; the patch's place is drawn over the whole case.

    A training that goes on without some unlabelled cases (their files are gone) has another order of those that are
    left. It is a function of (seed, iteration) and their number: resumed again with the same cases it is the same bit
    for bit, but not as an uninterrupted training would have been; and since the place within the order is found anew,
    some cases may come twice, or not, before the order begins again. The labelled stream does not notice.
    """

    def __init__(self, plan: Plan, labeled: Sequence[PreparedCase], unlabeled: Sequence[PreparedCase]) -> None:
        self._plan = plan
        self._labeled = tuple(labeled)
        self._unlabeled = () if plan.labeled_only else tuple(unlabeled)

    def batch(self, iteration: int) -> Batch:
        """Return the batch of ``iteration`` (from 0)."""
        plan = self._plan
        images, labels, cases = [], [], []
        count, before = labeled_patches(plan, iteration)
        augmentation = self._augmentation(iteration)
        for slot in range(count):
            index = self._case_index("labeled", len(self._labeled), before + slot)
            rng = generator_for(plan.seed, "labeled", iteration, slot)
            center = patch_center(self._labeled[index], plan.geometry.patch, plan.foreground_share, rng)
            case, patch, spacing = self._labeled[index], plan.geometry.patch, plan.geometry.spacing
            image, label = sample_patch(case, center, patch, augmentation, rng, spacing)
            images.append(image)
            labels.append(label)
            cases.append(index)
        unlabeled, plain = self._unlabeled_patches(iteration)
        return Batch(
            torch.stack(images),
            torch.stack([label for label in labels if label is not None]),
            tuple(cases),
            unlabeled,
            plain,
        )

    def _unlabeled_patches(self, iteration: int) -> tuple[Tensor | None, Tensor | None]:
        """What the networks learn from, and what the teacher sees; nothing while the labels alone teach."""
        plan = self._plan
        if not self._unlabeled or iteration < plan.solo_iterations:
            return None, None
        config, patches, plain = self._augmentation(iteration), [], []
        for slot in range(plan.batch_unlabeled):
            index = self._case_index("unlabeled", len(self._unlabeled), iteration * plan.batch_unlabeled + slot)
            rng = generator_for(plan.seed, "unlabeled", iteration, slot)
            center = patch_center(self._unlabeled[index], plan.geometry.patch, 0.0, rng)
            case, patch, spacing = self._unlabeled[index], plan.geometry.patch, plan.geometry.spacing
            image = place_patch(case, center, patch, config, rng, spacing)[0]
            plain.append(image)
            patches.append(augment_intensities(image, config, rng))
        return torch.stack(patches), torch.stack(plain)

    def _augmentation(self, iteration: int) -> AugmentationConfig:
        """Random curves end with the first phase, before the first unlabelled patch."""
        config = self._plan.augmentation
        return config if iteration < self._plan.remapped_iterations else dataclasses.replace(config, remap=0.0)

    def _case_index(self, stream: str, count: int, position: int) -> int:
        epoch, place = divmod(position, count)
        return int(generator_for(self._plan.seed, f"{stream} order", epoch).permutation(count)[place])


def patch_center(
    case: PreparedCase, patch: Sequence[int], foreground_share: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the centre of a patch, float [3], over the full range of offsets, or at a foreground voxel.

    Where the case is smaller than the patch, the case lies anywhere within the patch.
    """
    half = (np.asarray(patch) - 1) / 2
    spare = np.asarray(case.image.shape[-3:]) - np.asarray(patch)
    low, high = np.minimum(spare, 0), np.maximum(spare, 0)
    uniform = rng.integers(low, high, endpoint=True) + half
    if rng.random() >= foreground_share or len(case.locations) == 0:
        return uniform
    classes = np.unique(case.locations[:, 0])
    places = np.flatnonzero(case.locations[:, 0] == rng.choice(classes))
    voxel = case.locations[rng.choice(places), 1:].astype(float)
    jitter = rng.uniform(-0.25, 0.25, 3) * np.asarray(patch)
    return np.clip(voxel + jitter, low + half, high + half)
