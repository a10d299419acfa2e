"""Windows: they cover the volume, and walking gives what holding everything would."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from caml_core.inference.sliding_window import (
    Windows,
    _valid,
    fitted_windows,
    importance,
    stitch,
    strided_windows,
    sweep,
)

SIZES = [(40, 33, 21), (16, 16, 16), (7, 50, 9), (65, 20, 31)]
ALL = [fitted_windows(size, (16, 16, 16), (8, 8, 8), overlap) for size in SIZES for overlap in (0.0, 0.25, 0.5)] + [
    strided_windows(size, (16, 24, 8), (5, 7, 3)) for size in SIZES
]


def a_network(maps=3, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, maps, 3, padding=1))


def an_image(size, channels=2) -> torch.Tensor:
    return torch.randn(channels, *size, generator=torch.Generator().manual_seed(1))


def plain_reference(image, windows: Windows, forward, maps, weighting):
    """Every window of the padded volume, all sums kept."""
    before = [max(0, -starts[0]) for starts in windows.starts]
    size = [max(n, w) for n, w in zip(windows.size, windows.window)]
    padded = torch.zeros(image.shape[0], *size)
    inside = tuple(slice(b, b + n) for b, n in zip(before, windows.size))
    padded[(slice(None), *inside)] = image
    total, share = torch.zeros(maps, *size), torch.zeros(size)
    weights = importance(windows.window, weighting)
    for x in windows.starts[0]:
        for y in windows.starts[1]:
            for z in windows.starts[2]:
                place = tuple(slice(s + b, s + b + w) for s, b, w in zip((x, y, z), before, windows.window))
                total[(slice(None), *place)] += weights * forward(padded[(slice(None), *place)][None])[0]
                share[place] += weights
    return (total / share)[(slice(None), *inside)]


def collect(rows, windows: Windows, maps: int, axis: int | None = None) -> torch.Tensor:
    """All rows of a sweep as one map [maps, x, y, z]."""
    axis = windows.axis if axis is None else axis
    result = torch.empty(maps, *windows.size)
    moved = result.movedim(1 + axis, 1)
    for first, block in rows:
        moved[:, first : first + block.shape[1]] = block
    return result


def run(image, windows, network, maps, **options):
    def forward(window):
        return network(window)[0]

    return collect(sweep(image, windows, forward, maps, **options), windows, maps, options.get("axis"))


@pytest.mark.parametrize("windows", ALL)
def test_windows_cover_every_voxel(windows):
    seen = torch.zeros(windows.size)
    for x in windows.starts[0]:
        for y in windows.starts[1]:
            for z in windows.starts[2]:
                place = tuple(slice(max(s, 0), s + w) for s, w in zip((x, y, z), windows.window))
                seen[place] += 1
                for s, w, n in zip((x, y, z), windows.window, windows.size):
                    assert w >= n or (s >= 0 and s + w <= n)
    assert (seen > 0).all()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("size", [(40, 33, 21), (194, 141, 88), (512, 300, 17), (96, 97, 161)])
def test_fitted_windows_overlap_enough_and_fit_the_network(size, overlap):
    windows = fitted_windows(size, (96, 96, 48), (16, 16, 8), overlap, 1.5)
    for side, starts, divisor, patch in zip(windows.window, windows.starts, (16, 16, 8), (96, 96, 48)):
        assert side % divisor == 0 and side <= 1.5 * patch
        steps = [b - a for a, b in zip(starts, starts[1:])]
        assert all(step <= side * (1 - overlap) + 0.5 for step in steps)


def test_a_slightly_longer_volume_takes_one_longer_window_instead_of_two():
    assert fitted_windows((140, 112, 88), (112, 112, 80), (16, 16, 16), 0.25).count == 1
    assert fitted_windows((140, 112, 88), (112, 112, 80), (16, 16, 16), 0.25, stretch=1.0).count == 4


def test_strided_windows_are_those_of_the_published_protocol():
    windows = strided_windows((130, 112, 88), (112, 112, 80), (18, 18, 4))
    assert windows.starts == ((0, 18), (0,), (0, 4, 8))
    assert strided_windows((100, 112, 88), (112, 112, 80), (18, 18, 4)).starts[0] == (-6,)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        fitted_windows((8, 8, 8), (8, 8, 8), (4, 4, 4), 1.0)
    with pytest.raises(ValueError, match="stride"):
        strided_windows((8, 8, 8), (8, 8, 8), (0, 1, 1))


@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
@pytest.mark.parametrize("windows", ALL)
def test_walking_gives_what_a_plain_sum_gives(windows, weighting):
    network, image = a_network(), an_image(windows.size)
    with torch.inference_mode():
        walked = run(image, windows, network, 3, weighting=weighting)
        expected = plain_reference(image, windows, network, 3, weighting)
    torch.testing.assert_close(walked, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_to_walk_along_does_not_matter(axis):
    windows = fitted_windows((40, 33, 21), (16, 16, 16), (8, 8, 8), 0.25)
    network, image = a_network(), an_image(windows.size)
    with torch.inference_mode():
        expected = run(image, windows, network, 3)
        torch.testing.assert_close(run(image, windows, network, 3, axis=axis), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("windows", ALL)
def test_constant_in_constant_out(windows):
    image = torch.full((1, *windows.size), 2.5)
    inside = collect(sweep(image, windows, lambda w: torch.full((1, *windows.window), 0.3), 1), windows, 1)
    torch.testing.assert_close(inside, torch.full((1, *windows.size), 0.3))


@pytest.mark.parametrize("windows", ALL)
def test_rows_come_once_and_in_order(windows):
    expected = 0
    for first, rows in sweep(an_image(windows.size), windows, lambda w: w[0], 2):
        assert first == expected
        expected += rows.shape[1]
    assert expected == windows.size[windows.axis]


def test_sums_are_kept_for_one_window_only():
    """The rows handed on never span more than a window: the volume's length costs no memory."""
    windows = fitted_windows((16, 16, 400), (16, 16, 16), (8, 8, 8), 0.25)
    assert windows.axis == 2
    longest = max(rows.shape[1] for _, rows in sweep(an_image(windows.size), windows, lambda w: w[0], 2))
    assert longest <= windows.window[2]


