"""Cohorts: folders and lists become the same cases; mistakes are named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from caml_core.config import Segment, palette_color
from caml_core.data.case import Case, Cohort
from caml_core.data.cohort import check_trainable, hold_out, load_cohort, save_cohort
from caml_core.errors import DataError, ResourceError


def touch(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def summary(cohort: Cohort) -> dict[str, tuple]:
    root = cohort.source if cohort.source.is_dir() else cohort.source.parent
    return {
        c.id: (
            tuple(p.relative_to(root).as_posix() for p in c.images),
            c.label and c.label.relative_to(root).as_posix(),
            c.role,
        )
        for c in cohort.cases
    }


# Folders


def test_image_and_label_side_by_side(tmp_path):
    touch(tmp_path, "a_image.nii.gz", "a_label.nii.gz", "b_image.nrrd", "c.mha", "c-label.nrrd", "d.nrrd", "d.seg.nrrd")
    touch(tmp_path, "notes.txt", ".hidden.nrrd")
    assert summary(load_cohort(tmp_path)) == {
        "a": (("a_image.nii.gz",), "a_label.nii.gz", "labeled"),
        "b": (("b_image.nrrd",), None, "unlabeled"),
        "c": (("c.mha",), "c-label.nrrd", "labeled"),
        "d": (("d.nrrd",), "d.seg.nrrd", "labeled"),
    }


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_images_and_labels_in_two_folders(tmp_path, images, labels):
    touch(tmp_path, f"{images}/a.nii.gz", f"{images}/b.nii.gz", f"{labels}/a.nii.gz")
    assert summary(load_cohort(tmp_path)) == {
        "a": ((f"{images}/a.nii.gz",), f"{labels}/a.nii.gz", "labeled"),
        "b": ((f"{images}/b.nii.gz",), None, "unlabeled"),
    }


def test_numbered_channels_belong_to_one_case(tmp_path):
    touch(tmp_path, "imagesTr/p_01_0000.nii.gz", "imagesTr/p_01_0001.nii.gz", "labelsTr/p_01.nii.gz")
    touch(tmp_path, "imagesTs/p_02_0000.nii.gz", "imagesTs/p_02_0001.nii.gz")
    assert summary(load_cohort(tmp_path)) == {
        "p_01": (("imagesTr/p_01_0000.nii.gz", "imagesTr/p_01_0001.nii.gz"), "labelsTr/p_01.nii.gz", "labeled"),
        "p_02": (("imagesTs/p_02_0000.nii.gz", "imagesTs/p_02_0001.nii.gz"), None, "unlabeled"),
    }


def test_a_channel_that_is_left_out_is_not_taken_for_another(tmp_path):
    touch(tmp_path, "p_0000.nii.gz", "p_0001.nii.gz", "q_0000.nii.gz", "q_0002.nii.gz")
    with pytest.raises(DataError, match="Case q .* 0000, 0002"):
        load_cohort(tmp_path)


def test_a_number_at_the_end_alone_is_no_channel(tmp_path):
    touch(tmp_path, "scan_2019.nii.gz", "scan_2020.nii.gz")
    assert list(summary(load_cohort(tmp_path))) == ["scan_2019", "scan_2020"]


def test_sub_folders_are_cases(tmp_path):
    dicom = bytes(128) + b"DICM" + bytes(100)
    touch(tmp_path, "p1/IM1", "p1/IM2", "p2/1.dcm", "p2/2.dcm", content=dicom)
    touch(tmp_path, "p2.seg.nrrd", "p3/image.nrrd", "p3/image_label.nrrd", "p4/t1.nrrd", "empty/notes.txt")
    assert summary(load_cohort(tmp_path)) == {
        "p1": (("p1",), None, "unlabeled"),
        "p2": (("p2",), "p2.seg.nrrd", "labeled"),
        "p3": (("p3/image.nrrd",), "p3/image_label.nrrd", "labeled"),
        "p4": (("p4/t1.nrrd",), None, "unlabeled"),
    }
    assert load_cohort(tmp_path / "p2").cases == (Case("p2", (tmp_path / "p2",)),)


DICOM = bytes(128) + b"DICM" + bytes(100)


def test_a_series_below_a_patients_folder_is_the_patients_case(tmp_path):
    touch(tmp_path, "p1/series/IM1", "p2/study/series/1.dcm", "p3/t1/IM1", "p4/s/IM1", "DICOMDIR", content=DICOM)
    touch(tmp_path, "p1/readme.txt", "p2.seg.nrrd", "p3/atrium_label.nrrd", "p5/x/y/notes.txt")
    assert summary(load_cohort(tmp_path)) == {
        "p1": (("p1/series",), None, "unlabeled"),
        "p2": (("p2/study/series",), "p2.seg.nrrd", "labeled"),
        "p3": (("p3/t1",), "p3/atrium_label.nrrd", "labeled"),
        "p4": (("p4/s",), None, "unlabeled"),
    }


def test_several_series_of_a_patient_are_a_case_each(tmp_path):
    touch(tmp_path, "p1/s1/t1/IM1", "p1/s2/t1/IM1", "p1/s2/t2/IM1", "p2/t1/IM1", content=DICOM)
    assert summary(load_cohort(tmp_path)) == {
        "p1-s1-t1": (("p1/s1/t1",), None, "unlabeled"),
        "p1-s2-t1": (("p1/s2/t1",), None, "unlabeled"),
        "p1-s2-t2": (("p1/s2/t2",), None, "unlabeled"),
        "p2": (("p2/t1",), None, "unlabeled"),
    }


@pytest.mark.parametrize("slices", [("IM1", "IM2"), ("1.dcm", "2.dcm")])
def test_the_label_of_a_series_may_lie_among_its_slices(tmp_path, slices):
    for folder in ("p1", "p2", "p3/study/series"):
        touch(tmp_path / folder, *slices, content=DICOM)
    touch(tmp_path, "p1/p1.seg.nrrd", "p3/study/series/a_label.nii.gz")
    assert summary(load_cohort(tmp_path)) == {
        "p1": (("p1",), "p1/p1.seg.nrrd", "labeled"),
        "p2": (("p2",), None, "unlabeled"),
        "p3": (("p3/study/series",), "p3/study/series/a_label.nii.gz", "labeled"),
    }
    (alone,) = load_cohort(tmp_path / "p1").cases
    assert alone == Case("p1", (tmp_path / "p1",), tmp_path / "p1/p1.seg.nrrd", "labeled")


def test_each_of_several_series_takes_the_label_among_its_own_slices(tmp_path):
    touch(tmp_path, "p/s1/IM1", "p/s2/IM1", content=DICOM)
    touch(tmp_path, "p/s2/s2.seg.nrrd")
    assert summary(load_cohort(tmp_path)) == {
        "p-s1": (("p/s1",), None, "unlabeled"),
        "p-s2": (("p/s2",), "p/s2/s2.seg.nrrd", "labeled"),
    }


def test_a_series_in_a_folder_of_images_takes_its_label_from_either_place(tmp_path):
    touch(tmp_path, "images/p1/IM1", "images/p2/IM1", content=DICOM)
    touch(tmp_path, "images/p1/p1.seg.nrrd", "labels/p2.nrrd")
    assert summary(load_cohort(tmp_path)) == {
        "p1": (("images/p1",), "images/p1/p1.seg.nrrd", "labeled"),
        "p2": (("images/p2",), "labels/p2.nrrd", "labeled"),
    }


def test_the_series_of_a_folder_of_test_images_are_cases_without_a_label(tmp_path):
    touch(tmp_path, "imagesTr/a/IM1", "imagesTs/b/IM1", "imagesTs/c/IM1", content=DICOM)
    touch(tmp_path, "labelsTr/a.nrrd", "imagesTs/c/c.seg.nrrd", "imagesTs/d/x.nrrd")
    notes: list[str] = []
    assert summary(load_cohort(tmp_path, notes)) == {
        "a": (("imagesTr/a",), "labelsTr/a.nrrd", "labeled"),
        "b": (("imagesTs/b",), None, "unlabeled"),
        "c": (("imagesTs/c",), None, "unlabeled"),
    }
    assert [n.endswith("left out (1): d.") for n in notes] == [True]


LEFT_OUT = {
    "two volumes": ("x/a.nrrd", "x/b.nrrd"),
    "a volume beside slices": ("x/1.dcm", "x/scan.nrrd"),
    "two labels of one volume": ("x/a.nrrd", "x/a_label.nrrd", "x/b_label.nrrd"),
    "two labels of one series": ("x/1.dcm", "x/a.seg.nrrd", "x/b.seg.nrrd"),
    "a label in the series and one above it": ("x/s/1.dcm", "x/s/a.seg.nrrd", "x/b.seg.nrrd"),
    "a volume too deep": ("x/study/scan.nrrd",),
}


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("names", LEFT_OUT.values(), ids=LEFT_OUT)
def test_a_sub_folder_that_is_left_out_is_named(tmp_path, names, images):
    touch(tmp_path, f"{images}good.nrrd", "results/p_label.nrrd", "empty/notes.txt")
    for name in names:
        touch(tmp_path, images + name, content=DICOM)
    notes: list[str] = []
    assert [c.id for c in load_cohort(tmp_path, notes).cases] == ["good"]
    (note,) = notes
    kind = "Sub-folders with several images" if names == LEFT_OUT["two volumes"] and not images else "Sub-folders that"
    assert note.startswith(kind) and "left out (1): x." in note
    assert ("called X_0000" in note) == ("several" in kind)
    assert [c.id for c in load_cohort(tmp_path).cases] == ["good"]
    (tmp_path / images / "good.nrrd").unlink()
    with pytest.raises(DataError, match=r"no cases.*left out \(1\): x\."):
        load_cohort(tmp_path)


def test_a_series_with_two_labels_is_no_cohort(tmp_path):
    touch(tmp_path, "s/1.dcm", content=DICOM)
    touch(tmp_path, "s/a.seg.nrrd", "s/b.seg.nrrd")
    with pytest.raises(DataError, match=r"no cases.*one label at most.*: s\."):
        load_cohort(tmp_path / "s")


def test_volumes_in_a_patients_folder_count_before_series_below_it(tmp_path):
    touch(tmp_path, "p1/slices/IM1", "p2/slices/IM1", content=DICOM)
    touch(tmp_path, "p1/scan.nrrd", "p2/a.nrrd", "p2/b.nrrd")
    assert summary(load_cohort(tmp_path)) == {"p1": (("p1/scan.nrrd",), None, "unlabeled")}


@pytest.mark.parametrize("label", ["z_label.nii.gz", "labels/z.nii.gz"])
def test_a_label_without_a_scan_is_a_note_where_notes_are_taken(tmp_path, label):
    image = "images/a.nii.gz" if "/" in label else "a.nii.gz"
    touch(tmp_path, image, label)
    notes: list[str] = []
    assert summary(load_cohort(tmp_path, notes)) == {"a": ((image,), None, "unlabeled")}
    assert notes == [f"Label files without a scan of the same name were left out (1): {Path(label).name}."]
    with pytest.raises(DataError, match="has no image of the same name"):
        load_cohort(tmp_path)


def test_a_single_image_is_a_cohort_of_one(tmp_path):
    touch(tmp_path, "scan.nii.gz")
    (case,) = load_cohort(tmp_path / "scan.nii.gz").cases
    assert (case.id, case.images) == ("scan", (tmp_path / "scan.nii.gz",))


def test_a_list_in_the_folder_counts_first(tmp_path):
    touch(tmp_path, "a.nrrd", "b.nrrd")
    (tmp_path / "cases.csv").write_text("case,image\nB,b.nrrd\nA,a.nrrd\n")
    assert [c.id for c in load_cohort(tmp_path).cases] == ["B", "A"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a_label.nii.gz", "b.nii.gz"), "a_label.nii.gz has no image"),
        (("a.nii.gz", "a.nrrd"), "Case a.*several images"),
        (("a.nii.gz", "a_label.nrrd", "a.seg.nrrd"), "Case a has two labels"),
        (("readme.txt",), "no cases"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        load_cohort(touch(tmp_path, *names))


# Lists


def test_a_csv_with_all_columns(tmp_path):
    touch(tmp_path, "x/a.nrrd", "x/a2.nrrd", "x/b.nrrd", "x/b2.nrrd", "x/l.nrrd")
    (tmp_path / "list.csv").write_text(
        "\ufeffID, image, image2, label, role\na,x/a.nrrd,x/a2.nrrd,x/l.nrrd,\nb, x/b.nrrd ,x/b2.nrrd,,\n\n"
        "c,x/b.nrrd,x/b2.nrrd,x/l.nrrd,Unlabelled\nd,x/b.nrrd,x/b2.nrrd,x/l.nrrd,validation\n"
        "e,gone.nrrd,gone2.nrrd,,excluded\n",
        encoding="utf-8",
    )
    assert summary(load_cohort(tmp_path / "list.csv")) == {
        "a": (("x/a.nrrd", "x/a2.nrrd"), "x/l.nrrd", "labeled"),
        "b": (("x/b.nrrd", "x/b2.nrrd"), None, "unlabeled"),
        "c": (("x/b.nrrd", "x/b2.nrrd"), "x/l.nrrd", "unlabeled"),
        "d": (("x/b.nrrd", "x/b2.nrrd"), "x/l.nrrd", "validation"),
        "e": (("gone.nrrd", "gone2.nrrd"), None, "excluded"),
    }


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_case_column(tmp_path, delimiter):
    touch(tmp_path, "a.nrrd", "l.nrrd")
    text = "index,case,image,label\n1,A,a.nrrd,l.nrrd\n".replace(",", delimiter)
    (tmp_path / "list.csv").write_text(text)
    assert summary(load_cohort(tmp_path / "list.csv")) == {"A": (("a.nrrd",), "l.nrrd", "labeled")}


def test_json_with_declared_classes(tmp_path):
    touch(tmp_path, "a.nrrd", "b.nrrd", "l.nrrd")
    value = {
        "cases": [{"id": "a", "image": "a.nrrd", "label": "l.nrrd"}, {"images": [str(tmp_path / "b.nrrd")]}],
        "segments": [{"name": "LV", "label": 3}, {"name": "LA", "label": 1, "color": [1, 0, 0]}],
    }
    (tmp_path / "list.json").write_text(json.dumps(value))
    cohort = load_cohort(tmp_path / "list.json")
    assert summary(cohort) == {"a": (("a.nrrd",), "l.nrrd", "labeled"), "b": (("b.nrrd",), None, "unlabeled")}
    assert cohort.segments == (Segment("LA", 1, (1.0, 0.0, 0.0)), Segment("LV", 3, palette_color(3)))


@pytest.mark.parametrize("labels", [{"0": "background", "1": "LA"}, {"background": 0, "LA": 1}])
def test_json_with_names_of_values(tmp_path, labels):
    touch(tmp_path, "a.nrrd")
    (tmp_path / "list.json").write_text(json.dumps({"cases": [{"image": "a.nrrd"}], "labels": labels}))
    assert load_cohort(tmp_path / "list.json").segments == (Segment("LA", 1, palette_color(1)),)


def test_columns_of_a_csv_that_are_not_read_may_have_one_name(tmp_path):
    touch(tmp_path, "a.nrrd")
    (tmp_path / "list.csv").write_text("id,notes,image,Notes,name,name\nx,old,a.nrrd,new,Jane,Doe\n")
    assert summary(load_cohort(tmp_path / "list.csv")) == {"x": (("a.nrrd",), None, "unlabeled")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,image\na,a.nrrd\na,a.nrrd\n", "two cases called a"),
        ("id,image,role\na,a.nrrd,test\n", "Case a has the role 'test'.*labeled, unlabeled, validation, excluded"),
        ("id,image\na,gone.nrrd\n", "Case a: .*gone.nrrd does not exist"),
        ("id,image,label\na,a.nrrd,gone.nrrd\n", "Case a: .*gone.nrrd does not exist"),
        ("id,image,role\na,a.nrrd,labeled\n", "Case a has the role labeled but no label"),
        ("id,image,image2\na,a.nrrd,a.nrrd\nb,a.nrrd,a.nrrd\nc,a.nrrd,\n", "Case c has 1 image.*most cases have 2"),
        ("id,image,image2\na,a.nrrd,a.nrrd\nb,,a.nrrd\n", "line 3: image 1 is missing"),
        ("id,image,image\na,a.nrrd,a.nrrd\n", "two columns called image; .*image2"),
        ("id,image, Image \na,a.nrrd,a.nrrd\n", "two columns called image; .*image2"),
        ("id,image,label,label\na,a.nrrd,,\n", "two columns called label; .*remove or rename"),
        ("id,image,role,Role\na,a.nrrd,,\n", "two columns called role; .*remove or rename"),
        ("name,image,name\na,a.nrrd,b\n", "two columns called name; .*remove or rename"),
        ("id,image,image3\na,a.nrrd,a.nrrd\n", "images 1, 3"),
        ("id,image\na,\n", "line 2: no image"),
        ("id,volume\na,a.nrrd\n", "no column called image"),
        ("id,image\n", "no cases"),
        ("", "no column called image"),
    ],
)
def test_mistakes_in_a_csv_are_named(tmp_path, text, words):
    touch(tmp_path, "a.nrrd")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        load_cohort(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ('{"cases": 3}', "list of objects"),
        ('{"cases": [{"id": "a", "image": 5}]}', "case number 1: no image"),
        ('{"cases": [{"image": "a.nrrd"}], "segments": [{"name": "x"}]}', "segments cannot be read"),
        ('{"cases": [{"image": "a.nrrd"}], "segments": [{"name": "x", "label": 0}]}', "segments cannot be read"),
        (
            '{"cases": [{"image": "a.nrrd"}], "segments": [{"name": "x", "label": 1}, {"name": "X", "label": 2}]}',
            "one name or one label",
        ),
    ],
)
def test_mistakes_in_a_json_are_named(tmp_path, text, words):
    touch(tmp_path, "a.nrrd")
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(DataError, match=words):
        load_cohort(tmp_path / "list.json")


def test_what_is_no_cohort_is_refused(tmp_path):
    touch(tmp_path, "a.pdf")
    (tmp_path / "latin.csv").write_bytes("id,image\nJos\u00e9,a\n".encode("latin-1"))
    for name, words in [("gone", "does not exist"), ("a.pdf", "neither"), ("latin.csv", "UTF-8")]:
        with pytest.raises(DataError, match=words):
            load_cohort(tmp_path / name)


@pytest.mark.parametrize("name", ["sub/list.csv", "sub/list.json"])
def test_what_is_saved_loads_back_and_can_move(tmp_path, name):
    root = touch(tmp_path / "here", "a.nrrd", "a1.nrrd", "l.nrrd", "b.nrrd", "b1.nrrd")
    cases = (
        Case("a", (root / "a.nrrd", root / "a1.nrrd"), root / "l.nrrd", "validation"),
        Case("b, the second", (root / "b.nrrd", root / "b1.nrrd")),
    )
    save_cohort(Cohort(cases, root), root / name)
    assert load_cohort(root / name).cases == cases
    root.rename(tmp_path / "there")
    moved = load_cohort(tmp_path / "there" / name)
    assert moved.cases[0].label == tmp_path / "there" / "l.nrrd"


def test_saving_keeps_declared_classes_in_json(tmp_path):
    root = touch(tmp_path, "a.nrrd")
    cohort = Cohort((Case("a", (root / "a.nrrd",)),), root, (Segment("LA", 4, (0.0, 0.5, 1.0)),))
    save_cohort(cohort, root / "list.json")
    assert load_cohort(root / "list.json").segments == cohort.segments


def test_saving_where_nothing_can_be_written_is_one_plain_error(tmp_path):
    touch(tmp_path, "file")
    for name in ("list.csv", "list.json"):
        with pytest.raises(ResourceError):
            save_cohort(Cohort((), tmp_path), tmp_path / "file" / name)


# Splits


def a_cohort(labeled: int, unlabeled: int = 3) -> Cohort:
    cases = [Case(f"l{i:02d}", (Path("x"),), Path("y"), "labeled") for i in range(labeled)]
    cases += [Case(f"u{i:02d}", (Path("x"),)) for i in range(unlabeled)]
    return Cohort(tuple(cases), Path("x"))


def held(cohort: Cohort) -> set[str]:
    return {c.id for c in cohort.with_role("validation")}


@pytest.mark.parametrize(("labeled", "expected"), [(1, 0), (4, 0), (5, 1), (8, 2), (20, 4), (80, 16)])
def test_a_fifth_is_held_out_where_there_are_enough(labeled, expected):
    split = hold_out(a_cohort(labeled))
    assert len(held(split)) == expected
    assert len(split.with_role("labeled")) == labeled - expected
    assert len(split.with_role("unlabeled")) == 3


def test_the_split_depends_on_seed_and_ids_only():
    cohort = a_cohort(20)
    backwards = Cohort(cohort.cases[::-1], cohort.source)
    assert held(hold_out(cohort, 1)) == held(hold_out(cohort, 1)) == held(hold_out(backwards, 1))
    assert any(held(hold_out(cohort, 0)) != held(hold_out(cohort, seed)) for seed in range(1, 4))


def test_a_split_that_is_there_stays():
    split = hold_out(a_cohort(20), 3)
    assert hold_out(split, 4) == split


def test_what_the_start_model_has_learnt_is_held_out_last():
    cohort, ids = a_cohort(6), [f"l{i:02d}" for i in range(6)]
    for seed in range(5):
        assert held(hold_out(cohort, seed, learned=lambda _cases: ids[:5])) == {"l05"}
        assert "l05" in held(hold_out(cohort, seed, number=3, learned=lambda _cases: ids[:5]))
        plain = set(random.Random(seed).sample(ids, 2))
        assert held(hold_out(cohort, seed, number=2)) == plain, "without a start model the draw is what it always was"
        assert held(hold_out(cohort, seed, number=2, learned=lambda _cases: ["of others"])) == plain


def test_nobody_is_asked_what_was_learnt_where_nothing_is_chosen():
    def asked(_cases):
        raise AssertionError

    split = hold_out(a_cohort(20), 3)
    assert hold_out(split, learned=asked) == split
    assert held(hold_out(a_cohort(4), learned=asked)) == held(hold_out(a_cohort(20), number=0, learned=asked)) == set()


def test_a_number_can_be_asked_for():
    assert len(held(hold_out(a_cohort(4), number=1))) == 1
    with pytest.raises(DataError, match="4 of 4"):
        hold_out(a_cohort(4), number=4)


def test_training_needs_labels_and_says_what_else_is_missing():
    with pytest.raises(DataError, match="no labelled case"):
        check_trainable(a_cohort(0))
    assert check_trainable(hold_out(a_cohort(5))) == ()
    notes = check_trainable(a_cohort(2, 0))
    assert any("no unlabelled case" in n for n in notes)
    assert any("validation" in n for n in notes)
