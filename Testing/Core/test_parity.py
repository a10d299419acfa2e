"""The paper preset computes what the published network computes, entry by entry of the reference numbers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from caml_core.config import NetworkConfig
from caml_core.losses.consistency import mutual_consistency
from caml_core.losses.correlation import correlation_matrix, most_confident, omni_correlation
from caml_core.losses.ramps import gaussian_ramp
from caml_core.losses.supervised import dice_loss
from caml_core.model import CamlNetwork, CamlOutput, build_network
from caml_core.model.blocks import ChannelDropout
from caml_core.presets import paper_preset

#: Logits reach 6: the reference numbers ask for this absolute tolerance.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference(fixtures_folder: Path) -> dict[str, np.ndarray]:
    """Numbers that the published network and losses gave."""
    with np.load(fixtures_folder / "caml3d_v1_parity.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def published(fixtures_folder: Path) -> dict[str, list[int]]:
    """Names and shapes of the published checkpoints, in order."""
    return json.loads((fixtures_folder / "caml3d_v1_state_dict.json").read_text())


@pytest.fixture(scope="module")
def seeded(fixtures_folder: Path) -> ModuleType:
    """The functions that fill networks and inputs deterministically."""
    spec = importlib.util.spec_from_file_location("seeded_weights", fixtures_folder / "seeded_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def a_seeded_network(published: dict[str, list[int]], seeded: ModuleType) -> CamlNetwork:
    """The paper's network with the reference's weights."""
    network = build_network(paper_preset(1, 2, 8).network)
    network.load_state_dict({k: torch.from_numpy(seeded.seeded_tensor(k, tuple(s))) for k, s in published.items()})
    return network


@pytest.fixture
def a_tensor(seeded: ModuleType) -> Callable[..., torch.Tensor]:
    """seeded_input as a tensor."""
    return lambda seed, *shape: torch.from_numpy(seeded.seeded_input(seed, shape))


def _without_dropout(network: CamlNetwork) -> CamlNetwork:
    for module in network.modules():
        if isinstance(module, (torch.nn.Dropout, ChannelDropout)):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return network


def _assert_outputs(output: CamlOutput, reference: dict[str, np.ndarray], mode: str) -> None:
    for name, step in (("logits_v", 3), ("logits_a", 3), ("embedding_v", 4), ("embedding_a", 4)):
        found = getattr(output, name).detach().numpy()[:, :, ::step, ::step, ::step]
        expected = reference[f"{mode}_{name}"]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < TOLERANCE, name


def test_state_dict_has_the_published_names_and_shapes_in_order(published: dict[str, list[int]]) -> None:
    state = build_network(paper_preset(1, 2, 8).network).state_dict()
    assert {k: list(v.shape) for k, v in state.items()} == published
    assert list(state) == list(published)


def test_outputs_in_evaluation_mode(
    a_seeded_network: CamlNetwork, reference: dict[str, np.ndarray], a_tensor: Callable[..., torch.Tensor]
) -> None:
    network = a_seeded_network.eval()
    x = a_tensor(7, 3, 1, 48, 32, 32)
    with torch.no_grad():
        output = network(x)
        _assert_outputs(output, reference, "eval")
        assert torch.equal(network.forward_v(x), output.logits_v)
        assert torch.equal(network.forward_a(x), output.logits_a)


def test_outputs_in_training_mode_without_dropout(
    a_seeded_network: CamlNetwork, reference: dict[str, np.ndarray], a_tensor: Callable[..., torch.Tensor]
) -> None:
    # In double precision: batch statistics over the few deepest voxels multiply float32's rounding, which depends on
    # the number of threads, to the size of the tolerance; what is left here is the reference's own.
    network = _without_dropout(a_seeded_network).double().train()
    with torch.no_grad():
        _assert_outputs(network(a_tensor(7, 3, 1, 48, 32, 32).double()), reference, "train")


def test_heads(
    a_seeded_network: CamlNetwork, reference: dict[str, np.ndarray], a_tensor: Callable[..., torch.Tensor]
) -> None:
    network, features = a_seeded_network.eval(), a_tensor(11, 64, 16)
    with torch.no_grad():
        for index in (1, 2):
            projection = getattr(network, f"projection_head{index}")(features)
            prediction = getattr(network, f"prediction_head{index}")(projection)
            assert np.abs(projection.numpy() - reference[f"projection{index}"]).max() < TOLERANCE
            assert np.abs(prediction.numpy() - reference[f"prediction{index}"]).max() < TOLERANCE


def test_supervised_and_consistency_losses(
    reference: dict[str, np.ndarray], a_tensor: Callable[..., torch.Tensor]
) -> None:
    v, a = a_tensor(21, 4, 2, 12, 10, 8), a_tensor(22, 4, 2, 12, 10, 8)
    label = (a_tensor(23, 4, 12, 10, 8) > 0.3).long()
    supervised = sum(dice_loss(torch.softmax(x[:2], 1), label[:2]) for x in (v, a))
    assert float(supervised) == pytest.approx(float(reference["loss_supervised"]), abs=1e-5)
    assert float(mutual_consistency(v, a, 0.1)) == pytest.approx(float(reference["loss_consistency"]), abs=1e-5)


def test_correlation_matrices_and_their_loss(
    reference: dict[str, np.ndarray], a_tensor: Callable[..., torch.Tensor]
) -> None:
    features = [0.3 * a_tensor(seed, 500, 32) for seed in (31, 32)]
    order = np.random.Generator(np.random.PCG64(33)).permutation(500)
    confidence = torch.from_numpy(order / 500 * 0.5 + 0.5)
    label = (a_tensor(34, 500) > 0).long()
    memory = torch.cat([0.3 * a_tensor(seed, 16, 32) for seed in (35, 36)])
    chosen = most_confident(confidence, label, 2, 128)
    v, a = (correlation_matrix(f[chosen], memory, 0.1) for f in features)
    assert np.abs(v.numpy() - reference["correlation_v"]).max() < TOLERANCE
    assert np.abs(a.numpy() - reference["correlation_a"]).max() < TOLERANCE
    assert float(omni_correlation(v, a)) == pytest.approx(float(reference["loss_omni"]), abs=1e-4)


def test_ramp(reference: dict[str, np.ndarray]) -> None:
    found = [gaussian_ramp(t, 15) for t in range(20)]
    assert np.allclose(found, reference["rampup_15"], atol=1e-12)


def test_paper_preset_has_the_published_weights_and_schedule() -> None:
    preset = paper_preset(1, 2, 8)
    assert preset.network == NetworkConfig()
    losses, optimizer = preset.losses, preset.optimizer
    assert (losses.dice, losses.cross_entropy, losses.consistency, losses.omni) == (1.0, 0.0, 1.0, 0.05)
    assert (losses.sharpening_temperature, losses.correlation_temperature) == (0.1, 0.1)
    assert (losses.queries_per_class, losses.memory_per_class) == (12_800, 256)
    assert not losses.detach_targets and not losses.cosine and not losses.separate_banks
    assert [paper_preset(1, 2, n).losses.ramp_units for n in (4, 8, 16)] == [40, 20, 15]
    assert (optimizer.kind, optimizer.learning_rate, optimizer.momentum) == ("sgd", 0.01, 0.9)
    assert (optimizer.weight_decay, optimizer.schedule, optimizer.ema) == (1e-4, "constant", 0.0)
