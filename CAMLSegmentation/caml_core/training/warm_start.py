"""From a start model's weights to those of a network for other segments: what has the same name is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..config import NetworkConfig, Segment, name_key
from ..model import build_network
from ..model_file import LoadedModel, load_model

#: Layers with one row a class.
OUTPUT_LAYERS = ("decoder1.out_conv", "decoder2.out_conv")


def load_start(path: Path, renamed: Sequence[tuple[str, str]] = ()) -> LoadedModel:
    """Return the model that a training starts from, its segments under the names that they have in the cohort.

    renamed: (old name, new name). A new name that the model has already stays that segment's. Raises ModelFileError
    where the file cannot be read.
    """
    model = load_model(path)
    names = {name_key(old): new for old, new in renamed}
    taken, segments = {name_key(s.name) for s in model.spec.segments}, []
    for segment in model.spec.segments:
        new = names.get(name_key(segment.name), segment.name)
        if name_key(new) not in taken:
            taken.add(name_key(new))
            segment = dataclasses.replace(segment, name=new)
        segments.append(segment)
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, segments=tuple(segments)))


def start_state(
    start: LoadedModel, network: NetworkConfig, segments: Sequence[Segment], seed: int
) -> dict[str, Tensor]:
    """Return a state dict for ``network`` with the start model's weights.

    The output rows of the background and of segments that the start model knows by name (upper and lower case alike)
    are taken over, also where their label values differ; rows of new segments start from scratch.
    """
    torch.manual_seed(seed)
    state = build_network(network).state_dict()
    rows = {0: 0, **known_labels(start.spec.segments, segments)}
    for name, tensor in start.state.items():
        if name.rpartition(".")[0] in OUTPUT_LAYERS:
            for new, old in rows.items():
                state[name][new] = tensor[old]
        else:
            state[name] = tensor.clone()
    if start.spec.labeled_only:  # sub-model a was never trained: it begins where v is
        full = build_network(network)
        full.load_state_dict(state)
        full.take_over()
        state = full.state_dict()
    return state


def known_labels(known: Sequence[Segment], wanted: Sequence[Segment]) -> dict[int, int]:
    """Return label among ``wanted`` -> label among ``known``, of the segments that bear the same name."""
    labels = {name_key(s.name): s.label for s in known}
    return {s.label: labels[name_key(s.name)] for s in wanted if name_key(s.name) in labels}
