"""What a scanner does to the truth: blur, bias field, and the noise of MR magnitudes and of CT."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..config import Spacing
from .space import Space


def blur(image: np.ndarray, sigma_mm: Spacing, spacing: Spacing) -> np.ndarray:
    """Return ``image`` smoothed by a Gaussian of ``sigma_mm`` along the grid's axes."""
    return ndimage.gaussian_filter(image, [s / step for s, step in zip(sigma_mm, spacing)], mode="nearest", truncate=3)


def bias_field(rng: np.random.Generator, space: Space, strength: float) -> np.ndarray:
    """Return a coil's smooth sensitivity [X, Y, Z], about exp(+-``strength``)."""
    reach = max(n * s for n, s in zip(space.grid.size, space.grid.spacing))
    return np.exp(np.float32(strength) * space.field(rng, wavelength=1.2 * reach, modes=4))


def rician(rng: np.random.Generator, image: np.ndarray, sigma: float, grain: float) -> np.ndarray:
    """Return the magnitude of ``image`` with complex Gaussian noise of ``sigma``, correlated over ``grain`` voxels."""
    real = image + sigma * _grained(rng, image.shape, grain, 0.0)
    imaginary = sigma * _grained(rng, image.shape, grain, 0.0)
    return np.sqrt(real * real + imaginary * imaginary)


def ct_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float, grain: float) -> np.ndarray:
    """Return the noise of a filtered back projection: correlated, without its lowest frequencies; HU."""
    return sigma * _grained(rng, shape, grain, 4 * grain)


def _grained(rng: np.random.Generator, shape: tuple[int, ...], grain: float, coarse: float) -> np.ndarray:
    white = rng.standard_normal(shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, grain, truncate=3)
    if coarse:
        noise -= 0.7 * ndimage.gaussian_filter(white, coarse, truncate=2)
    return noise / noise.std()
