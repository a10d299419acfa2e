"""Where a case is limited to a region: what the sub-models say outside of it counts for no figure and no map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_predictor import FP32, SIZE, SPACING, SPEC, a_network, a_volume

from caml_core.config import Geometry
from caml_core.data.geometry import Grid
from caml_core.data.io import Volume
from caml_core.inference.predictor import Predictor
from caml_core.model import CamlNetwork


class Divided(CamlNetwork):
    """Sub-models of one mind, but for the first half of a window."""

    def forward_a(self, x):
        logits = self.forward_v(x).clone()
        half = logits[:, :, : x.shape[2] // 2]
        half[:] = half.roll(1, dims=1)
        return logits


def test_sub_models_that_disagree_outside_of_a_region_agree():
    network = a_network()
    network.__class__ = Divided
    # One window of the scan's own voxels: none beyond the border has a part in one within.
    predictor = Predictor(network, replace(SPEC, geometry=Geometry(SPACING, (48, 32, 32))), numeric=FP32)
    within = np.zeros(SIZE, np.uint8)
    within[SIZE[0] // 2 :] = 7
    whole = predictor.predict([a_volume()], uncertainty=True, probability=True)
    inside = predictor.predict([a_volume()], uncertainty=True, probability=True, within=within)
    outside = predictor.predict([a_volume()], uncertainty=True, within=within == 0)
    assert set(inside.agreement.values()) == {1.0} and inside.score == 1.0 and not inside.disagreement.any()
    assert inside.labels.any() and np.array_equal(inside.probability, np.where(within, whole.probability, 0))
    for name, dice in whole.agreement.items():
        assert outside.agreement[name] < dice < 1.0
    assert whole.disagreement.any() and np.array_equal(outside.disagreement, whole.disagreement)


@pytest.mark.parametrize("axis", range(3))
def test_a_region_counts_where_it_lies_in_the_patient(axis):
    """With axes turned and mirrored, and many windows; the network's voxels are the scan's."""
    grid = Grid(SIZE, SPACING, (5.0, -3.0, 20.0), (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    spec = replace(SPEC, geometry=Geometry((SPACING[2], SPACING[0], SPACING[1]), (16, 16, 16)))
    network, volumes = a_network(), [Volume(a_volume().array, grid)]
    within = np.zeros(SIZE, np.uint8)
    within.swapaxes(0, axis)[: SIZE[axis] // 3] = 1
    found = Predictor(network, spec, numeric=FP32).predict(volumes, within=within)
    v, a = (Predictor(network, spec, numeric=FP32, sub_model=model).predict(volumes).labels for model in ("v", "a"))
    for part in spec.segments:
        ours, theirs = (v == part.label) & (within > 0), (a == part.label) & (within > 0)
        assert found.agreement[part.name] == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
