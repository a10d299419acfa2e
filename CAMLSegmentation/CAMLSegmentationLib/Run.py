"""One run: export, one worker for all pieces, results taken in as they come, and an orderly end whatever happens."""

from __future__ import annotations

import os
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import qt
import slicer
from slicer.i18n import tr as _

from caml_core.data.files import make_folder, remove_quietly
from caml_core.errors import CamlError, ResourceError
from caml_core.model_file import ModelCard

from . import SegmentationResult
from .Job import JobFiles, Settings, predictArguments, writeCaseList
from .Process import WorkerFactory, WorkerProcess, missingPackage, newStopFile
from .ResultTable import Measures
from .Work import Delivery, Work

_FOLDER = "CAMLSegmentation"
#: Left-overs of a Slicer that crashed are removed after this time.
_STALE_SECONDS = 7 * 86400.0


@dataclass(frozen=True)
class Progress:
    """``share`` 0..1 of the whole run, ``stage`` for the user, ``secondsLeft`` None while unknown."""

    share: float
    stage: str
    secondsLeft: float | None = None


@dataclass
class Summary:
    """How a run ended: what was delivered, which pieces failed and why (title -> sentence).

    ``misfits``: pieces that are not like what the model was made for, and how (title -> sentences); not the one volume
    of the scene that a run is for, of which the panel says so beforehand.
    """

    deliveries: list[Delivery] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False
    seconds: float = 0.0


class RunListener(Protocol):
    """What wants to know of a run."""

    def onRunProgress(self, progress: Progress) -> None:
        """The run went on."""

    def onRunLog(self, text: str) -> None:
        """A line for the log."""

    def onRunDelivery(self, title: str, delivery: Delivery) -> None:
        """One piece is done."""

    def onRunEnd(self, summary: Summary) -> None:
        """Nothing more comes."""


