"""The plan: sizes that follow from the data, arithmetic that is measured, and a budget that becomes iterations."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from synthetic import tiny_plan, write_cohort

from caml_core.cli import main
from caml_core.config import Geometry, NumericMode, Plan, Segment
from caml_core.data.cohort import hold_out, load_cohort
from caml_core.data.grid import Grid
from caml_core.data.labels import read_labels, write_labels, write_scalar
from caml_core.errors import DataError, UsageError
from caml_core.events import silent
from caml_core.model import build_network
from caml_core.model_file import LoadedModel, ModelInfo, load_model
from caml_core.phantom.cohort import CohortShape
from caml_core.phantom.cohort import write_cohort as write_phantoms
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder
from caml_core.serialization import from_json, read_json, to_json
from caml_core.training import measurement, sizes
from caml_core.training.engine import Engine
from caml_core.training.measurement import bf16_gradients_are_right, last_of_each_kind, seconds_in_turn
from caml_core.training.planner import Request, describe, make_plan
from caml_core.training.run import plan_training, survey
from caml_core.training.run_folder import RunFolder
from caml_core.training.warm_start import start_state

ROBUST = sizes.LabelTraits(dict.fromkeys(sizes.COARSENING, 1.0), 0.1)
FRAGILE = sizes.LabelTraits({f: 1.0 if f == 1 else 0.5 for f in sizes.COARSENING}, 0.001)


def test_the_left_atrium_is_planned_at_half_resolution() -> None:
    size, spacing = (188, 141, 88), (0.625, 0.625, 0.625)
    chosen, factor = sizes.choose_spacing(size, spacing, ROBUST, sizes.PATCH_VOXELS["cpu"])
    assert factor == 2.0 and chosen == (1.25, 1.25, 1.25)


def test_thin_structures_keep_the_finest_spacing() -> None:
    chosen, factor = sizes.choose_spacing((512, 512, 300), (0.4, 0.4, 0.5), FRAGILE, 250_000)
    assert factor == 1.0 and chosen == (0.4, 0.4, 0.5)
    assert FRAGILE.thin and not ROBUST.thin


def test_a_coarse_axis_is_left_alone() -> None:
    assert sizes.coarsened((0.5, 0.5, 7.0), 2.0) == (1.0, 1.0, 7.0)


@pytest.mark.parametrize(
    ("size", "spacing"),
    [
        ((94, 70, 44), (1.25, 1.25, 1.25)),
        ((256, 256, 20), (0.9, 0.9, 7.0)),
        ((35, 50, 35), (1, 1, 1)),
        ((9, 200, 3), (2, 1, 4)),
    ],
)
def test_patches_fit_network_budget_and_volume(size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
    strides = sizes.choose_strides(size, spacing)
    network = dataclasses.replace(tiny_plan().network, strides=strides)
    patch = sizes.choose_patch(size, network.divisor, 250_000)
    assert math.prod(patch) <= 250_000
    assert all(p % d == 0 and p < n + d for p, d, n in zip(patch, network.divisor, size))
    build_network(network).eval().forward_v(torch.zeros(1, 1, *patch))  # the sizes fit each other


def test_thick_slices_are_not_downsampled_early() -> None:
    strides = sizes.choose_strides((256, 256, 20), (0.86, 0.86, 7.0))
    assert [s[2] for s in strides][:2] == [1, 1] and all(s[0] == 2 for s in strides)


def test_labels_are_studied_on_labelled_cases_alone(tmp_path: Path) -> None:
    cohort, found = survey(write_cohort(tmp_path), Request(), silent)
    traits = sizes.study_labels(cohort.with_role("labeled"), found, ())
    assert found.one_component and 0.01 < traits.foreground_share < 0.3
    assert traits.ceilings[1.0] == 1.0
    assert 4.0 not in traits.ceilings  # nothing is asked beyond what small segments survive


def test_one_labelled_case_in_pieces_is_enough_to_keep_all_parts(tmp_path: Path) -> None:
    """Also one beyond those whose labels are taken to the network's grid and back."""
    path = write_cohort(tmp_path, labeled=sizes.CEILING_CASES + 2)
    cohort, found = survey(path, Request(), silent)
    assert found.one_component
    last = cohort.with_role("labeled")[-1].label
    assert last is not None
    label = read_labels(last)
    array = label.array.copy()
    array[array == 1] = 0
    array[:3, :3, :3] = array[-3:, -3:, -3:] = 1
    write_labels(last, array, label.grid, label.segments)
    assert not survey(path, Request(), silent)[1].one_component


