"""MONAI's random transforms in the place of ours: batches of the same patches, with the same ranges and probabilities.

Volumes lie in memory as plain tensors and foreground voxels are looked up beforehand, as MONAI's own guides advise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import common  # noqa: F401 (makes caml_core known)
import numpy as np
import torch
from monai import transforms as mt
from monai.data import set_track_meta
from monai.utils import set_determinism

from caml_core.config import AugmentationConfig, Plan, Triple
from caml_core.data.cache import PreparedCase
from caml_core.data.sampler import Batch

#: A crop a quarter longer than the patch holds most of what a patch turned by 15 degrees shows.
WIDER = 1.25


def batch_maker(
    plan: Plan, labeled: Sequence[PreparedCase], unlabeled: Sequence[PreparedCase], *, wider: bool
) -> Callable[[int], Batch]:
    """Return what makes the batch of an iteration.

    wider: cut out more than the patch before turning it, as our sampler does; else corners that are turned in are 0.
    """
    set_track_meta(False)
    set_determinism(plan.seed)
    crop: Triple = plan.geometry.patch
    if wider:
        x, y, z = (math.ceil(side * WIDER) for side in crop)
        crop = (x, y, z)
    with_labels = _pipeline(plan, crop, labeled=True)
    without = _pipeline(plan, crop, labeled=False)
    known = [_loaded(case) for case in labeled]
    unknown = [_loaded(case) for case in unlabeled]

    def make(iteration: int) -> Batch:
        count = plan.batch_labeled
        cases = tuple((count * iteration + slot) % len(known) for slot in range(count))
        samples = [with_labels(dict(known[case]))[0] for case in cases]
        first = plan.batch_unlabeled * iteration
        others = [without(dict(unknown[(first + k) % len(unknown)]))["image"] for k in range(plan.batch_unlabeled)]
        return Batch(
            torch.stack([sample["image"] for sample in samples]),
            torch.stack([sample["label"][0].to(torch.uint8) for sample in samples]),
            cases,
            torch.stack(others),
        )

    return make


def _loaded(case: PreparedCase) -> dict[str, torch.Tensor | np.ndarray]:
    image = torch.from_numpy(np.asarray(case.image, dtype=np.float32))
    if case.label is None:
        return {"image": image}
    label = torch.from_numpy(np.array(case.label)[None])
    flat = np.asarray(case.label).ravel()
    return {
        "image": image,
        "label": label.float(),
        "label_fg_indices": np.flatnonzero(flat),
        "label_bg_indices": np.flatnonzero(flat == 0),
    }


def _pipeline(plan: Plan, crop: Triple, *, labeled: bool) -> mt.Compose:
    keys = ["image", "label"] if labeled else ["image"]
    share = plan.foreground_share
    cut = (
        mt.RandCropByPosNegLabeld(
            keys,
            label_key="label",
            spatial_size=crop,
            pos=share,
            neg=1.0 - share,
            fg_indices_key="label_fg_indices",
            bg_indices_key="label_bg_indices",
            allow_smaller=True,
        )
        if labeled
        else mt.RandSpatialCropd(keys, roi_size=crop, random_size=False)
    )
    return mt.Compose(
        [
            # Padding first would move the voxels that are looked up; what is too small is padded behind the crop.
            cut,
            mt.SpatialPadd(keys, spatial_size=crop),
            *_augmentation(plan.augmentation, plan.geometry.patch, keys),
        ]
    )


def _augmentation(config: AugmentationConfig, patch: Triple, keys: Sequence[str]) -> list[mt.Transform]:
    probability = config.intensity_probability
    modes = ["bilinear", "nearest"][: len(keys)]
    angle = math.radians(config.rotation_degrees)
    return [
        mt.RandAffined(
            keys,
            prob=config.affine_probability,
            rotate_range=(angle,) * 3,
            scale_range=(config.scale,) * 3,
            spatial_size=patch,
            mode=modes,
            padding_mode="zeros",
        ),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in config.flip_axes),
        mt.RandAdjustContrastd("image", prob=probability, gamma=(math.exp(-config.gamma), math.exp(config.gamma))),
        mt.RandScaleIntensityd("image", factors=config.contrast, prob=probability),
        mt.RandShiftIntensityd("image", offsets=config.brightness, prob=probability),
        mt.RandGaussianSmoothd(
            "image",
            sigma_x=(0.0, config.blur),
            sigma_y=(0.0, config.blur),
            sigma_z=(0.0, config.blur),
            prob=probability,
        ),
        mt.RandGaussianNoised("image", std=config.noise, prob=probability),
    ]
