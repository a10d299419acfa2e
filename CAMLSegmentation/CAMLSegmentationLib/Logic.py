"""All that the module can do, without its panel: from Slicer's Python console, or a script without a window."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from caml_core.channel_titles import list_note
from caml_core.data.cohort import load_cohort, takes_in
from caml_core.errors import CamlError, DataError, ResourceError, UsageError
from caml_core.model_file import ModelCard, read_card
from caml_core.model_fit import misfit
from caml_core.model_fit import warnings as fitWarnings

from . import SegmentationResult, VolumeExchange
from .Job import FolderResults, Settings, caseId
from .Parameters import CAMLSegmentationParameterNode
from .Process import WorkerFactory, WorkerProcess
from .Run import Progress, RunListener, SegmentationRun, Summary
from .SequenceResult import SequenceResult
from .Work import Delivery, FileWork, FrameWork, VolumeWork, Work


class Callbacks:
    """A listener made of functions; those left out do nothing."""

    def __init__(
        self,
        onProgress: Callable[[Progress], None] | None = None,
        onLog: Callable[[str], None] | None = None,
        onDelivery: Callable[[str, Delivery], None] | None = None,
        onEnd: Callable[[Summary], None] | None = None,
    ) -> None:
        self.onRunProgress = onProgress or (lambda progress: None)
        self.onRunLog = onLog or (lambda text: None)
        self.onRunDelivery = onDelivery or (lambda title, delivery: None)
        self.onRunEnd = onEnd or (lambda summary: None)

    def forget(self) -> None:
        """Let go of all functions, and of what they hold."""
        Callbacks.__init__(self)


class CAMLSegmentationLogic(ScriptedLoadableModuleLogic, VTKObservationMixin):
    """Segments volumes with a model file, in a process of its own.

    ``segment`` is the one-liner; the others take several volumes, a sequence or a folder. All wait for the end; with
    ``wait=False`` they return at once, and the run goes on as long as Slicer handles events, or in ``run.wait()``. One
    run at a time. Errors that a user can meet are ``caml_core.errors.CamlError``: one sentence each.
    """

    def __init__(self, workerFactory: WorkerFactory = WorkerProcess) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        VTKObservationMixin.__init__(self)
        self._workerFactory = workerFactory
        self.run: SegmentationRun | None = None
        self._parameterNode: CAMLSegmentationParameterNode | None = None

    def getParameterNode(self) -> CAMLSegmentationParameterNode:
        """Return the module's parameter node of the scene; the same wrapper as long as the node is the same."""
        node = super().getParameterNode()
        if self._parameterNode is None or self._parameterNode.parameterNode is not node:
            self._parameterNode = CAMLSegmentationParameterNode(node)
        return self._parameterNode

    def forgetParameterNode(self) -> None:
        """Read everything anew the next time: references to nodes that a scene brings later are not told of."""
        self._parameterNode = None

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self.run is not None and not self.run.ended

    # Starting

    def segment(
        self,
        volumeNode: Any,
        modelPath: str | Path,
        *,
        channels: Sequence[Any] = (),
        roiNode: Any = None,
        overwriteEdits: bool = False,
        wait: bool = True,
        onFinished: Callable[[Any, str], None] | None = None,
        onProgress: Callable[[Progress], None] | None = None,
        **settings: Any,
    ) -> Any:
        """Segment a volume and return its segmentation node; with ``wait=False`` return None at once.

        volumeNode: the (first channel's) volume; ``channels``: the volumes of further channels. roiNode: a markups ROI
        that limits the region. overwriteEdits: replace segments that were edited by hand, too. onFinished: called with
        (segmentation node or None, sentence of what failed or ""). settings: fields of ``Job.Settings``, such as
        ``quality="fast"``, ``device="cpu"``, ``parts="largest"``.
        Raises CamlError (with ``wait``) where the volume could not be segmented or the run was cancelled.
        """
        found: list[Any] = []

        def finished(summary: Summary) -> None:
            if onFinished is not None:
                onFinished(found[0] if found else None, _sentence(summary))

        listener = Callbacks(onProgress, None, lambda title, delivery: found.append(delivery.segmentation), finished)
        work = VolumeWork(caseId(volumeNode.GetName(), ()), [volumeNode, *channels], roiNode, overwriteEdits)
        run = self.start(modelPath, [work], Settings.of(**settings), listener)
        if not wait:
            return None
        summary = run.wait()
        if not found:
            raise DataError(_sentence(summary))
        return found[0]

    def segmentVolumes(
        self,
        volumeNodes: Sequence[Any],
        modelPath: str | Path,
        listener: RunListener | None = None,
        *,
        overwriteEdits: bool = False,
        wait: bool = True,
        **settings: Any,
    ) -> SegmentationRun:
        """Segment several volumes, one after the other, and return the run; with ``wait=False`` at once.

        One failure does not stop the others and raises nothing: ``run.summary`` has what was delivered and what failed.
        """
        works = volumeWorks(volumeNodes, overwriteEdits)
        return _done(self.start(modelPath, works, Settings.of(**settings), listener or Callbacks()), wait)

    def segmentSequence(
        self,
        sequenceNode: Any,
        modelPath: str | Path,
        listener: RunListener | None = None,
        *,
        wait: bool = True,
        **settings: Any,
    ) -> SegmentationRun:
        """Segment every frame of a volume sequence into a segmentation sequence, and return the run.

        ``wait`` and failures as in ``segmentVolumes``.
        """
        works = sequenceWorks(sequenceNode)
        return _done(self.start(modelPath, works, Settings.of(**settings), listener or Callbacks()), wait)

    def segmentFolder(
        self,
        folder: str | Path,
        outputs: str | Path,
        modelPath: str | Path,
        listener: RunListener | None = None,
        *,
        load: bool = False,
        overwriteEdits: bool = False,
        wait: bool = True,
        **settings: Any,
    ) -> SegmentationRun:
        """Segment the cases of a folder into .seg.nrrd files in ``outputs``; return the run. ``load``: show them.

        overwriteEdits: replace files that were changed since a run wrote them, or not written by one, too; otherwise
        the new result is called CASE-2.seg.nrrd, as it is beside those of other models. ``wait`` and failures as in
        ``segmentVolumes``.
        """
        chosen = Settings.of(**settings)
        notes: list[str] = []
        card = read_card(Path(modelPath))
        works = folderWorks(Path(folder), Path(outputs), load, chosen.existing, overwriteEdits, notes, card=card)
        told = listener or Callbacks()
        for note in notes:
            told.onRunLog(note)
        return _done(self.start(modelPath, works, chosen, told, outputs=Path(outputs)), wait)

    def start(
        self,
        modelPath: str | Path,
        works: Sequence[Work],
        settings: Settings,
        listener: RunListener,
        outputs: Path | None = None,
        show: Callable[[Any, Any], None] = SegmentationResult.show,
    ) -> SegmentationRun:
        """Start a run over ``works``; raise CamlError where that cannot be. ``show`` as in ``SegmentationRun``."""
        if self.running:
            raise UsageError(_("A segmentation is running; wait for its end or cancel it first."))
        if not works:
            raise UsageError(_("There is nothing to segment; choose a volume."))
        card = read_card(Path(modelPath))
        checkChannels(card, works)
        watched = self._watch(listener)
        try:
            self.run = SegmentationRun(card, works, settings, watched, outputs, self._workerFactory, show)
        except CamlError:
            self._unwatch()
            raise
        self.run.start()
        return self.run

    def _watch(self, listener: RunListener) -> Callbacks:
        """While a run is under way, it ends with the scene and with Slicer; afterwards nothing holds this logic.

        ``run`` stays for those who ask how it went, but not what its listener holds: that may be nodes of a patient.
        """

        def ended(summary: Summary) -> None:
            self._unwatch()
            try:
                listener.onRunEnd(summary)
            finally:
                watched.forget()

        watched = Callbacks(listener.onRunProgress, listener.onRunLog, listener.onRunDelivery, ended)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosing)
        slicer.app.connect("aboutToQuit()", self.end)
        return watched

    def _unwatch(self) -> None:
        self.removeObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneClosing)
        slicer.app.disconnect("aboutToQuit()", self.end)

    def cancel(self) -> None:
        """Cancel the run in good order; the scene stays as it is."""
        if self.running:
            self.run.cancel()

    def end(self) -> None:
        """End the run at once, and wait until its processes are gone."""
        if self.running:
            self.run.end()

    def close(self) -> None:
        """End a run and let go of what it made."""
        self.end()
        self.run = self._parameterNode = None

    def _onSceneClosing(self, caller: Any, event: Any) -> None:
        self.end()
        self.run = None  # its nodes go with the scene


