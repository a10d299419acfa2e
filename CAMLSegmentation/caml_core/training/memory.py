"""Whether a step fits into memory, foretold from steps on small patches: nobody gets killed for having tried."""

from __future__ import annotations

import dataclasses
import gc
import math
from dataclasses import dataclass

from ..config import NumericMode, Plan, Triple
from ..device import available_ram, forget_peak_memory
from ..errors import ResourceError
from ..model_file import network_shapes
from .engine import Engine
from .measurement import bf16_gradients_are_right, peak_mb, random_batch, with_small_patch

#: The note of a plan whose patch had to become smaller begins like this.
SHRUNK = "The patch was made smaller"
#: Share of the free memory that a training may take, after some is set aside for reading, validating and others.
USABLE_SHARE = 0.9
RESERVE_MB = 250.0
#: Float32 values that are kept of each weight: itself, its average, its gradient, the optimiser's two moments.
COPIES = 5
#: Memory grows a little faster than the number of voxels.
SAFETY = 1.15
#: Bytes that a voxel of the patch takes for each sample and filter, if nothing was or can be measured: a little less
#: than what it was on a processor in float32 (150), and twice as much.
LEAST_BYTES, MOST_BYTES = 120, 320
#: PyTorch, weights, averages and the optimiser's state of a usual network.
USUAL_FIXED_MB = 1500.0
#: A patch for the measurement has about so many voxels at most.
MEASURED_VOXELS = 100_000
MIB = 2**20


class DoesNotFit(ResourceError):  # noqa: N818 - named after what the user is told
    """A training needs more memory than there is; ``needed_mb`` with the smallest patch."""

    def __init__(self, message: str, needed_mb: float) -> None:
        self.needed_mb = needed_mb
        super().__init__(message)


@dataclass(frozen=True)
class MemoryModel:
    """Peak memory of the process with patches of ``voxels``: ``fixed_mb`` at ``base_voxels``, and more for more.

    ``free_mb``: what is left beside a training with patches of ``base_voxels``; 0: unknown.
    """

    fixed_mb: float
    base_voxels: int
    bytes_per_voxel: float
    free_mb: float

    def peak_mb(self, voxels: int) -> float:
        """Return the predicted peak."""
        return self.fixed_mb + self._more(voxels)

    def fits(self, voxels: int) -> bool:
        """Whether patches of this size leave the machine enough to live on."""
        return not self.free_mb or self._more(voxels) <= USABLE_SHARE * (self.free_mb - RESERVE_MB)

    @property
    def whole_mb(self) -> float:
        """Return the memory that a training as a whole can have."""
        return self.fixed_mb + self.free_mb

    def _more(self, voxels: int) -> float:
        return SAFETY * self.bytes_per_voxel * max(voxels - self.base_voxels, 0) / MIB


def fit_to_memory(plan: Plan, labeled_cases: int, *, may_shrink: bool) -> tuple[Plan, str]:
    """Return the plan, with a smaller patch where it would not fit, and then a sentence that says so.

    Raises DoesNotFit where not even small patches fit, or where the patch may not shrink.
    """
    if _surely_fits(plan):
        return plan, ""
    _check_weights(plan)
    model = measure_memory(plan, labeled_cases)
    if model.fits(math.prod(plan.geometry.patch)):
        return plan, ""
    if not may_shrink:
        what = f"with patches of {_join(plan.geometry.patch)} voxels"
        raise _refusal(model.peak_mb(math.prod(plan.geometry.patch)), model.whole_mb, what)
    patch = smaller_patch(plan.geometry.patch, plan.network.divisor, model)
    if patch is None:
        raise _refusal(model.fixed_mb + RESERVE_MB, model.whole_mb, "even with a small patch")
    note = (
        f"{SHRUNK} ({_join(patch)} instead of {_join(plan.geometry.patch)} voxels) to fit into the "
        f"{model.whole_mb:.0f} MB of memory that are free; closing other programs may make room for the larger one."
    )
    return _with_patch(plan, patch), note


def smaller_patch(patch: Triple, divisor: Triple, model: MemoryModel) -> Triple | None:
    """Return the largest patch of about the same shape that fits; None where none of two strides a side does."""
    sides = list(patch)
    while not model.fits(math.prod(sides)):
        shrinkable = [a for a in range(3) if sides[a] > 2 * divisor[a]]
        if not shrinkable:
            return None
        axis = max(shrinkable, key=lambda a: sides[a] / patch[a])
        sides[axis] -= divisor[axis]
    x, y, z = sides
    return x, y, z


