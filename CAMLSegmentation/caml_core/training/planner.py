"""What will be done, decided before anything is done: ``make_plan`` looks at the data, then at the device."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median

from ..channel_titles import cohort_warning
from ..config import (
    AugmentationConfig,
    ChannelIntensity,
    Geometry,
    LossConfig,
    NetworkConfig,
    NumericMode,
    Plan,
    Spacing,
)
from ..data.cohort import Cohort
from ..data.fingerprint import Fingerprint, choose_channels
from ..device import find_devices, out_of_memory, use_threads
from ..errors import ResourceError, UsageError
from ..model_file import LoadedModel
from ..presets import PAPER_ITERATIONS, PAPER_PATCH, REMAPPED, Preset, default_preset, paper_preset
from . import sizes
from .from_model import fine_tuning, refuse_other_shapes, taken_over
from .measurement import Measurement, early_share, fastest_mode, measure, peak_mb
from .memory import DoesNotFit, fit_to_memory
from .request import Request
from .validation import VALIDATION_CASES

DEFAULT_BUDGET_SECONDS = 3600.0
#: The most that a training takes which goes on until it no longer improves.
LONGEST_SECONDS = 12 * 3600.0
#: Each sub-model learns alone for so many iterations a labelled case, within these limits, but for no smaller and no
#: larger share of all iterations than this.
SOLO_ITERATIONS_A_CASE = 100
FEWEST_SOLO_ITERATIONS, MOST_SOLO_ITERATIONS = 1000, 1500
LEAST_SOLO, MOST_SOLO = 0.1, 0.7
#: So few labelled cases do not know the contrasts of a cohort; eight do, and Hounsfield units are the same everywhere
#: (docs/method.md, *Random curves*).
FEW_LABELS = 5
#: Share of a budget that validation, checkpoints and the final scores may take.
VALIDATION_SHARE = 0.08
OVERHEAD_SHARE = 0.04
MOST_VALIDATIONS = 20
#: Features of full resolution in a step beyond which memory matters more than time.
RECOMPUTE_FEATURES = 30_000_000
#: With fewer iterations than this a smaller network learns more in the same time.
FEW_ITERATIONS = 300
SMALL_FILTERS = 8


def make_plan(
    cohort: Cohort,
    found: Fingerprint,
    request: Request,
    start: LoadedModel | None = None,
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Return the plan for ``cohort``; takes a few seconds for the measurement.

    start: the model to start from, whose grid, network and intensities are kept. check: called between the steps of
    the measurement; may raise.
    """
    use_threads(request.threads)
    labeled = cohort.with_role("labeled")
    notes = list(found.notes)
    channels = choose_channels(found, request.preset)
    traits = sizes.study_labels(labeled, found, cohort.segments, None if start is None else start.spec.geometry)
    preset = _preset(request, found, len(labeled), traits)
    if preset.losses.pseudo_largest_component:
        notes.append(
            "Each segment is one compact piece in all labelled cases that have it, so only the largest part of each is "
            "kept in pseudo-labels and results; predictions can be asked for all parts."
        )
    if start is not None:
        refuse_other_shapes(request, start.spec)
        geometry, network, channels = taken_over(start, found, preset.network, traits, notes)
    elif request.preset == "paper":
        geometry = Geometry(request.spacing or found.spacing, request.patch or PAPER_PATCH)
        network = preset.network
    else:
        geometry, network = _sized(found, traits, preset.network, request, notes)
    files = {case.id: [image.name for image in case.images] for case in cohort.cases if case.role != "excluded"}
    notes += filter(None, [cohort_warning(files, [channel.title for channel in channels])])
    if request.base_filters is not None and start is None:
        network = dataclasses.replace(network, base_filters=request.base_filters)
    plan = _assemble(request, fine_tuning(preset) if start is not None else preset, geometry, network, channels, found)
    plan = dataclasses.replace(plan, from_model=start is not None)
    stages = recomputed_stages(plan, plan.numeric)
    plan = dataclasses.replace(plan, numeric=dataclasses.replace(plan.numeric, recompute=stages))
    check()
    with _enough_memory(plan):
        plan, note = fit_to_memory(plan, len(labeled), may_shrink=request.patch is None)
        notes += [note] if note else []
        return _measured(plan, found, request, len(labeled), notes, check, may_shrink=start is None)