class SegmentationRun:
    """Segments ``works`` with one model. Nothing blocks: ``start`` returns at once, ``listener`` is told the rest.

    show: gets the first result of the scene and its volume, to bring them into the views.
    """

    def __init__(
        self,
        card: ModelCard,
        works: Sequence[Work],
        settings: Settings,
        listener: RunListener,
        outputs: Path | None = None,
        workerFactory: WorkerFactory = WorkerProcess,
        show: Callable[[Any, Any], None] = SegmentationResult.show,
    ) -> None:
        self._files = JobFiles(newFolder())  # first: where that fails, nothing else is to be undone
        self._show = show
        self._card, self._settings, self._listener = card, settings, listener
        self._waiting = list(works)
        _makeTitlesUnique(self._waiting)
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self._onTimer)
        self._step: Any = None
        self._images: dict[str, tuple[Path, ...]] = {}
        self._pending: list[Work] = []
        self._count = len(works)
        self._outputs = outputs
        self._worker = workerFactory(self)
        self._stopFile = newStopFile(self._files.folder)
        self._began = time.monotonic()
        self._fault = ""
        self._working = False
        self._starts = self._pid = 0
        self._lastLines: list[str] = []
        self._share = 0.0
        self.summary = Summary()
        self.ended = False

    # What the user does

    def start(self) -> None:
        """Begin to export; the worker starts when all pieces are written."""
        self._tell(0.0, _("Exporting"))
        self._next(self._exportOne)

    def cancel(self) -> None:
        """End as soon as possible; what was delivered stays, everything else is dropped."""
        if self.ended or self.summary.cancelled:
            return
        self.summary.cancelled = True
        self._listener.onRunLog(_("Cancelled."))
        if self._worker.running:
            self._tell(None, _("Ending"))
            self._worker.stop()
        else:
            self._end()

    def end(self) -> None:
        """End at once, before the scene or Slicer goes."""
        if self.ended:
            return
        self.summary.cancelled = True
        self._worker.end()
        self._end()

    def wait(self) -> Summary:
        """Go on until the run has ended, in a script without an event loop; Slicer's window stays alive."""
        while not self.ended:
            if self._worker.running:
                self._worker.wait(50)
            else:
                time.sleep(0.002)
            slicer.app.processEvents()
        return self.summary

    # Exporting, one piece a turn of the event loop

    def _exportOne(self) -> None:
        if self.ended or self.summary.cancelled:
            return
        if not self._waiting:
            self._startWorker()
            return
        work = self._waiting.pop(0)
        try:
            self._images[work.id] = work.export(self._files)
            self._pending.append(work)
        except CamlError as error:
            self._fail(work, str(error))
        except Exception as error:  # a slot that raises would leave the run standing
            self._failUnexpectedly(work, error)
        self._next(self._exportOne)

    def _next(self, step: Any) -> None:
        """Do ``step`` in the next turn of the event loop."""
        self._step = step
        self._timer.start(0)

    def _onTimer(self) -> None:
        self._step()

    def _startWorker(self) -> None:
        if not self._pending:
            self._end()
            return
        self._starts += 1
        self._working, self._fault, self._lastLines, self._pid = False, "", [], 0
        caseList = self._files.folder / f"cases-{self._starts}.json"
        outputs = self._outputs or self._files.outputs
        try:
            if self._outputs is not None:  # the engine takes a name with a dot for a file unless the folder is there
                make_folder(self._outputs)
            writeCaseList(caseList, [(work.id, self._images[work.id]) for work in self._pending])
        except CamlError as error:
            self._failRest(str(error))
            self._end()
            return
        arguments = predictArguments(
            self._card.path,
            caseList,
            outputs,
            self._settings,
            stopFile=self._stopFile,
            segmentations=self._outputs is not None,
            within=self._files.regions if self._files.regions.is_dir() else None,
        )
        self._tell(None, _("Starting"))
        self._worker.start(arguments, self._stopFile)

    # What the worker reports

    def onWorkerEvent(self, kind: str, fields: dict[str, Any]) -> None:
        """Follow the worker."""
        if self.ended:
            return
        if kind == "started":
            self._pid = int(fields.get("pid") or 0)
        elif kind == "progress":
            self._onProgress(fields)
        elif kind == "stage":
            self._onStage(fields)
        elif kind == "case":
            self._onCase(fields)
        elif kind == "warning":
            self._onWarning(fields)
        elif kind == "error":
            self._fault = missingPackage(str(fields.get("message") or "")) or str(fields.get("message") or "")
        elif kind == "log":
            self._listener.onRunLog(str(fields.get("message")))

    def onWorkerLog(self, text: str) -> None:
        """Keep a line for the log; the last ones may tell why a worker died."""
        self._lastLines = [*self._lastLines[-19:], text]
        self._listener.onRunLog(text)

    def onWorkerEnd(self, exitCode: int, crashed: bool) -> None:
        """Take stock: done, cancelled, failed as a whole, or died over one piece - then the others go on."""
        if self.ended:
            return
        self._settle()
        if not self._pending or self.summary.cancelled:
            self._end()
            return
        if self._fault and not crashed:
            self._failRest(self._fault)
            self._end()
            return
        work = self._pending.pop(0)
        self._fail(work, _died(work.title, exitCode, crashed, self._lastLines))
        if self._pending and self._working:
            self._listener.onRunLog(_("Going on with the next one."))
            self._next(self._startWorker)
            return
        self._failRest(_("Not segmented, since the worker could not run; see the log."))
        self._end()

    def _onProgress(self, fields: dict[str, Any]) -> None:
        done, total = float(fields.get("done") or 0), float(fields.get("total") or 1)
        handled = self._count - len(self._pending)
        inside = done / total if fields.get("unit") != "cases" else done - int(done)
        share = (handled + min(inside, 0.99)) / self._count
        title = self._titleOf(str(fields.get("case") or "")) or (self._pending[0].title if self._pending else "")
        self._tell(share, _("Segmenting {title}").format(title=title), fields.get("seconds_left"))

    def _onStage(self, fields: dict[str, Any]) -> None:
        self._working = self._working or fields.get("name") in ("prepare", "predict")
        if fields.get("name") == "write":
            for work in self._pending:
                if work.id == fields.get("detail"):
                    work.writing()
        self._tell(None, _stage(fields, self._titleOf))

    def _onCase(self, fields: dict[str, Any]) -> None:
        work = self._take(str(fields.get("case")))
        if work is None:
            return
        if self.summary.cancelled:
            work.keep(self._card, True)
            return
        self._tell(
            (self._count - len(self._pending) - 0.01) / self._count, _("Taking in {title}").format(title=work.title)
        )
        try:
            delivery = work.deliver(self._files, self._card, self._settings, Measures.of(fields))
        except CamlError as error:
            self._fail(work, str(error))
            return
        except Exception as error:
            self._failUnexpectedly(work, error)
            return
        finally:
            self._removeFiles(work)
        self._showFirst(delivery)
        self.summary.deliveries.append(delivery)
        if delivery.note:
            self.summary.notes.append(delivery.note)
            self._listener.onRunLog(delivery.note)
        self._listener.onRunLog(
            _("{title}: done in {seconds} s.").format(title=work.title, seconds=fields.get("seconds"))
        )
        self._listener.onRunDelivery(work.title, delivery)

    def _onWarning(self, fields: dict[str, Any]) -> None:
        message = str(fields.get("message") or "")
        if fields.get("misfit"):
            self._onMisfit(str(fields.get("case") or ""), message)
            return
        failed = fields.get("case") and fields.get("exit_code")  # without a code it is a mere remark
        work = self._take(str(fields["case"])) if failed else None
        if work is None:
            self._listener.onRunLog(message)
            return
        self._fail(work, message)
        self._removeFiles(work)

    def _onMisfit(self, identity: str, message: str) -> None:
        work = next((w for w in self._pending if w.id == identity), None)
        if work is None or getattr(work, "roiNode", None) is not None:  # a region's values say little of its scan
            return
        self._listener.onRunLog(message)
        if self._outputs is not None or self._count > 1:
            self.summary.misfits[work.title] = message

    # Bookkeeping

    def _settle(self) -> None:
        """A worker that was ended may have written a result of which it said nothing, and left half of another."""
        for work in self._pending:
            work.keep(self._card, False)
        if self._outputs is None or not self._pid:
            return
        try:
            for part in list(self._outputs.glob(f".part-{self._pid}-*")):
                remove_quietly(part)
        except OSError:  # the network drive is gone, and the run ends all the same
            pass

    def _take(self, identity: str) -> Work | None:
        work = next((w for w in self._pending if w.id == identity), None)
        if work is not None:
            self._pending.remove(work)
        return work

    def _titleOf(self, identity: str) -> str:
        return next((w.title for w in self._pending if w.id == identity), "")

    def _fail(self, work: Work, sentence: str) -> None:
        self.summary.failures[work.title] = sentence
        self._listener.onRunLog(sentence)

    def _failUnexpectedly(self, work: Work, error: Exception) -> None:
        self._listener.onRunLog("".join(traceback.format_exception(error)))
        self._fail(work, _("{title}: an unexpected fault; the log has the details.").format(title=work.title))

    def _showFirst(self, delivery: Delivery) -> None:
        """Views follow the first result alone: they must not jump while the user looks at it, or works elsewhere."""
        if delivery.segmentation is not None and delivery.volume is not None and not self.summary.deliveries:
            self._show(delivery.segmentation, delivery.volume)

    def _failRest(self, sentence: str) -> None:
        for work in self._pending:
            self.summary.failures[work.title] = sentence
        self._listener.onRunLog(sentence)
        self._pending = []

    def _removeFiles(self, work: Work) -> None:
        """The disk of a hospital computer is small: what is in the scene need not stay in files."""
        if work.inScene:
            extras = [self._files.extra(work.id, kind) for kind in ("disagreement", "probability")]
            made = (self._files.labels(work.id), self._files.region(work.id))
            for path in (*self._images.get(work.id, ()), *made, *extras):
                remove_quietly(path)  # Windows keeps what a scanner for viruses holds; the run's folder goes later

    def _tell(self, share: float | None, stage: str, secondsLeft: float | None = None) -> None:
        self._share = max(self._share, share or 0.0)
        self._listener.onRunProgress(Progress(self._share, stage, secondsLeft))

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._timer.stop()
        self._timer.disconnect("timeout()", self._onTimer)  # a connection keeps the run
        # Whoever asks for the summary later must not keep volumes that the scene has let go of, nor a panel.
        self._show = SegmentationResult.show
        self._waiting, self._pending, self._images, self._step = [], [], {}, None
        self.summary.seconds = time.monotonic() - self._began
        shutil.rmtree(self._files.folder, ignore_errors=True)
        self._listener.onRunEnd(self.summary)


