"""Grey values: CT or MR, what is foreground, and the range that the network sees."""

from __future__ import annotations

import numpy as np

from ..config import ChannelIntensity

#: Voxels from which statistics are taken; beyond this, every second, third ... voxel along each axis.
SAMPLE = 8 * 2**20
#: Fewer voxels than this tell nothing of tissue.
_LEAST_TISSUE = 300


def normalize(array: np.ndarray, channel: ChannelIntensity, out: np.ndarray | None = None) -> np.ndarray:
    """Return a volume [x, y, z] as float32 in the network's range; ``array`` itself is not changed.

    ``out``: float32 of the same shape to write into; it may be ``array``.
    Training and prediction both apply this to the whole volume on the network's grid, before any padding or patch: the
    statistics of "zscore" are those of the volume that is passed.
    """
    if channel.kind == "window":
        lower, upper, mean, std = channel.lower, channel.upper, channel.mean, channel.std
    else:
        lower, upper, mean, std = _own_statistics(array, channel)
    result = np.empty_like(array, dtype=np.float32) if out is None else out
    np.clip(array, np.float32(lower), np.float32(upper), out=result, casting="unsafe")
    result -= np.float32(mean)
    result /= np.float32(std)
    return result


def sample_voxels(array: np.ndarray, limit: int = SAMPLE) -> np.ndarray:
    """Return a flat copy of at most about ``limit`` voxels, evenly spaced; all of them where they are fewer."""
    step = 1
    while np.prod([-(-n // step) for n in array.shape]) > limit:
        step += 1
    return array[(slice(None, None, step),) * array.ndim].ravel()


def foreground(values: np.ndarray) -> np.ndarray:
    """Return the values that are not background: above a tenth of the robust range of all.

    Air and masked surroundings lie below that in magnitude images, tissue above; unlike Otsu's threshold it does
    not split the tissues of a scan that has no air in its field of view. Of an organ that was cut out of a large field
    and fills less than a hundredth of it, it is what lies above the surroundings' one value.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    above = values[values > low + 0.1 * (high - low)]
    if above.size >= 0.01 * values.size:
        return above
    cut_out = values[values > values.min()]
    return cut_out if _LEAST_TISSUE <= cut_out.size < 0.5 * values.size else values


def looks_like_ct(values: np.ndarray) -> bool:
    """Whether voxel values read as Hounsfield units: fat and air below zero, a wide range, nothing beyond metal."""
    low, high = np.percentile(values, (0.05, 99.5))
    return bool(-4096 <= low <= -100 and high - low >= 250 and high <= 4096 and _are_integers(values))


def _own_statistics(array: np.ndarray, channel: ChannelIntensity) -> tuple[float, float, float, float]:
    values = sample_voxels(array)
    if channel.region == "foreground":
        values = foreground(values)
    lower, upper = float(values.min()), float(values.max())
    if channel.lower > 0 or channel.upper < 100:
        lower, upper = (float(v) for v in np.percentile(values, (channel.lower, channel.upper)))
        values = np.clip(values, lower, upper)
    else:
        # Percentiles 0 and 100 do not clip, also not the voxels outside the region or the sample.
        lower, upper = -np.inf, np.inf
    std = float(values.std(dtype=np.float64))
    return lower, upper, float(values.mean(dtype=np.float64)), std if std > 0 else 1.0


def _are_integers(values: np.ndarray) -> bool:
    """Hounsfield units are stored as integers; resampled ones no longer are, so a tenth of them suffices."""
    return values.dtype.kind in "iu" or float(np.mean(values == np.rint(values))) > 0.1