def test_two_labelled_cases_do_not_tell_that_segments_are_in_one_piece(tmp_path: Path) -> None:
    for labeled in (2, 3):
        path = write_cohort(tmp_path / str(labeled), labeled=labeled)
        assert survey(path, Request(), silent)[1].one_component is (labeled == 3)


def _write_nested(folder: Path, lesions: Sequence[bool]) -> Path:
    """A cohort of labelled cases: a ball, and within it a lesion of a few voxels where ``lesions`` says so."""
    path = write_cohort(folder, labeled=len(lesions), unlabeled=0, validation=0)
    grid = Grid((40, 40, 40), (1.0, 1.0, 1.0))
    distance = np.sqrt(sum((a - 20.0) ** 2 for a in np.indices(grid.size)))
    for index, lesion in enumerate(lesions):
        label = (distance < 15).astype(np.uint8)
        label[distance < 2.5] = 2 if lesion else 1
        image = np.random.default_rng(index).normal(100, 10, grid.size).astype(np.float32)
        write_scalar(folder / f"case{index}_image.nrrd", image, grid)
        write_labels(folder / f"case{index}_label.nrrd", label, grid, (Segment("organ", 1), Segment("lesion", 2)))
    return path


@pytest.mark.parametrize("having", [{0}, {5}, {1, 5}])
def test_a_segment_is_studied_on_the_cases_that_have_it(tmp_path: Path, having: set[int]) -> None:
    """A lesion that coarse voxels do not keep is seen, whichever cases lack it, and however many."""
    cohort, found = survey(_write_nested(tmp_path, [i in having for i in range(6)]), Request(hold_out=0), silent)
    cases = cohort.with_role("labeled")
    traits = sizes.study_labels(cases, found, ())
    assert traits.ceilings == sizes.study_labels([cases[i] for i in sorted(having)], found, ()).ceilings
    chosen, _ = sizes.choose_spacing((300, 300, 300), found.spacing, traits, 250_000)
    assert chosen == found.spacing


def test_a_segment_that_only_the_held_out_case_has_can_be_learnt_as_the_message_says(tmp_path: Path) -> None:
    """Without a change of the label: the program itself may have chosen this case."""
    chosen = hold_out(load_cohort(_write_nested(tmp_path, [False] * 5))).with_role("validation")
    path = _write_nested(tmp_path, [f"case{i}" == chosen[0].id for i in range(5)])
    with pytest.raises(DataError, match=f"{chosen[0].id}.*'segment_2'.*role labeled .* role validation.*--hold-out 0"):
        survey(path, Request(), silent)
    assert [s.name for s in survey(path, Request(hold_out=0), silent)[1].segments] == ["segment_1", "segment_2"]
    other = next(f"case{i}" for i in range(5) if f"case{i}" != chosen[0].id)
    path.write_text(path.read_text().replace(f"{other}_label.nrrd,labeled", f"{other}_label.nrrd,validation"))
    cohort, found = survey(path, Request(), silent)
    assert [s.name for s in found.segments] == ["segment_1", "segment_2"]
    assert chosen[0].id in {case.id for case in cohort.with_role("labeled")}