def _makeTitlesUnique(works: Sequence[Work]) -> None:
    """Two volumes may have one name; what is said of them must not be mixed up."""
    seen: dict[str, int] = {}
    for work in works:
        seen[work.title] = seen.get(work.title, 0) + 1
        if seen[work.title] > 1:
            work.title = f"{work.title} ({seen[work.title]})"


def newFolder() -> Path:
    """Return a new folder for one run, below Slicer's temporary folder; old left-overs are removed.

    It takes scans, and on Linux anybody may look into that folder: only this user may look into the run's. Raises
    ResourceError where it cannot be made.
    """
    base = Path(slicer.app.temporaryPath) / _FOLDER
    folder = base / f"run-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder.mkdir(0o700)
        (folder / "outputs").mkdir()
        _removeStale(base)
    except OSError as error:
        sentence = _("Slicer's temporary folder {folder} cannot be used ({reason}); choose another in its settings.")
        raise ResourceError(sentence.format(folder=slicer.app.temporaryPath, reason=error.strerror or error)) from error
    return folder


def _removeStale(base: Path) -> None:
    for left in base.glob("run-*"):
        try:
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        except OSError:  # another Slicer was faster
            pass


def _stage(fields: dict[str, Any], titleOf: Any) -> str:
    names = {
        "load": _("Reading the model"),
        "prepare": _("Preparing {title}"),
        "predict": _("Segmenting {title}"),
        "write": _("Writing {title}"),
    }
    name, detail = str(fields.get("name") or ""), str(fields.get("detail") or "")
    text = names.get(name, name.capitalize())
    return text.format(title=titleOf(detail)).strip() if "{title}" in text else text


def _died(title: str, exitCode: int, crashed: bool, lastLines: list[str]) -> str:
    """The sentence for a worker that ended without a word."""
    if missing := missingPackage(" ".join(lastLines)):
        return missing
    if crashed or exitCode in (-9, 137):
        return _(
            "{title}: the worker was ended by the system, most likely for want of memory; close other programs, or "
            "limit the region. The log has the details."
        ).format(title=title)
    return _("{title}: the worker ended unexpectedly (code {code}); the log has the details.").format(
        title=title, code=exitCode
    )