def describe(plan: Plan, found: Fingerprint) -> str:
    """Return the plan in words, for a person."""
    g, n = plan.geometry, plan.numeric
    roles = {role: sum(c.role == role for c in found.cases) for role in ("labeled", "unlabeled", "validation")}
    lines = [
        f"cases        {roles['labeled']} labelled, {roles['unlabeled']} unlabelled, {roles['validation']} held out",
        f"segments     {', '.join(s.name for s in plan.segments)}",
        f"channels     {', '.join(c.called + ' ' + c.kind for c in plan.channels)}",
        f"grid         spacing {_join(g.spacing)} mm (cohort's median {_join(found.spacing)} mm, "
        f"size {_join(found.size)})",
        f"patch        {_join(g.patch)}, {plan.patches_of_a_step(roles['unlabeled'])} a step",
        f"network      {plan.network.base_filters} base filters, {plan.network.classes} classes, strides "
        f"{' '.join(_join(s) for s in plan.network.strides)}",
        f"arithmetic   {n.dtype}{', channels last' if n.channels_last else ''}, {n.threads} threads, {plan.device}",
        f"step         {plan.seconds_per_iteration:.2f} s, peak memory {plan.peak_memory_mb:.0f} MB",
        f"iterations   {'at most ' if plan.horizon else ''}{plan.iterations}, about "
        f"{_duration(plan.iterations * plan.seconds_per_iteration)} of steps; "
        f"validation every {plan.validate_every}",
    ]
    return "\n".join([*lines, *(f"note         {note}" for note in plan.notes)])


def _preset(request: Request, found: Fingerprint, labeled: int, traits: sizes.LabelTraits) -> Preset:
    channels, classes = len(found.channels), len(found.segments) + 1
    if request.preset == "paper":
        return paper_preset(channels, classes, labeled)
    if request.preset == "default":
        few = _has_few_labels(labeled, (channel.modality for channel in found.channels))
        return default_preset(channels, classes, thin=traits.thin, one_component=found.one_component, few_labels=few)
    raise UsageError(f"Unknown preset {request.preset!r}; expected default or paper.")


def with_curves(
    augmentation: AugmentationConfig, labeled_cases: int, channels: Iterable[ChannelIntensity]
) -> AugmentationConfig:
    """Return ``augmentation`` with random curves through the grey values, where so few labelled cases need them."""
    few = _has_few_labels(labeled_cases, (channel.modality for channel in channels))
    return dataclasses.replace(augmentation, remap=REMAPPED) if few else augmentation


def _has_few_labels(labeled: int, modalities: Iterable[str]) -> bool:
    """Whether so few cases are labelled that they do not know the cohort's contrasts; those of CT are always known."""
    return labeled <= FEW_LABELS and all(modality != "CT" for modality in modalities)


def _sized(
    found: Fingerprint, traits: sizes.LabelTraits, network: NetworkConfig, request: Request, notes: list[str]
) -> tuple[Geometry, NetworkConfig]:
    voxels = sizes.PATCH_VOXELS["cpu" if request.device == "cpu" else "gpu"]
    spacing, factor = request.spacing, 1.0
    if spacing is None:
        spacing, factor = sizes.choose_spacing(found.size, found.spacing, traits, voxels)
    if factor > 1:
        notes.append(
            f"The network works at {factor:g} times the finest spacing, where a volume is seen whole; labels keep "
            f"{100 * traits.ceilings[factor]:.1f} % Dice on the way there and back."
        )
    size = sizes.network_size(found.size, found.spacing, spacing)
    network = dataclasses.replace(network, strides=sizes.choose_strides(size, spacing))
    return Geometry(spacing, request.patch or sizes.choose_patch(size, network.divisor, voxels)), network