def test_a_segment_of_fewer_than_three_cases_does_not_tell_that_it_is_in_one_piece(tmp_path: Path) -> None:
    for lesions in (1, 2, 3):
        path = _write_nested(tmp_path / str(lesions), [i < lesions for i in range(4)])
        assert survey(path, Request(hold_out=0), silent)[1].one_component is (lesions == 3)


def test_a_tree_is_not_held_to_its_largest_part(tmp_path: Path) -> None:
    """Though its labels are in one piece: beyond a gap in a prediction there is more of it."""
    write_phantoms(tmp_path, "coronary", CohortShape(5, 3, 1), 3, "small")
    cohort, found = survey(tmp_path / "cohort.csv", Request(), silent)
    assert not found.one_component
    labels = [case.label for case in cohort.with_role("labeled") if case.label is not None]
    pieces = [ndimage.label(read_labels(label).array)[1] for label in labels]
    assert pieces == [1] * 3


def test_a_plan_says_which_patches_a_step_takes() -> None:
    plan = dataclasses.replace(tiny_plan(), labeled_only=False)
    alone = dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=1.0))
    assert plan.patches_of_a_step(5) == f"{plan.batch_labeled} labelled + {plan.batch_unlabeled} unlabelled"
    assert alone.patches_of_a_step(0) == f"{plan.batch_labeled} labelled for each sub-model"
    assert dataclasses.replace(plan, labeled_only=True).patches_of_a_step(5) == f"{plan.batch_labeled} labelled"


def test_a_model_of_labels_in_one_piece_says_so() -> None:
    plan = tiny_plan()
    for one in (True, False):
        losses = dataclasses.replace(plan.losses, pseudo_largest_component=one)
        assert dataclasses.replace(plan, losses=losses).model_spec.one_component is one


@pytest.mark.parametrize(("number", "spared"), [(None, 1), (0, 0), (3, 3)])
def test_labelled_cases_are_spared_as_many_as_asked_for(tmp_path: Path, number: int | None, spared: int) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=6, unlabeled=1, validation=0)
    found, _ = survey(cohort, Request(hold_out=number), silent)
    assert (len(found.with_role("labeled")), len(found.with_role("validation"))) == (6 - spared, spared)
    begun = RoundFolder(tmp_path / "round")
    start_round(begun, cohort, RoundRequest(Request(hold_out=number)))
    assert len(begun.read_cohort().with_role("validation")) == spared
    assert begun.read_request().planning.hold_out == number


def test_the_command_spares_none_where_it_is_told_to(tmp_path: Path) -> None:
    cohort, run = write_cohort(tmp_path / "cohort", 5, 1, 0), RunFolder(tmp_path / "run")
    quick = ("--iterations", "2", "--base-filters", "2", "--patch", "16,16,16", "--threads", "1", "--dtype", "fp32")
    command = ["train", str(cohort), "-o", str(run.path), "--cache", str(tmp_path / "cache"), *quick]
    assert main([*command, "--hold-out", "0", "--progress", "none"]) == 0
    assert len(run.read_cohort().with_role("labeled")) == 5


@pytest.mark.parametrize("unlabeled", [0, 2])
def test_without_unlabelled_cases_each_learns_alone_all_along(tmp_path: Path, unlabeled: int) -> None:
    cohort, run = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=unlabeled), RunFolder(tmp_path / "run")
    quick = ("--iterations", "6", "--base-filters", "2", "--patch", "16,16,16", "--threads", "1", "--dtype", "fp32")
    assert main(["train", str(cohort), "-o", str(run.path), "--cache", str(tmp_path / "c"), *quick]) == 0
    plan = run.read_plan()
    assert (plan.solo_iterations == plan.iterations) == (unlabeled == 0)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    last = [event["losses"] for event in events if event["event"] == "step"][-1]
    assert (last["consistency"] > 0) == (unlabeled > 0) and last["supervised"] > 0


