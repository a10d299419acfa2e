"""Centreline Dice on tubes whose centrelines are known."""

from __future__ import annotations

import numpy as np
import pytest
from centreline import Centreline, centreline

from caml_core.metrics import dice

#: Two parallel tubes of 3 x 3 x 30 voxels. A skeleton leaves a voxel out at each end: 28 voxels each.
LENGTH, LINE = 30, 28


def tube(row: int, start: int = 0, stop: int = LENGTH, width: int = 3) -> np.ndarray:
    mask = np.zeros((20, 24, 40), bool)
    half = width // 2
    mask[10 - half : 11 + half, row - half : row + half + 1, 5 + start : 5 + stop] = True
    return mask


BOTH = tube(6) | tube(16)


def test_a_tube_with_itself_is_perfect():
    assert centreline(BOTH, BOTH) == Centreline(1.0, 1.0)
    assert centreline(BOTH, BOTH).dice == 1.0


@pytest.mark.parametrize("gap", [4, 10])
def test_a_break_costs_the_length_of_its_gap(gap):
    middle = LENGTH // 2
    broken = tube(6) | tube(16, 0, middle - gap // 2) | tube(16, middle + gap // 2, LENGTH)
    found = centreline(broken, BOTH)
    # The prediction marks nothing beside the reference; of the reference's line all but the gap is covered.
    assert found.precision == 1.0
    assert found.sensitivity == pytest.approx((2 * LINE - gap) / (2 * LINE))
    assert found.dice == pytest.approx(2 * found.sensitivity / (1 + found.sensitivity))
    # Turned around, precision and sensitivity change places.
    turned = centreline(BOTH, broken)
    assert (turned.precision, turned.sensitivity) == (found.sensitivity, found.precision)


def test_a_missed_tube_is_half_of_the_length():
    found = centreline(tube(6), BOTH)
    assert (found.precision, found.sensitivity) == (1.0, 0.5)
    assert found.dice == pytest.approx(2 / 3)


def test_width_matters_to_dice_alone():
    thin = tube(6, width=1) | tube(16, width=1)
    assert centreline(thin, BOTH).dice > 0.99
    assert dice(thin, BOTH) < 0.25


def test_empty_masks():
    nothing = np.zeros_like(BOTH)
    assert centreline(nothing, nothing).dice == 1.0
    assert centreline(nothing, BOTH).dice == centreline(BOTH, nothing).dice == 0.0
    assert centreline(tube(2), tube(20)).dice == 0.0
