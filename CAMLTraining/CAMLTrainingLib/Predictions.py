"""What a model says of the unlabelled cases: computed in the background, kept apart from what hands have drawn."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import slicer
from CAMLSegmentationLib import Review, SegmentationResult, VolumeExchange
from CAMLSegmentationLib.Job import commonArguments, writeCaseList
from CAMLSegmentationLib.Process import WorkerFactory, WorkerProcess, missingPackage, newStopFile
from CAMLSegmentationLib.ResultTable import LEAST_REMOVED_ML
from slicer.i18n import tr as _

from caml_core.channel_titles import list_note
from caml_core.data.files import make_folder, remove_quietly
from caml_core.errors import CamlError, DataError
from caml_core.model_file import ModelCard
from caml_core.project.cases import ProjectCase
from caml_core.project.outdated import is_outdated
from caml_core.project.project import Project

from . import Candidates, CaseExchange
from .CaseExchange import PREDICTION, WRITTEN
from .Cohort import Cohort
from .PredictionSummary import PredictionSummary
from .ScanQueue import ScanQueue
from .TrainingTexts import counted

#: Attribute of a disagreement map in the scene: the case it belongs to.
MAP_CASE = "CAMLTraining.MapOf"
#: Seconds after which what is done is written down.
SAVE_PERIOD = 10.0


class PredictionListener(Protocol):
    """What wants to know of predictions."""

    def onPredictionProgress(self, share: float, text: str) -> None:
        """How far it is, 0 to 1."""

    def onPredicted(self, case: str) -> None:
        """One case is done."""

    def onPredictionEnd(self, summary: PredictionSummary) -> None:
        """Nothing more comes."""


class PredictionRun:
    """Segments ``cases`` of the cohort with one model, in the background; results go to the project and the scene.

    A case that cannot be segmented, or over which the worker dies, is told by name, and the others go on.
    """

    def __init__(
        self,
        cohort: Cohort,
        card: ModelCard,
        cases: Sequence[str],
        listener: PredictionListener,
        device: str = "auto",
        workerFactory: WorkerFactory = WorkerProcess,
    ) -> None:
        self._cohort, self._card = cohort, card
        self._waiting, self._count, self._device = list(cases), len(cases), device
        self._listener = listener
        self._worker, self._scans = workerFactory(self), ScanQueue()
        self._stopFile: Path | None = None
        self._last, self._working, self._before, self._saved = "", False, 0, 0.0
        self.summary = PredictionSummary()
        self.ended = False

    def start(self, inTurns: bool = False) -> None:
        """Begin; raise CamlError where nothing can be segmented.

        inTurns: scans that the scene alone has are written one a turn of the event loop; the summary says what went
        wrong then.
        """
        project = self._cohort.project
        if not self._waiting:
            raise DataError(_("There is no unlabelled case to segment; add scans to the cohort."))
        make_folder(project.folder / "predictions")
        if inTurns:
            self._scans.start(self._cohort, self._listed, self._onWriting, self._onUnwritten, self._onWritten)
            return
        self._writeScans()
        project.save()
        self._launch()

    def cancel(self) -> None:
        """Stop after what is at work; results that came before stay."""
        self.summary.cancelled = True
        self._worker.stop()
        self._endWriting()

    def end(self) -> None:
        """End at once, before the scene or Slicer goes."""
        self.summary.cancelled = True
        self._worker.end()
        self._endWriting()

    def wait(self) -> None:
        """Let it report, in a script without an event loop."""
        self._worker.wait(50)

    # The worker

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the worker."""
        if kind == "case":
            self._onCase(fields)
        elif kind == "progress":
            self._onProgress(fields)
        elif kind == "stage":
            self._working = self._working or fields.get("name") in ("prepare", "predict")
        elif kind == "warning" and fields.get("case") and fields.get("exit_code"):
            self._fail(str(fields["case"]), str(fields.get("message") or ""))
        elif kind == "warning" and fields.get("misfit"):
            self.summary.misfits[str(fields.get("case"))] = str(fields.get("message") or "")
        elif kind == "error":
            message = str(fields.get("message") or "")
            self.summary.fault = missingPackage(message) or message

    def onWorkerLog(self, text: str) -> None:
        """The last line may tell why a worker died."""
        self._last = text

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Take stock: done, stopped, failed as a whole, or died over one case - then the others go on."""
        if self.ended:
            return
        died = crashed or not self.summary.fault
        if self._waiting and not self.summary.cancelled and died and self._goesOn(exitCode, crashed):
            return
        self._end()

    # Inside

    def _writeScans(self) -> None:
        """Write what the scene alone has; a scan that is nowhere keeps none of the others from being segmented."""
        for case in list(self._waiting):
            try:
                self._cohort.ensureFile(case)
            except DataError as error:
                self._fail(case, str(error))
                if not self._waiting:
                    raise

    def _listed(self) -> list[str]:
        """What waits and was not taken off the list meanwhile."""
        return [case for case in self._waiting if case in self._cohort.project.cases]

    def _onWriting(self, text: str) -> None:
        self._listener.onPredictionProgress(0.0, text)

    def _onUnwritten(self, case: str, error: CamlError) -> None:
        """As ``_writeScans``: a scan's fault is its own, a disk's that of all."""
        if isinstance(error, DataError):
            self._fail(case, str(error))
            return
        self.summary.fault = str(error)
        self._endWriting()

    def _onWritten(self) -> None:
        self._waiting = self._listed()
        self._onWriting(_("Starting"))
        try:
            if self._waiting:
                self._cohort.project.save()
                self._launch()
                return
        except CamlError as error:
            self.summary.fault = str(error)
        self._end()

    def _endWriting(self) -> None:
        if self._scans.running:
            self._scans.stop()
            self._end()

    def _launch(self) -> None:
        """Start a worker on what waits; raise ResourceError where its list cannot be written."""
        project = self._cohort.project
        folder = project.folder / "predictions"
        caseList = folder / "cases.json"
        known = [project.cases[case] for case in self._waiting]
        titles = project.titles_of(known)
        writeCaseList(caseList, [(case.id, case.images) for case in known], titles)
        # The engine says it of the list, a file that the user knows nothing of.
        ofModel = [channel.title for channel in self._card.spec.channels]
        self.summary.channels = list_note(project.folder, titles, ofModel)
        self._before, self._working, self._last = self._count - len(self._waiting), False, ""
        self._stopFile = newStopFile(folder)
        arguments = ["predict", str(self._card.path), str(caseList), "-o", str(folder), "--format", "seg.nrrd"]
        arguments += ["--uncertainty", "--percent", "--device", self._device]
        self._worker.start([*arguments, *commonArguments(self._stopFile)], self._stopFile)

    def _goesOn(self, exitCode: int, crashed: bool) -> bool:
        """The worker ended without a word: name the case it died over, and start another for those behind it."""
        if missing := missingPackage(self._last):
            self.summary.fault = missing
            return False
        if not self._working:
            self.summary.fault = counted(
                len(self._waiting),
                _("The segmentation ended before {count} case was done; close other programs and start it again."),
                _("The segmentation ended before {count} cases were done; close other programs and start it again."),
            )
            return False
        self.summary.fault = ""
        self._fail(self._waiting[0], _died(self._waiting[0], exitCode, crashed))
        self._waiting = self._listed()
        if not self._waiting:
            return False
        try:
            self._removeStopFile()
            self._launch()
        except CamlError as error:
            self.summary.fault = str(error)
            return False
        return True

    def _end(self) -> None:
        self.ended = True
        if not self._waiting and self.summary.failures:
            self.summary.fault = ""  # each case has its own sentence
        self._removeStopFile()
        try:
            self._cohort.project.save()
        except CamlError as error:
            self.summary.fault = str(error)
        self._listener.onPredictionEnd(self.summary)

    def _removeStopFile(self) -> None:
        if self._stopFile is not None:
            remove_quietly(self._stopFile)

    def _onProgress(self, fields: dict[str, Any]) -> None:
        share = float(fields.get("done") or 0) / float(fields.get("total") or 1)
        if fields.get("unit") == "cases":  # of those that this worker was given
            done = self._before + share * (self._count - self._before)
        else:
            done = self._count - len(self._waiting) + share
        text = _("Segmenting {case}").format(case=str(fields.get("case") or ""))
        self._listener.onPredictionProgress(done / self._count, text)

    def _onCase(self, fields: dict[str, Any]) -> None:
        case = str(fields.get("case"))
        if case not in self._waiting:
            return
        self._waiting.remove(case)
        if case not in self._cohort.project.cases:  # taken off the list meanwhile
            return
        known = self._cohort.project.cases[case]
        self._cohort.project.update(
            case,
            prediction=Path(str(fields.get("output"))),
            agreement={str(k): float(v) for k, v in (fields.get("agreement") or {}).items()},
            volumes_ml={str(k): float(v) for k, v in (fields.get("volumes_ml") or {}).items()},
            predicted_by=digestOf(self._card),
            status=known.status or "predicted",
        )
        self._saveNowAndThen()
        try:
            if self._cohort.volumeNode(case) is not None:
                showPrediction(self._cohort, case, self._card.info.name)
        except CamlError as error:
            self.summary.failures[case] = str(error)
            return
        self.summary.done.append(case)
        left = sum(float(volume) for volume in (fields.get("removed_ml") or {}).values())
        if left >= LEAST_REMOVED_ML:
            self.summary.leftOut[case] = left
        self._listener.onPredicted(case)

    def _saveNowAndThen(self) -> None:
        """A Slicer that crashes loses seconds of work; that it cannot be saved is told at the end."""
        if time.monotonic() - self._saved < SAVE_PERIOD:
            return
        try:
            self._cohort.project.save()
        except CamlError as error:
            logging.warning("CAML: the predictions could not be noted: %s", error)
        self._saved = time.monotonic()

    def _fail(self, case: str, sentence: str) -> None:
        if case in self._waiting:
            self._waiting.remove(case)
            self.summary.failures[case] = sentence


def digestOf(card: ModelCard) -> str:
    """Return what tells a model from others in a project's list of cases."""
    return card.sha256[:16]


