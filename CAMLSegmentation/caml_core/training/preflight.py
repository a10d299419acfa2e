"""Before anything runs: what was found, what would be done, whether it fits, and how long it takes, as JSON values."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache_location import user_cache_folder
from ..channel_titles import NAMES_SAY
from ..config import NetworkConfig, Plan
from ..data.case import Cohort
from ..data.cohort import check_folds, check_trainable
from ..data.fingerprint import CaseFingerprint, Fingerprint
from ..device import total_ram
from ..errors import ResourceError, UsageError
from ..events import Listener
from ..model_file import LoadedModel, network_shapes
from ..serialization import to_json
from . import sizes
from .from_model import COARSE_START, NEW_SEGMENTS, OTHER_CHANNELS
from .held_out import seen_note, start_notes
from .memory import SHRUNK, DoesNotFit, free_memory_mb
from .planner import describe, make_plan, windows_per_case
from .request import Request, check_of_round
from .run import survey
from .session import case_memos
from .validation import VALIDATION_CASES
from .warm_start import known_labels, load_start

MB = 1e6
MIB = 2**20
#: Fewer labelled cases than this deserve a sentence.
FEW_LABELED = 2
#: Preparing a case takes this much longer than looking at it.
PREPARING_SHARE = 1.5
#: Seconds a voxel at full resolution for assembling a segmentation and measuring surfaces.
SECONDS_PER_VOXEL = 1.5e-7
#: Passes of both sub-models over a held-out case in the final scores: together, and each alone.
SCORING_PASSES = 2
LEAST_FOLD_ITERATIONS = 50


@dataclass(frozen=True)
class Extras:
    """What a round does beside the main training, and the folder that it will lie in (None: not known)."""

    baseline: bool = False
    folds: int = 0
    folder: Path | None = None
    cache_folder: Path | None = None


def preflight(
    cohort_path: Path, request: Request, listener: Listener, start_path: Path | None = None, extras: Extras = Extras()
) -> dict[str, Any]:
    """Survey, plan, and return the verdict with all that led to it (the keys are those of ``_answer``).

    Raises DataError for cases that cannot be used, ModelFileError for the start model, and UsageError for what is asked
    of no round; what cannot be planned is a verdict.
    """
    check_of_round(request.labeled_only)
    cohort, found = survey(cohort_path, request, listener, extras.cache_folder, start_path)
    surveyed = time.monotonic()
    start = None if start_path is None else load_start(start_path, request.renamed)
    listener("stage", {"name": "measuring", "detail": request.device})
    plan, needed, sentence = None, 0.0, ""
    try:
        if request.until_better and not cohort.with_role("validation"):
            raise UsageError(
                "Training until it stops improving needs at least one validation case; hold one out, or choose a time."
            )
        check_folds(cohort, extras.folds)
        # An event is where a listener that is asked to stop says so.
        plan = make_plan(cohort, found, request, start, lambda: listener("heartbeat", {}))
    except DoesNotFit as error:
        needed, sentence = error.needed_mb, str(error)
    except (ResourceError, UsageError) as error:
        sentence = str(error)
    planned = time.monotonic() - surveyed
    answer = _answer(cohort, found, start, plan, request, extras)
    if plan is None:
        return {**answer, "verdict": "does-not-fit", "sentence": sentence, "memory_mb": round(needed)}
    # What was seen of the cases is kept for the training; to prepare them they are read again, if they were not yet.
    seconds = PREPARING_SHARE * found.seconds + planned + _seconds(plan, found, start is not None, extras)
    return _judged({**answer, "seconds": round(seconds)}, plan, extras)


def _answer(
    cohort: Cohort, found: Fingerprint, start: LoadedModel | None, plan: Plan | None, request: Request, extras: Extras
) -> dict[str, Any]:
    known = {} if start is None else known_labels(start.spec.segments, found.segments)
    expectations = _expectations(cohort, start, extras)
    notes = [*(found.notes if plan is None else plan.notes), *expectations]
    of_start = [note for note in notes if note.startswith((COARSE_START, NEW_SEGMENTS, OTHER_CHANNELS, NAMES_SAY))]
    notes += start_notes(start, cohort, case_memos(extras.cache_folder))
    kept = [s.name for s in found.segments if s.label in known]
    if kept:
        notes.append(f"Taken over from the start model: {', '.join(kept)}.")
    return {
        "verdict": "",
        "sentence": "",
        "cases": [_case(case, found.notes) for case in found.cases],
        "notes": list(dict.fromkeys(notes)),
        "cautions": list(dict.fromkeys([*found.notes, *of_start, *expectations])),
        "kept_segments": kept,
        "new_segments": [s.name for s in found.segments if start is not None and s.label not in known],
        "plan": to_json(plan),
        "text": "" if plan is None else describe(plan, found),
        "memory_mb": 0 if plan is None else round(plan.peak_memory_mb),
        "memory_free_mb": round(free_memory_mb(request.device)),
        "memory_total_mb": round(_total_mb(request.device)),
        "disk_mb": 0 if plan is None else round(_cache_mb(plan, found) + _run_mb(plan.network, extras)),
        "disk_free_mb": round(_disk_free_mb(extras)),
        "iterations": 0 if plan is None else plan.iterations,
        "seconds": 0,
    }


def _judged(answer: dict[str, Any], plan: Plan, extras: Extras) -> dict[str, Any]:
    free = answer["disk_free_mb"]
    needed = _run_mb(plan.network, extras)
    if free and needed > free:
        return {
            **answer,
            "verdict": "does-not-fit",
            "sentence": f"The training needs about {needed:.0f} MB on the disk and {free} MB are free; make room, or "
            "choose another folder.",
            "plan": None,
            "text": "",
        }
    if free and answer["disk_mb"] > free:
        answer["notes"].append(
            f"With all prepared cases about {answer['disk_mb']} MB are needed on the disk, and {free} MB are free; "
            "unless they are prepared already, free space on the disk of your user folder, or exclude some cases."
        )
    shrunk = next((note for note in plan.notes if note.startswith(SHRUNK)), "")
    if shrunk:
        return {**answer, "verdict": "smaller-patch", "sentence": shrunk}
    sentence = f"It fits: about {answer['memory_mb']} MB of memory on {plan.device}."
    return {**answer, "verdict": "fits", "sentence": sentence}


def _expectations(cohort: Cohort, start: LoadedModel | None, extras: Extras) -> list[str]:
    """What to expect of a cohort that lacks something, or whose held-out cases were seen before."""
    notes = list(check_trainable(cohort))
    if len(cohort.with_role("labeled")) < FEW_LABELED:
        notes.append(
            "One labelled case says little about how anatomy varies: expect a rough first model, correct a few of its "
            "results, and train again."
        )
    if seen := seen_note(start, cohort, case_memos(extras.cache_folder)):
        notes.append(seen)
    return notes


def _case(case: CaseFingerprint, notes: Sequence[str]) -> dict[str, Any]:
    """One case; ``grey_values`` are, for each channel, those that one voxel in two hundred lies below, and above."""
    named = re.compile(rf"\b[Cc]ases? (?:.+? and )?{re.escape(case.id)}(?![\w-])")
    return {
        "id": case.id,
        "role": case.role,
        "size": list(case.size),
        "spacing": list(case.spacing),
        "orientation": case.orientation,
        "modality": [channel.modality for channel in case.channels],
        "grey_values": [[channel.percentile_00_5, channel.percentile_99_5] for channel in case.channels],
        "notes": [note for note in notes if named.search(note)],
    }


def _seconds(plan: Plan, found: Fingerprint, has_start: bool, extras: Extras) -> float:
    """Wall time of steps, validations and scores, and of the baseline and the folds where asked for."""
    held_out = sum(c.role == "validation" for c in found.cases)
    labeled = sum(c.role == "labeled" for c in found.cases)
    pass_over_case = windows_per_case(plan, found) * plan.seconds_per_window
    scored = math.prod(found.size) * SECONDS_PER_VOXEL + pass_over_case
    steps = plan.iterations * plan.seconds_per_iteration
    validated = plan.iterations // plan.validate_every * min(held_out, VALIDATION_CASES) * pass_over_case
    total = steps + validated + SCORING_PASSES * held_out * scored
    if extras.baseline:
        total += steps + validated + held_out * scored
    if has_start:
        total += held_out * scored
    if extras.folds:
        folds = max(min(extras.folds, labeled), 1)
        each = max(plan.iterations / folds, LEAST_FOLD_ITERATIONS) * plan.seconds_per_iteration
        total += folds * each + SCORING_PASSES * labeled * scored
    return total


def _cache_mb(plan: Plan, found: Fingerprint) -> float:
    """Prepared cases: float16 images, and labels of one byte a voxel where there are any."""
    total = 0
    for case in found.cases:
        size = sizes.network_size(case.size, case.spacing, plan.geometry.spacing)
        total += math.prod(size) * (2 * len(plan.channels) + (case.role != "unlabeled"))
    return total / MB


def _run_mb(network: NetworkConfig, extras: Extras) -> float:
    """Checkpoints (weights, average, teacher, two moments; twice while one replaces another) and model files."""
    numbers = sum(math.prod(shape) for shape, _ in network_shapes(network).values())
    models = 2 + extras.baseline
    return numbers * (2 * 5 * 4 + 2 * models) / MB


def _disk_free_mb(extras: Extras) -> float:
    """The least free space of the file systems that are written to; 0: unknown."""
    folders = [extras.cache_folder or user_cache_folder()]
    if extras.folder is not None:
        folders.append(extras.folder)
    return min((_free_mb(folder) for folder in folders), default=0.0)


def _free_mb(folder: Path) -> float:
    existing = next((p for p in (folder, *folder.resolve().parents) if p.is_dir()), None)
    try:
        return shutil.disk_usage(existing).free / MB if existing else 0.0
    except OSError:
        return 0.0


def _total_mb(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[1] / MIB
    return total_ram() / MIB