def smaller_plan(plan: Plan) -> Plan | None:
    """Return ``plan`` with half the batch, or with one sample a stream with half the patch; None at the end.

    One sample is never a single voxel in the deepest stage, where batch normalisation needs more. Patches that bfloat16
    cannot train on the processor are trained in float32.
    """
    patch, divisor = list(plan.geometry.patch), plan.network.divisor
    if plan.batch_labeled > 1 or plan.batch_unlabeled > 1:
        labeled, unlabeled = max(plan.batch_labeled // 2, 1), max(plan.batch_unlabeled // 2, 1)
        if labeled == 1 and patch == list(divisor):
            return None
        return dataclasses.replace(plan, batch_labeled=labeled, batch_unlabeled=unlabeled)
    axis = max(range(3), key=lambda a: patch[a] / divisor[a])
    if patch[axis] <= divisor[axis]:
        return None
    patch[axis] = max(patch[axis] // 2 // divisor[axis], 1) * divisor[axis]
    if patch == list(divisor):
        return None
    x, y, z = patch
    smaller = _with_patch(plan, (x, y, z))
    if plan.numeric.dtype == "bf16" and not bf16_gradients_are_right(smaller):
        return dataclasses.replace(smaller, numeric=dataclasses.replace(plan.numeric, dtype="fp32"))
    return smaller


def measure_memory(plan: Plan, labeled_cases: int) -> MemoryModel:
    """Perform steps on two small patches and tell from their peaks what larger ones need."""
    plan = dataclasses.replace(plan, numeric=NumericMode(recompute=plan.numeric.recompute))
    base, more = with_small_patch(plan, MEASURED_VOXELS // 8), with_small_patch(plan, MEASURED_VOXELS)
    low, free = _peak_of_steps(base, labeled_cases)
    high, _ = _peak_of_steps(more, labeled_cases) if more != base else (low, free)
    base_voxels, voxels = math.prod(base.geometry.patch), math.prod(more.geometry.patch)
    slope = (high - low) * MIB / max(voxels - base_voxels, 1)
    # Where the system does not let a peak be forgotten, earlier ones hide the difference.
    return MemoryModel(low, base_voxels, max(slope, LEAST_BYTES * _samples(plan) * plan.network.base_filters), free)


def free_memory_mb(device: str) -> float:
    """Return the memory that is free on the device, in MB; 0: unknown."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0] / MIB
    return available_ram() / MIB


def _surely_fits(plan: Plan) -> bool:
    """Whether there is so much memory that no measurement is needed."""
    free = free_memory_mb(plan.device)
    voxels = math.prod(plan.geometry.patch)
    most = MOST_BYTES * _samples(plan) * plan.network.base_filters * voxels / MIB + USUAL_FIXED_MB
    return not free or most < 0.5 * free


def _check_weights(plan: Plan) -> None:
    """Raise DoesNotFit where there is no room for the network, let alone for a step."""
    free = free_memory_mb(plan.device)
    numbers = sum(math.prod(shape) for shape, _ in network_shapes(plan.network).values())
    needed = COPIES * 4 * numbers / MIB + RESERVE_MB
    if needed > free:
        raise _refusal(needed, free, "even with a small patch")


def _samples(plan: Plan) -> int:
    """Samples of a step's forward pass."""
    return plan.batch_labeled + (0 if plan.losses.mixing == "copy-paste" else plan.batch_unlabeled)


def _peak_of_steps(plan: Plan, labeled_cases: int) -> tuple[float, float]:
    """Return the peak of two steps, and what memory is free beside them."""
    gc.collect()
    forget_peak_memory()
    engine, batch = Engine(plan, labeled_cases), random_batch(plan)
    for back in (2, 1):
        engine.step(batch, max(plan.iterations - back, 0))
    return peak_mb(plan), free_memory_mb(plan.device)


def _with_patch(plan: Plan, patch: Triple) -> Plan:
    return dataclasses.replace(plan, geometry=dataclasses.replace(plan.geometry, patch=patch))


def _refusal(needed: float, free: float, what: str) -> DoesNotFit:
    return DoesNotFit(
        f"Training needs about {needed:.0f} MB of memory {what}, and {free:.0f} MB are free; close other programs, "
        "take a smaller patch or a network with fewer filters, or use a machine with more memory.",
        needed,
    )


def _join(patch: Triple) -> str:
    return "x".join(map(str, patch))
