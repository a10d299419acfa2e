"""Scans and labels in folders, and the table of all cases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SlicerHost
from stand_ins import write_series
from training_tools import (
    accept,
    add_scan,
    add_segmentation,
    ball,
    cell,
    draw,
    message,
    roles,
    select,
    write_folder,
    write_two_channels,
)

from caml_core.data.cohort import load_cohort
from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels

# Folders


def test_a_folder_is_listed_and_nothing_loaded(training, tmp_path, answers, wait_for):
    import slicer

    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 4, labels=2))
    training.ui.addFolderButton.click()
    assert list(roles(training)) == [f"case-{i:02d}" for i in range(4)]
    assert set(roles(training).values()) == {"unlabeled"}
    assert "2 of 4 new cases have a label file" in message(training)
    wait_for(lambda: cell(training, "case-03", "Size") == "24 x 22 x 20")
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_the_same_folder_in_another_project_is_described_as_well(training, tmp_path, wait_for):
    folder = write_folder(tmp_path / "scans", 2)
    for name in ("project", "second"):
        training.ui.projectDirectoryButton.directory = str(tmp_path / name)
        training.logic.addFolder(folder)
        training.update()
        wait_for(lambda: cell(training, "case-01", "Size") == "24 x 22 x 20")


def test_label_files_become_labels_when_the_user_says_so(training, tmp_path, answers):
    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 3, labels=2))
    training.ui.addFolderButton.click()
    training.ui.segmentsLineEdit.text = "ball"
    training.cohort._onSegments()
    accept(training, "case-00", "case-01", "case-02")
    assert roles(training) == {"case-00": "labeled", "case-01": "labeled", "case-02": "unlabeled"}
    assert "case-02 has no segmentation" in message(training)
    assert cell(training, "case-00", "Segments") == "ball"


def test_many_labels_are_checked_while_the_window_stays_alive(training, tmp_path, wait_for):
    training.logic.addFolder(write_folder(tmp_path / "scans", 8, labels=7))
    training.update()
    accept(training, *roles(training))
    assert not training.ui.useAsLabeledButton.enabled, "not twice at once"
    for name in ("train", "check"):
        button = getattr(training.ui, f"{name}Button")
        assert not button.enabled and "being checked" in button.toolTip
    assert set(roles(training).values()) == {"unlabeled"}, "nothing has happened before the next turn"
    wait_for(lambda: training.ui.useAsLabeledButton.enabled)
    assert training.ui.trainButton.enabled and training.ui.checkButton.enabled
    assert list(roles(training).values()) == ["labeled"] * 7 + ["unlabeled"]
    assert "case-07 has no segmentation" in message(training)
    assert [c.role for c in load_cohort(training.logic.project.file).cases] == list(roles(training).values())


def saved_roles(project: Path) -> list[str]:
    """The roles of a project's file."""
    return [c["role"] for c in json.loads((project / "cohort.json").read_text())["cases"]]


def check_many(panel, tmp_path) -> Path:
    """Begin to check fifteen labels; return the project's folder."""
    panel.logic.addFolder(write_folder(tmp_path / "scans", 15, labels=15))
    panel.logic.save()
    panel.update()
    accept(panel, *roles(panel))
    return panel.logic.project.folder


def test_labels_checked_are_saved_before_all_are(training, tmp_path, wait_for):
    project = check_many(training, tmp_path)
    wait_for(lambda: "labeled" in saved_roles(project))
    assert training.cohort.checking, "no crash from here on loses them"


def test_quitting_while_labels_are_checked_keeps_those_that_were(training, tmp_path, wait_for):
    project = check_many(training, tmp_path)
    wait_for(lambda: roles(training)["case-01"] == "labeled")
    checked = list(roles(training).values())
    SlicerHost.unload_module("CAMLTraining")
    assert checked.count("labeled") < 15 and saved_roles(project) == checked