def volumeWorks(volumeNodes: Sequence[Any], overwriteEdits: bool = False) -> list[Work]:
    """Return one piece a volume, with file names that do not collide."""
    works: list[Work] = []
    for node in volumeNodes:
        identity = caseId(node.GetName(), [work.id for work in works])
        works.append(VolumeWork(identity, [node], overwriteEdits=overwriteEdits))
    return works


def sequenceWorks(sequenceNode: Any) -> list[Work]:
    """Return one piece a frame."""
    result = SequenceResult(sequenceNode)
    base = caseId(sequenceNode.GetName(), ())
    return [FrameWork(f"{base}-{i + 1:04d}", i, result) for i in range(sequenceNode.GetNumberOfDataNodes())]


def folderWorks(
    folder: Path,
    outputs: Path,
    load: bool = False,
    existing: str = "update",
    overwriteEdits: bool = False,
    notes: list[str] | None = None,
    mayShow: Callable[[], bool] = lambda: True,
    card: ModelCard | None = None,
) -> list[Work]:
    """Return one piece a case of a folder; raise CamlError where the folder holds none, or is where results go.

    ``existing`` as in ``Job.Settings``: "add" spares all earlier results, and "update" those that were changed, unless
    ``overwriteEdits``. ``notes`` takes sentences on what the folder holds and is no case, and on its channels.
    ``mayShow`` as in ``FileWork``. ``card``: of the model that segments, which tells its earlier results, and what it
    calls its channels.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises where a folder above it is locked
        raise DataError(_("The folder {folder} does not exist; choose another.").format(folder=folder))
    if outputs.resolve() == folder.resolve() or takes_in(folder, outputs):
        raise UsageError(
            _(
                "Results must not go into the folder of the scans or below it, where they would be taken for labels; "
                "choose another folder for them."
            )
        )
    cohort = load_cohort(folder, notes)
    if card is not None and notes is not None:
        notes += filter(None, [list_note(folder, cohort.channels, [c.title for c in card.spec.channels])])
    cases = [case for case in cohort.cases if case.role != "excluded"]
    if not cases:
        raise DataError(
            _("There is no scan in {folder}; expected NIfTI, NRRD, MetaImage or DICOM.").format(folder=folder)
        )
    model = card.sha256 if card is not None else ""
    results, others = FolderResults(outputs, model), {case.id.casefold() for case in cases}
    works: list[Work] = []
    try:
        for case in cases:
            identity, kept = results.place(case.id, others, existing, overwriteEdits)
            works.append(FileWork(identity, case.images, results, load, title=case.id, kept=kept, mayShow=mayShow))
    except OSError as error:
        sentence = _("The folder for the results, {folder}, cannot be read ({reason}); choose another.")
        raise ResourceError(sentence.format(folder=outputs, reason=error.strerror or error)) from error
    return works


def checkChannels(card: ModelCard, works: Sequence[Work]) -> None:
    """Raise UsageError where volumes of the scene are not as many as the model has channels."""
    needed = len(card.spec.channels)
    for work in works:
        given = len(work.volumeNodes) if isinstance(work, VolumeWork) else None
        given = 1 if isinstance(work, FrameWork) else given
        if given is not None and given != needed:
            raise UsageError(
                _("The model {model} needs {needed} images of each case, {given} were given for {title}.").format(
                    model=card.info.name, needed=needed, given=given, title=work.title
                )
            )


def modelWarnings(
    volumeNodes: Sequence[Any], card: ModelCard, frame: VolumeExchange.Frame | None = None
) -> tuple[str, ...]:
    """Return what speaks against segmenting these channels of one case with a model, one sentence each.

    frame: the region that the case is limited to.
    """
    facts = [VolumeExchange.factsOf(node, modalityOf(node), frame) for node in volumeNodes]
    return fitWarnings(facts, card.spec, card.info)


def modelMisfit(volumeNodes: Sequence[Any], card: ModelCard) -> tuple[int, int]:
    """Return how badly these channels of one case suit a model, to compare models by."""
    facts = [VolumeExchange.factsOf(node, modalityOf(node)) for node in volumeNodes]
    return misfit(facts, card.spec, card.info)


def modalityOf(volumeNode: Any) -> str:
    """Return the DICOM modality of a volume that was loaded from DICOM, else an empty text."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return ""
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(volumeNode), "DICOM.Modality") or ""


def editedResults(volumeNodes: Sequence[Any], card: ModelCard) -> list[Any]:
    """Return the results of the model on these volumes that a hand has edited since."""
    name, segments = card.info.name, card.spec.segments
    found = [SegmentationResult.findResult(node, name, segments, card.sha256) for node in volumeNodes]
    return [node for node in found if node is not None and SegmentationResult.isEdited(node)]


def _done(run: SegmentationRun, wait: bool) -> SegmentationRun:
    if wait:
        run.wait()
    return run


def _sentence(summary: Summary) -> str:
    if summary.failures:
        return next(iter(summary.failures.values()))
    if summary.cancelled:
        return _("The segmentation was cancelled.")
    return "" if summary.deliveries else _("There was no result; segment the volume again.")


__all__ = ["CAMLSegmentationLogic", "Callbacks", "CamlError"]