@pytest.fixture
def a_plan(tmp_path: Path) -> Plan:
    """The plan of the synthetic cohort with a small network and a budget."""
    request = Request(budget_seconds=20.0, base_filters=2, patch=(16, 16, 16))
    cohort, found = survey(write_cohort(tmp_path / "cohort"), Request(), silent)
    plan, _ = plan_training(cohort, found, request, silent)
    assert found.one_component and "only the largest part of each" in describe(plan, found)
    return plan


def test_a_budget_becomes_iterations_that_fit_it(a_plan: Plan) -> None:
    assert a_plan.seconds_per_iteration > 0 and a_plan.peak_memory_mb > 0
    assert 0.5 * 20 < a_plan.iterations * a_plan.seconds_per_iteration < 20
    assert 1 <= a_plan.validate_every <= a_plan.iterations


def test_a_plan_survives_json_and_refuses_what_it_does_not_know(a_plan: Plan) -> None:
    values = to_json(a_plan)
    assert from_json(Plan, values) == a_plan
    with pytest.raises(UsageError, match="unknown entries"):
        from_json(Plan, {**values, "surprise": 1})
    with pytest.raises(UsageError, match="iterations"):
        from_json(Plan, {**values, "iterations": "many"})


def test_the_command_prints_and_writes_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohort, output = write_cohort(tmp_path / "cohort"), tmp_path / "new" / "plan.json"
    options = ["--iterations", "7", "--base-filters", "2", "--patch", "16,16,16", "--progress", "none"]
    assert main(["plan", str(cohort), "-o", str(output), "--preset", "paper", *options]) == 0
    plan = from_json(Plan, read_json(output))
    assert plan.preset == "paper" and plan.iterations == 7 and plan.optimizer.kind == "sgd"
    assert "iterations   7" in capsys.readouterr().out