def unsegmented(project: Project, card: ModelCard) -> list[str]:
    """Return the unlabelled cases that a model has not segmented yet; all of them where it has segmented all.

    A scan that was replaced since is one that it has not segmented.
    """
    waiting = project.with_role("unlabeled")
    digest = digestOf(card)
    left = [c.id for c in waiting if c.predicted_by != digest or not _hasFile(c) or is_outdated(c)]
    return left or [c.id for c in waiting]


def outdatedWords(known: ProjectCase) -> str:
    """Say that the scan of a case was replaced after its prediction had been made; empty where it was not."""
    if not _hasFile(known) or not is_outdated(known):
        return ""
    return _(
        "Case {case}: its scan was replaced after the prediction was made, which is not shown on another scan; press "
        "Segment Unlabeled, which makes it anew."
    ).format(case=known.id)


def _hasFile(known: ProjectCase) -> bool:
    return known.prediction is not None and os.path.isfile(known.prediction)


def _checkPrediction(known: ProjectCase) -> None:
    """Raise DataError where a case has no prediction, or one of a scan that was replaced since."""
    if not _hasFile(known):
        raise DataError(_("There is no prediction of case {case}; press Segment Unlabeled.").format(case=known.id))
    if words := outdatedWords(known):
        raise DataError(words)


