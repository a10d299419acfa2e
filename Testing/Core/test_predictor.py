"""Prediction of one case: the same anatomy in, the same segmentation out, whatever the grid, windows and arithmetic."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from caml_core.config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, NumericMode, Segment
from caml_core.data.geometry import Grid, NetworkGrid
from caml_core.data.intensity import normalize
from caml_core.data.io import Volume
from caml_core.errors import Cancelled, DataError, ModelFileError, ResourceError, UsageError
from caml_core.inference.numeric import fold_batchnorm, memory_per_voxel, prepared_network
from caml_core.inference.postprocessing import PostProcessing, clean
from caml_core.inference.predictor import Predictor, Protocol
from caml_core.inference.sliding_window import sums_bytes
from caml_core.model import CamlNetwork, build_network

SIZE, SPACING = (36, 30, 20), (1.0, 1.1, 1.6)
CONFIG = NetworkConfig(base_filters=4, classes=3, upsampling_a="conv1", attention_evaluation="alone")
SPEC = ModelSpec(
    Geometry((1.5, 1.5, 1.5), (16, 16, 16)),
    CONFIG,
    (ChannelIntensity(),),
    (Segment("atrium", 1), Segment("vein", 2)),
    flip_axes=(0, 2),
)
FP32 = NumericMode("fp32", channels_last=True)


def a_network(config: NetworkConfig = CONFIG, seed: int = 3) -> CamlNetwork:
    """A network with every weight drawn, whose classes occur about equally often."""
    torch.manual_seed(seed)
    network = build_network(config)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.weight, 0.7, 1.3)
                nn.init.normal_(module.bias, std=0.2)
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        network.eval()
        sample = torch.randn(1, config.in_channels, 32, 32, 32)
        for decoder, forward in ((network.decoder1, network.forward_v), (network.decoder2, network.forward_a)):
            decoder.out_conv.weight *= 6.0
            decoder.out_conv.bias -= forward(sample).mean((0, 2, 3, 4))
    return network


def a_volume(size=SIZE, seed=0, dtype=np.float32) -> Volume:
    """Smooth random grey values, as anatomy is."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, 1, 7, 6, 5)).astype(np.float32))
    image = F.interpolate(coarse, size=size, mode="trilinear")[0, 0].numpy() * 100 + 300
    return Volume(image.astype(dtype), Grid(size, SPACING, (5.0, -3.0, 20.0)))


def segment(network=None, spec=SPEC, volume=None, uncertainty=False, **options):
    predictor = Predictor(network or a_network(), spec, numeric=options.pop("numeric", FP32), **options)
    return predictor.predict([volume or a_volume()], uncertainty=uncertainty)


def test_what_is_cleaned_away_is_gone_from_the_labels_alone():
    """Agreement and maps tell what the sub-models said; labels and volumes are those that are kept."""
    spec = replace(SPEC, one_component=True)
    whole, kept = segment(uncertainty=True), segment(spec=spec, uncertainty=True)
    expected = whole.labels.copy(order="K")
    removed = clean(expected, whole.grid.voxel_ml, SPEC.segments, PostProcessing(largest_component=True))
    assert removed and kept.removed_ml == removed and not whole.removed_ml
    assert np.array_equal(kept.labels, expected)
    for name, volume in whole.volumes_ml.items():
        assert kept.volumes_ml[name] == pytest.approx(volume - removed.get(name, 0.0))
    assert kept.agreement == whole.agreement and np.array_equal(kept.disagreement, whole.disagreement)
    told = segment(spec=spec, cleaning=PostProcessing(largest_component=False))
    assert np.array_equal(told.labels, whole.labels)