def test_the_command_trains_from_a_cohort_to_a_model(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort", labeled=2, unlabeled=1, validation=0)
    options = ["--iterations", "2", "--base-filters", "2", "--patch", "16,16,16", "--progress", "none"]
    run = tmp_path / "run"
    assert main(["train", str(cohort), "-o", str(run), "--cache", str(tmp_path / "cache"), *options]) == 0
    info = load_model(run / "model.caml").info
    assert info.labeled_cases == 2
    assert info.provenance["training_volumes"] == {"size_mm": [22.0, 18.0, 20.0], "spacing": [1.0, 1.0, 1.0]}
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    again = ["--model", str(run / "model.caml"), "--labeled-only"]
    second = tmp_path / "second"
    assert main(["train", str(cohort), "-o", str(second), "--cache", str(tmp_path / "cache"), *options, *again]) == 0
    model = load_model(second / "model.caml")
    assert model.spec.labeled_only and model.info.provenance["start_model"]


@pytest.mark.parametrize(("labeled", "modality", "share"), [(5, "MR", 0.15), (6, "MR", 0.0), (5, "CT", 0.0)])
def test_few_labelled_cases_go_through_random_curves(tmp_path: Path, labeled: int, modality: str, share: float) -> None:
    """Not in CT, whose units are the same in every scan."""
    request = Request(iterations=100, base_filters=2, patch=(16, 16, 16), dtype="fp32", threads=1)
    cohort, found = survey(write_cohort(tmp_path / "cohort", labeled=labeled), request, silent)
    (channel,) = found.channels
    assert channel.modality == "MR"
    found = dataclasses.replace(found, channels=(dataclasses.replace(channel, modality=modality),))
    plan = make_plan(cohort, found, request)
    assert plan.augmentation.remap == share
    assert plan.remapped_iterations == (plan.solo_iterations if share else 0) and 0 < plan.solo_iterations < 100
    alone = dataclasses.replace(plan, labeled_only=True)
    assert alone.solo_iterations == 0 and alone.remapped_iterations == plan.remapped_iterations


def test_a_step_of_one_voxel_in_the_deepest_stage_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    command = ["plan", str(cohort), "--preset", "paper", "--iterations", "2", "--base-filters", "2"]
    assert main([*command, "--patch", "16,16,16", "--batch", "1", "--progress", "none"]) == 2
    assert "--batch 2" in capsys.readouterr().err


def test_a_command_without_cohort_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--progress", "none"]) == 2
    assert "Name a cohort" in capsys.readouterr().err


def test_matching_segments_keep_their_output_whatever_their_order() -> None:
    plan = tiny_plan()
    torch.manual_seed(3)
    state = build_network(plan.network).state_dict()
    start = LoadedModel(plan.model_spec, state, ModelInfo("start"), Path("start.caml"))
    wanted = (Segment("BRIGHT", 1), Segment("new", 2), Segment("dim", 3))
    network = dataclasses.replace(plan.network, classes=4)
    result = start_state(start, network, wanted, seed=0)
    for layer in ("decoder1.out_conv.weight", "decoder2.out_conv.bias"):
        assert torch.equal(result[layer][[0, 1, 3]], state[layer][[0, 2, 1]])
        assert not torch.equal(result[layer][2], state[layer][2])
    assert torch.equal(result["encoder1.block_one.conv.0.weight"], state["encoder1.block_one.conv.0.weight"])
    build_network(network).load_state_dict(result)


def test_patches_that_do_not_fit_the_network_are_refused() -> None:
    with pytest.raises(UsageError, match="divisible"):
        dataclasses.replace(tiny_plan(), geometry=Geometry((1.0, 1.0, 1.0), (15, 16, 16)))


def test_real_left_atria_are_planned_with_the_measured_ceiling(shared_folder: Path, tmp_path: Path) -> None:
    source = shared_folder / "la2018"
    if not (source / "cases.csv").is_file():
        pytest.skip("no left-atrium scans in the folder of real scans")
    rows = (source / "cases.csv").read_text().splitlines()[1:5]
    lines = ["id,image,label,role"]
    for row, role in zip(rows, ("labeled", "labeled", "labeled", "unlabeled")):
        _, case, image, label = row.split(",")
        lines.append(f"{case},{source / image},{'' if role == 'unlabeled' else source / label},{role}")
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(lines) + "\n")
    cohort, found = survey(path, Request(), silent)
    traits = sizes.study_labels(cohort.with_role("labeled"), found, ())
    assert np.allclose(found.spacing, 0.625) and found.channels[0].modality == "MR"
    assert traits.ceilings[2.0] > 0.99 and found.one_component and not traits.thin
    assert len(load_cohort(path).with_role("unlabeled")) == 1


@pytest.mark.parametrize(
    ("patch", "strides", "right"),
    [
        ((96, 64, 40), ((2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1)), True),  # 96 48 24 12 6
        ((32, 64, 48), ((2, 2, 2),) * 4, False),  # 32 16 8 4 2
        ((64, 32, 32), ((2, 2, 2),) * 4, True),  # the other axes do not matter
        ((16, 64, 48), ((2, 2, 2),) * 4, False),  # 16 8 4 2 1: on the way
        ((32, 64, 48), ((2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)), True),
    ],
)
def test_bf16_is_not_taken_where_its_gradients_are_wrong(
    patch: tuple[int, int, int], strides: tuple[tuple[int, int, int], ...], right: bool
) -> None:
    network = dataclasses.replace(tiny_plan().network, strides=strides)  # type: ignore[arg-type]
    plan = dataclasses.replace(tiny_plan(), network=network, geometry=Geometry((1.0, 1.0, 1.0), patch))
    assert bf16_gradients_are_right(plan) is right
    assert bf16_gradients_are_right(dataclasses.replace(plan, device="cuda"))