@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("size", [(40, 33, 29), (24, 24, 24), (20, 50, 17)])
def test_monai_gives_the_same(size, overlap):
    from monai.inferers import sliding_window_inference

    patch = (24, 16, 16)
    network, image = a_network(), an_image(size)
    windows = strided_windows(size, patch, tuple(int(p * (1 - overlap)) for p in patch))
    with torch.inference_mode():
        ours = run(image, windows, network, 3)
        theirs = sliding_window_inference(image[None], patch, 1, network, overlap=overlap, mode="gaussian")[0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_the_gaussian_is_even_and_nowhere_zero():
    weights = importance((32, 16, 8), "gaussian")
    assert weights.min() == pytest.approx(1e-3)
    assert math.isclose(float(weights.max()), float(weights[15, 7, 3]))
    torch.testing.assert_close(weights, weights.flip((0, 1, 2)))


# Without sums


@pytest.mark.parametrize("windows", ALL)
def test_stitched_windows_give_each_voxel_once_from_the_window_around_it(windows):
    """The weights by which others are blended say how much a voxel lies in the middle."""
    weights, image = importance(windows.window, "gaussian"), an_image(windows.size)
    seen, found = torch.zeros(windows.size), torch.zeros(windows.size)
    for box, values in stitch(image, windows, lambda window: weights[None]):
        seen[box] += 1
        found[box] = values[0]
    best = torch.zeros(windows.size)
    for place in itertools.product(*windows.starts):
        inner, outer = _valid(place, windows.window, windows.size)
        best[tuple(outer)] = torch.maximum(best[tuple(outer)], weights[tuple(inner)])
    assert (seen == 1).all()
    torch.testing.assert_close(found, best)


@pytest.mark.parametrize("windows", ALL)
def test_what_each_voxel_tells_of_itself_is_the_same_stitched_and_blended(windows):
    image = an_image(windows.size)
    stitched = torch.empty(2, *windows.size)
    for box, values in stitch(image, windows, lambda window: window[0]):
        stitched[(slice(None), *box)] = values
    assert torch.equal(stitched, image)
