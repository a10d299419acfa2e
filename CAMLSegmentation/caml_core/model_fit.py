"""Does a volume look like those that a model was made for? Warnings before, not a bad result after.

Standard library only: a panel asks as soon as a volume and a model are chosen. Nothing here refuses anything, and the
limits are wide: a warning that comes for good volumes, too, would soon be read by nobody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .channel_titles import order_warning
from .config import ChannelIntensity, ModelSpec, Spacing, Triple
from .model_file import ModelInfo

#: Voxels so many times as long as expected are too coarse, whatever their size ...
COARSE = 3.0
#: ... and already so many times where they are thick slices, in mm: 1.25 mm for 0.6 mm is usual and harmless.
COARSE_SLICES, THICK_MM = 2.0, 3.0
#: The share of the expected extent below which a field of view is too small, and above which it is too large.
SMALL_VIEW, LARGE_VIEW = 0.5, 3.0
#: Fewer slices than this are hardly a volume: the network halves each side up to four times.
FEW_SLICES = 8
#: Every CT scan has fat or air below this (HU), and no MRI scan of positive values has.
NO_CT_ABOVE = -100.0
#: Air of a CT scan; and values beyond any in HU, where a very negative value is an overshoot of MRI.
CT_AIR, BEYOND_HU = -900.0, 10_000.0

_FAMILIES = {
    **dict.fromkeys(("CT", "CTA", "CCTA", "CECT", "CBCT"), "CT"),
    **dict.fromkeys(("MR", "MRI", "MRA", "CMR"), "MRI"),
    **dict.fromkeys(("PT", "PET"), "PET"),
    **dict.fromkeys(("US", "IVUS"), "ultrasound"),
    "NM": "nuclear medicine",
    **dict.fromkeys(("XA", "DX", "CR", "RF", "MG"), "X-ray"),
}
_PATIENT_AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
_ALONG = ("from left to right", "from front to back", "from head to foot")


@dataclass(frozen=True)
class VolumeFacts:
    """What is known of one volume without reading a file.

    ``size`` and ``spacing`` (mm) go along the volume's own axes, ``direction`` has their nine cosines in LPS row by
    row, None where they are not known. ``modality`` is DICOM's code, ``name`` that of the file or node; empty where
    they are not known.
    """

    size: Triple
    spacing: Spacing
    direction: tuple[float, ...] | None = None
    modality: str = ""
    lowest: float | None = None
    highest: float | None = None
    name: str = ""


def warnings(facts: Sequence[VolumeFacts], spec: ModelSpec, info: ModelInfo) -> tuple[str, ...]:
    """Return one sentence for each way in which the volumes, one a channel, differ from what the model expects."""
    expected = len(spec.channels)
    if len(facts) != expected:
        return (
            f"The model needs {expected} {'volume' if expected == 1 else 'volumes'} of the same patient, one for each "
            f"channel, and {len(facts)} {'was' if len(facts) == 1 else 'were'} given; choose {expected}.",
        )
    order = order_warning([volume.name for volume in facts], [channel.title for channel in spec.channels])
    return (*filter(None, [order]), *_contents(facts, spec), *_geometry(facts[0], spec, info))


def misfit(facts: Sequence[VolumeFacts], spec: ModelSpec, info: ModelInfo) -> tuple[int, int]:
    """Return how badly volumes suit a model, to compare models by: the less, the better.

    First counts what no crop of the volumes would mend: their number, or what they show; then all warnings.
    """
    content = _contents(facts, spec) if len(facts) == len(spec.channels) else ("their number",)
    return len(content), len(warnings(facts, spec, info))


def _contents(facts: Sequence[VolumeFacts], spec: ModelSpec) -> tuple[str, ...]:
    found: list[str] = []
    for index, (volume, channel) in enumerate(zip(facts, spec.channels), 1):
        subject = "The volume" if len(facts) == 1 else f"The volume of channel {index}"
        found += itertools.islice(_content(volume, channel, subject), 1)
    return tuple(found)


def _content(volume: VolumeFacts, channel: ChannelIntensity, subject: str) -> Iterator[str]:
    """What the volume shows; the first sentence counts, what follows from it would only repeat it."""
    ours, wanted = _family(volume.modality), _family(channel.modality)
    if ours and wanted and ours != wanted:
        yield (
            f"{subject} is {_named(ours)} by its DICOM header and the model was trained on {_named(wanted)}; "
            "choose another volume or another model."
        )
    low, high = volume.lowest, volume.highest
    if low is None or high is None:
        return
    if high <= low:
        yield f"{subject} has the same value ({low:g}) everywhere; choose a volume that shows something."
    if wanted == "CT" and low > NO_CT_ABOVE:
        yield (
            f"{subject} has values from {low:g} to {high:g} and the model expects a CT in Hounsfield units, where fat "
            "and air lie below -100; choose a CT, or the volume before its values were changed."
        )
    if wanted == "MRI" and not ours and low <= CT_AIR and high < BEYOND_HU:
        yield (
            f"{subject} has values from {low:g} to {high:g}, like a CT in Hounsfield units, and the model was trained "
            "on MRI; choose an MRI volume or another model."
        )


def _geometry(volume: VolumeFacts, spec: ModelSpec, info: ModelInfo) -> Iterator[str]:
    axes = _patient_axes(volume.direction)
    model_axes = [_PATIENT_AXES[letter] for letter in spec.geometry.orientation]
    trained_mm, trained_spacing = _trained(info, "size_mm"), _trained(info, "spacing")
    for axis in range(3):
        own, network = axes[axis], model_axes.index(axis)
        number, step = volume.size[own], volume.spacing[own]
        target = max(spec.geometry.spacing[network], trained_spacing[axis] if trained_spacing else 0.0)
        usual = trained_mm[axis] if trained_mm else None
        usual_number = usual / trained_spacing[axis] if usual and trained_spacing else float(FEW_SLICES)
        yield from _spacing(step, target, axis)
        if number < FEW_SLICES <= usual_number:
            yield (
                f"The volume has only {number} {'slice' if number == 1 else 'slices'} {_ALONG[axis]} and the model was "
                "made for volumes; choose a scan of the whole organ, not a few pictures of it."
            )
        else:
            patch = spec.geometry.patch[network] * spec.geometry.spacing[network]
            yield from _view(number * step, patch, usual, axis)


def _spacing(step: float, target: float, axis: int) -> Iterator[str]:
    if step > COARSE * target or (step > COARSE_SLICES * target and step > THICK_MM):
        yield (
            f"The voxels are {step:.3g} mm long {_ALONG[axis]} and the model was made for {target:.3g} mm; choose a "
            "finer series of the scan if there is one, or check thin structures with care."
        )


def _view(extent: float, patch: float, usual: float | None, axis: int) -> Iterator[str]:
    """``patch``: what the network saw at a time. A patch is rounded up, and may be larger than its volumes were."""
    least = min(patch, usual) if usual else patch
    if extent < SMALL_VIEW * least:
        yield (
            f"The volume spans {extent:.3g} mm {_ALONG[axis]} and the model was made to see about {least:.3g} mm; "
            "choose a volume or a region that shows more around the organ."
        )
    elif usual and extent > LARGE_VIEW * max(usual, patch):
        yield (
            f"The volume spans {extent:.3g} mm {_ALONG[axis]} and those that the model learned from about "
            f"{usual:.3g} mm; limit it to a region around the organ, or check for findings far away from it."
        )


def _patient_axes(direction: tuple[float, ...] | None) -> tuple[int, ...]:
    """Which of the volume's axes is nearest to each of L, P, S; in their order where nothing is known."""
    if direction is None or len(direction) != 9:
        return (0, 1, 2)

    def closeness(axes: tuple[int, ...]) -> float:
        return round(sum(abs(direction[3 * patient + axis]) for patient, axis in enumerate(axes)), 6)

    return max(itertools.permutations(range(3)), key=closeness)


def _trained(info: ModelInfo, name: str) -> tuple[float, ...] | None:
    """A median of the training's volumes along L, P, S, where the model tells it; a stranger may have written it."""
    volumes = info.provenance.get("training_volumes")
    values: Any = volumes.get(name) if isinstance(volumes, dict) else None
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        return None
    numbers = tuple(float(v) for v in values if isinstance(v, (int, float)) and 0 < v < float("inf"))
    return numbers if len(numbers) == 3 else None


def _family(modality: str) -> str:
    """CT, MRI or another kind of scan of a code or a free text such as "LGE-MRI"; empty where it is not known."""
    words = modality.upper().replace("-", " ").replace("_", " ").split()
    return next((_FAMILIES[word] for word in words if word in _FAMILIES), "")


def _named(family: str) -> str:
    article = "an" if family in ("MRI", "ultrasound", "X-ray") else "a"
    return f"{article} {family} scan"