def _assemble(
    request: Request,
    preset: Preset,
    geometry: Geometry,
    network: NetworkConfig,
    channels: tuple[ChannelIntensity, ...],
    found: Fingerprint,
) -> Plan:
    batch = request.batch or preset.batch_labeled
    if batch == 1 and geometry.patch == network.divisor:  # batch normalisation needs more than one
        raise UsageError(
            f"One patch of {'x'.join(map(str, geometry.patch))} voxels a step is a single voxel in the network's "
            "deepest stage; ask for a larger --patch or for --batch 2."
        )
    optimizer = preset.optimizer
    if request.until_better:
        optimizer = dataclasses.replace(optimizer, schedule="plateau")
    return Plan(
        preset=request.preset,
        geometry=geometry,
        network=network,
        channels=channels,
        segments=found.segments,
        iterations=request.iterations or PAPER_ITERATIONS,
        batch_labeled=batch,
        batch_unlabeled=request.batch or preset.batch_unlabeled,
        losses=preset.losses,
        optimizer=optimizer,
        augmentation=preset.augmentation,
        labeled_only=request.labeled_only,
        foreground_share=preset.foreground_share,
        seed=request.seed,
        device=request.device,
        volume_size=_median_size(found),
        volume_spacing=found.spacing,
    )


def _median_size(found: Fingerprint) -> Spacing:
    x, y, z = (median(c.size[axis] * c.spacing[axis] for c in found.cases) for axis in range(3))
    return round(x, 3), round(y, 3), round(z, 3)


def _measured(
    plan: Plan,
    found: Fingerprint,
    request: Request,
    labeled_cases: int,
    notes: list[str],
    check: Callable[[], None],
    *,
    may_shrink: bool,
) -> Plan:
    """Choose the arithmetic, time a step, and turn the budget into a number of iterations."""
    budget = request.budget_seconds
    if budget is None and request.iterations is None and (request.until_better or request.preset == "default"):
        budget = LONGEST_SECONDS if request.until_better else DEFAULT_BUDGET_SECONDS
    check()
    numeric = fastest_mode(plan, labeled_cases, request.dtype, check)
    if request.dtype is not None and numeric.dtype != request.dtype:
        notes.append(f"{request.dtype} cannot train with this patch on this device; {numeric.dtype} was taken instead.")
    plan = dataclasses.replace(plan, numeric=dataclasses.replace(numeric, recompute=recomputed_stages(plan, numeric)))
    measured = measure(plan, labeled_cases)
    cases = labeled_cases, sum(c.role == "unlabeled" for c in found.cases)
    affordable = functools.partial(_affordable, plan, cases=cases, measured=measured)
    if budget and may_shrink and request.base_filters is None and affordable(budget) < FEW_ITERATIONS:
        network = dataclasses.replace(plan.network, base_filters=SMALL_FILTERS)
        smaller = dataclasses.replace(plan, network=network)
        faster = measure(smaller, labeled_cases)
        if faster.late_seconds < measured.late_seconds:
            plan, measured = smaller, faster
            affordable = functools.partial(_affordable, plan, cases=cases, measured=measured)
            notes.append(f"The budget is short: a network of {SMALL_FILTERS} base filters learns more in it.")
    _check_memory(measured, plan.device, notes)
    iterations = request.iterations
    if iterations is None:
        iterations = affordable(budget) if budget else PAPER_ITERATIONS
    # A training of open end ramps up, and is validated, as one that takes the usual time.
    horizon = min(iterations, affordable(DEFAULT_BUDGET_SECONDS)) if request.until_better else 0
    losses = with_phases(plan.losses, horizon or iterations, *cases)
    plan = dataclasses.replace(plan, iterations=iterations, horizon=horizon, losses=losses)
    plan = dataclasses.replace(
        plan,
        seconds_per_iteration=round(measured.seconds_per_iteration(early_share(plan)), 4),
        seconds_per_window=round(measured.seconds_per_window, 5),
        peak_memory_mb=round(measured.peak_memory_mb, 1),
        budget_seconds=float(budget or 0.0),
        notes=tuple(notes),
    )
    every = _validate_every(plan, found, horizon or iterations, measured.seconds_per_window, request.preview)
    return dataclasses.replace(plan, validate_every=every)


def solo_iterations(labeled_cases: int) -> int:
    """Iterations in which each has learnt alone what so few labels teach: more cases take longer to wear out."""
    return min(max(SOLO_ITERATIONS_A_CASE * labeled_cases, FEWEST_SOLO_ITERATIONS), MOST_SOLO_ITERATIONS)


