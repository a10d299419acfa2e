"""Properties of the loss terms that hold whatever the network."""

from __future__ import annotations

import math

import pytest
import torch

from caml_core.losses.consistency import mutual_consistency, sharpen
from caml_core.losses.correlation import class_anchor, correlation_matrix, omni_correlation, random_confident
from caml_core.losses.ramps import gaussian_ramp, learning_rate_factor
from caml_core.losses.supervised import cross_entropy, dice_loss


@pytest.fixture
def some_labels() -> torch.Tensor:
    """Three classes in two samples."""
    return torch.randint(0, 3, (2, 6, 5, 4), generator=torch.Generator().manual_seed(0))


def _one_hot(labels: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def test_dice_loss_is_zero_for_the_truth_and_one_for_its_opposite(some_labels: torch.Tensor) -> None:
    assert float(dice_loss(_one_hot(some_labels), some_labels)) == pytest.approx(0.0, abs=1e-6)
    assert float(dice_loss(_one_hot((some_labels + 1) % 3), some_labels)) == pytest.approx(1.0, abs=1e-6)


def test_voxels_of_weight_zero_do_not_count(some_labels: torch.Tensor) -> None:
    weight = torch.ones(some_labels.shape)
    weight[:, :3] = 0
    spoiled = some_labels.clone()
    spoiled[:, :3] = (spoiled[:, :3] + 1) % 3
    logits = 5 * _one_hot(some_labels)
    assert float(dice_loss(_one_hot(some_labels), spoiled, weight)) == pytest.approx(0.0, abs=1e-6)
    assert float(cross_entropy(logits, spoiled, weight)) == pytest.approx(
        float(cross_entropy(logits[:, :, 3:], some_labels[:, 3:])), rel=1e-5
    )


def test_a_class_absent_from_label_and_prediction_counts_as_right() -> None:
    labels = torch.zeros((1, 4, 4, 4), dtype=torch.long)
    assert float(dice_loss(_one_hot(labels), labels)) == pytest.approx(0.0, abs=1e-6)


def test_sharpening_is_the_power_form() -> None:
    logits = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    p = torch.softmax(logits, 1) ** (1 / 0.3)
    assert torch.allclose(sharpen(logits, 0.3), p / p.sum(1, keepdim=True), atol=1e-12)


def test_detached_consistency_has_the_same_value_but_no_gradient_through_the_targets() -> None:
    v, a = (torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    v.requires_grad_()
    assert torch.equal(mutual_consistency(v, a).detach(), mutual_consistency(v, a, detach=True).detach())
    (full,) = torch.autograd.grad(mutual_consistency(v, a), v)
    (detached,) = torch.autograd.grad(mutual_consistency(v, a, detach=True), v)
    target = sharpen(a, 0.1)
    (expected,) = torch.autograd.grad(torch.nn.functional.mse_loss(torch.softmax(v, 1), target), v)
    assert torch.allclose(detached, expected) and not torch.allclose(full, expected)


def test_correlation_rows_sum_to_one_and_skip_invalid_memory() -> None:
    generator = torch.Generator().manual_seed(3)
    queries, memory = torch.randn(7, 5, generator=generator), torch.randn(6, 5, generator=generator)
    valid = torch.tensor([True, True, False, True, False, True])
    matrix = correlation_matrix(queries, memory, valid=valid)
    assert torch.allclose(matrix.sum(1), torch.ones(7))
    assert matrix[:, ~valid].abs().max() == 0
    assert torch.allclose(matrix[:, valid], correlation_matrix(queries, memory[valid]), atol=1e-6)


def test_cosine_correlation_does_not_depend_on_lengths() -> None:
    generator = torch.Generator().manual_seed(4)
    queries, memory = torch.randn(4, 8, generator=generator), torch.randn(6, 8, generator=generator)
    assert torch.allclose(
        correlation_matrix(queries, memory, cosine=True), correlation_matrix(3 * queries, 0.2 * memory, cosine=True)
    )


def test_omni_correlation_is_least_where_both_matrices_agree() -> None:
    generator = torch.Generator().manual_seed(5)
    target, other = (torch.softmax(torch.randn(9, 6, generator=generator), 1) for _ in range(2))
    entropy = float(-(target * target.log()).sum(1).mean())
    assert float(omni_correlation(target, target)) == pytest.approx(entropy, rel=1e-5)
    assert float(omni_correlation(other, target)) > entropy


def test_class_anchor_is_the_share_of_the_own_class() -> None:
    correlation = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    columns = torch.tensor([0, 0, 1, 1])
    assert float(class_anchor(correlation, torch.tensor([0]), columns)) == pytest.approx(-math.log(0.75), rel=1e-5)
    assert float(class_anchor(correlation, torch.tensor([1]), columns)) == pytest.approx(-math.log(0.25), rel=1e-5)


def test_random_queries_keep_class_threshold_and_boundary_share() -> None:
    generator = torch.Generator().manual_seed(6)
    n = 4000
    confidence = torch.rand(n, generator=generator)
    label = torch.randint(0, 2, (n,), generator=generator)
    boundary = torch.rand(n, generator=generator) < 0.5
    chosen = random_confident(
        confidence, label, boundary, 2, 100, threshold=0.4, boundary_share=0.7, generator=generator
    )
    assert len(chosen) == 200 and float(confidence[chosen].min()) >= 0.4
    assert [int((label[chosen] == k).sum()) for k in (0, 1)] == [100, 100]
    assert int(boundary[chosen].sum()) == 140


def test_ramp_and_learning_rate_reach_their_ends() -> None:
    assert gaussian_ramp(0, 10) == pytest.approx(math.exp(-5)) and gaussian_ramp(10, 10) == gaussian_ramp(99, 10) == 1
    for schedule in ("cosine", "polynomial"):
        factors = [learning_rate_factor(i, 100, schedule) for i in range(101)]  # type: ignore[arg-type]
        assert factors[0] == 1 and factors[-1] == pytest.approx(0, abs=1e-9)
        assert all(a > b for a, b in zip(factors, factors[1:]))
    assert learning_rate_factor(99, 100, "constant") == 1
    assert learning_rate_factor(0, 100, "cosine", warmup=9) == pytest.approx(0.1)
