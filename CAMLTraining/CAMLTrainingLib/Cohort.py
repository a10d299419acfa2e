"""The cohort: the project's cases beside the volumes and segmentations of the scene."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import slicer
from CAMLSegmentationLib import SceneVolumes, SegmentationResult
from slicer.i18n import tr as _

from caml_core.config import Segment
from caml_core.data.case import Cohort as TrainingCohort
from caml_core.errors import CamlError, DataError
from caml_core.project.cases import ProjectCase
from caml_core.project.project import Project

from . import Accepting, Candidates, CaseExchange, CaseImages, LeftOut, ScanFiles, Scans, TakenLabels, TrainingTexts
from .CaseExchange import CASE, EXTRA, OPENED, PREDICTION
from .ModelChoice import learnedBy

#: With so many labelled cases some can be spared to measure the model.
ENOUGH_TO_HOLD_OUT = 5


class Cohort:
    """Joins a project with the scene. ``notes`` are sentences for the user, emptied by whoever shows them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.notes: list[str] = []
        #: The project's folder on the other system that its scene comes from; empty for scenes of this one.
        self.sentFrom = ""
        #: Cases that were in the scene since the project was opened.
        self._met: set[str] = set()

    # Nodes of a case

    @property
    def attribute(self) -> str:
        """The attribute that marks nodes with their case; other projects, and scripts, have their own in the scene."""
        return f"{CASE}.{self.project.id}"

    def mark(self, node: Any, case: str) -> Any:
        """Mark a node as one of a case, and return it."""
        node.SetAttribute(self.attribute, case)
        Scans.put(node, self.project, case)
        return node

    def release(self, node: Any) -> None:
        """Make a node one of no case."""
        node.RemoveAttribute(self.attribute)
        Scans.forget(node, self.project)

    def owns(self, node: Any, case: str) -> bool:
        """Whether a node is one of a case."""
        return bool(node.GetAttribute(self.attribute) == case) and Scans.mayBe(node, self.project, case)

    def caseOf(self, node: Any) -> str:
        """Return the case that a node is marked with; empty for nodes of no case of this project.

        A mark of an older scene may name a case that is another scan's by now.
        """
        case = node.GetAttribute(self.attribute) or ""
        return case if case in self.project.cases and Scans.mayBe(node, self.project, case) else ""

    def isFurther(self, node: Any, case: str) -> bool:
        """Whether a volume is a further channel of a case, or its file once more."""
        known = self._markedExtra(node)
        return known is not None and known.id == case and not self.caseOf(node)

    def markFurther(self, node: Any, case: str) -> None:
        """Mark a volume as a further channel of a case, so that it is no case of its own."""
        node.SetAttribute(self._extra, case)

    def volumeNode(self, case: str) -> Any:
        """Return the volume of a case in the scene, None where it is not loaded."""
        return next((node for node in sceneVolumes() if self.owns(node, case)), None)

    def segmentationNode(self, case: str) -> Any:
        """Return the segmentation that a hand drew or corrected for a case; what a model made counts once changed."""
        return Candidates.segmentationNode(self, case)

    def casesInScene(self) -> set[str]:
        """Return the cases of which the scene has a volume, though it be without voxels, or a segmentation."""
        nodes = [*SceneVolumes.sceneVolumes(), *slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
        return {case for node in nodes if (case := self.caseOf(node))}

    def segmentationNames(self) -> dict[str, str]:
        """Return case -> name of its segmentation in the scene."""
        return Candidates.names(self)

    def predictionNode(self, case: str) -> Any:
        """Return the newest prediction of a case in the scene."""
        found = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if self.owns(node, case) and node.GetAttribute(PREDICTION) is not None
        ]
        return found[-1] if found else None

    def assign(self, case: str, segmentationNode: Any) -> None:
        """Make a segmentation that of a case; another one that was, is set free."""
        for node in Candidates.marked(self, case):
            self.release(node)
        if segmentationNode is not None:
            segmentationNode.RemoveAttribute(PREDICTION)
            self.mark(segmentationNode, case)
            if self.project.cases[case].status != "accepted":
                self.project.update(case, status="edited")

    # The scene

    def takeInScene(self) -> bool:
        """List volumes that came, drop unwritten cases whose volume went; return whether anything changed.

        Unwritten cases of a project that was opened in another scene stay listed: their scans may still come.
        """
        before, present = dict(self.project.cases), set()
        for node in sceneVolumes():
            if self._isExtra(node):
                continue
            identity = self.caseOf(node)
            if not identity and LeftOut.isLeftOut(node, self.project):
                continue
            if not identity or identity in present:
                identity = self._list(node)
            present.add(identity)
        gone, self._met = self._met - present, self._met | present
        for case in list(self.project.cases.values()):
            if case.in_scene and not case.images and case.id in gone:
                self.project.remove([case.id])
                self.notes.append(
                    _("{case} was removed from the scene before it was written, and so is no case any more.").format(
                        case=case.id
                    )
                )
        return before != self.project.cases

    def _isExtra(self, node: Any) -> bool:
        """Whether a volume is a further one of a case that has its volume in the scene, or was loaded here as one."""
        known = self._markedExtra(node)
        if known is None or self.caseOf(node):
            return False
        return CaseImages.isLoadedHere(node, self.project) or self.volumeNode(known.id) is not None

    def _markedExtra(self, node: Any) -> ProjectCase | None:
        """Return the case of which a volume is a further channel, or its file once more.

        The mark alone counts: a scene out of a bundle has lost its files. A copy that was made in the scene bears the
        mark as well, but never came from a file, nor was it loaded here.
        """
        if node.GetStorageNode() is None and not CaseImages.isLoadedHere(node, self.project):
            return None
        return self.project.cases.get(node.GetAttribute(self._extra) or "")

    @property
    def _extra(self) -> str:
        return f"{EXTRA}.{self.project.id}"

    def _list(self, node: Any, isAnother: bool = False) -> str:
        """Make a volume that of a case, and return that.

        isAnother: its mark is that of another scan's case. What was drawn on it under such a mark goes along.
        """
        marked, isCopy = node.GetAttribute(self.attribute) or "", bool(self.caseOf(node))
        before = marked if isAnother or not isCopy else ""
        if isCopy:
            self.release(node)  # made in the scene, of a volume with its marks
        identity = self._caseFor(node)
        if before:
            for drawn in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
                if drawn.GetAttribute(self.attribute) == before and SegmentationResult.sourceOf(drawn) is node:
                    self.mark(drawn, identity)
        return identity

    def _caseFor(self, node: Any) -> str:
        path = CaseExchange.fileOf(node)
        known = next((c for c in self.project.cases.values() if path is not None and path in c.images), None)
        known = known or self._markedExtra(node)
        if known is not None:
            if self.volumeNode(known.id) is not None:  # a case has one volume in the scene
                node.SetAttribute(self._extra, known.id)
            else:
                self.mark(node, known.id)
            return known.id
        node.RemoveAttribute(self._extra)
        name = node.GetName() or "volume"
        scan = Scans.borneBy(node, self.project) or Scans.nameOf(node)
        waiting = Scans.waiting(node, self.project, scan)
        if (found := next((c.id for c in waiting if self.volumeNode(c.id) is None), "")) != "":
            self._settle(node, found, scan)
            return found
        size = tuple(int(n) for n in node.GetImageData().GetDimensions()) if node.GetImageData() else None
        spacing = tuple(round(s, 4) for s in node.GetSpacing())
        images = (path,) if path is not None else ()
        identity = self.project.add(ProjectCase(name, images, size=size, spacing=spacing, in_scene=True, scan=scan))
        if identity != name:
            self.notes.append(
                _("{name} cannot be the name of this case or is taken; it is listed as {case}.").format(
                    name=name, case=identity
                )
            )
        self.mark(node, identity)
        return identity

    def _settle(self, node: Any, case: str, scan: str) -> None:
        """Mark a volume with a case, which keeps from now on which scan it is."""
        if not self.project.cases[case].scan:
            self.project.update(case, scan=scan)
        self.mark(node, case)

    def _checkScan(self, case: str, node: Any) -> None:
        """Raise DataError where a volume is another scan than its case's; it is listed as a case of its own then.

        This is for marks of scenes and projects that did not note scans; others are told apart by ``caseOf``.
        """
        known = self.project.cases[case]
        if Scans.isKnown(node, self.project, case):
            return
        if not Scans.isAnother(node, known):
            self._settle(node, case, Scans.nameOf(node))
            return
        identity = self._list(node, isAnother=True)
        raise DataError(
            _(
                "Case {case}: the volume {volume} in the scene is another scan than the one that the project has under "
                "this name, and no label goes from one to the other. It is listed as {other} now; choose that case for "
                "it, or {case} again for the project's scan."
            ).format(case=case, volume=node.GetName(), other=identity)
        )

    # Files

    def ensureFile(self, case: str, labelFollows: bool = False) -> None:
        """Write the volume of a case that the scene alone has, once; raise DataError, ResourceError.

        A scan that was loaded from a file and then changed, or moved, in the scene is one that the scene alone has.
        One that has been moved since it was written, or labelled, is written anew, unless its label lies on it as it
        was; ``labelFollows``: that label is about to be replaced.
        """
        node = self.volumeNode(case)
        if node is not None:
            self._checkScan(case, node)
        ScanFiles.ensure(self, case, labelFollows)

    def load(self, case: str) -> Any:
        """Return the volume of a case, loaded where it is not in the scene yet; raise DataError where it cannot be."""
        node = self.volumeNode(case)
        if node is not None:
            self._checkScan(case, node)
            return node
        node = CaseImages.loadFirst(self.project.cases[case])
        self._settle(node, case, Scans.nameOf(node))
        return node

    # Labels and roles

    def loadLabel(self, case: str, path: Path, volumeNode: Any) -> Any:
        """Return a new segmentation with what a file holds of a case, under the names that segments have by now.

        Raises DataError where it cannot be read (``CaseExchange.loadLabel``).
        """
        project = self.project
        images = project.cases[case].images
        return CaseExchange.loadLabel(path, volumeNode, case, project.segments, images, project.old_names())

    def setSegments(self, names: Sequence[str], look: Sequence[Segment] = ()) -> None:
        """Set the cohort's segments by name, or as "name = value" where plain label maps have that value for them.

        Those known, from ``look`` or before, keep value, colour and terminology. A name in the place of another one
        renames that segment, in accepted labels and in the scene as well. Raises CamlError; then nothing has changed.
        """
        from caml_core.project.labels import rename_segments
        from caml_core.project.segment_list import list_segments, renamed

        segments = list_segments(names, self.project.segments, look)
        changed = renamed(segments, self.project.segments)
        if changed:
            before = {case: TakenLabels.labelOf(self.project, case) for case in self.project.cases}
            rename_segments(self.project, changed)
            self._renameInScene(changed, before)
        self.project.segments = segments

    def segmentsText(self) -> str:
        """Return the cohort's segments as a user writes them."""
        from caml_core.project.segment_list import written

        return written(self.project.segments)

    def _renameInScene(self, names: Mapping[str, str], labels: Mapping[str, str]) -> None:
        by_key = {old.casefold(): new for old, new in names.items()}
        for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
            case = self.caseOf(node)
            if not case:
                continue
            TakenLabels.renamed(node, self.project, case, labels[case])
            segmentation = node.GetSegmentation()
            for index in range(segmentation.GetNumberOfSegments()):
                segment = segmentation.GetNthSegment(index)
                segment.SetName(by_key.get(segment.GetName().strip().casefold(), segment.GetName()))

    def useAsLabeled(self, case: str, role: str = "labeled", asPredicted: bool = False) -> tuple[str, ...]:
        """Take the segmentation of a case as its label, by the user's word, and return notes.

        The segmentation in the scene counts first, else the label file. A prediction in which nothing was changed
        measures no model, unless ``asPredicted``. Raises CamlError that says what is wrong, also where several bear the
        case's mark and differ; then nothing has changed.
        """
        Candidates.checkOne(self, case)
        if role == "validation" and not asPredicted:
            Accepting.checkMeasures(self, case)
        node = self.segmentationNode(case)
        if node is not None:
            return Accepting.accept(self, case, node, role)
        return Accepting.acceptFile(self, case, role)

    def setRole(self, cases: Iterable[str], role: str, asPredicted: bool = False) -> dict[str, str]:
        """Give cases a role and return the sentences of those that cannot have it, by case (``useAsLabeled``)."""
        faults: dict[str, str] = {}
        for case in cases:
            try:
                if case not in self.project.cases:
                    raise DataError(_("There is no case {case} any more; choose another.").format(case=case))
                if role in ("labeled", "validation"):
                    self.notes += self.useAsLabeled(case, role, asPredicted)
                else:
                    self.project.update(case, role=role)
            except CamlError as error:
                faults[case] = str(error)
        return faults

    def noteEdits(self, case: str) -> None:
        """Look whether a hand has changed the segmentation since it was taken as label, and say so in the status."""
        if case not in self.project.cases or self.project.cases[case].status == "edited":
            return
        found = Candidates.marked(self, case) or [self.segmentationNode(case)]
        if any(node is not None and self._isNew(node, case) for node in found):
            self.project.update(case, status="edited")

    def _isNew(self, node: Any, case: str) -> bool:
        """Whether a segmentation holds something, and is neither a case's label nor as it was handed to a hand."""
        if not node.GetSegmentation().GetNumberOfSegments():
            return False
        state = SegmentationResult.lastFingerprint(node)
        untouched = TakenLabels.isAlike(node.GetAttribute(OPENED), state)
        untouched = untouched or TakenLabels.isLabel(node, self.project, case, state)
        return not untouched and not SegmentationResult.isEmpty(node)

    def noteStale(self) -> None:
        """Say of which labelled cases the segmentation was edited after it was taken as label."""
        labeled = self.project.with_role("labeled", "validation")
        for case in labeled:
            self.noteEdits(case.id)
        stale = [case.id for case in labeled if self.project.cases[case.id].status == "edited"]
        if stale:
            self.notes.append(
                _(
                    "{cases}: edited after the label was taken; training uses the label. Press Use as Labeled to take "
                    "the change."
                ).format(cases=", ".join(stale))
            )

    def holdOut(self, count: int, startModel: Path | None = None) -> tuple[str, ...]:
        """Make ``count`` labelled cases validation cases, by chance; raise UsageError where none would be left.

        Cases that the start model has learnt from would make its figures too good, and so would labels that a model
        has predicted; they are chosen last.
        """
        labeled = self.project.with_role("labeled")
        predicted = [c.id for c in labeled if c.label_began == "prediction"]
        return self.project.hold_out(count, learned=(*learnedBy(startModel, (c.id for c in labeled)), *predicted))

    @property
    def willSplit(self) -> bool:
        """Whether cases are held out by themselves before the next check or training."""
        enough = self.project.spares and len(self.project.with_role("labeled")) >= ENOUGH_TO_HOLD_OUT
        return enough and not self.project.with_role("validation")

    def fixSplit(self, startModel: Path | None = None) -> None:
        """Hold cases out once for all rounds, where there are enough: each round would choose anew otherwise."""
        if not self.willSplit:
            return
        labeled = self.project.with_role("labeled")
        chosen = self.holdOut(max(1, round(0.2 * len(labeled))), startModel)
        self.notes.append(
            _("{cases} is held out from now on, in all rounds (chosen at random).").format(cases=chosen[0])
            if len(chosen) == 1
            else _("{cases} are held out from now on, in all rounds (chosen at random).").format(
                cases=", ".join(chosen)
            )
        )

    def prepare(self, startModel: Path | None = None) -> TrainingCohort:
        """Fix the split, say which labels are older than what is drawn, and be ``ready``; raise CamlError."""
        if not self.project.with_role("labeled"):
            raise DataError(TrainingTexts.noLabel(bool(self.project.with_role("validation"))))
        self.fixSplit(startModel)
        self.noteStale()
        return self.ready()

    def ready(self) -> TrainingCohort:
        """Write what training needs, every scan that only the scene has, and the list; return what the engine is told.

        Raises CamlError.
        """
        self.project.check_writable()
        for case in self.project.with_role("labeled", "unlabeled", "validation"):
            self.ensureFile(case.id)
        told = self.project.cohort()
        ScanFiles.checkTogether(self.project)
        self.project.save()
        return told


def sceneVolumes() -> list[Any]:
    """Return the grey-value volumes of the scene that have voxels; label maps and our own maps are none."""
    return [node for node in SceneVolumes.sceneVolumes() if node.GetImageData() is not None]


def defaultFolder() -> Path:
    """Return a folder for a new project, which does not exist yet.

    In the user's own folder and not in the documents, which OneDrive and iCloud copy to a cloud where they are set up.
    """
    base = Path.home() / "CAML Training"
    number = 1
    while os.path.exists(base / f"project-{number}"):
        number += 1
    return base / f"project-{number}"
