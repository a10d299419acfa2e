"""Patches and batches: what is drawn, from where, and that nothing but seed and iteration decides it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from synthetic import SIZE, prepared, tiny_plan

from caml_core.config import AugmentationConfig, Geometry
from caml_core.data.augmentation import _random_affine, augment_intensities, sample_patch, steepest_turns
from caml_core.data.cache import PreparedCase
from caml_core.data.sampler import Batch, TwoStreamSampler, patch_center
from caml_core.seeding import generator_for

NONE = AugmentationConfig()


@pytest.fixture
def a_case() -> PreparedCase:
    """A labelled case whose image is its label, so that both must move together."""
    case = prepared(0)
    return dataclasses.replace(case, image=case.label[None].astype(np.float16))


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_augmentation_a_patch_is_a_crop(a_case: PreparedCase) -> None:
    image, label = sample_patch(a_case, np.array([8.5, 9.5, 7.5]), (8, 6, 4), NONE, _rng())
    expected = a_case.image[:, 5:13, 7:13, 6:10].astype(np.float32)
    assert np.array_equal(image.numpy(), expected)
    assert label is not None and np.array_equal(label.numpy(), a_case.label[5:13, 7:13, 6:10])


def test_outside_the_case_a_patch_is_zero(a_case: PreparedCase) -> None:
    half = [(n - 1) / 2 for n in SIZE]
    image, label = sample_patch(a_case, np.array(half), tuple(n + 4 for n in SIZE), NONE, _rng())  # type: ignore[arg-type]
    inner = tuple(slice(2, n + 2) for n in SIZE)
    assert label is not None and np.array_equal(label.numpy()[inner], a_case.label)
    assert float(image.sum()) == pytest.approx(float(a_case.image.astype(np.float32).sum()))


def test_image_and_label_move_together(a_case: PreparedCase) -> None:
    config = AugmentationConfig(rotation_degrees=20, scale=0.2, affine_probability=1.0, flip_axes=(0, 1, 2))
    for seed in range(6):
        image, label = sample_patch(a_case, np.array([10.5, 8.5, 9.5]), (16, 16, 16), config, _rng(seed))
        assert label is not None
        # Linear and nearest resampling of one thing differ by less than one class, and only at its border.
        assert float((image[0] - label.float()).abs().mean()) < 0.12
        assert set(label.unique().tolist()) <= {0, 1, 2} and int((label > 0).sum()) > 50


def test_the_identity_affine_is_the_crop(a_case: PreparedCase) -> None:
    still = AugmentationConfig(rotation_degrees=0.0, scale=0.0, affine_probability=1.0)
    center = np.array([10.5, 8.5, 9.5])
    moved, moved_label = sample_patch(a_case, center, (12, 12, 12), still, _rng())
    plain, plain_label = sample_patch(a_case, center, (12, 12, 12), NONE, _rng())
    assert torch.allclose(moved, plain, atol=1e-4)
    assert moved_label is not None and plain_label is not None and torch.equal(moved_label, plain_label)


def test_the_default_keeps_the_true_orientation_and_the_paper_always_mirrors(a_case: PreparedCase) -> None:
    center, patch = np.array([10.5, 8.5, 9.5]), (16, 16, 16)
    plain, _ = sample_patch(a_case, center, patch, NONE, _rng())
    some = [
        torch.equal(sample_patch(a_case, center, patch, AugmentationConfig(flip_axes=(0, 1)), _rng(s))[0], plain)
        for s in range(40)
    ]
    assert 2 <= sum(some) <= 25  # a quarter is expected
    paper = AugmentationConfig(flip_axes=(0, 1), always_flip=True, rotate90=True)
    assert not any(torch.equal(sample_patch(a_case, center, patch, paper, _rng(s))[0], plain) for s in range(40))


def test_intensity_augmentation_changes_values_but_neither_shape_nor_input() -> None:
    image = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    config = AugmentationConfig(gamma=0.3, brightness=0.2, contrast=0.2, noise=0.2, blur=1.0, intensity_probability=1.0)
    changed = augment_intensities(image, config, _rng())
    assert changed.shape == image.shape and torch.isfinite(changed).all()
    assert torch.equal(image, before) and not torch.allclose(changed, image)


def test_a_random_curve_changes_contrasts_and_no_borders() -> None:
    """One value has one new value, wherever it stands; mean and spread stay; now and then dark and bright change."""
    levels = torch.tensor([-1.2, -0.4, 0.1, 0.9, 1.5])
    draw = torch.randint(5, (2, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    image, config = levels[draw], AugmentationConfig(remap=1.0)
    before, turned, gaps = image.clone(), 0, []
    for seed in range(60):
        changed = augment_intensities(image, config, _rng(seed))
        assert torch.equal(image, before) and changed.shape == image.shape
        for channel in range(2):
            new = [changed[channel][draw[channel] == level] for level in range(5)]
            assert all(float(values.max() - values.min()) < 1e-5 for values in new)
            assert float(changed[channel].mean()) == pytest.approx(float(image[channel].mean()), abs=1e-3)
            assert float(changed[channel].std()) == pytest.approx(float(image[channel].std()), rel=1e-3)
            means = torch.stack([values.mean() for values in new])
            turned += bool(means[0] > means[-1])
            gaps.append((means[1:] - means[:-1]).abs())
        assert not torch.allclose(changed[0][draw[0] == 0].mean(), changed[1][draw[1] == 0].mean())
    assert 10 < turned < 60, turned
    assert float(torch.stack(gaps).std(0).min()) > 0.1
    assert torch.equal(augment_intensities(image, AugmentationConfig(), _rng()), image)
    flat = torch.full((1, 4, 4, 4), 0.7)
    assert torch.equal(augment_intensities(flat, config, _rng()), flat)


def test_turns_are_those_of_the_patients_space() -> None:
    """In mm a turn keeps lengths and angles, whatever the voxels; the size of equal voxels changes nothing."""
    turn = AugmentationConfig(affine_probability=1.0, rotation_degrees=15.0)
    for seed in range(10):
        plain = _random_affine(turn, _rng(seed), (1.0, 1.0, 1.0))
        assert plain is not None and np.array_equal(plain, _random_affine(turn, _rng(seed), (0.7, 0.7, 0.7)))
        flat = _random_affine(turn, _rng(seed), (0.8, 0.8, 8.0))
        assert flat is not None
        in_mm = np.diag((0.8, 0.8, 8.0)) @ flat @ np.diag(1 / np.array((0.8, 0.8, 8.0)))
        assert np.allclose(in_mm @ in_mm.T, np.eye(3)) and np.allclose(in_mm, plain)
    patch = (64, 64, 5)
    stack = dataclasses.replace(prepared(0, "unlabeled"), image=np.ones((1, *patch), np.float16))
    inside = [
        float(sample_patch(stack, (np.array(patch) - 1) / 2, patch, turn, _rng(seed), (0.8, 0.8, 8.0))[0].mean())
        for seed in range(30)
    ]
    assert np.mean(inside) > 0.85, "what lies outside of a case teaches nothing"


@pytest.mark.parametrize("size", [(64, 64, 1), (1, 64, 64), (64, 64, 4), (96, 64, 6)])
def test_turns_leave_most_of_thin_cases_within_their_patches(size: tuple[int, int, int]) -> None:
    """Slabs, and single slices, turn in their own plane as all others do; out of it they would be gone."""
    turn = AugmentationConfig(affine_probability=1.0, rotation_degrees=15.0)
    thin = dataclasses.replace(prepared(0, "unlabeled"), image=np.ones((1, *size), np.float16))
    middle = (np.array(size) - 1) / 2
    inside = [float(sample_patch(thin, middle, size, turn, _rng(seed))[0].mean()) for seed in range(30)]
    assert np.mean(inside) > 0.75
    steepest = steepest_turns(size, size, (1.0, 1.0, 1.0))
    assert steepest[np.argmin(size)] > 15 and np.sort(steepest)[1] < 6


def test_turns_of_cases_that_are_no_slabs_are_as_steep_as_any() -> None:
    turn = AugmentationConfig(affine_probability=1.0, rotation_degrees=15.0)
    for size, patch, spacing in (
        (SIZE, (16, 16, 16), (1.0, 1.0, 1.0)),
        ((144, 144, 60), (112, 112, 48), (1.0, 1.0, 1.0)),
        ((256, 256, 20), (128, 128, 16), (0.8, 0.8, 5.0)),
    ):
        steepest = steepest_turns(size, patch, spacing)
        for seed in range(5):
            plain, limited = (_random_affine(turn, _rng(seed), spacing, *most) for most in ((), (steepest,)))
            assert plain is not None and np.array_equal(plain, limited)


def test_batches_are_turned_by_the_voxels_of_their_plan() -> None:
    """A stack of eight thick slices stays within its patches, labelled or not, because its plan says how thick."""
    patch = (64, 64, 8)
    turn = AugmentationConfig(affine_probability=1.0, rotation_degrees=15.0)
    stacks = [
        dataclasses.replace(
            prepared(index, role),
            image=np.ones((1, *patch), np.float16),
            label=None if role == "unlabeled" else np.ones(patch, np.uint8),
            locations=np.zeros((0, 4), np.int32),
        )
        for index, role in enumerate(("labeled", "unlabeled"))
    ]
    inside = {}
    for thickness in (0.8, 8.0):
        plan = tiny_plan(geometry=Geometry((0.8, 0.8, thickness), patch), augmentation=turn)
        sampler = TwoStreamSampler(plan, stacks[:1], stacks[1:])
        batches = [sampler.batch(plan.solo_iterations + n) for n in range(2)]
        inside[thickness] = [min(float(t.mean()) for b in batches if (t := getattr(b, name)) is not None)
                             for name in ("labeled", "unlabeled")]  # fmt: skip
    assert all(thick > 0.8 > thin for thick, thin in zip(inside[8.0], inside[0.8])), inside


def test_patches_reach_every_voxel_and_stay_inside() -> None:
    case, patch = prepared(1), (8, 8, 8)
    low, high = [], []
    for seed in range(400):
        start = patch_center(case, patch, 0.0, _rng(seed)) - 3.5
        low.append(start)
        high.append(start + 8)
    assert np.array_equal(np.min(low, axis=0), [0, 0, 0])
    assert np.array_equal(np.max(high, axis=0), SIZE)


def test_foreground_patches_contain_the_foreground() -> None:
    case, patch = prepared(1), (8, 8, 8)
    for seed in range(50):
        center = patch_center(case, patch, 1.0, _rng(seed))
        _, label = sample_patch(case, center, patch, NONE, _rng(seed))
        assert label is not None and bool((label > 0).any())


def test_a_case_smaller_than_the_patch_lies_within_it() -> None:
    case = prepared(2)
    for seed in range(20):
        image, _ = sample_patch(case, patch_center(case, (32, 32, 32), 0.3, _rng(seed)), (32, 32, 32), NONE, _rng())
        assert float(image.abs().sum()) == pytest.approx(float(np.abs(case.image.astype(np.float32)).sum()), rel=1e-4)


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    plan = tiny_plan()
    labeled, unlabeled = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    first, second = (TwoStreamSampler(plan, labeled, unlabeled) for _ in range(2))
    for iteration in (plan.solo_iterations + n for n in (5, 0, 3)):
        second.batch(iteration + 1)
        a, b = first.batch(iteration), second.batch(iteration)
        assert torch.equal(a.labeled, b.labeled) and torch.equal(a.labels, b.labels) and a.cases == b.cases
        assert a.unlabeled is not None and b.unlabeled is not None and torch.equal(a.unlabeled, b.unlabeled)
    other = TwoStreamSampler(dataclasses.replace(plan, seed=1), labeled, unlabeled)
    assert not torch.equal(first.batch(0).labeled, other.batch(0).labeled)
    assert not torch.equal(first.batch(0).labeled, first.batch(1).labeled)


def test_every_labelled_case_is_drawn_once_before_any_a_second_time() -> None:
    plan = tiny_plan(labeled_only=True)
    sampler = TwoStreamSampler(plan, [prepared(i) for i in range(5)], [])
    drawn = [case for iteration in range(5) for case in sampler.batch(iteration).cases]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == list(range(5))


def test_labelled_only_draws_no_unlabelled_patch() -> None:
    plan = tiny_plan(labeled_only=True)
    assert (
        TwoStreamSampler(plan, [prepared(0)], [prepared(1, "unlabeled")]).batch(plan.iterations - 1).unlabeled is None
    )


def test_generators_of_different_purposes_and_samples_differ() -> None:
    draws = {float(generator_for(0, p, i).random()) for p in ("labeled", "unlabeled") for i in range(50)}
    assert len(draws) == 100


def _unlabeled_batches(**changes: object) -> list[Batch]:
    plan = tiny_plan(iterations=12)
    losses = dataclasses.replace(plan.losses, solo_share=1 / 3)
    augmentation = dataclasses.replace(plan.augmentation, **changes)  # type: ignore[arg-type]
    plan = dataclasses.replace(plan, losses=losses, augmentation=augmentation)
    cases = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    sampler = TwoStreamSampler(plan, *cases)
    return [sampler.batch(iteration) for iteration in range(12)]


def test_no_unlabelled_patch_is_made_while_v_learns_alone() -> None:
    batches = _unlabeled_batches()
    assert all(b.unlabeled is None and b.plain is None for b in batches[:4])
    assert all(b.unlabeled is not None and b.plain is not None for b in batches[4:])


def test_the_teacher_sees_the_same_place_with_intensities_as_they_are() -> None:
    changed = _unlabeled_batches(
        intensity_probability=1.0, noise=1e-4, gamma=0.0, contrast=0.0, brightness=0.0, blur=0.0
    )
    for batch in changed[4:]:
        assert batch.unlabeled is not None and batch.plain is not None
        assert torch.allclose(batch.unlabeled, batch.plain, atol=1e-3) and not torch.equal(batch.unlabeled, batch.plain)
    changes = {"noise": 0.15, "contrast": 0.2, "gamma": 0.3}
    strong, weak = (_unlabeled_batches(intensity_probability=p, **changes)[4:] for p in (1.0, 0.1))
    for a, b in zip(strong, weak):
        assert a.plain is not None and b.plain is not None and torch.equal(a.plain, b.plain)
    moved = [sum(float((b.unlabeled - b.plain).abs().mean()) for b in found) for found in (strong, weak)]  # type: ignore[operator]
    assert moved[0] > 2 * moved[1]


@pytest.mark.parametrize("labeled_only", [False, True])
def test_only_labelled_patches_go_through_curves_and_only_as_long_as_each_learns_alone(labeled_only: bool) -> None:
    plan = tiny_plan(12, labeled_only=labeled_only)
    plan = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=1 / 3))
    curved = dataclasses.replace(plan, augmentation=dataclasses.replace(plan.augmentation, remap=1.0))
    cases = [prepared(i) for i in range(3)], [prepared(i, "unlabeled") for i in range(3, 6)]
    plain, changed = ([TwoStreamSampler(p, *cases).batch(i) for i in range(12)] for p in (plan, curved))
    for iteration, (a, b) in enumerate(zip(plain, changed)):
        assert torch.equal(a.labels, b.labels) and a.cases == b.cases
        same = [torch.equal(x, y) for x, y in zip(a.labeled, b.labeled)]
        assert not any(same) if iteration < 4 else all(same)
        if not labeled_only and iteration >= 4:
            assert a.unlabeled is not None and b.unlabeled is not None and torch.equal(a.unlabeled, b.unlabeled)
