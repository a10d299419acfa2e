"""The preview: one case segmented by the current weights while the training goes on."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Plan
from ..data.case import Cohort
from ..data.io import read_case
from ..data.labels import write_labels
from ..errors import CamlError, Cancelled, UsageError
from ..events import Listener
from ..inference.predictor import Predictor
from ..model import CamlNetwork
from .round_folder import RoundFolder


class Preview:
    """Observer of a training that keeps ``preview.seg.nrrd`` up to date for the case that ``preview-case.txt`` names.

    The file may name another case, or none, at any time. Whatever goes wrong is a warning: the training goes on.
    """

    def __init__(self, folder: RoundFolder, cohort: Cohort, listener: Listener, stop: Callable[[], bool]) -> None:
        self._folder, self._listener, self._stop = folder, listener, stop
        self._cases = {case.id: case for case in cohort.cases}

    def __call__(self, plan: Plan, network: CamlNetwork, iteration: int) -> None:
        try:
            identity = self._wanted()
            if identity:
                self._write(identity, plan, network, iteration)
        except Cancelled:
            return  # the loop asks, too, and ends
        except CamlError as error:
            self._listener("warning", {"message": f"There is no preview of iteration {iteration}: {error}"})
        except (RuntimeError, MemoryError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._listener("warning", {"message": f"There is no preview of iteration {iteration} ({reason})."})

    def _wanted(self) -> str:
        """The id of the case to show; empty: none."""
        try:
            return self._folder.preview_case.read_text(encoding="utf-8").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def _write(self, identity: str, plan: Plan, network: CamlNetwork, iteration: int) -> None:
        if identity not in self._cases:
            raise UsageError(f"The cohort has no case {identity!r}.")
        predictor = Predictor(network, plan.model_spec, numeric=plan.numeric, device=plan.device, stop=self._stop)
        prediction = predictor.predict(read_case(self._cases[identity], plan.network.in_channels))
        write_labels(self._folder.preview, prediction.labels, prediction.grid, plan.segments)
        self._listener("preview", {"case": identity, "path": str(self._folder.preview), "iteration": iteration})
