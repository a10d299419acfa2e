"""What a model says of the unlabelled cases: computed in the background, kept apart from what hands have drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import slicer
from CAMLSegmentationLib import Review, SegmentationResult, VolumeExchange
from CAMLSegmentationLib.Job import commonArguments, writeCaseList
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess, missingPackage, newStopFile
from slicer.i18n import tr as _

from caml_core.errors import CamlError, DataError

from . import CaseExchange
from .CaseExchange import PREDICTION, WRITTEN
from .Cohort import Cohort

#: Attribute of a disagreement map in the scene: the case it belongs to.
MAP_CASE = "CAMLTraining.MapOf"


class PredictionListener(Protocol):
    """What wants to know of predictions."""

    def onPredictionProgress(self, share: float, text: str) -> None:
        """How far it is, 0 to 1."""

    def onPredicted(self, case: str) -> None:
        """One case is done."""

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """Nothing more comes."""


@dataclass
class PredictionSummary:
    """How it ended: cases done, cases that failed with the reason, a fault of the whole, and whether it was stopped."""

    done: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    cancelled: bool = False


class PredictionRun:
    """Segments ``cases`` of the cohort with one model, in the background; results go to the project and the scene."""

    def __init__(
        self,
        cohort: Cohort,
        model: Path,
        modelName: str,
        cases: Sequence[str],
        listener: PredictionListener,
        device: str = "auto",
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._cohort, self._model, self._modelName = cohort, model, modelName
        self._waiting, self._count, self._device = list(cases), len(cases), device
        self._listener = listener
        self._worker = workerFactory(self)
        self._stopFile: Path | None = None
        self._last = ""
        self.summary = PredictionSummary()
        self.ended = False

    def start(self) -> None:
        """Begin; raise CamlError where nothing can be segmented."""
        project = self._cohort.project
        if not self._waiting:
            raise DataError(_("There is no unlabelled case to segment; add scans to the cohort."))
        for case in self._waiting:
            self._cohort.ensureFile(case)
        project.save()
        folder = project.folder / "predictions"
        folder.mkdir(parents=True, exist_ok=True)
        caseList = folder / "cases.json"
        writeCaseList(caseList, [(case, project.cases[case].images) for case in self._waiting])
        self._stopFile = newStopFile(folder)
        arguments = ["predict", str(self._model), str(caseList), "-o", str(folder), "--format", "seg.nrrd"]
        arguments += ["--uncertainty", "--percent", "--device", self._device]
        self._worker.start([*arguments, *commonArguments(self._stopFile)], self._stopFile)

    def cancel(self) -> None:
        """Stop after what is at work; results that came before stay."""
        self.summary.cancelled = True
        self._worker.stop()

    def end(self) -> None:
        """End at once, before the scene or Slicer goes."""
        self.summary.cancelled = True
        self._worker.end()

    def wait(self) -> None:
        """Let it report, in a script without an event loop."""
        self._worker.wait(50)

    # The worker

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the worker."""
        if kind == "case":
            self._onCase(fields)
        elif kind == "progress":
            done = self._count - len(self._waiting)
            share = float(fields.get("done") or 0) / float(fields.get("total") or 1)
            whole = share if fields.get("unit") == "cases" else (done + share) / self._count
            self._listener.onPredictionProgress(
                whole, _("Segmenting {case}").format(case=str(fields.get("case") or ""))
            )
        elif kind == "warning" and fields.get("case") and fields.get("exit_code"):
            self._fail(str(fields["case"]), str(fields.get("message") or ""))
        elif kind == "error":
            message = str(fields.get("message") or "")
            self.summary.fault = missingPackage(message) or message

    def onWorkerLog(self, text: str) -> None:
        """The last line may tell why a worker died."""
        self._last = text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Say what is left undone."""
        if self.ended:
            return
        self.ended = True
        if self._waiting and not self.summary.cancelled and (missing := missingPackage(self._last)):
            self.summary.fault = missing
        elif self._waiting and not self.summary.cancelled and (crashed or not self.summary.fault):
            self.summary.fault = _(
                "The segmentation ended before {count} cases were done; close other programs and start it again."
            ).format(count=len(self._waiting))
        if not self._waiting and self.summary.failures:
            self.summary.fault = ""  # each case has its own sentence
        if self._stopFile is not None:
            self._stopFile.unlink(missing_ok=True)
        try:
            self._cohort.project.save()
        except CamlError as error:
            self.summary.fault = str(error)
        self._listener.onPredictionEnd(self.summary)

    def _onCase(self, fields: dict[str, Any]) -> None:
        case = str(fields.get("case"))
        if case not in self._waiting or case not in self._cohort.project.cases:
            return
        self._waiting.remove(case)
        known = self._cohort.project.cases[case]
        self._cohort.project.update(
            case,
            prediction=Path(str(fields.get("output"))),
            agreement={str(k): float(v) for k, v in (fields.get("agreement") or {}).items()},
            volumes_ml={str(k): float(v) for k, v in (fields.get("volumes_ml") or {}).items()},
            status=known.status or "predicted",
        )
        try:
            if self._cohort.volumeNode(case) is not None:
                showPrediction(self._cohort, case, self._modelName)
        except CamlError as error:
            self.summary.failures[case] = str(error)
            return
        self.summary.done.append(case)
        self._listener.onPredicted(case)

    def _fail(self, case: str, sentence: str) -> None:
        if case in self._waiting:
            self._waiting.remove(case)
            self.summary.failures[case] = sentence


def showPrediction(cohort: Cohort, case: str, modelName: str = "") -> Any:
    """Put the prediction of a case into the scene, in place of an older one, and return its node.

    Raises DataError where there is none, or where it cannot be read.
    """
    known = cohort.project.cases[case]
    if known.prediction is None or not known.prediction.is_file():
        raise DataError(_("There is no prediction of case {case}; press Segment unlabeled.").format(case=case))
    volumeNode, older = cohort.load(case), cohort.predictionNode(case)
    written = CaseExchange.writtenAt(known.prediction)
    name = modelName or (older.GetAttribute(PREDICTION) if older is not None else "") or _("model")
    if older is not None and SegmentationResult.isEdited(older):
        _keepEdits(cohort, case, older)
    elif older is not None and older.GetAttribute(WRITTEN) == written:
        return older
    elif older is not None:
        slicer.mrmlScene.RemoveNode(older)
    node = CaseExchange.loadLabel(known.prediction, volumeNode, case, cohort.project.segments)
    cohort.mark(node, case).SetAttribute(PREDICTION, name)
    node.SetAttribute(WRITTEN, written)
    SegmentationResult.remember(node)
    node.SetName(_("{case} - {model} (prediction)").format(case=case, model=name))
    return node


def _keepEdits(cohort: Cohort, case: str, node: Any) -> None:
    """A prediction that a hand has corrected where it stood is that hand's work: it stays, as a segmentation."""
    taken = cohort.segmentationNode(case) is not None
    node.RemoveAttribute(PREDICTION)
    node.SetName(_("{case} corrected").format(case=case))
    if taken:
        cohort.release(node)
    elif case in cohort.project.cases and cohort.project.cases[case].status != "accepted":
        cohort.project.update(case, status="edited")


