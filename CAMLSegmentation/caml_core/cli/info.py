"""``caml info``: a model's card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..model_archive import MAX_DOCUMENT
from . import options
from .streams import show

if TYPE_CHECKING:
    from ..config import ChannelIntensity, ModelSpec
    from ..model_file import ModelCard, ModelInfo

HELP = "Show what a model file holds: segments, spacing, training, held-out figures, licence."
#: Long entries of the provenance (a hash for each case), and lists of cases, are counted, not printed; --json prints
#: them.
_LONGEST = 500
#: What sub-models make of a case, of which the first in a summary stands for the model; the figures shown of it, and
#: what is no figure any more.
_USES = {"mean": "mean of both sub-models", "v": "sub-model v", "a": "sub-model a"}
_BEYOND = 1e12
_SHOWN = (("dice", "Dice", 100.0, "%"), ("hd95_mm", "95HD", 1.0, "mm"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", type=Path, metavar="MODEL.caml", help="the model file")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--check", action="store_true", help="also read the weights and check every one of them")


def run(args: argparse.Namespace) -> int:
    """Print the card; raise ModelFileError for a file that is none."""
    from ..model_file import load_model, read_card

    card = read_card(args.model)
    if args.check:
        load_model(args.model)
    if args.json:
        show(json.dumps(_document(card, args.check), indent=2, ensure_ascii=True))
    else:
        options.say("\n".join(_lines(card, args.check)))
    return 0


def _document(card: ModelCard, checked: bool) -> dict[str, Any]:
    from ..serialization import to_json

    return {**to_json(card), "checked": checked}


def _lines(card: ModelCard, checked: bool) -> Iterator[str]:
    for title, text in _entries(card):
        if text:
            yield f"{title + ':':<14}{text}"
    summaries = {key: list(_figures(content)) for key, content in card.info.metrics.items()}
    others = {key: content for key, content in card.info.metrics.items() if not summaries[key]}
    for title, lines in (
        ("Held out", summaries.get("held_out", ())),
        ("In folds", summaries.get("cross_validation", ())),
        ("Figures", _flat(others, MAX_DOCUMENT)),
        ("Origin", _flat(card.info.provenance, _LONGEST)),
    ):
        for index, line in enumerate(lines):
            yield f"{title + ':' if index == 0 else '':<14}{line}"
    state = "every weight is finite and fits" if checked else "weights not read; --check reads them"
    yield f"{'File:':<14}{card.size / 1e6:.1f} MB, SHA-256 of the weights {card.sha256[:16]}..., {state}"


def _entries(card: ModelCard) -> Iterator[tuple[str, str]]:
    spec, info = card.spec, card.info
    yield "Model", info.name
    yield "Description", info.description
    yield "Anatomy", info.anatomy
    yield "Modality", info.modality
    for segment in spec.segments:
        yield "Segment", f"{segment.label} {segment.name}{_coded(segment.terminology)}"
    for index, channel in enumerate(spec.channels):
        yield "Channel", f"{index + 1} {_channel(channel)}"
    yield "Spacing", f"{_joined(spec.geometry.spacing)} mm, axes {spec.geometry.orientation}"
    yield "Patch", f"{_joined(spec.geometry.patch)} voxels"
    yield "Network", _network(spec, card.parameters)
    yield "Trained on", _training(info)
    yield "Licence", info.license or "not stated"
    yield "Citation", info.citation
    yield "Made by", f"CAML {card.caml_version}" if card.caml_version else ""


def _joined(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _coded(terminology: str) -> str:
    """`` (SCT 82471001 Left atrium)`` of Slicer's terminology text."""
    parts = terminology.split("~")
    code = parts[2].split("^") if len(parts) > 2 else []
    return f" ({' '.join(code)})" if len(code) == 3 else ""


def _channel(channel: ChannelIntensity) -> str:
    if channel.kind == "window":
        return f"{channel.called}, window {channel.lower:g} to {channel.upper:g}"
    return f"{channel.called}, z-score of the {channel.region}, percentiles {channel.lower:g} to {channel.upper:g}"


def _network(spec: ModelSpec, parameters: int) -> str:
    models = "sub-model v alone" if spec.labeled_only else "sub-models v and a"
    parts = ", largest part of each segment" if spec.one_component else ""
    return f"{models}, {spec.network.base_filters} filters, {parameters / 1e6:.1f} million weights{parts}"


def _training(info: ModelInfo) -> str:
    if not info.labeled_cases and not info.unlabeled_cases:
        return "not stated"
    return f"{info.labeled_cases} labelled and {info.unlabeled_cases} unlabelled cases"


def _figures(measured: Any) -> Iterator[str]:
    """What the cases told that were held out; nothing where ``measured`` has no such figures."""
    summary = measured.get("summary") if isinstance(measured, dict) else None
    if not isinstance(summary, dict):
        return
    use, rows = next(((u, rows) for u, rows in summary.items() if u in _USES and isinstance(rows, dict)), ("", {}))
    for name, row in rows.items():
        shown = [
            f"{words} {factor * figure[0]:.1f} +- {factor * figure[1]:.1f} {unit}"
            for key, words, factor, unit in _SHOWN
            if (figure := _mean_and_deviation(row, key))
        ]
        if shown:
            yield f"{name}: {', '.join(shown)} ({_USES[use]}), {measured.get('count', 0)} cases"
    remarks = measured.get("remarks")
    for words in (measured.get("of"), *(remarks if isinstance(remarks, list) else ())):
        if words:
            yield str(words)


def _mean_and_deviation(row: Any, key: str) -> tuple[float, float] | None:
    """A figure of a summary's row; None where it has none, or a stranger wrote something else in its place."""
    figure = row.get(key) if isinstance(row, dict) else None
    if not isinstance(figure, dict):
        return None
    mean, deviation = figure.get("mean"), figure.get("std")
    return (mean, deviation) if _is_figure(mean) and _is_figure(deviation) else None


def _is_figure(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _BEYOND


def _is_list_of_texts(content: Any) -> bool:
    """Whether it is what a card has of cases: their ids, or each with a digest."""
    return isinstance(content, list) and bool(content) and all(isinstance(one, (str, list)) for one in content)


def _flat(content: Any, longest: int, name: str = "") -> Iterator[str]:
    """Nested entries as ``outer inner: value``; lists of texts, and what is longer than ``longest``, are counted."""
    long = isinstance(content, (dict, list)) and len(json.dumps(content)) > longest
    if name and (long or _is_list_of_texts(content)):
        yield f"{name}: {len(content)} entries"
    elif isinstance(content, dict):
        for key, inner in content.items():
            yield from _flat(inner, longest, f"{name} {key}".strip())
    elif isinstance(content, float):
        yield f"{name}: {content:.4g}"
    elif content is not None:
        yield f"{name}: {content}"
