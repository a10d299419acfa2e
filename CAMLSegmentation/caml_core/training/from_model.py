"""What a training that starts from a model takes over of it, and what its plan has other than one from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..channel_titles import disagreement, listed_titles
from ..config import ChannelIntensity, Geometry, ModelSpec, NetworkConfig, Plan, name_key
from ..data.fingerprint import Fingerprint
from ..errors import UsageError
from ..model_file import LoadedModel
from ..presets import Preset
from .request import Request
from .sizes import LEAST_CEILING, LabelTraits

#: Share of the learning rate.
FINE_TUNING_RATE = 0.3
#: How the notes begin that a start model's grid is too coarse, and that it lacks segments.
COARSE_START = "On the start model's grid labels keep"
NEW_SEGMENTS = "The start model does not know"
#: ... and that its channels are called otherwise.
OTHER_CHANNELS = "The start model's channels are"


def taken_over(
    start: LoadedModel, found: Fingerprint, preset: NetworkConfig, traits: LabelTraits, notes: list[str]
) -> tuple[Geometry, NetworkConfig, tuple[ChannelIntensity, ...]]:
    """Return grid, network and intensities of a training that starts from ``start``; adds to ``notes``.

    preset: the network that is trained from scratch. Raises UsageError where the channels differ in number, or are the
    same ones in another order.
    """
    spec = start.spec
    if spec.network.in_channels != len(found.channels):
        raise UsageError(
            f"The start model takes {spec.network.in_channels} channels and the cohort's cases have "
            f"{len(found.channels)}; choose another start model."
        )
    channels = _named(spec.channels, [channel.title for channel in found.channels], notes)
    known = {name_key(s.name) for s in spec.segments}
    new = [s.name for s in found.segments if name_key(s.name) not in known]
    if new:
        notes.append(f"{NEW_SEGMENTS} {', '.join(new)}: these segments start from scratch.")
    for ours, theirs in zip(found.channels, spec.channels):
        if ours.modality != theirs.modality:
            notes.append(f"The start model was trained on {theirs.modality}, the cohort looks like {ours.modality}.")
    if traits.start_ceiling < LEAST_CEILING:
        spacing = "x".join(f"{side:g}" for side in spec.geometry.spacing)
        notes.append(
            f"{COARSE_START} {100 * traits.start_ceiling:.1f} % Dice on the way there and back ({spacing} mm), and "
            "results can hardly be better; train from scratch, which takes a finer grid, or choose a start model with "
            "one."
        )
    network = dataclasses.replace(
        spec.network,
        classes=len(found.segments) + 1,
        dropout=preset.dropout,
        attention_alone=preset.attention_alone,
        attention_dropout=preset.attention_dropout,
        attention_evaluation=preset.attention_evaluation,  # as it is trained from here on
    )
    return spec.geometry, network, channels


def _named(
    channels: tuple[ChannelIntensity, ...], titles: Sequence[str], notes: list[str]
) -> tuple[ChannelIntensity, ...]:
    """The start model's channels under the cohort's ``titles``, where it has any; the other ones keep theirs."""
    theirs = [channel.title for channel in channels]
    contrast = f"{OTHER_CHANNELS} {listed_titles(theirs)} and the cohort's are {listed_titles(titles)}"
    fault = disagreement(titles, theirs)
    if fault == "order":
        raise UsageError(
            f"{contrast}: one would be taken for another. List the images of each case in the start model's order, or "
            "train from scratch."
        )
    if fault:
        notes.append(f"{contrast}: check that they show the same, or choose another start model.")
    return tuple(dataclasses.replace(c, title=title or c.title) for c, title in zip(channels, titles))


def refuse_other_shapes(request: Request, spec: ModelSpec) -> None:
    """Raise UsageError where a grid, a patch or a width is asked for that the start model does not have."""
    for option, asked, its in (
        ("--spacing", request.spacing, spec.geometry.spacing),
        ("--patch", request.patch, spec.geometry.patch),
        ("--base-filters", request.base_filters, spec.network.base_filters),
    ):
        if asked is not None and asked != its:
            value = its if isinstance(its, int) else ",".join(f"{side:g}" for side in its)
            raise UsageError(
                f"{option} cannot be changed in a training that starts from a model, which has {value}; leave the "
                "option out, or train from scratch."
            )


def fine_tuning(preset: Preset) -> Preset:
    """Return the preset for a network that knows something already; the published one stays as it is.

    Steps are gentler, and pseudo-labels are made once and for all by the network that has learnt from the labels:
    taught by what it has itself become, it makes segments larger and larger.
    """
    if preset.losses.solo_share <= 0:
        return preset
    rate = FINE_TUNING_RATE * preset.optimizer.learning_rate
    return dataclasses.replace(
        preset,
        optimizer=dataclasses.replace(preset.optimizer, learning_rate=rate),
        losses=dataclasses.replace(preset.losses, teacher="fixed"),
    )


def from_scratch(plan: Plan) -> Plan:
    """Return a plan that starts from a model as one that starts from random weights; others as they are."""
    if not plan.from_model:
        return plan
    optimizer, losses = plan.optimizer, dataclasses.replace(plan.losses, teacher="moving")
    if losses.solo_share > 0:
        optimizer = dataclasses.replace(optimizer, learning_rate=optimizer.learning_rate / FINE_TUNING_RATE)
    return dataclasses.replace(plan, from_model=False, optimizer=optimizer, losses=losses)
