"""How the segmentation of unlabelled cases has ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from slicer.i18n import tr as _

from caml_core.errors import DataError, ResourceError


@dataclass
class PredictionSummary:
    """How it ended: cases done, cases that failed with the reason, a fault of the whole, and whether it was stopped.

    ``leftOut``: mL that lay apart from the largest parts of a case, where the model keeps these alone. ``misfits``:
    cases that are not like what the model was made for, with a sentence each. ``channels``: a sentence where the
    project calls its channels otherwise than the model.
    """

    done: list[str] = field(default_factory=list)
    leftOut: dict[str, float] = field(default_factory=dict)
    misfits: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    channels: str = ""
    fault: str = ""
    cancelled: bool = False

    def checked(self) -> PredictionSummary:
        """Return this; raise CamlError for a fault of the whole, and where all cases failed, unless cancelled."""
        if self.fault:
            raise ResourceError(self.fault)
        if self.failures and not self.done and not self.cancelled:
            text = next(iter(self.failures.values()))
            if len(self.failures) > 1:
                text += " " + _("And {count} more failed.").format(count=len(self.failures) - 1)
            raise DataError(text)
        return self
