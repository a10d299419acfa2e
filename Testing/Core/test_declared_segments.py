"""Classes that a JSON list declares: whatever is accepted lasts through plans and models, and can be told apart."""

from __future__ import annotations

import json

import pytest

from caml_core.config import GENERIC_TERMINOLOGY, Segment
from caml_core.data.cohort import declared_segments
from caml_core.errors import DataError
from caml_core.serialization import from_json, to_json


def declared(*segments: dict) -> tuple[Segment, ...]:
    return declared_segments({"segments": list(segments)}, "cohort.json")


@pytest.mark.parametrize(
    "value",
    [
        {"segments": [{"name": name, "label": label} for label, name in enumerate("ABCDEF", 1)]},
        {"labels": {"background": 0, "A": 1, "B": 2, "C": 3, "D": 4, "E": 5, "F": 6}},
    ],
)
def test_classes_without_a_colour_get_different_ones(value):
    found = declared_segments(value, "cohort.json")
    assert [segment.name for segment in found] == list("ABCDEF")
    assert len({segment.color for segment in found}) == 6


@pytest.mark.parametrize(("color", "expected"), [([1, 0, 0.5], (1.0, 0.0, 0.5)), ([255, 0, 51], (1.0, 0.0, 0.2))])
def test_colours_may_go_to_255(color, expected):
    (segment,) = declared({"name": "A", "label": 1, "color": color})
    assert segment.color == pytest.approx(expected)


@pytest.mark.parametrize("label", [3, 3.0])
def test_what_is_accepted_can_be_read_again(label):
    """A plan and a model are read strictly: a training must not end with a model that cannot be opened."""
    segments = declared({"name": "A", "label": label, "color": [200, 0, 0], "terminology": GENERIC_TERMINOLOGY})
    (segment,) = segments
    assert from_json(Segment, json.loads(json.dumps(to_json(segment)))) == segment


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": 1.5}, "no whole number"),
        ({"label": True}, "no whole number"),
        ({"label": "1"}, "no whole number"),
        ({"label": float("inf")}, "no whole number"),
        ({"color": [1, 0]}, "three numbers from 0 to 1, or to 255"),
        ({"color": [300, 0, 0]}, "three numbers"),
        ({"color": [0.5, -1, 0]}, "three numbers"),
        ({"color": [float("nan"), 0, 0]}, "three numbers"),
        ({"color": "red"}, "cannot be read"),
        ({"terminology": 5}, "no text"),
    ],
)
def test_what_no_model_could_keep_is_refused(change, words):
    with pytest.raises(DataError) as caught:
        declared({"name": "A", "label": 1, **change})
    assert words in str(caught.value) and "cohort.json" in str(caught.value)