def test_labels_being_checked_go_to_their_own_project_when_another_is_opened(training, tmp_path, wait_for):
    project = check_many(training, tmp_path)
    wait_for(lambda: roles(training)["case-01"] == "labeled")
    training.ui.projectDirectoryButton.directory = str(tmp_path / "second")
    assert "labeled" in saved_roles(project) and training.cohort.checking
    wait_for(lambda: not training.cohort.checking)
    assert saved_roles(project) == ["labeled"] * 15
    assert not roles(training) and saved_roles(tmp_path / "second") == []


def test_a_project_that_is_opened_again_while_its_labels_are_checked_gets_them(training, tmp_path, wait_for):
    project = check_many(training, tmp_path)
    wait_for(lambda: roles(training)["case-01"] == "labeled")
    for folder in (tmp_path / "second", project):
        training.ui.projectDirectoryButton.directory = str(folder)
    assert training.cohort.checking and set(roles(training).values()) == {"labeled", "unlabeled"}
    wait_for(lambda: not training.cohort.checking)
    assert list(roles(training).values()) == saved_roles(project) == ["labeled"] * 15
    training.logic.save()


def test_a_damaged_label_file_is_refused_by_name(training, tmp_path, answers):
    folder = write_folder(tmp_path / "scans", 1, labels=1)
    (folder / "case-00_label.nii.gz").write_bytes(b"torn")
    answers["getExistingDirectory"] = str(folder)
    training.ui.addFolderButton.click()
    accept(training, "case-00")
    assert roles(training) == {"case-00": "unlabeled"}
    assert "case-00_label.nii.gz" in message(training)


def test_labels_are_taken_in_bulk_and_are_selected(training, tmp_path, answers):
    answers["getExistingDirectory"] = str(write_folder(tmp_path / "scans", 3))
    training.ui.addFolderButton.click()
    labels = write_folder(tmp_path / "drawn", 2, labels=2)
    for image in labels.glob("case-??.nii.gz"):
        image.unlink()
    answers["getExistingDirectory"] = str(labels)
    training.ui.addLabelsButton.click()
    assert training.cohort.table.selected() == ["case-00", "case-01"]
    training.ui.useAsLabeledButton.click()
    assert list(roles(training).values()) == ["labeled", "labeled", "unlabeled"]


def test_an_empty_folder_is_said(training, tmp_path, answers):
    (tmp_path / "nothing").mkdir()
    answers["getExistingDirectory"] = str(tmp_path / "nothing")
    training.ui.addFolderButton.click()
    assert "has no cases" in message(training)
    assert "--" not in message(training) and "`" not in message(training), "a panel speaks of no command line"


def test_a_label_without_a_scan_does_not_keep_the_scans_of_a_folder(training, tmp_path, answers):
    folder = write_folder(tmp_path / "scans", 3, labels=2)
    (folder / "case-00.nii.gz").unlink()
    answers["getExistingDirectory"] = str(folder)
    training.ui.addFolderButton.click()
    assert list(roles(training)) == ["case-01", "case-02"]
    assert "left out (1): case-00_label.nii.gz" in message(training)
    assert "1 of 2 new cases has a label file" in message(training)


