"""The panel's part "Cohort": project folder, cases, roles, labels."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from CAMLSegmentationLib.Combo import chosen, fill
from CAMLSegmentationLib.PlainText import asWritten
from slicer.i18n import tr as _

from caml_core.errors import CamlError
from caml_core.project.headers import Header, read_header

from . import Accepting, Candidates, LeftOut
from .CasesTable import ROLE_TITLES, CasesTable, rowOf
from .Logic import CAMLTrainingLogic
from .ModelChoice import startOf
from .Practice import PracticeRun
from .RoleQueue import RoleQueue
from .TrainingTexts import counted

#: Seconds that headers are read in one turn of the event loop: many of a fast disk, one of a slow network drive.
_TURN = 0.02
_MOST_FAULTS = 4
#: More labels than this are checked one a turn of the event loop.
_AT_ONCE = 4


class CohortSection:
    """Shows the cohort and changes it; calls ``onChange`` after a change and ``onEdit(case)`` to open the editor."""

    def __init__(
        self, ui: Any, logic: CAMLTrainingLogic, onChange: Callable[[], None], onEdit: Callable[[str], None]
    ) -> None:
        self._ui, self._logic, self._onChange, self._onEdit = ui, logic, onChange, onEdit
        self._parameterNode: Any = None
        self._updating = False
        self._unread: list[str] = []
        #: What headers have said, None for those that cannot be read; the same scans may be in several projects.
        self._headers: dict[Path, Header | None] = {}
        self.table = CasesTable(ui.casesTableWidget, self._onSelection, onEdit)
        self._queue = RoleQueue(self._onChecked, self._onAllChecked)
        self._practice = PracticeRun(self._onPracticeEnd, self.say)
        self._timer = qt.QTimer()
        self._timer.setInterval(10)
        self._timer.connect("timeout()", self._readHeaders)
        roles = [(_("All roles"), ""), *((title, role) for role, title in ROLE_TITLES.items())]
        fill(ui.filterRoleComboBox, roles)
        # Told of every choice, also of the same folder again; "directoryChanged" would come as well for another one.
        ui.projectDirectoryButton.connect("directorySelected(QString)", self._onProject)
        ui.segmentsLineEdit.connect("editingFinished()", self._onSegments)
        ui.filterSearchBox.connect("textChanged(QString)", self._onFilter)
        ui.filterRoleComboBox.connect("currentIndexChanged(int)", self._onFilter)
        ui.caseSegmentationSelector.connect("nodeActivated(vtkMRMLNode*)", self._onSegmentation)
        for name, slot in (
            ("addFolder", self._onAddFolder),
            ("addFromScene", lambda checked=False: self._trying(self._logic.addFromScene)),
            ("addLabels", self._onAddLabels),
            ("locate", self._onLocate),
            ("exportTable", self._onExport),
            ("edit", self._onEditButton),
            ("useAsLabeled", lambda checked=False: self._setRole("labeled")),
            ("validation", lambda checked=False: self._setRole("validation")),
            ("unlabeled", lambda checked=False: self._setRole("unlabeled")),
            ("exclude", lambda checked=False: self._setRole("excluded")),
            ("remove", self._onRemove),
            ("holdOut", self._onHoldOut),
            ("practice", self._onPractice),
        ):
            getattr(ui, f"{name}Button").connect("clicked(bool)", slot)

    @property
    def checking(self) -> bool:
        """Whether labels are being checked, case by case: roles are about to change."""
        return self._queue.running

    @property
    def practising(self) -> bool:
        """Whether scans to practise on are being made in the project's folder."""
        return self._practice.running

    def setParameterNode(self, parameterNode: Any) -> None:
        """Follow a parameter node; None detaches."""
        self._queue.save()  # the scene may bring another project, or this one read anew
        self._parameterNode = parameterNode

    def close(self) -> None:
        """Stop what runs."""
        self._practice.end()
        self._queue.close()
        self._timer.stop()
        self._timer.disconnect("timeout()", self._readHeaders)

    def refresh(self) -> None:
        """Bring the widgets in line with project and scene."""
        if self._updating:
            return
        self._updating = True
        self._queue.follow(self._logic.cohort)
        try:
            project = self._logic.project
            if Path(self._ui.projectDirectoryButton.directory) != project.folder:
                self._ui.projectDirectoryButton.directory = str(project.folder)
            if not self._ui.segmentsLineEdit.hasFocus():
                self._ui.segmentsLineEdit.text = self._logic.cohort.segmentsText()
            names = self._logic.cohort.segmentationNames()
            self.table.show([rowOf(case, names.get(case.id, "")) for case in project.cases.values()])
            self.table.filter(self._ui.filterSearchBox.text, chosen(self._ui.filterRoleComboBox))
            self._ui.addFromSceneButton.setVisible(bool(LeftOut.leftOut(project)))
            self._showSelection()
            self._showNotes()
        finally:
            self._updating = False
        self._queueHeaders()

    def say(self, sentence: str) -> None:
        """Show a sentence below the table."""
        self._ui.cohortMessageLabel.text = f"<span>{html.escape(sentence)}</span>" if sentence else ""

    # Selection

    def _showSelection(self) -> None:
        selected, ui = self.table.selected(), self._ui
        for name in ("useAsLabeled", "validation", "unlabeled", "exclude"):
            getattr(ui, f"{name}Button").enabled = bool(selected) and not self._queue.running
        ui.removeButton.enabled = bool(selected) and not self._queue.running and not self._isBusy()
        ui.editButton.enabled = len(selected) == 1
        one = selected[0] if len(selected) == 1 else ""
        loaded = bool(one) and self._logic.cohort.volumeNode(one) is not None
        ui.caseSegmentationSelector.enabled = loaded
        ui.caseSegmentationSelector.setCurrentNode(self._logic.cohort.segmentationNode(one) if loaded else None)
        ui.holdOutButton.enabled = len(self._logic.project.with_role("labeled", "validation")) > 1
        listed = bool(self._logic.project.cases)
        ui.locateButton.enabled = listed
        ui.practiceButton.enabled = not listed and not self._practice.running
        ui.practiceButton.toolTip = (
            _("Practice scans do not belong among your own: close the scene and choose an empty project folder first.")
            if listed
            else _("Make a small cohort of procedural scans in the project folder, to try all of this.")
        )

    def _isBusy(self) -> bool:
        """Whether something is at work that knows the cases by name."""
        predictions = self._logic.predictions
        predicting = predictions is not None and not predictions.ended
        return self._logic.checking or self._logic.training or predicting

    def _onSelection(self) -> None:
        if not self._updating:
            self._updating = True
            self._showSelection()
            self._updating = False

    def _onFilter(self, *_arguments: Any) -> None:
        self.table.filter(self._ui.filterSearchBox.text, chosen(self._ui.filterRoleComboBox))
        self._onSelection()

    def _onSegmentation(self, node: Any) -> None:
        selected = self.table.selected()
        if self._updating or len(selected) != 1:
            return
        cohort = self._logic.cohort
        isOnlyOne = len(Candidates.marked(cohort, selected[0])) < 2  # else to choose the one that is shown says much
        if isOnlyOne and node is cohort.segmentationNode(selected[0]):
            return
        self._trying(lambda: cohort.assign(selected[0], node))

    # Buttons

    def _onProject(self, path: str) -> None:
        if self._updating or not path.strip():
            return
        if Path(path) == self._logic.project.folder and self._isAsRead():
            return  # there is nothing to read anew, and what runs must not end for it
        self._trying(lambda: self._chooseProject(Path(path)))

    def _isAsRead(self) -> bool:
        """Whether the open project's file is what was read here or written from here, so that it can be saved."""
        try:
            self._logic.project.check_current()
        except CamlError:
            return False
        return True

    def _chooseProject(self, folder: Path) -> None:
        """Open what is there; a cohort that was not saved anywhere moves into an empty folder."""
        from caml_core.project.project import Project

        self._queue.save()
        project, known = self._logic.project, Project.exists(folder)
        if project.cases and not known and not project.is_kept:
            project.move(folder)
            return
        self._logic.openProject(folder)
        if project.cases and not known:
            self._logic.cohort.notes.append(
                _(
                    "A new project begins in {folder}. Roles and labels of before are kept in {before}; to have them "
                    "here instead, move that folder while Slicer is closed, and choose it where it is then."
                ).format(folder=folder, before=project.folder)
            )

    def _onSegments(self) -> None:
        text = self._ui.segmentsLineEdit.text
        if not self._updating and text != self._logic.cohort.segmentsText():
            self._trying(lambda: self._logic.cohort.setSegments(text.split(",")))

    def _onAddFolder(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Add the scans of a folder"), "")
        if folder:
            self._trying(lambda: self._addFolder(Path(folder)))

    def _addFolder(self, folder: Path) -> None:
        new = self._logic.addFolder(folder)
        withLabels = [case for case in new if self._logic.project.cases[case].label is not None]
        if withLabels:
            one = _("1 of {all} new cases has a label file, and is selected. Press Use as Labeled, or Validation.")
            many = _(
                "{count} of {all} new cases have a label file, and are selected. Press Use as Labeled for those to "
                "learn from, or Validation."
            )
            text = one if len(withLabels) == 1 else many
            self._logic.cohort.notes.append(text.format(count=len(withLabels), all=len(new)))
        self.refresh()
        self.table.select(withLabels)

    def _onAddLabels(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of label files"), "")
        if folder:
            self._trying(lambda: self._addLabels(Path(folder)))

    def _addLabels(self, folder: Path) -> None:
        taken, lost, kept = self._logic.addLabels(folder)
        self.say("")
        notes = self._logic.cohort.notes
        if taken:
            one = _("{count} case got a label file. Select it and press Use as Labeled, or Validation.")
            many = _("{count} cases got a label file. Select them and press Use as Labeled, or Validation.")
            notes.append(counted(len(taken), one, many))
        else:
            notes.append(_("No case got a label file."))
        if lost:
            one, many = _("{count} file fits no case by name"), _("{count} files fit no case by name")
            notes.append(f"{counted(len(lost), one, many)} ({_some(lost)}).")
        if kept:
            one = _("{count} case keeps the label that was accepted before")
            many = _("{count} cases keep the label that was accepted before")
            notes.append(f"{counted(len(kept), one, many)} ({_some(kept)}).")
        self.refresh()
        self.table.select(taken)

    def _onLocate(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Where the scans are now"), "")
        if folder:
            self._trying(lambda: self._locate(Path(folder)))

    def _locate(self, folder: Path) -> None:
        count = self._logic.project.relocate(folder)
        left = len(self._logic.project.missing())
        found = counted(count, _("{count} case was found there"), _("{count} cases were found there"))
        text = f"{found}; {counted(left, _('{count} is still missing.'), _('{count} are still missing.'))}"
        if left:
            text += _(" Files that several of one name could be are left alone; choose a folder nearer to them.")
        self._logic.cohort.notes.append(text)

    def _onExport(self, checked: bool = False) -> None:
        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save the table"), "cohort.csv", "CSV (*.csv)"
        )
        if path:
            self._trying(lambda: self._logic.project.write_csv(Path(path)))

    def _onPractice(self, checked: bool = False) -> None:
        try:
            self._logic.save()  # the folder is a project's from now on, and the scene knows it
            self._practice.make(self._logic.project.folder)
        except CamlError as error:
            self.say(str(error))
            return
        self.say(_("Making scans to practise on"))
        self._ui.practiceButton.enabled = False

    def _onPracticeEnd(self, folder: Path | None, fault: str) -> None:
        if folder is None:
            self.say(fault)
            self._onChange()
            return
        if folder.parent != self._logic.project.folder:  # another one was opened meanwhile
            self.say(_("The scans to practise on are in {folder}.").format(folder=folder))
            self._onChange()
            return
        self._trying(lambda: self._addFolder(folder))

    def _onEditButton(self, checked: bool = False) -> None:
        selected = self.table.selected()
        if len(selected) == 1:
            self._onEdit(selected[0])

    def _onHoldOut(self, checked: bool = False) -> None:
        self._trying(lambda: self._holdOut(int(self._ui.holdOutSpinBox.value)))

    def _holdOut(self, count: int) -> None:
        cohort = self._logic.cohort
        if count:
            cohort.holdOut(count, startOf(self._parameterNode))
            return
        cohort.project.hold_none_out()
        cohort.notes.append(
            _("All labelled cases are learnt from, and none is held out: how good the model is will not be known.")
        )

    def _setRole(self, role: str) -> None:
        selected = self.table.selected()
        if not selected:
            return

        asPredicted = role == "validation" and self.mayMeasure(selected)
        if role in ("labeled", "validation") and len(selected) > _AT_ONCE:
            self._queue.start(self._logic.cohort, selected, role, asPredicted)
            self._onChange()
            return

        def act() -> None:
            faults = self._logic.setRole(selected, role, asPredicted)
            self._logic.cohort.notes += _shorten(list(faults.values()))

        self._trying(act)

    def mayMeasure(self, cases: Sequence[str]) -> bool:
        """Ask whether predictions in which nothing was changed may measure the model, where some of ``cases`` are."""
        predicted = [case for case in cases if Accepting.isPrediction(self._logic.cohort, case)]
        question = _(
            "{cases}: nothing was changed in what a model predicted. A model that is measured by its own prediction "
            "scores 100 %, and its next rounds nearly so. Take this for validation all the same?"
        )
        return bool(predicted) and bool(
            slicer.util.confirmYesNoDisplay(asWritten(question.format(cases=_some(tuple(predicted)))))
        )

    def mayLearn(self, case: str) -> bool:
        """Ask whether a case that was kept aside is to be learnt from, where its corrected label is taken."""
        question = _(
            "{case} was kept aside to measure the model. Learn from it from now on, and have one case less to measure "
            "with? No: its label is taken, and it stays aside."
        )
        return bool(slicer.util.confirmYesNoDisplay(asWritten(question.format(case=case))))

    def _onRemove(self, checked: bool = False) -> None:
        selected = self.table.selected()
        labelled = [case for case in selected if self._logic.project.cases[case].has_own_label]
        question = counted(
            len(labelled),
            _("{count} of these cases has a label that was taken. Take them off the list, with their roles?"),
            _("{count} of these cases have a label that was taken. Take them off the list, with their roles?"),
        )
        if labelled and not slicer.util.confirmYesNoDisplay(question):
            return
        if selected:
            self._trying(lambda: LeftOut.takeOff(self._logic.cohort, selected))

    def _onChecked(self, done: int, total: int) -> None:
        self.say(_("Checking labels: {done} of {total}").format(done=done, total=total))

    def _onAllChecked(self, sentences: list[str]) -> None:
        """The queue has saved its project, which need not be the one that is open now."""
        self.say("")
        self._logic.cohort.notes += _shorten(sentences)
        self._logic.remember()
        self._onChange()

    def _trying(self, action: Callable[[], Any]) -> None:
        """Do something, save the project where it exists, and show what went wrong."""
        self.say("")
        try:
            action()
            self._logic.save()
        except CamlError as error:
            self._logic.cohort.notes.append(str(error))
        self._onChange()

    def _showNotes(self) -> None:
        notes, self._logic.cohort.notes = self._logic.cohort.notes, []
        if notes:
            shown = _shorten(notes)
            self._ui.cohortMessageLabel.text = "<br>".join(html.escape(note) for note in shown) + "<br>"

    # Headers

    def _queueHeaders(self) -> None:
        cases = [c for c in self._logic.project.cases.values() if c.size is None and c.images]
        self._unread = [c.id for c in cases if self._headers.get(c.images[0], ()) is not None]
        if self._unread and not self._timer.isActive():
            self._timer.start()

    def _readHeaders(self) -> None:
        """A few headers a turn: a network drive must not freeze the window."""
        project, end = self._logic.project, time.monotonic() + _TURN
        done = 0
        for case in self._unread:
            if done and time.monotonic() >= end:
                break
            done += 1
            if case not in project.cases or not project.cases[case].images:
                continue
            path = project.cases[case].images[0]
            if path not in self._headers:
                try:
                    self._headers[path] = read_header(path)
                except OSError:
                    self._headers[path] = None
            if (found := self._headers[path]) is not None:
                project.update(case, size=found[0], spacing=found[1])
        self._unread = self._unread[done:]
        if not self._unread:
            self._timer.stop()
            self.refresh()


def _shorten(sentences: list[str]) -> list[str]:
    if len(sentences) <= _MOST_FAULTS:
        return sentences
    more = _("And {count} more.").format(count=len(sentences) - _MOST_FAULTS)
    return [*sentences[:_MOST_FAULTS], more]


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
