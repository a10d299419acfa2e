from __future__ import annotations

import numpy as np
import pytest

from caml_core.config import Segment
from caml_core.errors import DataError
from caml_core.metrics import COLUMNS, case_metrics, dice, jaccard, summarize, surface_distances

SEGMENTS = (Segment("atrium", 1), Segment("vein", 2))


def _blob(shape, center, radius, seed=0):
    """A ball with a rough surface, in voxels."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    noise = np.random.default_rng(seed).normal(scale=0.7, size=shape)
    return np.linalg.norm(grid - np.asarray(center), axis=-1) + noise < radius


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.6, 2.5), (3.0, 0.5, 1.1)])
@pytest.mark.parametrize("shift", [0.0, 3.0, 11.0])
def test_metrics_agree_with_monai(spacing, shift):
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    ours = _blob((40, 36, 30), (18 + shift, 17, 14), 9, seed=1)
    theirs = _blob((40, 36, 30), (18, 18, 15), 10, seed=2)
    y_pred, y = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (ours, theirs))
    distances = surface_distances(ours, theirs, spacing)

    assert dice(ours, theirs) == pytest.approx(float(compute_dice(y_pred, y)))
    monai_hd = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=spacing)
    assert distances.hd95 == pytest.approx(float(monai_hd), rel=1e-5)
    for symmetric, value in ((True, distances.assd), (False, distances.asd)):
        monai_asd = compute_average_surface_distance(
            y_pred, y, include_background=True, symmetric=symmetric, spacing=spacing
        )
        assert value == pytest.approx(float(monai_asd), rel=1e-5)


def test_pooled_percentile_is_that_of_both_directions_together():
    ours, theirs = np.zeros((2, 60, 3, 3), bool)
    ours[2:5, 1, 1] = True
    theirs[2:52, 1, 1] = True  # 3 voxels at distance 0; 50 voxels, of which 47 at 1, 2, ... 47
    distances = surface_distances(ours, theirs, (1.0, 1.0, 1.0))
    there, back = np.zeros(3), np.concatenate([np.zeros(3), np.arange(1, 48)])
    assert distances.hd95_pooled == pytest.approx(np.percentile(np.concatenate([there, back]), 95))
    assert distances.hd95 == pytest.approx(np.percentile(back, 95))
    assert distances.asd == 0.0
    assert distances.hd95_pooled < distances.hd95


def test_jaccard_follows_its_definition():
    ours, theirs = _blob((20, 20, 20), (9, 9, 9), 6), _blob((20, 20, 20), (11, 10, 9), 5)
    assert jaccard(ours, theirs) == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())


def test_a_missed_structure_gets_the_worst_distance_and_is_counted():
    reference = np.zeros((10, 20, 30), np.uint8)
    reference[4:6, 4:6, 4:6] = 1
    metrics = case_metrics(np.zeros_like(reference), reference, (1.0, 2.0, 0.5), SEGMENTS)
    missed, absent = metrics["atrium"], metrics["vein"]
    assert missed["dice"] == missed["jaccard"] == 0.0
    assert missed["hd95_mm"] == pytest.approx(np.sqrt(10**2 + 40**2 + 15**2))
    assert missed["assd_voxel"] == pytest.approx(np.sqrt(10**2 + 20**2 + 30**2))
    assert (missed["missed"], missed["invented"]) == (1.0, 0.0)
    assert absent["dice"] == 1.0 and absent["hd95_mm"] == 0.0 and absent["missed"] == absent["invented"] == 0.0
    invented = case_metrics(reference, np.zeros_like(reference), (1.0, 2.0, 0.5), SEGMENTS)["atrium"]
    assert (invented["missed"], invented["invented"]) == (0.0, 1.0) and invented["hd95_mm"] == missed["hd95_mm"]


def test_identical_maps_are_perfect_and_volumes_are_in_millilitres():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:7, 2:7, 2:7], labels[8:, 8:, 8:] = 1, 2
    for metrics in case_metrics(labels, labels, (1.0, 2.0, 4.0), SEGMENTS).values():
        assert metrics["dice"] == metrics["jaccard"] == 1.0
        assert all(metrics[name] == 0.0 for name in COLUMNS[2:])
    assert metrics["reference_ml"] == pytest.approx(64 * 8 / 1000)


def test_voxel_distances_ignore_the_spacing_and_millimetres_follow_it():
    ours, theirs = np.zeros((2, 20, 20, 20), np.uint8)
    ours[5:10, 5:10, 5:10] = 1
    theirs[5:10, 5:10, 8:13] = 1
    near = case_metrics(ours, theirs, (1.0, 1.0, 1.0), SEGMENTS[:1])["atrium"]
    far = case_metrics(ours, theirs, (1.0, 1.0, 4.0), SEGMENTS[:1])["atrium"]
    assert near["hd95_voxel"] == far["hd95_voxel"] == near["hd95_mm"] == 3.0
    assert far["hd95_mm"] > near["hd95_mm"]


def test_maps_of_different_size_are_refused_by_name():
    with pytest.raises(DataError, match="Case p7.*4 x 4 x 4.*4 x 4 x 5"):
        case_metrics(np.zeros((4, 4, 4)), np.zeros((4, 4, 5)), (1.0, 1.0, 1.0), SEGMENTS, "p7")


def test_summary_has_mean_and_sample_deviation():
    rows = [{"dice": 0.8, "missed": 0.0}, {"dice": 0.6, "missed": 1.0}]
    summary = summarize(rows)
    assert summary["dice"]["mean"] == pytest.approx(0.7)
    assert summary["dice"]["std"] == pytest.approx(np.std([0.8, 0.6], ddof=1))
    assert summary["missed"] == {"count": 1.0}
    assert summarize(rows[:1])["dice"]["std"] == 0.0
