"""The segments of a project as its user lists them."""

from __future__ import annotations

import json

import pytest

from caml_core.config import Segment
from caml_core.errors import UsageError
from caml_core.project.project import Project
from caml_core.project.segment_list import list_segments, renamed, written

ATRIUM = Segment("left atrium", 2, (0.1, 0.2, 0.3), "code^atrium")
AORTA = Segment("aorta", 5, (0.4, 0.5, 0.6), "code^aorta")


def values(segments) -> dict[str, int]:
    return {s.name: s.label for s in segments}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left atrium, aorta", {"left atrium": 1, "aorta": 2}),
        ("left atrium = 255", {"left atrium": 255}),
        (" aorta=2 ,left atrium,, vein", {"aorta": 2, "left atrium": 1, "vein": 3}),
        ("segment_7, vein", {"segment_7": 7, "vein": 1}),
        ("segment_7 = 2", {"segment_7": 2}),
    ],
)
def test_new_names_get_the_value_they_give_or_the_lowest_free(text, expected):
    found = list_segments(text.split(","))
    assert values(found) == expected
    assert [s.name for s in found] == list(expected)


def test_known_segments_keep_value_and_look_in_any_place():
    found = list_segments(["Aorta", "vein", "left atrium"], (ATRIUM, AORTA))
    assert values(found) == {"Aorta": 5, "vein": 1, "left atrium": 2}
    assert found[2] == ATRIUM
    assert (found[0].color, found[0].terminology) == (AORTA.color, AORTA.terminology)


def test_a_new_name_takes_no_value_from_a_known_one():
    assert values(list_segments(["vein", "segment_5", "aorta"], (AORTA,))) == {"vein": 1, "segment_5": 2, "aorta": 5}
    assert values(list_segments(["vein"], (Segment("a", 1), Segment("b", 2)))) == {"vein": 3}


def test_names_of_a_first_label_come_with_its_values_and_look():
    assert list_segments(["left atrium"], (), (ATRIUM,)) == (ATRIUM,)


def test_another_name_in_the_place_of_one_is_a_new_name_for_it():
    first, second = list_segments(["LA", "aorta"], (ATRIUM, AORTA))
    assert renamed((first, second), (ATRIUM, AORTA)) == {"left atrium": "LA"}
    assert (first.name, first.label, first.color) == ("LA", 2, ATRIUM.color)
    assert first.terminology != ATRIUM.terminology


def test_another_name_with_the_value_of_one_is_a_new_name_for_it():
    after = list_segments(["vein", "LA = 2", "aorta"], (ATRIUM, AORTA))
    assert renamed(after, (ATRIUM, AORTA)) == {"left atrium": "LA"}


@pytest.mark.parametrize(
    "names", [["aorta", "left atrium"], ["left atrium"], ["vein"], ["left atrium", "aorta", "vein"], ["a", "b", "c"]]
)
def test_turned_around_added_or_left_out_is_not_renamed(names):
    assert renamed(list_segments(names, (ATRIUM, AORTA)), (ATRIUM, AORTA)) == {}


@pytest.mark.parametrize("segments", [(ATRIUM, AORTA), (Segment("a", 1), Segment("b", 2)), (AORTA,), ()])
def test_what_is_written_reads_as_the_same(segments):
    assert values(list_segments(written(segments).split(","))) == values(segments)


def test_values_are_written_only_where_they_are_not_the_place():
    assert written((Segment("a", 1), Segment("b", 2), Segment("c", 9))) == "a, b, c = 9"


@pytest.mark.parametrize("text", ["LA, la", "LA = 3, RA = 3", "LA = 0", "LA = 256"])
def test_two_of_one_name_or_value_are_refused(text):
    with pytest.raises(UsageError, match="give each its own"):
        list_segments(text.split(","))


def test_a_project_remembers_what_its_segments_were_called(tmp_path):
    project = Project(tmp_path)
    project.segments = (Segment("C", 1), AORTA)
    project.note_renamed({"A": "B"})
    project.note_renamed({"b": "C"})
    project.save()
    assert Project.open(tmp_path).old_names() == {"A": "C", "b": "C"}
    project.segments = (*project.segments, Segment("a", 3))
    assert project.old_names() == {"b": "C"}, "A is another segment by now"
    project.segments = (AORTA,)
    assert project.old_names() == {}, "there is none any more"


def test_a_name_that_comes_back_is_no_old_one(tmp_path):
    project = Project(tmp_path)
    project.segments = (Segment("A", 1),)
    project.note_renamed({"A": "B"})
    project.note_renamed({"B": "A"})
    assert project.old_names() == {"B": "A"}


def test_a_project_of_before_has_no_old_names(tmp_path):
    project = Project(tmp_path)
    project.segments = (AORTA,)
    project.save()
    assert "renamed" not in json.loads(project.file.read_text())
    assert Project.open(tmp_path).old_names() == {}