def test_series_in_the_folders_of_patients_are_cases(training, tmp_path, answers, wait_for):
    for patient in ("LA 1", "LA 2"):
        write_series(tmp_path / "export" / patient / "study" / "series")
    (tmp_path / "export" / "LA 2" / "study" / "series" / "LA 2.seg.nrrd").write_bytes(b"drawn by somebody")
    (tmp_path / "export" / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    answers["getExistingDirectory"] = str(tmp_path / "export")
    training.ui.addFolderButton.click()
    assert list(roles(training)) == ["LA 1", "LA 2"] and "1 of 2 new cases has a label file" in message(training)
    wait_for(lambda: cell(training, "LA 2", "Size") == "10 x 12 x 4")
    training.openCase("LA 1")
    volume = training.edit.editor.sourceVolumeNode()
    assert volume.GetImageData().GetDimensions() == (10, 12, 4)


def test_scans_that_moved_are_located(training, tmp_path, answers):
    folder = write_folder(tmp_path / "scans", 2)
    answers["getExistingDirectory"] = str(folder)
    training.ui.addFolderButton.click()
    shutil.move(folder, tmp_path / "archive")
    assert len(training.logic.project.missing()) == 2
    answers["getExistingDirectory"] = str(tmp_path / "archive")
    training.ui.locateButton.click()
    assert not training.logic.project.missing()
    assert "2 cases were found there; 0 are still missing" in message(training)


def test_a_dicom_series_is_labelled_where_training_looks(training, tmp_path):
    folder = write_series(tmp_path / "scans" / "patient")
    training.logic.addFolder(tmp_path / "scans")
    training.logic.cohort.setSegments(["ball"])
    training.update()
    training.openCase("patient")
    volume, node = training.edit.editor.sourceVolumeNode(), training.edit.editor.segmentationNode()
    mask = np.zeros((4, 12, 10), bool)
    mask[1, 3:6, 2:9] = True
    draw(node, volume, mask)
    training.ui.acceptNextButton.click()
    case = load_cohort(training.logic.project.file).cases[0]
    assert case.images == (folder,) and case.role == "labeled"
    image = read_volume(folder)
    found = read_case_labels(case, image.grid, training.logic.project.segments)
    assert np.array_equal(found.array > 0, mask.transpose(2, 1, 0))
    values = set(image.array[found.array > 0].tolist())
    import slicer

    assert values == set(slicer.util.arrayFromVolume(volume)[mask].tolist())


def test_practice_makes_a_cohort_where_there_is_none(training, wait_for, tmp_path):
    assert training.ui.practiceButton.enabled
    training.ui.practiceButton.click()
    assert "practise" in message(training) and not training.ui.practiceButton.enabled
    wait_for(lambda: len(roles(training)) == 14, 300)
    assert set(roles(training).values()) == {"unlabeled"}
    assert "7 of 14 new cases have a label file" in message(training)
    assert not training.ui.practiceButton.enabled
    assert "your own" in training.ui.practiceButton.toolTip


# The table


def test_many_roles_at_once(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 5))
    training.update()
    select(training, ["case-01", "case-03"])
    training.ui.excludeButton.click()
    assert [r == "excluded" for r in roles(training).values()] == [False, True, False, True, False]
    training.ui.unlabeledButton.click()
    assert set(roles(training).values()) == {"unlabeled"}


def test_the_table_sorts_and_filters(training, tmp_path):
    import qt

    training.logic.addFolder(write_folder(tmp_path / "scans", 4))
    training.logic.project.update("case-02", role="excluded", agreement={"ball": 0.5})
    training.logic.project.update("case-01", agreement={"ball": 0.9})
    training.update()
    table, column = training.ui.casesTableWidget, 4
    table.horizontalHeader().setSortIndicator(column, qt.Qt.DescendingOrder)  # as a click on the title does
    assert [table.item(row, 0).text() for row in range(2)] == ["case-02", "case-01"]
    training.ui.filterSearchBox.text = "CASE-0 excl"
    shown = [table.item(row, 0).text() for row in range(table.rowCount) if not table.isRowHidden(row)]
    assert shown == ["case-02"]
    training.ui.filterSearchBox.text = ""
    training.ui.filterRoleComboBox.currentIndex = training.ui.filterRoleComboBox.findData("unlabeled")
    shown = [table.item(row, 0).text() for row in range(table.rowCount) if not table.isRowHidden(row)]
    assert sorted(shown) == ["case-00", "case-01", "case-03"]


def test_numbers_are_sorted_as_numbers(training, tmp_path):
    import qt

    training.logic.addFolder(write_folder(tmp_path / "scans", 4))
    sizes = ((512, 512, 88), (64, 64, 20), (512, 512, 300), None)
    spacings = ((0.625, 0.625, 10.0), (12.0, 1.0, 1.0), (0.625, 0.625, 2.5), None)
    for number, (size, spacing) in enumerate(zip(sizes, spacings)):
        training.logic.project.update(f"case-{number:02d}", size=size, spacing=spacing)
    training.cohort._timer.stop()
    training.update()
    table, header = training.ui.casesTableWidget, training.ui.casesTableWidget.horizontalHeader()

    def sorted_by(title: str, order) -> str:
        from CAMLTrainingLib.CasesTable import HEADERS

        header.setSortIndicator(HEADERS.index(title), order)
        return "".join(table.item(row, 0).text()[-1] for row in range(4))

    assert sorted_by("Size", qt.Qt.AscendingOrder) == "1023"
    assert sorted_by("Size", qt.Qt.DescendingOrder) == "2013", "what is unknown comes last"
    assert sorted_by("Spacing (mm)", qt.Qt.AscendingOrder) == "2013"
    assert sorted_by("Case", qt.Qt.DescendingOrder) == "3210"


