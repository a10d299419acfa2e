"""The models that can be chosen - those that come with the extension and the user's own - and their cards."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from caml_core.channel_titles import listed_titles
from caml_core.config import ModelSpec
from caml_core.model_file import ModelCard
from caml_core.model_library import Entry, ModelLibrary

#: Models that come with the extension.
BUNDLED = Path(__file__).resolve().parents[1] / "Resources" / "Models"


def library() -> ModelLibrary:
    """Return the library of bundled models and of the user's folder, which survives upgrades of Slicer."""
    return ModelLibrary([BUNDLED])


def cardHtml(entry: Entry) -> str:
    """Return a model's card as HTML for a panel 450 pixels wide; a damaged file's fault instead."""
    if entry.card is None:
        return f"<p><b>{html.escape(entry.path.name)}</b></p><p>{html.escape(entry.fault)}</p>"
    card, rows = entry.card, []
    for title, text in _rows(card, entry.bundled):
        if text:
            rows.append(f"<tr><td><i>{html.escape(title)}</i>&nbsp;&nbsp;</td><td>{text}</td></tr>")
    description = html.escape(card.info.description)
    head = f"<b>{html.escape(card.info.name)}</b>" + (f"<br>{description}" if description else "")
    return f"<p>{head}</p><table cellspacing=2>{''.join(rows)}</table>"


def _rows(card: ModelCard, bundled: bool) -> list[tuple[str, str]]:
    spec, info = card.spec, card.info
    spacing = " x ".join(f"{s:g}" for s in spec.geometry.spacing)
    return [
        (_("Anatomy"), html.escape(info.anatomy)),
        (_("Segments"), "<br>".join(_swatch(s.color) + "&nbsp;" + html.escape(s.name) for s in spec.segments)),
        (_("Modality"), html.escape(info.modality or ", ".join(c.modality for c in spec.channels))),
        (_("Channels"), html.escape(_channels(spec))),
        (_("Spacing"), _("{spacing} mm").format(spacing=spacing)),
        (_("Trained on"), _trained(card)),
        (_("Held out"), html.escape(heldOut(info.metrics))),
        (_("That is"), html.escape(heldOutCases(info.metrics))),
        (_("Remarks"), "<br>".join(html.escape(remark) for remark in heldOutRemarks(info.metrics))),
        (_("Sub-models"), _subModels(spec)),
        (_("Parts"), _("the largest part of each segment, as in the labels") if spec.one_component else ""),
        (_("Origin"), _("comes with the extension") if bundled else html.escape(card.path.name)),
        (_("Licence"), html.escape(info.license) or _("not stated")),
        (_("Citation"), html.escape(info.citation)),
    ]


def _channels(spec: ModelSpec) -> str:
    """How many there are, and what they are called; empty for a single one without a title."""
    titles = [channel.title for channel in spec.channels]
    if any(titles):
        return f"{len(titles)} ({listed_titles(titles)})"
    return str(len(titles)) if len(titles) > 1 else ""


def _subModels(spec: ModelSpec) -> str:
    """Why there is no disagreement to be had of a model; empty where there is."""
    if spec.labeled_only:
        return _("one (trained on labels alone: no disagreement)")
    return "" if spec.second_opinion else _("v alone (a lacks its attention in predictions: no disagreement)")


def _trained(card: ModelCard) -> str:
    if not card.info.labeled_cases and not card.info.unlabeled_cases:
        return _("not stated")
    return _("{labeled} labelled and {unlabeled} unlabelled cases").format(
        labeled=card.info.labeled_cases, unlabeled=card.info.unlabeled_cases
    )


def heldOut(metrics: Any) -> str:
    """Return the Dice on held-out cases with their number, or that it is not known."""
    held = metrics.get("held_out") if isinstance(metrics, dict) else None
    summary = held.get("summary") if isinstance(held, dict) else None
    value = _meanDice(summary)
    if value is None:
        return _("not measured")
    count = held.get("count")
    text = _("Dice {dice} % on {count} cases") if count != 1 else _("Dice {dice} % on {count} case")
    text = text.format(dice=f"{100 * value:.1f}", count=count)
    return text + (_(" (few: indicative)") if isinstance(count, int) and count < 10 else "")


def heldOutCases(metrics: Any) -> str:
    """Return what the card says of the held-out cases, such as that another model was measured; empty for nothing."""
    held = metrics.get("held_out") if isinstance(metrics, dict) else None
    words = held.get("of") if isinstance(held, dict) else None
    return words if isinstance(words, str) else ""


def heldOutRemarks(metrics: Any) -> tuple[str, ...]:
    """Return the sentences of the card on how far its held-out figures go, such as that the start model knew a case."""
    held = metrics.get("held_out") if isinstance(metrics, dict) else None
    remarks = held.get("remarks") if isinstance(held, dict) else None
    return tuple(r for r in remarks if isinstance(r, str) and r) if isinstance(remarks, list) else ()


def _meanDice(summary: Any) -> float | None:
    """Mean over the segments of the first sub-model in an evaluation's summary; None where there is no such figure."""
    by_model = summary if isinstance(summary, dict) else {}
    known = ("mean", "v", "a")
    segments = next((rows for name, rows in by_model.items() if name in known and isinstance(rows, dict)), {})
    figures = [metrics.get("dice") for metrics in segments.values() if isinstance(metrics, dict)]
    means = [figure.get("mean") for figure in figures if isinstance(figure, dict)]
    if not means or not all(isinstance(mean, (int, float)) for mean in means):
        return None
    return sum(means) / len(means)


def _swatch(color: tuple[float, float, float]) -> str:
    red, green, blue = (round(255 * min(max(c, 0.0), 1.0)) for c in color)
    return f'<span style="color:#{red:02x}{green:02x}{blue:02x}">&#9632;</span>'
