"""Cleaning: only what was asked for, segment by segment."""

from __future__ import annotations

import numpy as np
import pytest

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Segment
from caml_core.inference.postprocessing import PostProcessing, clean

SEGMENTS = (Segment("atrium", 1), Segment("vein", 2))


@pytest.fixture
def labels():
    """Segment 1: a hollow block of 7x7x7, an island of 2x2x2, a single voxel; segment 2: a diagonal line."""
    array = np.zeros((20, 18, 16), np.uint8, order="F")
    array[2:9, 2:9, 2:9] = 1
    array[5, 5, 5] = 0
    array[12:14, 12:14, 12:14] = 1
    array[18, 2, 2] = 1
    for i in range(6):
        array[10 + i, 2 + i, 8] = 2
    return array


def cleaned(labels, **wanted):
    result = labels.copy(order="K")
    clean(result, 0.001, SEGMENTS, PostProcessing(**wanted))
    return result


def test_nothing_is_done_unless_asked(labels):
    assert not PostProcessing()
    assert np.array_equal(cleaned(labels), labels)


def test_the_largest_component_of_each_segment_is_kept(labels):
    result = cleaned(labels, largest_component=True)
    assert (result == 1).sum() == 7**3 - 1
    assert result[18, 2, 2] == 0 and result[12, 12, 12] == 0
    # A line that runs over corners is one component.
    assert np.array_equal(result == 2, labels == 2)


def test_islands_below_a_volume_are_removed(labels):
    result = cleaned(labels, smallest_island_ml=0.008)
    assert result[12, 12, 12] == 1 and result[18, 2, 2] == 0
    assert not (result == 2).any()
    assert cleaned(labels, smallest_island_ml=0.0081)[12, 12, 12] == 0


def test_holes_are_filled_and_other_segments_left_alone(labels):
    labels[4, 4, 4] = 2
    result = cleaned(labels, fill_holes=True)
    assert result[5, 5, 5] == 1
    assert result[4, 4, 4] == 2
    changed = result != labels
    assert changed.sum() == 1


def test_a_dent_is_no_hole(labels):
    labels[5, 5, 5:9] = 0
    assert np.array_equal(cleaned(labels, fill_holes=True), labels)


def test_what_was_removed_is_said_in_ml(labels):
    removed = clean(labels.copy(order="K"), 0.001, SEGMENTS, PostProcessing(largest_component=True))
    assert removed == {"atrium": pytest.approx(0.009)}
    assert clean(labels.copy(order="K"), 0.001, SEGMENTS, PostProcessing(fill_holes=True)) == {}


@pytest.mark.parametrize("one_component", [True, False])
def test_where_nothing_is_asked_the_model_decides(one_component):
    config = NetworkConfig(classes=3)
    spec = ModelSpec(
        Geometry((1.0,) * 3, (16,) * 3), config, (ChannelIntensity(),), SEGMENTS, one_component=one_component
    )
    assert bool(PostProcessing().for_model(spec).largest_component) is one_component
    for asked in (True, False):
        assert PostProcessing(largest_component=asked).for_model(spec).largest_component is asked


def test_absent_segments_are_no_fault():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert not cleaned(empty, largest_component=True, fill_holes=True, smallest_island_ml=1.0).any()
