"""A model of several channels knows which is which by name, from the list of cases to the prediction."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic import tiny_plan, write_cohort
from test_cache import SEGMENTS, a_case
from test_cohort import touch
from test_predict import rows_of, save_a_model, write_scan

from caml_core.channel_titles import NAMES_SAY, disagreement, order_warning
from caml_core.cli import main
from caml_core.config import ChannelIntensity, Plan
from caml_core.data import cache as case_cache
from caml_core.data.cohort import hold_out, load_cohort, save_cohort
from caml_core.data.fingerprint import choose_channels
from caml_core.errors import DataError
from caml_core.events import silent
from caml_core.model import build_network
from caml_core.model_file import ModelInfo, load_model, read_card, save_model
from caml_core.model_library import ModelLibrary
from caml_core.project.project import Project
from caml_core.serialization import from_json, to_json
from caml_core.training.from_model import OTHER_CHANNELS
from caml_core.training.preflight import Extras, preflight
from caml_core.training.request import Request
from caml_core.training.run import survey
from caml_core.training.run_folder import RunFolder

PAIR = ("T1", "FLAIR")


def titled(*titles: str) -> tuple[ChannelIntensity, ...]:
    return tuple(ChannelIntensity(title=title) for title in titles)


def two_channel_plan(*titles: str) -> Plan:
    plan = tiny_plan()
    return replace(plan, network=replace(plan.network, in_channels=2), channels=titled(*titles))


def write_list(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


# Names


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (("p01_FLAIR.nii.gz", "p01_T1.nii.gz"), PAIR),
        (("case01_FLAIR_brain.nii.gz", "case01.nii.gz"), PAIR),
        (("p01-flair-3d", "p01 t1 mprage"), ("t1", "Flair")),
        (("p_t1ce.nrrd", "p_T1.nrrd"), ("T1", "T1-CE")),
        (("p_T1_CE.nrrd", "p_T1.nrrd"), ("T1", "T1CE")),
        (("p_FLAIR.nrrd", "p_x.nrrd"), ("", "FLAIR")),
        (("T1_0000", "T1_FLAIR_0001", "T1_T2_0002"), ("T1", "T2", "FLAIR")),
        (("sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"), PAIR),
        (("p T2* swi", "p T2"), ("T2", "T2*")),
        (("p T1+", "p T1-"), ("T1-", "T1+")),
        (("T1 POST", "T1 POST", "T2"), ("T1CE", "T1", "T2")),  # one volume chosen twice
    ],
)
def test_names_that_say_another_order_are_told_in_one_sentence(names, titles):
    sentence = order_warning(names, titles)
    assert sentence.startswith("By their names") and sentence.count(". ") == 0 and sentence.endswith(".")
    assert names[0] in sentence or names[1] in sentence
    assert not order_warning(tuple(reversed(names[:2])), titles) or len(names) > 2


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (("p01_T1.nii.gz", "p01_FLAIR.nii.gz"), PAIR),
        (("p01_T1CE.nii.gz", "p01_T10.nii.gz"), ("FLAIR", "T1")),  # no whole words
        (("p01_0000.nrrd", "p01_0001.nrrd"), PAIR),
        (("p01_FLAIR_0000.nrrd", "p01_FLAIR_0001.nrrd"), PAIR),  # the name of all tells none from another
        (("p_T1.nrrd", "p_T2_FLAIR.nrrd"), PAIR),
        (("p_T2.nrrd", "p_T2_FLAIR.nrrd"), ("T2", "FLAIR")),
        (("AX T1 PRE", "AX T1 POST", "AX T2", "AX FLAIR"), ("T1", "T1CE", "T2", "FLAIR")),  # T1 is part of both
        (("sub-01_T1w", "sub-01_ce-gadolinium_T1w", "sub-01_T2w", "sub-01_FLAIR"), ("T1w", "T1CE", "T2", "FLAIR")),
        (("p_T2", "p_T2_star", "p_T1"), ("T2", "SWI", "T1")),
        (("p_FLAIR.nrrd", "p_T1.nrrd"), ("", "")),
        (("p_FLAIR.nrrd",), ("T1",)),
        (("", ""), PAIR),
    ],
)
def test_names_that_agree_or_say_nothing_are_passed_over(names, titles):
    assert order_warning(names, titles) == ""


def test_titles_contradict_each_other_by_their_order_or_by_their_names():
    assert disagreement(PAIR, ("t1", "flair")) == disagreement(PAIR, ("", "Flair")) == disagreement(PAIR, ()) == ""
    assert disagreement(PAIR, ("FLAIR", "T1")) == disagreement(("", "T1"), ("t-1", "")) == "order"
    assert disagreement(PAIR, ("T1CE", "FLAIR")) == disagreement(PAIR, ("PD", "T2")) == "names"


# Lists of cases


def test_a_list_says_what_its_channels_are_and_keeps_it(tmp_path):
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    cases = [{"id": "a", "images": ["a1.nrrd", "a2.nrrd"]}]
    (tmp_path / "list.json").write_text(json.dumps({"cases": cases, "channels": ["T1", " FLAIR "]}))
    table = write_list(tmp_path / "list.csv", "id,image (T1),Image2 (FLAIR)", "a,a1.nrrd,a2.nrrd")
    for listed in (load_cohort(tmp_path / "list.json"), load_cohort(table)):
        assert listed.channels == PAIR and hold_out(listed).channels == PAIR
        for name in ("kept.json", "kept.csv"):
            save_cohort(listed, tmp_path / name)
            assert load_cohort(tmp_path / name) == replace(listed, source=tmp_path / name)
    half = write_list(tmp_path / "half.csv", "id;image;image2 (T1 (post))", "a;a1.nrrd;a2.nrrd")
    assert load_cohort(half).channels == ("", "T1 (post)")
    unused = write_list(tmp_path / "unused.csv", "id,image (T1),image2 (FLAIR)", "a,a1.nrrd,")
    assert load_cohort(unused).channels == ("T1",)


def test_a_list_without_titles_is_written_as_before(tmp_path):
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    listed = load_cohort(write_list(tmp_path / "list.csv", "id,image,image2", "a,a1.nrrd,a2.nrrd"))
    assert listed.channels == ()
    save_cohort(listed, tmp_path / "kept.json")
    save_cohort(listed, tmp_path / "kept.csv")
    assert set(json.loads((tmp_path / "kept.json").read_text())) == {"cases", "segments"}
    assert (tmp_path / "kept.csv").read_text().startswith("id,image,image2,label,role\n")


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ("T1", "such as"),
        ({"0": "T1"}, "such as"),
        ([1, 2], "such as"),
        (["T1", "t-1"], "two channels T1"),
        (["T1"], "names 1 channel.*2 image"),
    ],
)
def test_titles_that_make_no_sense_are_refused(tmp_path, channels, words):
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    cases = [{"id": "a", "images": ["a1.nrrd", "a2.nrrd"]}]
    (tmp_path / "list.json").write_text(json.dumps({"cases": cases, "channels": channels}))
    with pytest.raises(DataError, match=words):
        load_cohort(tmp_path / "list.json")


def test_names_that_differ_by_a_sign_are_two_and_a_mere_number_says_nothing(tmp_path):
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    for titles in (("T2", "T2*"), ("T1-", "T1+")):
        table = write_list(tmp_path / "list.csv", "id,image ({}),image2 ({})".format(*titles), "a,a1.nrrd,a2.nrrd")
        assert load_cohort(table).channels == titles
    cases = [{"id": "a", "images": ["a1.nrrd", "a2.nrrd"]}]
    (tmp_path / "list.json").write_text(json.dumps({"cases": cases, "channels": 2}))
    assert load_cohort(tmp_path / "list.json").channels == ()


def test_excluded_cases_do_not_count(tmp_path):
    touch(tmp_path, "a.nrrd", "b1.nrrd", "b2.nrrd")
    rows = ("a,a.nrrd,,", "b,b1.nrrd,b2.nrrd,excluded")
    assert load_cohort(write_list(tmp_path / "list.csv", "id,image (T1),image2,role", *rows)).channels == ("T1",)
    project = Project(tmp_path / "project")
    two = write_list(tmp_path / "two.csv", "id,image (T1),image2 (FLAIR)", "b,b1.nrrd,b2.nrrd")
    project.add_folder(two)
    project.add_folder(write_list(tmp_path / "one.csv", "id,image", "a,a.nrrd"))
    project.update("b", role="excluded")
    project.save()
    assert project.titles == () and load_cohort(project.file).channels == ()
    project.update("b", role="unlabeled")
    project.update("a", role="excluded")
    assert project.titles == PAIR


def test_a_list_may_name_what_the_one_before_left_open(tmp_path):
    project = Project(tmp_path / "project")
    for name, header in (("a", "image (T1),image2"), ("b", "image (T1),image2 (FLAIR)"), ("c", "image,image2 (PD)")):
        touch(tmp_path, f"{name}1.nrrd", f"{name}2.nrrd")
        path = write_list(tmp_path / f"{name}.csv", f"id,{header}", f"{name},{name}1.nrrd,{name}2.nrrd")
        notes = project.add_folder(path)[1]
    assert project.titles == PAIR and "check that they show the same" in notes[0]


def test_a_second_image_without_its_number_is_refused(tmp_path):
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    with pytest.raises(DataError, match="image, image2"):
        load_cohort(write_list(tmp_path / "list.csv", "id,image,image (FLAIR)", "a,a1.nrrd,a2.nrrd"))


def test_a_project_keeps_the_titles_of_a_list(tmp_path):
    lists = []
    for site, channels in enumerate((PAIR, ("T1", "FLAIR"), ("FLAIR", "T1"), ("T1", "T2"))):
        touch(tmp_path / str(site), f"{site}1.nrrd", f"{site}2.nrrd")
        header = "id,image ({}),image2 ({})".format(*channels)
        lists.append(write_list(tmp_path / str(site) / "cases.csv", header, f"{site},{site}1.nrrd,{site}2.nrrd"))
    project = Project(tmp_path / "project")
    assert "channels" not in json.loads(project.write())
    for path in lists[:2]:
        assert project.add_folder(path)[1] == ()
    project.save()
    project = Project.open(tmp_path / "project")
    assert project.titles == project.cohort().channels == load_cohort(project.file).channels == PAIR
    with pytest.raises(DataError, match=r"FLAIR, T1 and those of this project T1, FLAIR; list the images"):
        project.add_folder(lists[2])
    assert list(project.cases) == ["0", "1"] and project.titles == PAIR
    (note,) = project.add_folder(lists[3])[1]
    assert "T1, T2 and those of this project T1, FLAIR; check" in note and project.titles == PAIR
    project.remove(("0", "1", "3"))
    assert project.add_folder(lists[2])[1] == () and project.titles == ("FLAIR", "T1")


# Plans and models


def test_titles_travel_from_the_plan_to_the_card_and_are_written_only_where_there_are_any(tmp_path):
    plan, plain = two_channel_plan(*PAIR), two_channel_plan("", "")
    for channel in to_json(plain)["channels"]:  # versions that know no title refuse it
        assert set(channel) == {f.name for f in dataclasses.fields(ChannelIntensity)} - {"title"}
    assert from_json(Plan, to_json(plain)) == plain
    touch(tmp_path, "a1.nrrd", "a2.nrrd")
    cohort = load_cohort(write_list(tmp_path / "c.csv", "id,image (T1),image2 (FLAIR)", "a,a1.nrrd,a2.nrrd"))
    folder = RunFolder(tmp_path / "run")
    folder.create(plan, cohort)
    assert folder.read_plan() == plan and folder.read_cohort().channels == PAIR  # which resuming goes by
    state = build_network(plan.network).state_dict()
    save_model(tmp_path / "m.caml", spec=folder.read_plan().model_spec, state=state, info=ModelInfo("two"))
    assert [c.title for c in read_card(tmp_path / "m.caml").spec.channels] == list(PAIR)


def test_the_card_and_the_search_name_the_channels(tmp_path, capsys):
    plan, user = two_channel_plan(*PAIR), tmp_path / "models"
    user.mkdir()
    state = build_network(plan.network).state_dict()
    save_model(user / "m.caml", spec=plan.model_spec, state=state, info=ModelInfo("two"))
    assert main(["info", str(user / "m.caml")]) == 0
    assert "2 FLAIR MR, z-score" in capsys.readouterr().out
    library = ModelLibrary([], user)
    assert library.search(library.entries(), "flair") == library.entries()


def test_titles_change_no_prepared_case(tmp_path):
    case, cache = a_case(tmp_path), case_cache.CaseCache(tmp_path / "cache")
    geometry = tiny_plan().geometry
    plain, named = (cache.prepare(case, geometry, titled(title), SEGMENTS) for title in ("", "T1"))
    assert plain.folder == named.folder
    # What was prepared before there were titles still counts.
    assert "title" not in case_cache._settings(geometry, titled("T1"), SEGMENTS, (), True)


# Starting from a model


def two_channel_cohort(folder: Path, first: str, second: str) -> Path:
    write_cohort(folder, labeled=2, unlabeled=0, validation=0)
    rows = [f"case{i},case{i}_image.nrrd,case{1 - i}_image.nrrd,case{i}_label.nrrd" for i in range(2)]
    return write_list(folder / "cohort.csv", f"id,image ({first}),image2 ({second}),label", *rows)


@pytest.mark.parametrize(
    ("titles", "ends"),
    [
        (("FLAIR", "T1"), None),
        (("T1CE", "FLAIR"), ("T1CE", "FLAIR")),
        (("T1", ""), PAIR),
        (("", ""), PAIR),
    ],
)
def test_a_start_model_knows_its_channels(tmp_path, titles, ends):
    start, spec = tmp_path / "start.caml", two_channel_plan(*PAIR).model_spec
    torch.manual_seed(0)
    save_model(start, spec=spec, state=build_network(spec.network).state_dict(), info=ModelInfo("start"))
    cohort = two_channel_cohort(tmp_path / "cohort", *titles)
    request = Request(threads=1, dtype="fp32", iterations=10)
    found = preflight(cohort, request, silent, start, Extras(cache_folder=tmp_path / "cache"))
    said = [note for note in found["cautions"] if note.startswith(OTHER_CHANNELS)]
    if ends is None:
        assert found["verdict"] == "does-not-fit" and not said
        assert found["sentence"].startswith("The start model's channels are T1, FLAIR and the cohort's are FLAIR, T1")
        return
    assert found["verdict"] == "fits" and len(said) == (ends != PAIR) and set(said) <= set(found["notes"])
    assert tuple(channel["title"] for channel in found["plan"]["channels"]) == ends
    assert f"channels     {ends[0]} MR zscore, FLAIR MR zscore" in found["text"]


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_plan_from_scratch_has_the_titles_of_its_cohort_and_nothing_else_of_them(tmp_path, preset):
    cohorts = [two_channel_cohort(tmp_path / str(i), *titles) for i, titles in enumerate((PAIR, ("", "")))]
    named, plain = (choose_channels(survey(path, Request(), silent, tmp_path)[1], preset) for path in cohorts)
    assert tuple(channel.title for channel in named) == PAIR
    assert tuple(replace(channel, title="") for channel in named) == plain


def named_cohort(folder: Path, header: str, swapped: tuple[int, ...]) -> Path:
    """Three labelled cases whose files are called after their channels, some listed the other way round."""
    write_cohort(folder, labeled=3, unlabeled=0, validation=0)
    rows = []
    for i in range(3):
        files = [f"p{i}_T1.nrrd", f"p{i}_FLAIR.nrrd"]
        for name, other in zip(files, (i, (i + 1) % 3)):
            shutil.copy(folder / f"case{other}_image.nrrd", folder / name)
        role = [("excluded" if i in swapped else "labeled")] if "role" in header else []
        rows.append(",".join([f"p{i}", *(reversed(files) if i in swapped else files), *role, f"case{i}_label.nrrd"]))
    return write_list(folder / "cohort.csv", f"id,{header},label", *rows)


@pytest.mark.parametrize(
    ("header", "of_model", "swapped", "words"),
    [
        ("image (T1),image2 (FLAIR)", None, (), ""),
        (
            "image (T1),image2 (FLAIR)",
            None,
            (1,),
            "p1 are in another order than the channels, T1, FLAIR: p1_FLAIR",
        ),
        ("image (T1),image2 (FLAIR)", None, (1, 2), "2 cases (the first is p1) are"),
        ("image,image2", None, (1,), ""),
        ("image (T1),image2 (FLAIR),role", None, (2,), ""),  # it is excluded
        ("image,image2", PAIR, (1,), "p1_FLAIR.nrrd is listed as T1"),
    ],
)
def test_the_check_says_where_files_are_called_after_another_channel(tmp_path, header, of_model, swapped, words):
    start = None
    if of_model is not None:
        start, spec = tmp_path / "start.caml", two_channel_plan(*of_model).model_spec
        save_model(start, spec=spec, state=build_network(spec.network).state_dict(), info=ModelInfo("start"))
    cohort = named_cohort(tmp_path / "cohort", header, swapped)
    request = Request(threads=1, dtype="fp32", iterations=10)
    found = preflight(cohort, request, silent, start, Extras(cache_folder=tmp_path / "cache"))
    assert found["verdict"] == "fits"
    said = [caution for caution in found["cautions"] if caution.startswith(NAMES_SAY)]
    assert len(said) == bool(words) and all(words in sentence for sentence in said)
    assert set(said) <= set(found["notes"]) and all(sentence in found["text"] for sentence in said)


# Prediction


@pytest.fixture
def two_titled(tmp_path, monkeypatch):
    monkeypatch.setenv("CAML_CACHE_DIR", str(tmp_path / "cache"))
    plain = load_model(save_a_model(tmp_path / "plain.caml", channels=2))
    spec = replace(plain.spec, channels=titled(*PAIR))
    save_model(tmp_path / "two.caml", spec=spec, state=plain.state, info=plain.info)
    for seed, name in enumerate(("p1_T1", "p1_FLAIR")):
        write_scan(tmp_path / f"{name}.nrrd", seed)
    return tmp_path / "two.caml"


def predict(caml, model, *images):
    out = images[-1].parent / "out"
    code, text, err = caml("predict", model, *images, "-o", out, "--dtype", "bf16", "--progress", "json")
    assert code == 0, err
    return [e for e in map(json.loads, text.splitlines()) if e["event"] == "warning"], out


def test_images_in_another_order_are_a_warning_and_are_segmented(caml, two_titled, tmp_path):
    flair, t1 = tmp_path / "p1_FLAIR.nrrd", tmp_path / "p1_T1.nrrd"
    (warning,), out = predict(caml, two_titled, flair, t1)
    assert warning["case"] == "p1_FLAIR" and warning["misfit"] is True
    assert "p1_FLAIR.nrrd was given as T1 and p1_T1.nrrd was given as FLAIR" in warning["message"]
    assert (
        rows_of(out / "predictions.csv")[0]["output"] and "p1_T1.nrrd" in rows_of(out / "predictions.csv")[0]["remark"]
    )
    assert not predict(caml, two_titled, t1, flair)[0]
    assert not predict(caml, tmp_path / "plain.caml", flair, t1)[0]


def test_a_list_whose_titles_are_in_another_order_is_a_warning(caml, two_titled, tmp_path):
    touch(tmp_path, "x")
    for seed, name in enumerate("ab"):
        write_scan(tmp_path / f"{name}.nrrd", seed)
    swapped = write_list(tmp_path / "swapped.csv", "id,image (FLAIR),image2 (T1)", "p,a.nrrd,b.nrrd")
    (warning,), _ = predict(caml, two_titled, swapped)
    assert warning["message"].startswith("The model's channels are T1, FLAIR and those of")
    assert "check which is which" in warning["message"]
    other = write_list(tmp_path / "other.csv", "id,image (T1w),image2 (TIRM)", "p,a.nrrd,b.nrrd")
    (warning,), _ = predict(caml, two_titled, other)
    assert warning["message"].endswith("check that they show the same.")
    right = write_list(tmp_path / "right.csv", "id,image (T1),image2 (FLAIR)", "p,a.nrrd,b.nrrd")
    assert not predict(caml, two_titled, right)[0]