def _died(case: str, exitCode: int, crashed: bool) -> str:
    if crashed or exitCode in (-9, 137):
        return _(
            "Case {case}: the segmentation was ended by the system, most likely for want of memory; close other "
            "programs and segment it again."
        ).format(case=case)
    return _("Case {case}: the segmentation ended unexpectedly (code {code}); segment it again.").format(
        case=case, code=exitCode
    )


def showPrediction(cohort: Cohort, case: str, modelName: str = "") -> Any:
    """Put the prediction of a case into the scene, in place of an older one, and return its node.

    Raises DataError where there is none, where it cannot be read, and where the scan was replaced since.
    """
    known = cohort.project.cases[case]
    _checkPrediction(known)
    volumeNode, older = cohort.load(case), cohort.predictionNode(case)
    written = CaseExchange.writtenAt(known.prediction)
    isThis = older is not None and older.GetAttribute(WRITTEN) == written  # else another model may have made it
    name = modelName or (older.GetAttribute(PREDICTION) if isThis else "") or _("model")
    if older is not None and SegmentationResult.isEdited(older):
        keepEdits(cohort, case, older)
    elif isThis:
        return older
    elif older is not None:
        SegmentationResult.remove(older)
    node = cohort.loadLabel(case, known.prediction, volumeNode)
    cohort.mark(node, case).SetAttribute(PREDICTION, name)
    node.SetAttribute(WRITTEN, written)
    SegmentationResult.remember(node)
    node.SetName(_("{case} - {model} (prediction)").format(case=case, model=name))
    return node


