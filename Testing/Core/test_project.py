"""A project keeps cases, roles and labels, comes back as it was, and never half."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_io import a_volume, nifti_2

from caml_core.config import Segment
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.errors import DataError, ResourceError, UsageError
from caml_core.project.cases import ProjectCase
from caml_core.project.headers import read_header
from caml_core.project.history import read_rounds
from caml_core.project.labels import check_label_file
from caml_core.project.project import Project

SEGMENTS = (Segment("left atrium", 1), Segment("aorta", 2, (0.9, 0.1, 0.1)))


def volume(path: Path, spacing=(1.0, 1.5, 2.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.arange(8 * 6 * 4, dtype=np.int16).reshape(8, 6, 4))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


def label(path: Path, values=(1,), spacing=(1.0, 1.5, 2.0), shape=(8, 6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(shape, np.uint8)
    for value in values:
        array[value, 2:4, 1:3] = value
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def scans(tmp_path):
    for name in ("a", "b", "c"):
        volume(tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def project(tmp_path, scans):
    made = Project(tmp_path / "project")
    made.add_folder(scans)
    return made


def test_it_comes_back_as_it_was(project, tmp_path):
    project.segments = SEGMENTS
    path = label(tmp_path / "labels" / "a.nii.gz")
    agreement = {"left atrium": 0.9, "aorta": 0.7}
    project.update("a", label=path, role="labeled", status="accepted", segments=("left atrium",), size=(4, 6, 8))
    predicted = {"prediction": path, "predicted_by": "0a1b", "status": "predicted"}
    project.update("b", agreement=agreement, spacing=(1.0, 1.5, 2.0), **predicted)
    project.add(ProjectCase("only in the scene", in_scene=True, scan="0f3a"))
    project.save()
    again = Project.open(project.folder)
    assert again.cases == project.cases
    assert again.segments == SEGMENTS
    assert again.cases["b"].uncertainty == pytest.approx(0.2)


def test_its_file_is_a_cohort_of_the_engine(project, tmp_path):
    project.segments = SEGMENTS
    project.update("a", label=label(tmp_path / "labels" / "a.nii.gz"), role="labeled")
    project.save()
    cohort = load_cohort(project.file)
    assert [(c.id, c.role) for c in cohort.cases] == [("a", "labeled"), ("b", "unlabeled"), ("c", "unlabeled")]
    assert cohort.segments == SEGMENTS
    assert cohort.cases == project.cohort().cases


def test_nothing_absolute_is_written_and_folder_and_scans_may_move_together(project, tmp_path):
    project.save()
    assert str(tmp_path) not in project.file.read_text()
    (tmp_path / "elsewhere").mkdir()
    for name in ("scans", "project"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    again = Project.open(tmp_path / "elsewhere" / "project")
    assert not again.missing()
    assert again.cases["a"].images[0].parent == tmp_path / "elsewhere" / "scans"


def test_scans_that_moved_alone_are_found_by_name(project, tmp_path, scans):
    project.save()
    shutil.move(scans, tmp_path / "archive")
    (tmp_path / "archive" / "c.nii.gz").unlink()
    again = Project.open(project.folder)
    assert again.missing() == ("a", "b", "c")
    with pytest.raises(DataError, match="a is not there .*Locate"):
        again.cohort()
    assert again.relocate(tmp_path) == 2
    assert again.missing() == ("c",)


def test_scans_of_one_name_are_told_apart_by_their_folders_or_stay_missing(tmp_path):
    """patient0/study/mri.nrrd, patient1/study/mri.nrrd: a scan of another patient would be learnt from."""
    project = Project(tmp_path / "project")
    for number in range(3):
        scan = volume(tmp_path / "data" / f"patient{number}" / "study" / "mri.nrrd")
        project.add(ProjectCase(f"p{number}", (scan,)))
    shutil.move(tmp_path / "data", tmp_path / "archive")
    shutil.move(tmp_path / "archive" / "patient2", tmp_path / "archive" / "somebody")
    assert project.relocate(tmp_path / "archive") == 2
    for number in range(2):
        assert project.cases[f"p{number}"].images == (tmp_path / "archive" / f"patient{number}" / "study" / "mri.nrrd",)
    assert project.missing() == ("p2",)
    shutil.rmtree(tmp_path / "archive" / "patient1")
    shutil.rmtree(tmp_path / "archive" / "somebody")
    assert project.relocate(tmp_path / "archive") == 0, "the scan of p0 is no other patient's"


def test_a_lone_scan_of_the_name_that_is_not_as_large_stays_missing(tmp_path):
    project = Project(tmp_path / "project")
    scan = volume(tmp_path / "data" / "p1" / "image.nrrd")
    size = read_header(scan)[0]
    project.add(ProjectCase("p1", (scan,), label(tmp_path / "data" / "p1" / "label.nrrd"), size=size))
    shutil.move(tmp_path / "data" / "p1", tmp_path / "archive" / "p9")
    project.update("p1", size=(size[0] + 1, *size[1:]))  # the one that was lost was larger
    assert project.relocate(tmp_path / "archive") == 0
    assert not project.cases["p1"].label.exists(), "its label is not taken either"
    project.update("p1", size=size)
    assert project.relocate(tmp_path / "archive") == 1


def test_a_round_that_waits_finds_the_scans_again_too(project, tmp_path, scans):
    for number, part in (("001", ""), ("002", ""), ("002", "caml")):
        folder = project.rounds_folder() / number / part
        folder.mkdir(parents=True, exist_ok=True)
        save_cohort(project.cohort(), folder / "cohort.json")
    (project.rounds_folder() / "001" / "result.json").write_text("{}")  # it is over
    before = (project.rounds_folder() / "001" / "cohort.json").read_text()
    shutil.move(scans, tmp_path / "archive")
    project.relocate(tmp_path / "archive")
    for part in ("", "caml"):
        found = load_cohort(project.rounds_folder() / "002" / part / "cohort.json")
        assert {case.images[0].parent for case in found.cases} == {tmp_path / "archive"}
    assert (project.rounds_folder() / "001" / "cohort.json").read_text() == before


def test_a_project_that_an_editor_has_saved_with_a_mark_of_utf8_opens(project):
    project.save()
    project.file.write_bytes(b"\xef\xbb\xbf" + project.file.read_bytes())
    assert Project.open(project.folder).cases == project.cases


def test_a_scan_does_not_become_its_label(tmp_path):
    project = Project(tmp_path / "project")
    for number in range(2):
        scan = volume(tmp_path / "data" / "images" / f"p{number}.nii.gz")
        drawn = label(tmp_path / "data" / "labels" / f"p{number}.nii.gz")
        project.add(ProjectCase(f"p{number}", (scan,), drawn))
    (tmp_path / "archive").mkdir()
    shutil.move(tmp_path / "data" / "images", tmp_path / "archive" / "scans")
    shutil.move(tmp_path / "data" / "labels", tmp_path / "archive" / "annotations")
    assert project.relocate(tmp_path / "archive") == 0 and len(project.missing()) == 2
    assert project.relocate(tmp_path / "archive" / "scans") == 0, "both would become the scan"
    shutil.move(tmp_path / "archive" / "annotations", tmp_path / "archive" / "labels")
    assert project.relocate(tmp_path / "archive") == 0, "labels are sure, but a scan is not one of them"
    assert all(case.label == tmp_path / "archive" / "labels" / f"{case.id}.nii.gz" for case in project.cases.values())
    assert project.relocate(tmp_path / "archive" / "scans") == 2 and not project.missing()


def test_two_cases_of_one_name_are_kept_apart(project, tmp_path):
    volume(tmp_path / "more" / "A.nii.gz")
    new, notes = project.add_folder(tmp_path / "more")
    assert new == ("A-2",)
    assert len(notes) == 1
    assert notes[0].startswith(f"There is a case A already; the one of {tmp_path / 'more'} is listed as A-2.")


def test_a_folder_added_twice_is_listed_once(project, scans):
    new, notes = project.add_folder(scans)
    assert not new and "3 scans" in notes[0]
    assert len(project.cases) == 3


def test_a_scan_that_was_listed_without_its_label_gets_it_and_one_that_has_a_label_keeps_it(project, scans, tmp_path):
    drawn = label(tmp_path / "drawn" / "b.nii.gz")
    project.update("b", label=drawn, role="labeled", status="accepted")
    beside = {name: label(scans / f"{name}_label.nii.gz") for name in ("a", "b")}
    new, notes = project.add_folder(scans)
    assert not new and project.cases["a"].label == beside["a"] and project.cases["b"].label == drawn
    assert (project.cases["a"].role, project.cases["c"].label) == ("unlabeled", None)
    assert notes[0].endswith("a has its label file now: select it and press Use as Labeled, or Validation.")
    assert project.add_folder(scans)[1] == (f"In the cohort already: 3 scans of {scans}.",)


def test_labels_of_a_folder_count_only_when_the_user_says_so(tmp_path):
    volume(tmp_path / "scans" / "a_image.nii.gz")
    label(tmp_path / "scans" / "a_label.nii.gz")
    project = Project(tmp_path / "project")
    project.add_folder(tmp_path / "scans")
    assert project.cases["a"].label is not None
    assert project.cases["a"].role == "unlabeled"


def test_label_files_are_taken_in_bulk_by_name(project, tmp_path):
    for name in ("A_label.nii.gz", "b-seg.nrrd", "stranger.nii.gz"):
        label(tmp_path / "labels" / name)
    accepted = label(tmp_path / "mine" / "b.nii.gz")
    project.update("b", label=accepted, status="accepted", role="labeled")
    taken, lost, kept = project.add_labels(tmp_path / "labels")
    assert (taken, lost, kept) == (("a",), ("stranger.nii.gz",), ("b",))
    project.update("b", status="edited")  # drawn on since; what is trained on is the accepted label still
    assert project.add_labels(tmp_path / "labels")[2] == ("b",) and project.cases["b"].label == accepted
    assert project.values_settled("a")
    assert project.cases["b"].label == accepted


def test_a_label_file_whose_name_fits_two_cases_is_given_to_none(tmp_path):
    project = Project(tmp_path / "project")
    for site in ("A", "B"):
        volume(tmp_path / f"site{site}" / "001.nii.gz")
        project.add_folder(tmp_path / f"site{site}")
    label(tmp_path / "labels" / "001.nii.gz")
    label(tmp_path / "labels" / "001-2.nii.gz")
    assert project.add_labels(tmp_path / "labels") == (("001-2",), ("001.nii.gz",), ())
    assert project.cases["001"].label is None


def test_two_label_files_for_one_case_are_not_chosen_between(project, tmp_path):
    label(tmp_path / "labels" / "a_label.nii.gz")
    label(tmp_path / "labels" / "a-seg.nii.gz")
    with pytest.raises(DataError, match="keep one"):
        project.add_labels(tmp_path / "labels")


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EHOSTDOWN, errno.EACCES])
def test_a_drive_that_does_not_answer_is_no_project_for_now_and_none_is_begun_there(project, monkeypatch, code):
    project.save()
    stat = os.stat

    def gone(path, *more, **named):
        if str(path).startswith(str(project.folder)):
            raise OSError(code, os.strerror(code), str(path))
        return stat(path, *more, **named)

    def unreadable(path, *more, **named):
        raise OSError(code, os.strerror(code), str(path))

    project.update("a", role="labeled", label=project.folder / "labels" / "a.nii.gz")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", gone)
        patch.setattr(Path, "read_text", unreadable)
        assert not Project.exists(project.folder) and not project.is_kept
        assert project.missing() == ("a",)
        with pytest.raises(DataError, match="cannot be read"):
            Project.at(project.folder)
    assert Project.exists(project.folder) and len(Project.at(project.folder).cases) == 3
    assert not Project.at(project.folder / "nothing here").cases


def test_a_newer_version_is_refused_and_left_alone(project):
    project.save()
    content = json.loads(project.file.read_text())
    project.file.write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(DataError, match="newer version; update the extension"):
        Project.open(project.folder)
    assert json.loads(project.file.read_text())["format"] == 99


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cases": [{}]}', '{"cases": [{"id": "a", "images": [], "role": "boss"}]}']
)
def test_damage_is_named(tmp_path, text):
    (tmp_path / "cohort.json").write_text(text)
    with pytest.raises(DataError, match="cohort.json"):
        Project.open(tmp_path)


@pytest.mark.parametrize("identity", ["../../x", "a/../../x", "..\\x", "/tmp/x", "\\x", "C:x", "..", "a/.. /x", "x\0y"])
def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path, identity):
    image = volume(tmp_path / "scan.nii.gz")
    text = json.dumps({"cases": [{"id": identity, "images": [image.name]}]})
    (tmp_path / "cohort.json").write_text(text)
    for read in (Project.open, lambda folder: load_cohort(folder / "cohort.json")):
        with pytest.raises(DataError, match=r"cohort.json.* leads out of the folder.*plain name"):
            read(tmp_path)
    with pytest.raises(DataError, match="The scene.* leads out"):
        Project(tmp_path / "elsewhere").read(text, "The scene")


@pytest.mark.parametrize("identity", ["a", "LA 01.5", "..a", "a..", "2: b", "patient: 3", "left atrium (2)"])
def test_other_ids_stay_allowed(tmp_path, identity):
    (tmp_path / "cohort.json").write_text(json.dumps({"cases": [{"id": identity, "images": []}]}))
    assert list(Project.open(tmp_path).cases) == [identity]


def test_a_project_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match="no project in"):
        Project.open(tmp_path / "nothing")


def test_a_folder_that_is_read_only_is_named(an_open_folder, a_plain_user):
    project = Project(an_open_folder / "project")
    project.save()
    project.folder.chmod(0o555)
    with a_plain_user():
        with pytest.raises(ResourceError, match="No permission"):
            project.save()
        with pytest.raises(ResourceError, match="No permission"):
            project.check_writable()


def test_a_place_where_no_folder_can_be_is_named(project, scans):
    project.folder = scans / "a.nii.gz" / "project"
    with pytest.raises(ResourceError, match="Cannot write"):
        project.check_writable()
    with pytest.raises(ResourceError, match="Cannot write"):
        project.save()


def test_a_failed_save_leaves_the_older_list(project, monkeypatch):
    project.save()
    before = project.file.read_text()
    project.update("a", role="excluded")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ResourceError, match="disk is full"):
        project.save()
    assert project.file.read_text() == before
    assert [p.name for p in project.folder.iterdir()] == ["cohort.json"]


def test_the_split_is_fixed_and_leaves_something_to_learn_from(project, tmp_path):
    for name in "abc":
        project.update(name, label=label(tmp_path / f"{name}.nii.gz"), role="labeled")
    chosen = project.hold_out(1, seed=3)
    project.save()
    assert [c.id for c in Project.open(project.folder).with_role("validation")] == list(chosen)
    with pytest.raises(UsageError, match="at least one must be left"):
        project.hold_out(2)


def test_what_the_start_model_has_learnt_is_held_out_last(project, tmp_path):
    for name in "abc":
        project.update(name, label=label(tmp_path / f"{name}.nii.gz"), role="labeled")
    copies = [dict(project.cases) for _ in range(6)]
    for seed, cases in enumerate(copies):
        project.cases = cases
        assert project.hold_out(1, seed, learned=("a", "b", "of another cohort")) == ("c",)
    project.cases = copies[0]
    project.update("c", role="labeled")
    assert "c" in project.hold_out(2, learned=("a", "b"))


def test_an_accepted_label_never_overwrites_an_older_one(project):
    first = project.label_path("a")
    first.parent.mkdir(parents=True)
    first.touch()
    second = project.label_path("a")
    assert first != second and second.name == "a.1.seg.nrrd"


def test_labels_are_checked_before_they_count(project, tmp_path):
    case = project.cases["a"]

    def check(path):
        return check_label_file(ProjectCase("a", case.images, path, "labeled").as_case, SEGMENTS)

    found = check(label(tmp_path / "good.nii.gz", (1, 2)))
    assert [s.name for s in found.segments] == ["left atrium", "aorta"]
    with pytest.raises(DataError, match="empty"):
        check(label(tmp_path / "empty.nii.gz", ()))
    with pytest.raises(DataError, match="label value 3"):
        check(label(tmp_path / "value.nii.gz", (3,)))
    with pytest.raises(DataError, match="different grids"):
        check(label(tmp_path / "grid.nii.gz", (1,), spacing=(2.0, 1.5, 2.0)))


def test_a_scan_in_version_two_of_nifti_can_be_labelled(tmp_path):
    scan = tmp_path / "n2.nii.gz"
    nifti_2(scan, a_volume((4, 6, 8)), np.diag([-1.0, -1.5, 2.0, 1.0])[:3], (1.0, 1.5, 2.0), compressed=True)
    assert read_header(scan) == ((4, 6, 8), (1.0, 1.5, 2.0))
    mask = label(tmp_path / "mask.nii.gz", (1,))
    found = check_label_file(ProjectCase("n2", (scan,), mask, "labeled").as_case, SEGMENTS)
    assert [s.name for s in found.segments] == ["left atrium"]


def test_headers_tell_size_and_spacing(scans, tmp_path):
    assert read_header(scans / "a.nii.gz") == ((4, 6, 8), (1.0, 1.5, 2.0))
    (tmp_path / "torn.nii.gz").write_bytes(b"torn")
    assert read_header(tmp_path / "torn.nii.gz") is None


def test_the_table_exports(project, tmp_path):
    project.update("b", size=(4, 6, 8), spacing=(1.0, 1.5, 2.0), agreement={"x": 0.75})
    project.write_csv(tmp_path / "table.csv")
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert len(rows) == 4
    assert rows[2] == "b,scans/b.nii.gz,,unlabeled,,,4 x 6 x 8,1 x 1.5 x 2,0.2500"
    cohort = load_cohort(tmp_path / "table.csv")
    assert [c.id for c in cohort.cases] == ["a", "b", "c"]


def test_rounds_are_read_from_their_folders(project):
    first, second = project.next_round(), None
    first.mkdir(parents=True)
    second = project.next_round()
    second.mkdir()
    result = {
        "kind": "held-out",
        "words": "1 case: treat as indicative.",
        "labeled": 3,
        "rows": [
            {"name": "caml", "seconds": 120, "count": 1, "summary": {"x": {"dice": {"mean": 0.8, "std": 0.1}}}},
            {"name": "start", "count": 1, "summary": {"x": {"dice": {"mean": 0.5, "std": 0.0}}}},
        ],
    }
    (first / "result.json").write_text(json.dumps(result))
    (second / "result.json").write_text("{torn")
    one, two = read_rounds(project.rounds_folder())
    assert (one.number, one.finished, one.labeled, one.minutes) == (1, True, 3, 2.0)
    assert one.row("caml").mean_dice == 0.8 and one.row("start").mean_dice == 0.5
    assert (two.number, two.finished) == (2, False)


def test_a_project_that_is_out_of_reach_is_not_said_to_be_changed(tmp_path):
    project = Project(tmp_path / "project")
    project.save()
    moved = (tmp_path / "project").rename(tmp_path / "gone")
    with pytest.raises(ResourceError, match="was removed, or its drive does not answer"):
        project.save()
    assert not (tmp_path / "project").exists()
    moved.rename(tmp_path / "project")
    project.save()