def test_cases_stay_selected_and_hidden_where_sorting_moves_them(training, tmp_path):
    import qt

    training.logic.addFolder(write_folder(tmp_path / "scans", 5))
    training.update()
    table = training.ui.casesTableWidget
    training.ui.filterSearchBox.text = "case-0"
    select(training, ["case-00", "case-03"])
    training.logic.project.update("case-04", role="excluded")
    training.update()
    training.ui.filterRoleComboBox.currentIndex = training.ui.filterRoleComboBox.findData("unlabeled")
    table.horizontalHeader().setSortIndicator(0, qt.Qt.DescendingOrder)
    assert training.cohort.table.selected() == ["case-03", "case-00"]
    assert [table.item(row, 0).text() for row in range(5) if table.isRowHidden(row)] == ["case-04"]
    training.ui.excludeButton.click()
    assert [case for case, role in roles(training).items() if role == "excluded"] == ["case-00", "case-03", "case-04"]
    table.selectColumn(1)  # what a click on a title does besides, in tables that select more than rows
    assert training.cohort.table.selected() == []


def test_hidden_rows_are_not_changed(training, tmp_path):
    training.logic.addFolder(write_folder(tmp_path / "scans", 3))
    training.update()
    select(training, ["case-00", "case-01", "case-02"])
    training.ui.filterSearchBox.text = "case-01"
    training.ui.excludeButton.click()
    assert [c for c, r in roles(training).items() if r == "excluded"] == ["case-01"]


def test_hundreds_of_cases_are_listed_without_being_read(training, tmp_path):
    """Speed is measured in Testing/benchmarks; here, that no file is opened to list them."""
    (tmp_path / "scans").mkdir()
    for number in range(300):
        (tmp_path / "scans" / f"case-{number:03d}.nii.gz").write_bytes(b"")
    training.logic.addFolder(tmp_path / "scans")
    training.update()
    assert training.ui.casesTableWidget.rowCount == 300


def test_the_table_is_told_of_neighbours_together(training, tmp_path):
    """Qt compares what is to be selected with all that is: cell by cell a thousand cases took seconds."""
    import qt

    training.logic.addFolder(write_folder(tmp_path / "scans", 12))
    training.update()
    table, told = training.ui.casesTableWidget, []
    table.connect("itemSelectionChanged()", lambda: told.append(1))
    wanted = [f"case-{number:02d}" for number in (0, 1, 2, 3, 4, 7, 8, 9, 11)]
    select(training, wanted)
    assert training.cohort.table.selected() == wanted and len(told) <= 4
    assert len(table.selectedItems()) == len(wanted) * table.columnCount
    select(training, ["case-05"])
    assert training.cohort.table.selected() == ["case-05"]
    select(training, wanted)
    told.clear()
    table.horizontalHeader().setSortIndicator(0, qt.Qt.DescendingOrder)
    assert training.cohort.table.selected() == wanted[::-1] and len(told) <= 4
    select(training, [])
    assert training.cohort.table.selected() == []


def test_the_table_is_saved_as_csv(training, tmp_path, answers):
    training.logic.addFolder(write_folder(tmp_path / "scans", 2))
    answers["getSaveFileName"] = str(tmp_path / "table.csv")
    training.ui.exportTableButton.click()
    assert [c.id for c in load_cohort(tmp_path / "table.csv").cases] == ["case-00", "case-01"]