def keepEdits(cohort: Cohort, case: str, node: Any) -> None:
    """A prediction, or preview, that a hand has corrected where it stood is that hand's work: it stays.

    It becomes the segmentation of its case where nothing else was drawn for that; ``case``: empty for one of no case.
    """
    own = Candidates.ownNode(cohort, case) if case else None
    node.RemoveAttribute(PREDICTION)
    node.SetName(_("{case} corrected").format(case=case) if case else _("Corrected preview"))
    if not case or (own is not None and not Candidates.hasNothingOfAHand(own)):
        if own is not None:
            cohort.mark(own, case)  # what counted so far does so still, though this one is newer
        cohort.release(node)
        return
    if case in cohort.project.cases:
        cohort.assign(case, node)


def disagreementMap(cohort: Cohort, case: str) -> Any:
    """Return the map of where the sub-models disagree on a case, loaded where it is not in the scene; None without.

    It lies where ``showPrediction`` puts the prediction. Raises DataError where its file cannot be read.
    """
    known = cohort.project.cases[case]
    volumeNode = cohort.volumeNode(case)
    if known.prediction is None or volumeNode is None:
        return None
    path = known.prediction.with_name(known.prediction.name.removesuffix(".seg.nrrd") + "_disagreement.nrrd")
    if not os.path.isfile(path):
        return None
    from caml_core.data.labels import read_scalar

    array, grid = read_scalar(path)
    grid = CaseExchange.gridInScene(grid, volumeNode, known.images)
    maps = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    older = next((n for n in maps if n.GetAttribute(MAP_CASE) is not None and cohort.owns(n, case)), None)
    mapNode = older or slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode", _("{case} disagreement").format(case=case)
    )
    mapNode.SetAttribute(SegmentationResult.MAP, "disagreement")
    cohort.mark(mapNode, case).SetAttribute(MAP_CASE, case)
    VolumeExchange.placeMap(array, grid, volumeNode, mapNode)
    if older is None:
        Review.prepareMap(mapNode, legend=True)
        SegmentationResult.placeBeside(mapNode, volumeNode)
    return mapNode


def correction(cohort: Cohort, case: str) -> Any:
    """Return a copy of the prediction that a hand may correct; it becomes a label only when the user says so.

    Raises DataError as ``showPrediction`` does.
    """
    known = cohort.project.cases[case]
    _checkPrediction(known)
    node = cohort.loadLabel(case, known.prediction, cohort.load(case))
    node.SetAttribute(WRITTEN, CaseExchange.writtenAt(known.prediction))
    return cohort.mark(node, case)