def test_parts_are_chosen_within_the_region_alone():
    whole, spec = segment(), replace(SPEC, one_component=True)
    within = np.ones(whole.labels.shape, np.uint8)
    kept = segment(spec=spec)
    within[kept.labels > 0] = 0  # the largest parts lie outside
    expected = np.where(within, whole.labels, 0).astype(np.uint8)
    clean(expected, whole.grid.voxel_ml, SPEC.segments, PostProcessing(largest_component=True))
    found = Predictor(a_network(), spec, numeric=FP32).predict([a_volume()], within=within)
    assert expected.any() and np.array_equal(found.labels, expected)
    assert sum(found.volumes_ml.values()) == pytest.approx(np.count_nonzero(expected) * whole.grid.voxel_ml)
    with pytest.raises(DataError, match="the image's own grid"):
        Predictor(a_network(), SPEC, numeric=FP32).predict([a_volume()], within=within[1:])


def plain_reference(network, volume, spec=SPEC, models=("v", "a")):
    """The whole volume at once, everything held, by torch's own functions; labels on the scan's grid."""
    way = NetworkGrid.of(volume.grid, spec.geometry)
    image = torch.from_numpy(normalize(way.image_to_network(volume.array), spec.channels[0]))
    size = [-(-n // 16) * 16 for n in way.size]
    before = [(s - n) // 2 for s, n in zip(size, way.size)]
    padded = torch.zeros(1, 1, *size)
    inside = tuple(slice(b, b + n) for b, n in zip(before, way.size))
    padded[(0, 0, *inside)] = image
    with torch.inference_mode():
        maps = [torch.softmax(network.forward_v(padded) if m == "v" else network.forward_a(padded), 1) for m in models]
        mean = torch.stack(maps).mean(0)[(slice(None), slice(None), *inside)]
        mean = F.interpolate(mean, size=way.oriented_size, mode="trilinear", align_corners=False)
    return way.unorient(mean[0].argmax(0).numpy()).astype(np.uint8)


def same_share(a, b):
    return float((a == b).mean())


@pytest.mark.parametrize(("sub_model", "models"), [("v", ("v",)), ("a", ("a",)), ("mean", ("v", "a"))])
def test_a_prediction_equals_the_plain_one(sub_model, models):
    """Here no axis of the network's grid is finer than the scan's by more than linear interpolation covers."""
    network = a_network()
    spec = replace(SPEC, geometry=Geometry((1.6, 1.6, 1.6), (32, 32, 32)))
    prediction = segment(network, spec, sub_model=sub_model)
    expected = plain_reference(network, a_volume(), spec, models)
    assert prediction.labels.dtype == np.uint8
    assert set(np.unique(expected)) == {0, 1, 2}
    # The border between two classes may fall to either side by the last bit.
    assert same_share(prediction.labels, expected) > 0.9999


@pytest.mark.parametrize(
    ("permutation", "flips"),
    [(p, f) for p in itertools.permutations(range(3)) for f in ((False, True, False), (True, False, True))],
)
def test_permuted_and_mirrored_copies_give_the_same_in_patient_space(permutation, flips):
    network, volume = a_network(), a_volume()
    expected = segment(network, volume=volume).labels
    direction = np.eye(3)[:, permutation] * np.where(flips, -1, 1)
    last = (np.asarray(SIZE)[list(permutation)] - 1) * np.asarray(SPACING)[list(permutation)]
    origin = np.asarray(volume.grid.origin) - direction @ np.where(flips, last, 0)
    slices = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    size = tuple(SIZE[axis] for axis in permutation)
    spacing = tuple(SPACING[axis] for axis in permutation)
    grid = Grid(size, spacing, tuple(origin), tuple(direction.ravel()))
    copy = Volume(np.ascontiguousarray(volume.array.transpose(permutation)[slices]), grid)
    prediction = segment(network, volume=copy)
    assert prediction.grid is grid
    assert np.array_equal(prediction.labels, expected.transpose(permutation)[slices])


def test_monai_gives_the_same_from_image_to_labels():
    from monai.inferers import sliding_window_inference

    network, volume = a_network(), a_volume()
    spec = replace(SPEC, geometry=Geometry(SPACING, (16, 16, 16)))
    ours = segment(network, spec, volume, sub_model="mean", protocol=Protocol((8, 8, 8), "gaussian"))
    image = torch.from_numpy(normalize(volume.array, spec.channels[0]))[None, None]
    with torch.inference_mode():
        theirs = sliding_window_inference(image, (16, 16, 16), 1, network.probabilities, overlap=0.5, mode="gaussian")
    assert same_share(ours.labels, theirs[0].argmax(0).numpy()) > 0.9999


def test_fast_takes_the_whole_volume_and_sub_model_v():
    network = a_network()
    predictor = Predictor(network, SPEC, numeric=FP32, quality="fast")
    assert predictor.use == ("v",)
    assert predictor.windows((24, 22, 21)).count == 1
    prediction = predictor.predict([a_volume()])
    assert prediction.agreement == {} and prediction.score is None
    reference = segment(network, replace(SPEC, geometry=Geometry((1.5,) * 3, (48, 48, 48))), sub_model="v")
    assert same_share(prediction.labels, reference.labels) > 0.9999


def test_fast_stays_within_memory(monkeypatch):
    predictor = Predictor(a_network(), SPEC, numeric=FP32, quality="fast")
    monkeypatch.setattr("caml_core.inference.predictor.free_memory", lambda device: 2**24)
    windows = predictor.windows((300, 300, 300))
    assert windows.count > 1
    assert np.prod(windows.window) < 300**3 / 8


def test_best_averages_the_mirrors_that_the_model_was_trained_with():
    network = a_network()
    spec = replace(SPEC, geometry=Geometry(SPACING, (48, 32, 32)))
    image = torch.from_numpy(normalize(a_volume().array, spec.channels[0]))
    padded = torch.zeros(1, 1, 48, 32, 32)
    padded[0, 0, 6:42, 1:31, 6:26] = image
    total = torch.zeros(3, 48, 32, 32)
    with torch.inference_mode():
        for axes in ((), (2,), (4,), (2, 4)):
            total += network.probabilities(padded.flip(axes)).flip(axes)[0]
    expected = total.argmax(0)[6:42, 1:31, 6:26].numpy()
    ours = segment(network, spec, quality="best").labels
    assert same_share(ours, expected) > 0.9999
    assert same_share(segment(network, spec, quality="balanced").labels, expected) < 0.9999


def test_agreement_and_disagreement_tell_where_the_sub_models_differ():
    network = a_network()
    volume = a_volume()
    spec = replace(SPEC, geometry=Geometry(SPACING, (48, 32, 32)))
    both = segment(network, spec, volume, uncertainty=True)
    v, a = (segment(network, spec, volume, sub_model=name).labels for name in ("v", "a"))
    for part in spec.segments:
        ours, theirs = v == part.label, a == part.label
        assert both.agreement[part.name] == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    assert both.score == pytest.approx(np.mean(list(both.agreement.values())))
    assert both.disagreement.dtype == np.uint8 and both.disagreement.shape == SIZE
    padded = torch.zeros(1, 1, 48, 32, 32)
    padded[0, 0, 6:42, 1:31, 6:26] = torch.from_numpy(normalize(volume.array, spec.channels[0]))
    with torch.inference_mode():
        p_v, p_a = torch.softmax(network.forward_v(padded), 1), torch.softmax(network.forward_a(padded), 1)
    distance = 0.5 * (p_v - p_a).abs().sum(1)[0, 6:42, 1:31, 6:26].numpy()
    np.testing.assert_allclose(both.disagreement / 255, distance, atol=0.003)
    assert both.volumes_ml["atrium"] == pytest.approx((both.labels == 1).sum() * np.prod(SPACING) / 1000)


def test_two_equal_sub_models_agree_fully():
    class Twin(CamlNetwork):
        def forward_a(self, x):
            return self.forward_v(x)

    network = a_network()
    network.__class__ = Twin
    prediction = segment(network, uncertainty=True)
    assert set(prediction.agreement.values()) == {1.0}
    assert not prediction.disagreement.any()


def test_probability_is_that_of_any_foreground():
    network = a_network()
    predictor = Predictor(network, SPEC, numeric=FP32)
    prediction = predictor.predict([a_volume()], probability=True)
    assert prediction.probability[prediction.labels > 0].min() >= 255 // 3
    assert prediction.probability[prediction.labels == 0].max() <= 255 * 2 // 3 + 1


def test_a_model_trained_on_labels_only_has_one_sub_model():
    told = []
    spec = replace(SPEC, labeled_only=True)
    prediction = segment(spec=spec, uncertainty=True, listener=lambda kind, fields: told.append(kind))
    assert prediction.disagreement is None and prediction.agreement == {}
    assert "warning" in told
    with pytest.raises(UsageError, match="labels only"):
        segment(spec=spec, sub_model="mean")


def test_a_finer_network_grid_than_the_scan_is_averaged_back():
    spec = replace(SPEC, geometry=Geometry((0.6, 0.6, 0.6), (32, 32, 32)))
    prediction = segment(spec=spec, volume=a_volume((18, 15, 10)))
    assert prediction.labels.shape == (18, 15, 10)


def test_a_volume_of_one_voxel_a_side_is_segmented():
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(20, 1, 3)).astype(np.float32), Grid((20, 1, 3), (1.0, 5.0, 2.0)))
    assert segment(volume=volume, quality="best").labels.shape == (20, 1, 3)


def test_several_channels_are_kept_apart_and_their_number_is_checked():
    config = replace(CONFIG, in_channels=2)
    spec = replace(SPEC, network=config, channels=(ChannelIntensity(), ChannelIntensity(kind="window", upper=500.0)))
    predictor = Predictor(a_network(config), spec, numeric=FP32)
    one, two = a_volume(seed=1), a_volume(seed=2)
    assert not np.array_equal(predictor.predict([one, two]).labels, predictor.predict([two, one]).labels)
    with pytest.raises(DataError, match="2 image"):
        predictor.predict([one])


def test_integer_volumes_give_what_their_values_give():
    whole = a_volume(dtype=np.int16)
    network = a_network()
    expected = segment(network, volume=Volume(whole.array.astype(np.float32), whole.grid)).labels
    assert np.array_equal(segment(network, volume=whole).labels, expected)


def test_stopping_ends_before_the_next_window():
    asked = []
    predictor = Predictor(a_network(), SPEC, numeric=FP32, stop=lambda: asked.append(1) or len(asked) > 2)
    with pytest.raises(Cancelled):
        predictor.predict([a_volume()])
    assert len(asked) == 3


def test_progress_counts_every_window():
    told = []
    segment(listener=lambda kind, fields: told.append((kind, fields)))
    done = [fields["done"] for kind, fields in told if kind == "progress"]
    assert done == list(range(1, told[-1][1]["total"] + 1))


def test_the_network_may_be_trained_on_afterwards():
    network = a_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    segment(network)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad for p in network.parameters())


