"""What came of a round, in words and tables for the panel."""

from __future__ import annotations

import html

from slicer.i18n import tr as _

from caml_core.project.history import Round, Row

_TITLES = {
    "start": _("Start model"),
    "labeled-only": _("Labels alone"),
    "caml": _("CAML"),
    "cross-validation": _("CAML, cross-validated"),
}
_ENDED = {
    "stopped": _("The training was stopped before its end."),
    "plateau": _("The training ended when it did not improve any more."),
    "failed": _(
        "The training ended early because its losses were no numbers any more; the last good weights were kept."
    ),
}
_MEANING = _(
    "Means over the held-out cases, +- their standard deviation. Dice: overlap with the label, 100 % where both are "
    "the same. 95HD: how far the surfaces lie apart, but for the worst 5 %."
)


def resultHtml(found: Round) -> str:
    """Return the rows side by side, per segment and per case, with how far the figures go."""
    if not found.finished:
        return _("<p>This round has no result yet.</p>")
    parts = [f"<p><b>{html.escape(_headline(found))}</b> {html.escape(found.words)}</p>"]
    if found.ended in _ENDED:
        parts.append(f"<p>{html.escape(_ENDED[found.ended])}</p>")
    if any(row.count for row in found.rows):
        parts += [_summary(found), f"<p><i>{html.escape(_MEANING)}</i></p>", _cases(found)]
    return "".join(parts)


def title(name: str) -> str:
    """Return what a row is called."""
    return _TITLES.get(name, name)


def percent(value: float) -> str:
    """Return a Dice as percent with one digit."""
    return f"{100 * value:.1f}"


def measured(found: Round, name: str) -> float | None:
    """Return the mean Dice of a row of a round; the model's own may be known from a cross-validation alone."""
    names = (name, "cross-validation") if name == "caml" else (name,)
    means = (row.mean_dice for row in map(found.row, names) if row is not None)
    return next((dice for dice in means if dice is not None), None)


def _headline(found: Round) -> str:
    ours, start, alone = found.row("caml"), found.row("start"), found.row("labeled-only")
    shown = ours if ours is not None and ours.mean_dice is not None else found.row("cross-validation")
    if shown is None or shown.mean_dice is None:
        return _("Round {number}: the model is trained.").format(number=found.number)
    text = _("Round {number}: Dice {dice} %").format(number=found.number, dice=percent(shown.mean_dice))
    against = [_against(row, shown) for row in (start, alone) if row is not None and row.mean_dice is not None]
    return text + (f" ({'; '.join(against)})." if against else ".")


def _against(row: Row, shown: Row) -> str:
    """A row beside the one that is shown; a start model may have some of its segments alone."""
    text = _("{name} {dice} %").format(name=title(row.name), dice=percent(row.mean_dice))
    if row.dice.keys() == shown.dice.keys():
        return text
    own = sum(mean for segment, (mean, _spread) in shown.dice.items() if segment in row.dice) / len(row.dice)
    return _("{row}, on {segments} alone, where it is {dice} % now").format(
        row=text, segments=", ".join(row.dice), dice=percent(own)
    )


def _summary(found: Round) -> str:
    rows = [[_("Model"), _("Segment"), _("Dice %"), _("95HD mm")]]
    for row in found.rows:
        for segment, (mean, spread) in row.dice.items():
            distance = row.hd95_mm.get(segment)
            rows.append(
                [
                    title(row.name),
                    segment,
                    f"{percent(mean)} +- {percent(spread)}",
                    f"{distance[0]:.1f} +- {distance[1]:.1f}" if distance else "",
                ]
            )
    return _table(rows)


def _cases(found: Round) -> str:
    """Each case and segment, a column a model: a mean hides whom it fails."""
    named = [row for row in found.rows if row.cases]
    keys = list(dict.fromkeys((case, s) for row in named for case, found in row.cases.items() for s in found))
    if not keys:
        return ""
    several = len({segment for _case, segment in keys}) > 1
    rows = [[_("Dice % (95HD mm)"), *(title(row.name) for row in named)]]
    rows += [
        [f"{case}, {segment}" if several else case, *(_figures(row, case, segment) for row in named)]
        for case, segment in keys
    ]
    return _table(rows)


def _figures(row: Row, case: str, segment: str) -> str:
    metrics = row.cases.get(case, {}).get(segment, {})
    if metrics.get("dice") is None:
        return ""
    distance = metrics.get("hd95_mm")
    return percent(metrics["dice"]) + (f" ({distance:.1f})" if distance is not None else "")


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th align=left>{html.escape(cell)}&nbsp;&nbsp;</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}&nbsp;&nbsp;</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<p></p><table cellspacing=2><tr>{head}</tr>{body}</table>"