def test_validation_cases_are_held_out_by_chance_once(a_cohort, training):
    a_cohort(labeled=4, unlabeled=1)
    training.ui.holdOutSpinBox.value = 2
    training.ui.holdOutButton.click()
    held = [c for c, r in roles(training).items() if r == "validation"]
    assert len(held) == 2
    assert [
        c["id"] for c in json.loads(training.logic.project.file.read_text())["cases"] if c["role"] == "validation"
    ] == held


def test_none_is_held_out_by_itself_where_the_user_wants_all(a_cohort, training):
    a_cohort(labeled=5, unlabeled=1)
    assert "set aside" in training.ui.checkButton.toolTip
    training.ui.holdOutSpinBox.value = 0
    training.ui.holdOutButton.click()
    assert "none is held out" in message(training)
    training.logic.openProject(training.logic.project.folder)
    training.update()
    told = load_cohort(training.logic._trainingCohort())
    assert sorted(case.role for case in told.cases) == ["labeled"] * 5 + ["unlabeled"]
    planning = training.train.settings().planning()
    assert planning[planning.index("--hold-out") + 1] == "0", "the engine spares none by itself, either"
    assert "set aside" not in training.ui.checkButton.toolTip

    training.ui.holdOutSpinBox.value = 1
    training.ui.holdOutButton.click()
    assert list(roles(training).values()).count("validation") == 1
    training.ui.holdOutSpinBox.value = 0
    training.ui.holdOutButton.click()
    assert list(roles(training).values()).count("labeled") == 5


def test_what_a_list_calls_its_channels_is_what_the_engine_is_told(training, tmp_path):
    from caml_core.data.cohort import load_cohort

    folder = write_two_channels(tmp_path / "two channels")
    write_folder(folder, 1, labels=1)
    rows = ("p0,p0_0000.nrrd,p0_0001.nrrd,case-00_label.nii.gz", "p1,p1_0000.nrrd,p1_0001.nrrd,")
    (folder / "cases.csv").write_text("\n".join(("id,image (T1),image2 (FLAIR),label", *rows)))
    training.logic.addFolder(folder)
    assert not training.logic.setRole(["p0"], "labeled")
    training.logic.openProject(training.logic.project.folder)
    assert load_cohort(training.logic._trainingCohort()).channels == ("T1", "FLAIR")


def test_a_second_channel_in_the_scene_is_no_case_of_its_own(training, tmp_path):
    import slicer

    folder = write_two_channels(tmp_path / "two channels")
    training.logic.addFolder(folder)
    for channel in ("p0_0001", "p0_0000", "p0_0000"):
        slicer.util.loadVolume(str(folder / f"{channel}.nrrd"))
        training.update()
        assert list(roles(training)) == ["p0", "p1"], channel
    node = training.logic.cohort.volumeNode("p0")
    slicer.mrmlScene.RemoveNode(node)
    training.update()
    assert list(roles(training)) == ["p0", "p1"] and training.logic.cohort.volumeNode("p0") is not None


def test_the_projects_own_folder_is_not_added_in_silence(training, tmp_path, answers):
    scans = write_folder(tmp_path / "scans", 3)
    training.ui.projectDirectoryButton.directory = str(scans)
    training.logic.save()
    answers["getExistingDirectory"] = str(scans)
    training.ui.addFolderButton.click()
    assert "Choose another project folder" in message(training) and not roles(training)


def test_accepted_labels_of_cases_drawn_on_since_are_not_replaced_in_bulk(training, tmp_path):
    volume = add_scan(0, "LA")
    node = add_segmentation(volume, ball(0))
    training.update()
    accept(training, "LA")
    label = training.logic.project.cases["LA"].label
    draw(node, volume, np.roll(ball(0), 1, 0))
    training.logic.cohort.noteEdits("LA")
    folder = write_folder(tmp_path / "labels", 1, labels=1)
    (folder / "case-00_label.nii.gz").rename(folder / "LA.nii.gz")
    assert training.logic.addLabels(folder)[2] == ("LA",)
    assert training.logic.project.cases["LA"].label == label and roles(training)["LA"] == "labeled"
