"""Patches from prepared cases, with augmentation that stays true to the anatomy.

Rotation, scaling and cropping are one resampling of the voxels that the patch needs; the identity is always in
the support, and every draw comes from the sample's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import AugmentationConfig, Spacing, Triple
from .cache import PreparedCase

#: Points between which a random curve is straight, and units of the small network that draws it.
_CURVE_POINTS, _CURVE_WIDTH = 256, 4


def sample_patch(
    case: PreparedCase,
    center: np.ndarray,
    patch: Triple,
    config: AugmentationConfig,
    rng: np.random.Generator,
    spacing: Spacing = (1.0, 1.0, 1.0),
) -> tuple[Tensor, Tensor | None]:
    """Return (image float32 [C, *patch], label uint8 [*patch] or None) around ``center`` (voxels, float [3]).

    Voxels outside the case are 0, the mean of a normalised image, and background. ``spacing``: mm of the case's grid.
    """
    image, label = place_patch(case, center, patch, config, rng, spacing)
    return augment_intensities(image, config, rng), label


def place_patch(
    case: PreparedCase,
    center: np.ndarray,
    patch: Triple,
    config: AugmentationConfig,
    rng: np.random.Generator,
    spacing: Spacing = (1.0, 1.0, 1.0),
) -> tuple[Tensor, Tensor | None]:
    """As ``sample_patch``, turned, scaled and mirrored, with the intensities as they are."""
    matrix = _random_affine(config, rng, spacing, steepest_turns(case.image.shape[-3:], patch, spacing))
    image, label = _extract(case, center, patch, matrix)
    return _mirror(image, label, config, rng)


def augment_intensities(image: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> Tensor:
    """Curve, gamma, contrast, brightness, blur and noise on a normalised image [C, x, y, z], each drawn by itself."""
    probability = config.intensity_probability
    if config.remap > 0 and rng.random() < config.remap:
        image = torch.stack([_remap(channel, rng) for channel in image])
    if probability <= 0:
        return image
    if config.gamma > 0 and rng.random() < probability:
        image = _gamma(image, math.exp(rng.uniform(-config.gamma, config.gamma)))
    if (config.contrast > 0 or config.brightness > 0) and rng.random() < probability:
        factor = 1.0 + rng.uniform(-config.contrast, config.contrast)
        image = image * factor + rng.uniform(-config.brightness, config.brightness)
    if config.blur > 0 and rng.random() < probability:
        image = _blur(image, rng.uniform(0.0, config.blur))
    if config.noise > 0 and rng.random() < probability:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        image = image + rng.uniform(0.0, config.noise) * torch.randn(image.shape, generator=generator)
    return image


def steepest_turns(size: Sequence[int], patch: Triple, spacing: Spacing) -> np.ndarray:
    """Return by how many degrees a patch may turn about each axis, [3], without leaving a case of ``size`` voxels.

    Of a few slices a steep turn would leave a strip, and of a single one next to nothing: the ends of the patch's sides
    stay within the case. Where it is no thinner than a quarter of them, turns of 15 degrees do so anyway.
    """
    depth = np.multiply(size, spacing)
    side = np.minimum(size, patch) * np.asarray(spacing)
    sines = [min(depth[i] / side[j], depth[j] / side[i], 1.0) for i, j in ((1, 2), (0, 2), (0, 1))]
    return np.degrees(np.arcsin(sines))


def _random_affine(
    config: AugmentationConfig, rng: np.random.Generator, spacing: Spacing, steepest: np.ndarray | float = 90.0
) -> np.ndarray | None:
    """Patch voxels to case voxels, [3, 3], or None for the identity. steepest: as ``steepest_turns`` gives it.

    A turn is one of the patient's space: between voxels of 1 x 1 x 8 mm one of 15 degrees would tilt slices by 65.
    """
    if config.affine_probability <= 0 or rng.random() >= config.affine_probability:
        return None
    largest = np.minimum(config.rotation_degrees, steepest)
    angles = np.radians(rng.uniform(-largest, largest, 3))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    common = 1.0 + rng.uniform(-config.scale, config.scale)
    per_axis = 1.0 + rng.uniform(-config.scale, config.scale, 3) / 3
    voxel = np.array(spacing) / min(spacing)
    return (matrix @ np.diag(common * per_axis)) * voxel / voxel[:, None]


def _extract(
    case: PreparedCase, center: np.ndarray, patch: Triple, matrix: np.ndarray | None
) -> tuple[Tensor, Tensor | None]:
    half = (np.asarray(patch) - 1) / 2
    if matrix is None:
        start = np.round(center - half).astype(int)
        label = None if case.label is None else torch.from_numpy(_crop(case.label, start, patch))
        return torch.from_numpy(_crop(case.image, start, patch).astype(np.float32)), label
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half @ matrix.T + center
    start = np.floor(corners.min(0)).astype(int)
    x, y, z = (int(n) for n in np.ceil(corners.max(0)).astype(int) + 1 - start)
    grid = _grid(matrix, center - start, patch, (x, y, z))
    image = torch.from_numpy(_crop(case.image, start, (x, y, z)).astype(np.float32))
    image = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    if case.label is None:
        return image, None
    label = torch.from_numpy(_crop(case.label, start, (x, y, z)).astype(np.float32))
    label = F.grid_sample(label[None, None], grid, mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
    return image, label.to(torch.uint8)


def _grid(matrix: np.ndarray, center: np.ndarray, patch: Triple, size: Triple) -> Tensor:
    """Sampling positions [1, x, y, z, 3] in torch's convention: -1 .. 1, last axis first."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in patch]
    m = torch.from_numpy(matrix.astype(np.float32))
    columns = []
    for row in (2, 1, 0):
        position = m[row, 0] * axes[0][:, None, None] + m[row, 1] * axes[1][:, None] + m[row, 2] * axes[2] + center[row]
        columns.append(2 * position / max(size[row] - 1, 1) - 1)
    return torch.stack(columns, dim=-1)[None]