class Greedy(CamlNetwork):
    """Fails as PyTorch does on windows beyond a number of voxels."""

    limit = 0

    def forward_v(self, x):
        if x[0, 0].numel() > self.limit:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return super().forward_v(x)


@pytest.mark.parametrize("quality", ["fast", "balanced"])
def test_where_memory_does_not_suffice_smaller_windows_are_tried_once(quality):
    network = a_network()
    network.__class__ = Greedy
    told = []
    network.limit = 16**3
    spec = replace(SPEC, geometry=Geometry(SPACING, (32, 32, 32)))
    prediction = segment(network, spec, quality=quality, listener=lambda kind, fields: told.append(kind))
    assert prediction.labels.any() and told.count("warning") == 1
    network.limit = 100
    with pytest.raises(ResourceError, match="not enough memory"):
        segment(network, spec, quality=quality)


def test_other_faults_of_the_network_are_not_taken_for_lack_of_memory():
    class Broken(CamlNetwork):
        def forward_v(self, x):
            raise RuntimeError("sizes do not match")

    network = a_network()
    network.__class__ = Broken
    with pytest.raises(RuntimeError, match="sizes do not match"):
        segment(network)


def test_values_that_are_not_finite_are_refused_and_reduced_precision_is_left_first():
    network = a_network()
    told = []
    with torch.no_grad():
        network.decoder1.out_conv.bias[1] = float("nan")
    with pytest.raises(ModelFileError, match="not finite"):
        segment(network, listener=lambda kind, fields: told.append(kind))

    class Fragile(CamlNetwork):
        def forward_v(self, x):
            logits = super().forward_v(x)
            return logits if x.dtype == torch.float32 else logits * float("nan")

    network = a_network()
    expected = segment(network).labels
    network.__class__ = Fragile
    prediction = segment(network, numeric=NumericMode("bf16", True), listener=lambda kind, fields: told.append(kind))
    assert told.count("warning") == 1
    assert np.array_equal(prediction.labels, expected)