@pytest.mark.parametrize(
    ("bf16", "steps", "chosen"),
    [
        (20.0, 1, NumericMode("fp32", True)),  # no instructions for it: neither a second step nor the other layout
        (2.0, 4, NumericMode("fp32", True)),  # slower, but the first step alone does not tell
        (0.5, 10, NumericMode("bf16", False)),
    ],
)
def test_a_mode_far_slower_than_the_others_is_given_up(
    monkeypatch: pytest.MonkeyPatch, bf16: float, steps: int, chosen: NumericMode
) -> None:
    taken: list[str] = []

    def timed(engine: Engine, *_: object) -> float:
        """Seconds of a step on an imagined machine."""
        mode = engine.plan.numeric
        taken.append(mode.dtype)
        return bf16 if mode.dtype == "bf16" else 0.9 if mode.channels_last else 1.0

    monkeypatch.setattr(measurement, "_timed_step", timed)
    found = measurement.fastest_mode(tiny_plan(), 3)
    assert (found.dtype, found.channels_last) == (chosen.dtype, chosen.channels_last)
    assert taken.count("bf16") == steps


@pytest.mark.parametrize("voxels", [1, 3, 4, 6])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_bf16_gradients_of_the_sizes_that_are_allowed_are_right(voxels: int, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    image, wanted = (torch.randn(2, 16, voxels, 4, 3) for _ in range(2))
    convolution = torch.nn.Conv3d(16, 16, 3, padding=1).to(memory_format=layout)  # type: ignore[call-overload]
    gradients = []
    for enabled in (False, True):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = convolution(image.contiguous(memory_format=layout))
        output.float().backward(wanted)
        assert convolution.weight.grad is not None
        gradients.append(convolution.weight.grad.clone())
    assert float((gradients[1] - gradients[0]).norm()) < 0.02 * float(gradients[0].norm())


def test_where_bf16_cannot_train_fp32_is_taken_and_the_plan_says_so(tmp_path: Path) -> None:
    cohort, found = survey(write_cohort(tmp_path), Request(), silent)
    request = Request(dtype="bf16", iterations=4, base_filters=2, patch=(16, 16, 16))
    plan, _ = plan_training(cohort, found, request, silent)
    halvings = math.prod(stage[0] for stage in plan.network.strides)
    assert plan.numeric.dtype == "bf16" and halvings < 16  # 16 voxels never become two
    plan, _ = plan_training(cohort, found, dataclasses.replace(request, patch=(2 * halvings, 16, 16)), silent)
    assert plan.numeric.dtype == "fp32"
    assert any("bf16" in note and "fp32" in note for note in plan.notes)


def test_both_kinds_of_late_steps_are_measured() -> None:
    engine = Engine(tiny_plan(iterations=60), 3)
    steps = last_of_each_kind(engine)
    assert {engine.pastes(i) for i in steps} == {True, False} and min(steps) > engine.plan.solo_iterations
    assert max(steps) == 59 and all(engine.pastes(i) == engine.pastes(59) for i in range(min(steps) + 1, 60))
    assert last_of_each_kind(Engine(tiny_plan(iterations=1), 3)) == [0]


def test_two_plans_take_turns_and_steps_of_both_kinds_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is an input: pasted steps of the first plan take 3 s, others 1 s, its early ones 0.7 s."""
    first = tiny_plan(iterations=60)
    second = dataclasses.replace(first, labeled_only=True)
    order = []

    def clock(engine: Engine, batch: object, iteration: int) -> float:
        order.append("other" if engine.plan.labeled_only else "late" if iteration else "early")
        if order[-1] == "other":
            return 0.5
        if order[-1] == "early":
            return 0.7
        return 3.0 if engine.pastes(iteration) else 1.0

    monkeypatch.setattr(measurement, "_timed_step", clock)
    assert seconds_in_turn(first, second, 3) == pytest.approx((0.7, 2.0, 0.5))
    turns = order[-3 * measurement.TURNS :]  # what comes before prepares kernels
    assert turns == ["early", "late", "other"] * measurement.TURNS and measurement.TURNS % 2 == 0
