"""What the panel says of a training: its events, a line each, and what it asks before one is ended."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

#: What can be chosen, and its key: how long to train, and what becomes of a training when Slicer quits.
BUDGETS = (
    (_("10 minutes"), "10m"),
    (_("1 hour"), "1h"),
    (_("Overnight (10 hours)"), "overnight"),
    (_("Until it stops improving"), "better"),
)
ON_QUIT = ((_("Training goes on"), "continue"), (_("Training is paused, everything saved"), "pause"))
STOP = _("Stop the training for good? What it has learnt so far is measured and kept as a model.")
STOP_PAUSED = _(
    "End this paused training for good? What it has learnt so far is measured and kept as a model; it cannot be "
    "resumed afterwards."
)
FORCE = _(
    "The training has not answered yet; a step may take a while. End it by force? What it has learnt since its last "
    "save is lost; the rest is measured and kept as a model."
)
_PARTS = {"caml": "", "labeled-only": _("labels alone: "), "": ""}
_STAGES = {
    "reading": _("Reading the cases"),
    "measuring": _("Measuring this computer"),
    "preparing": _("Preparing the cases"),
    "training": _("Training"),
    "scoring": _("Measuring on the validation cases"),
    "report": _("Making the report"),
}


def counted(count: int, one: str, many: str) -> str:
    """Return a sentence about ``count`` things, in the singular where it is one."""
    return (one if count == 1 else many).format(count=count)


def check(splits: bool) -> str:
    """Return what the check does; ``splits``: whether cases are held out before it."""
    text = _("Look at cohort and computer before anything runs: what was found, what will be done, how long it takes.")
    if splits:
        text += " " + _("A fifth of the labelled cases is first set aside at random.")
    return text


def noLabel(heldOut: bool) -> str:
    """Return why nothing can be trained; ``heldOut``: whether there are cases with labels that are kept aside."""
    if heldOut:
        return _("All cases with labels are held out: select one to learn from and press Use as Labeled.")
    return _("No case is labelled yet: edit a case and press Use as Labeled.")


def stage(name: str) -> str:
    """Return what is being done now."""
    return _STAGES.get(name, name)


def progress(stageText: str, fields: dict[str, Any]) -> str:
    """Return how far a stage is."""
    return _("{stage}: {done} of {total}").format(stage=stageText, done=fields.get("done"), total=fields.get("total"))


def validation(fields: dict[str, Any]) -> str:
    """Return how good the network is by now."""
    number, dice = int(fields.get("cases") or 0), f"{100 * float(fields.get('dice') or 0):.1f}"
    cases = counted(number, _("{count} validation case"), _("{count} validation cases"))
    return _("Iteration {iteration}: Dice {dice} % on {cases}.").format(
        iteration=fields.get("iteration"), dice=dice, cases=cases
    )


def step(fields: dict[str, Any], left: str) -> str:
    """Return how far the training is; ``left``: how long it takes still, empty where that is not known."""
    part = str(fields.get("part") or "")
    text = _PARTS.get(part, f"{part}: ") + _("iteration {iteration} of {total}").format(
        iteration=int(fields.get("iteration") or 0), total=int(fields.get("total") or 1)
    )
    return text + (_(", {time} left").format(time=left) if left else "")