@pytest.mark.parametrize("upsampling", ["conv3", "conv1"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_folding_changes_nothing(upsampling, channels_last):
    config = replace(CONFIG, upsampling_a=upsampling, in_channels=2)
    network = a_network(config)
    ready = prepared_network(network, NumericMode("fp32", channels_last), "cpu")
    assert not any(isinstance(m, nn.BatchNorm3d) for m in (*ready.encoder1.modules(), *ready.decoder2.modules()))
    x = torch.randn(1, 2, 32, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ready.forward_v(x), network.forward_v(x), atol=1e-4, rtol=0)
        torch.testing.assert_close(ready.forward_a(x), network.forward_a(x), atol=1e-4, rtol=0)


def test_folding_leaves_alone_what_does_not_follow_a_convolution():
    block = nn.Sequential(nn.Conv3d(2, 2, 1), nn.ReLU(), nn.BatchNorm3d(2)).eval()
    nn.init.uniform_(block[2].running_var, 0.5, 2.0)
    x = torch.randn(1, 2, 4, 4, 4)
    expected = block(x)
    fold_batchnorm(block)
    torch.testing.assert_close(block(x), expected)


def test_reduced_precision_gives_nearly_the_same_segmentation():
    network = a_network()
    exact = segment(network).labels
    assert same_share(segment(network, numeric=NumericMode("bf16", True)).labels, exact) > 0.97


def test_sums_count_where_memory_is_short(monkeypatch):
    """Of many segments the sums are what takes the room, not the network."""
    size, few, many = (256, 256, 256), ("v",), ("v", "a")
    segments = tuple(Segment(f"part {label}", label) for label in range(1, 31))
    geometry = Geometry((1.5, 1.5, 1.5), (32, 32, 32))
    spec = replace(SPEC, geometry=geometry, network=replace(CONFIG, classes=31), segments=segments)
    told = []
    network = a_network(spec.network)
    predictor = Predictor(network, spec, numeric=FP32, listener=lambda kind, fields: told.append(fields["message"]))
    monkeypatch.setattr("caml_core.inference.predictor.free_memory", lambda device: 3_400_000_000)
    fewer = predictor.windows(size, few).window
    assert not told
    assert np.prod(predictor.windows(size, many).window) < np.prod(fewer)
    predictor.windows(size, many)
    (message,) = told
    assert f"instead of {'x'.join(map(str, fewer))}" in message


def test_windows_are_planned_anew_where_reduced_precision_is_left(monkeypatch):
    """Numbers of twice the bytes need windows of half the voxels."""

    class Fragile(CamlNetwork):
        def forward_v(self, x):
            logits = super().forward_v(x)
            return logits if x.dtype == torch.float32 else logits * float("nan")

    network = a_network()
    network.__class__ = Fragile
    predictor = Predictor(network, SPEC, numeric=NumericMode("bf16", True), quality="fast")
    voxels = np.prod(predictor.windows((24, 22, 21)).window)
    tight = 2 * voxels * memory_per_voxel(CONFIG, "bf16") + 4 * sums_bytes(predictor.windows((24, 22, 21)), 2)
    monkeypatch.setattr("caml_core.inference.predictor.free_memory", lambda device: tight)
    assert predictor.windows((24, 22, 21)).count == 1
    prediction = predictor.predict([a_volume()])
    assert predictor.numeric.dtype == "fp32" and prediction.windows.count > 1


def test_settings_that_are_none_are_refused():
    with pytest.raises(UsageError, match="fast, balanced or best"):
        segment(quality="superb")
