"""Who wants to know what happens in the background."""

from __future__ import annotations

from typing import Any

from .PredictionSummary import PredictionSummary
from .Preflight import Verdict


class Listener:
    """What the panel overrides to follow the logic; scripts need not."""

    #: Whether trainings put their models into the user's models by themselves, where CAML Segmentation lists them.
    listsModels = False

    def onProject(self) -> None:
        """Another project is about to be open, or this one read anew; what was shown belongs to the one before."""

    def onRoundEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """An event of the training."""

    def onRoundLook(self) -> None:
        """All that is new of the training has been told: the time to draw."""

    def onRoundState(self, state: str, message: str) -> None:
        """The training's state changed; why, in a sentence."""

    def onPreflight(self, verdict: Verdict) -> None:
        """The check before training has ended."""

    def onPreflightProgress(self, text: str) -> None:
        """How far the check is."""

    def onPredictionProgress(self, share: float, text: str) -> None:
        """How far the segmentation of unlabelled cases is."""

    def onPredicted(self, case: str) -> None:
        """An unlabelled case was segmented."""

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """The segmentation of unlabelled cases has ended."""