def disagreementMap(cohort: Cohort, case: str) -> Any:
    """Return the map of where the sub-models disagree on a case, loaded where it is not in the scene; None without."""
    known = cohort.project.cases[case]
    volumeNode = cohort.volumeNode(case)
    if known.prediction is None or volumeNode is None:
        return None
    path = known.prediction.with_name(known.prediction.name.removesuffix(".seg.nrrd") + "_disagreement.nrrd")
    if not path.is_file():
        return None
    maps = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    older = next((n for n in maps if n.GetAttribute(MAP_CASE) is not None and cohort.owns(n, case)), None)
    mapNode = older or slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode", _("{case} disagreement").format(case=case)
    )
    mapNode.SetAttribute(SegmentationResult.MAP, "disagreement")
    cohort.mark(mapNode, case).SetAttribute(MAP_CASE, case)
    VolumeExchange.readMap(path, volumeNode, VolumeExchange.frameOf(volumeNode), mapNode)
    if older is None:
        Review.prepareMap(mapNode, legend=True)
        SegmentationResult.placeBeside(mapNode, volumeNode)
    return mapNode


def correction(cohort: Cohort, case: str) -> Any:
    """Return a copy of the prediction that a hand may correct; it becomes a label only when the user says so."""
    known = cohort.project.cases[case]
    if known.prediction is None or not known.prediction.is_file():
        raise DataError(_("There is no prediction of case {case}; press Segment unlabeled.").format(case=case))
    node = CaseExchange.loadLabel(known.prediction, cohort.load(case), case, cohort.project.segments)
    node.SetAttribute(WRITTEN, CaseExchange.writtenAt(known.prediction))
    return cohort.mark(node, case)