def with_phases(losses: LossConfig, iterations: int, labeled_cases: int, unlabeled_cases: int) -> LossConfig:
    """Return ``losses`` with the share of ``iterations`` in which each sub-model learns alone, where it does at all.

    Pseudo-labels are worth as much as the networks that give them: they must have learnt their few labels first. With
    no unlabelled case there is nothing to learn from each other: each learns alone, from its own patches, all along.
    """
    if losses.solo_share <= 0:
        return losses
    if not unlabeled_cases:
        return dataclasses.replace(losses, solo_share=1.0)
    share = solo_iterations(labeled_cases) / iterations
    return dataclasses.replace(losses, solo_share=min(max(share, LEAST_SOLO), MOST_SOLO))


def recomputed_stages(plan: Plan, numeric: NumericMode) -> int:
    """Return how many shallow stages are computed again in the backward pass.

    Large patches keep gigabytes of features for it; computing them again costs little time.
    """
    samples = plan.batch_labeled + (0 if plan.losses.mixing == "copy-paste" else plan.batch_unlabeled)
    voxels = samples * math.prod(plan.geometry.patch) * plan.network.base_filters
    if voxels < RECOMPUTE_FEATURES:
        return 0
    return 3 if numeric.dtype == "fp32" else 1


def _affordable(plan: Plan, budget: float, *, cases: tuple[int, int], measured: Measurement) -> int:
    """Iterations that take ``budget`` seconds, with ``with_phases``: what is dear begins after ``solo_iterations``."""
    seconds = (1.0 - VALIDATION_SHARE - OVERHEAD_SHARE) * budget
    share = early_share(plan)
    number = seconds / measured.seconds_per_iteration(share)
    labeled_cases, unlabeled_cases = cases
    if plan.labeled_only or plan.losses.solo_share <= 0:
        return max(int(number), 1)
    if unlabeled_cases:
        solo = solo_iterations(labeled_cases)
        between = solo + (seconds - solo * measured.early_seconds) / measured.late_seconds
        fewest, most = (seconds / measured.seconds_per_iteration(s) for s in (LEAST_SOLO, MOST_SOLO))
        number = min(most, max(fewest, between))
    else:
        number = seconds / measured.early_seconds
    return max(int(number), 1)


def windows_per_case(plan: Plan, found: Fingerprint) -> int:
    """Return how many patches a median case is seen in, with an overlap of a quarter."""
    size = sizes.network_size(found.size, found.spacing, plan.geometry.spacing)
    return math.prod(max(math.ceil(4 / 3 * (n / p - 0.25)), 1) for n, p in zip(size, plan.geometry.patch))


def _validate_every(
    plan: Plan, found: Fingerprint, iterations: int, seconds_per_window: float, preview: bool = False
) -> int:
    """Validate as often as a small share of the run allows, at most twenty times."""
    cases = min(sum(c.role == "validation" for c in found.cases), VALIDATION_CASES) + preview
    seconds = max(cases * windows_per_case(plan, found) * seconds_per_window, 1e-3)
    affordable = VALIDATION_SHARE * iterations * plan.seconds_per_iteration / seconds
    return max(math.ceil(iterations / min(max(int(affordable), 1), MOST_VALIDATIONS)), 1)


@contextmanager
def _enough_memory(plan: Plan) -> Iterator[None]:
    """What runs out of memory while it is tried does not fit, though it was foretold to."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise DoesNotFit(
            f"The device {plan.device} ran out of memory when a training step was tried; close other programs, take a "
            "smaller patch, a smaller batch or fewer base filters, or choose another device.",
            peak_mb(plan),
        ) from error


def _check_memory(measured: Measurement, device: str, notes: list[str]) -> None:
    """The measurement ran on ``device``, so training fits now; warn where little is left."""
    memory = {found.name: (found.memory / 2**20, found.free_memory / 2**20) for found in find_devices()}
    total, free = memory.get(device, (0.0, 0.0))
    if total and measured.peak_memory_mb > 0.9 * total:
        raise ResourceError(
            f"Training needs about {measured.peak_memory_mb:.0f} MB and the device {device} has {total:.0f} MB; "
            "use a smaller patch or fewer base filters, or another machine."
        )
    if free and measured.peak_memory_mb > 0.8 * (free + measured.peak_memory_mb):
        notes.append("Little memory is left beside the training; close other programs.")


def _join(values: tuple[float, ...]) -> str:
    return "x".join(f"{v:g}" for v in values)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