def _crop(array: np.ndarray, start: np.ndarray, size: Triple) -> np.ndarray:
    """Copy of ``array`` [..., x, y, z] from ``start``, zero where it does not reach."""
    shape = array.shape[-3:]
    low = [max(int(s), 0) for s in start]
    high = [min(int(s) + n, m) for s, n, m in zip(start, size, shape)]
    if all(h - lo == n for h, lo, n in zip(high, low, size)):
        return np.array(array[_box(low, high)])
    result = np.zeros((*array.shape[:-3], *size), dtype=array.dtype)
    if all(h > lo for h, lo in zip(high, low)):
        first = [int(s) for s in start]
        inner = _box([a - s for a, s in zip(low, first)], [b - s for b, s in zip(high, first)])
        result[inner] = array[_box(low, high)]
    return result


def _box(low: Sequence[int], high: Sequence[int]) -> Any:
    return (Ellipsis, *(slice(a, b) for a, b in zip(low, high)))


def _mirror(
    image: Tensor, label: Tensor | None, config: AugmentationConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    turns = int(rng.integers(4)) if config.rotate90 and image.shape[1] == image.shape[2] else 0
    if config.always_flip:
        axes = [int(rng.choice(config.flip_axes))]
    else:
        axes = [axis for axis in config.flip_axes if rng.random() < 0.5]
    image = torch.flip(torch.rot90(image, turns, (1, 2)), [a + 1 for a in axes])
    if label is not None:
        label = torch.flip(torch.rot90(label, turns, (0, 1)), axes)
    return image, label


def _remap(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Send the grey values of one channel through a random curve, with the mean and spread that they had.

    The curve is a random network of two small hidden layers, mixed with the identity by a random share: contrasts
    become stronger, weaker, or turn around, and borders stay where they are (after the shallow random networks of
    Ouyang et al., IEEE TMI 2023, without their neighbourhoods).
    """
    low, high = float(image.min()), float(image.max())
    if high - low < 1e-6:
        return image
    values = np.linspace(low, high, _CURVE_POINTS)[:, None]
    for inputs, outputs in ((1, _CURVE_WIDTH), (_CURVE_WIDTH, _CURVE_WIDTH), (_CURVE_WIDTH, 1)):
        values = values @ rng.standard_normal((inputs, outputs)) / math.sqrt(inputs) + rng.standard_normal(outputs)
        if outputs > 1:
            values = np.where(values > 0, values, 0.1 * values)
    curve = torch.from_numpy(values[:, 0].astype(np.float32))
    place = (image - low) * ((_CURVE_POINTS - 1) / (high - low))
    before = place.long().clamp_(max=_CURVE_POINTS - 2)
    changed = torch.lerp(curve[before], curve[before + 1], place - before)
    share = rng.uniform()
    return _with_moments(share * _with_moments(changed, image) + (1.0 - share) * image, image)


def _with_moments(image: Tensor, other: Tensor) -> Tensor:
    """``image`` with the mean and standard deviation of ``other``."""
    return (image - image.mean()) * (other.std() / image.std().clamp_min(1e-6)) + other.mean()


def _gamma(image: Tensor, exponent: float) -> Tensor:
    low, high = image.min(), image.max()
    span = (high - low).clamp_min(1e-6)
    return ((image - low) / span) ** exponent * span + low


def _blur(image: Tensor, sigma: float) -> Tensor:
    if sigma < 0.1:
        return image
    radius = max(int(math.ceil(2 * sigma)), 1)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    result = image[:, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(kernel)
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        result = F.conv3d(F.pad(result, padding, mode="replicate"), kernel.reshape(shape))
    return result[:, 0]
