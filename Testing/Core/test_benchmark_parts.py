"""The parts of a prediction that benchmarks time are those of a prediction."""

from __future__ import annotations

import bench_prediction
import numpy as np
import prediction_parts
import pytest
import torch

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, NumericMode, Segment
from caml_core.data.geometry import NetworkGrid
from caml_core.data.grid import Grid
from caml_core.data.io import Volume
from caml_core.inference.predictor import Predictor
from caml_core.model import build_network

SPEC = ModelSpec(
    Geometry((1.5, 1.5, 1.5), (16, 16, 16)), NetworkConfig(base_filters=2), (ChannelIntensity(),), (Segment("a", 1),)
)


@pytest.fixture
def volume():
    array = np.random.default_rng(0).normal(size=(20, 18, 12)).astype(np.float32)
    return Volume(array, Grid(array.shape, (1.2, 1.2, 2.0), (0.0, 0.0, 0.0)))


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_what_is_timed_makes_the_same_labels(volume, quality):
    torch.manual_seed(1)
    numeric = NumericMode("fp32", channels_last=True)
    predictor = Predictor(build_network(SPEC.network).eval(), SPEC, numeric=numeric, quality=quality)
    grid = NetworkGrid.of(volume.grid, SPEC.geometry)
    image = predictor._prepared([volume], grid)
    expected = predictor.predict([volume]).labels
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(bench_prediction.segmented(predictor, image, grid, predictor.use), expected)
    parts = prediction_parts._ours(predictor, image, grid)
    assert parts["windows"] == predictor.windows(grid.size, predictor.use).count
    assert 0 < parts["back"] < parts["labels"] and parts["bare"] > 0
