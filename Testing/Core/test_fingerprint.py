"""What is found out about a cohort, and that nothing is found out from labels that may not be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caml_core.config import Segment
from caml_core.data.case import Case, Cohort
from caml_core.data.fingerprint import Fingerprint, choose_channels, fingerprint
from caml_core.data.geometry import Grid
from caml_core.data.io import write_image
from caml_core.data.labels import write_labels
from caml_core.errors import DataError
from caml_core.serialization import from_json, to_json

LPS = Grid((24, 20, 16), (1.0, 1.5, 2.0))
#: The same field of view with the axes stored as P, S, L.
PSL = Grid((20, 16, 24), (1.5, 2.0, 1.0), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))


def an_image(seed: int, kind: str = "MR") -> np.ndarray:
    generator = np.random.default_rng(seed)
    if kind == "CT":
        image = generator.choice([-1000, -90, 40, 60], LPS.size, p=[0.3, 0.2, 0.3, 0.2])
        image[8:12, 8:12, 6:10] = 300
        return (image + generator.normal(0, 10, LPS.size)).astype(np.int16)
    return np.abs(generator.normal(200, 80, LPS.size)).astype(np.float32)


def a_label(value: int = 1) -> np.ndarray:
    label = np.zeros(LPS.size, np.uint8)
    label[8:12, 8:12, 6:10] = value
    return label


def a_case(folder: Path, number: int, role="labeled", kind="MR", label=None, grid=LPS, segments=None) -> Case:
    axes = (0, 1, 2) if grid is LPS else (1, 2, 0)
    image, name = folder / f"c{number}.nrrd", folder / f"c{number}{'.seg' if segments else '_label'}.nrrd"
    write_image(image, an_image(number, kind).transpose(axes), grid)
    if label is None and role in ("labeled", "validation"):
        label = a_label()
    if label is not None:
        write_labels(name, label.transpose(axes), grid, segments or ())
    return Case(f"c{number}", (image,), name if label is not None else None, role)


def a_cohort(*cases: Case, segments=()) -> Cohort:
    return Cohort(cases, Path("list.json"), segments)


def test_sizes_spacings_and_classes_are_found(tmp_path):
    events = []
    cohort = a_cohort(a_case(tmp_path, 0), a_case(tmp_path, 1, "unlabeled"), a_case(tmp_path, 2, "unlabeled", grid=PSL))
    found = fingerprint(cohort, lambda kind, fields: events.append((kind, fields["done"], fields["total"])))
    assert found.spacing == (1.0, 1.5, 2.0)
    assert found.size == (24, 20, 16)
    assert [c.size for c in found.cases] == [(24, 20, 16)] * 3  # along patient axes, however stored
    assert [c.orientation for c in found.cases] == ["LPS", "LPS", "PSL"]
    assert [(s.name, s.label) for s in found.segments] == [("segment_1", 1)]
    assert found.cases[0].voxels == {"segment_1": 64}
    assert found.cases[0].extent_mm == (4.0, 6.0, 8.0)
    assert found.cases[1].voxels == {}
    assert events == [("progress", i, 3) for i in (1, 2, 3)]


def test_it_travels_as_json(tmp_path):
    found = fingerprint(a_cohort(a_case(tmp_path, 0)))
    assert from_json(Fingerprint, to_json(found)) == found


def test_mr_gets_a_z_score_and_the_paper_gets_its_own(tmp_path):
    found = fingerprint(a_cohort(a_case(tmp_path, 0)))
    (channel,) = choose_channels(found)
    assert (channel.kind, channel.lower, channel.upper, channel.region) == ("zscore", 0.5, 99.5, "foreground")
    (channel,) = choose_channels(found, "paper")
    assert (channel.kind, channel.lower, channel.upper, channel.region) == ("zscore", 0.0, 100.0, "image")


def test_ct_gets_a_window_around_what_is_labelled(tmp_path):
    cohort = a_cohort(a_case(tmp_path, 0, kind="CT"), a_case(tmp_path, 1, "unlabeled", kind="CT"))
    (channel,) = choose_channels(fingerprint(cohort))
    assert (channel.kind, channel.modality) == ("window", "CT")
    assert channel.lower < -100  # the fat around it
    assert 290 < channel.upper < 400  # the structure itself, and nothing far above
    assert channel.lower < channel.mean < channel.upper
    assert channel.std > 10


def test_labels_of_unlabelled_cases_change_nothing(tmp_path):
    """Even where a list names them, and even where they are damaged."""
    labeled = a_case(tmp_path, 0, kind="CT")
    hidden = a_case(tmp_path, 1, "unlabeled", kind="CT", label=np.full(LPS.size, 9, np.uint8))
    without = fingerprint(a_cohort(labeled, replace(hidden, label=None)))
    assert fingerprint(a_cohort(labeled, hidden)) == without
    hidden.label.write_bytes(b"damaged")
    assert fingerprint(a_cohort(labeled, hidden)) == without


def test_labels_of_validation_cases_shape_no_choice(tmp_path):
    labeled = a_case(tmp_path, 0, kind="CT")
    elsewhere = np.zeros(LPS.size, np.uint8)
    elsewhere[:3, :3, :3] = 1
    here, there = (
        a_case(tmp_path / name, 1, "validation", kind="CT", label=label)
        for name, label in (("a", a_label()), ("b", elsewhere))
    )
    a, b = (fingerprint(a_cohort(labeled, case)) for case in (here, there))
    assert choose_channels(a) == choose_channels(b)
    assert a.segments == b.segments


def test_a_validation_case_with_a_class_of_its_own_is_refused(tmp_path):
    odd = a_case(tmp_path, 1, "validation", label=a_label(5))
    with pytest.raises(DataError, match="Case c1.*segment_5"):
        fingerprint(a_cohort(a_case(tmp_path, 0), odd))


def test_a_validation_case_with_a_value_between_those_of_the_classes_is_refused(tmp_path):
    """The classes of values 1 and 3 are numbered 1 and 2, which makes no class of value 2."""
    both = a_label(3)
    both[:4, :4, :4] = 1
    cohort = a_cohort(a_case(tmp_path, 0, label=both), a_case(tmp_path, 1, "validation", label=a_label(2)))
    with pytest.raises(DataError, match="held out for validation and has the class 'segment_2'"):
        fingerprint(cohort)


def test_names_in_segmentations_are_matched_across_cases(tmp_path):
    la, lv = Segment("LA", 1), Segment("LV", 2)
    both = a_label()
    both[0, 0, 0] = 2
    first = a_case(tmp_path, 0, label=both, segments=(la, lv))
    second = a_case(tmp_path, 1, label=a_label(), segments=(replace(lv, label=1),))
    assert [s.name for s in fingerprint(a_cohort(first, second)).segments] == ["LA", "LV"]
    third = a_case(tmp_path, 2, segments=(Segment("atrium", 1),))
    with pytest.raises(DataError, match="'atrium' in c2"):
        fingerprint(a_cohort(first, second, third))


def test_declared_names_apply_to_values(tmp_path):
    case = a_case(tmp_path, 0, label=a_label(255))
    found = fingerprint(a_cohort(case, segments=(Segment("LA", 255),)))
    assert [(s.name, s.label) for s in found.segments] == [("LA", 1)]
    with pytest.raises(DataError, match="c0.*255"):
        fingerprint(a_cohort(case, segments=(Segment("LA", 1),)))


def test_all_cases_that_cannot_be_used_are_named_at_once(tmp_path):
    cases = [a_case(tmp_path, i) for i in range(4)]
    cases[1].images[0].write_bytes(b"damaged")
    write_labels(cases[3].label, np.zeros(LPS.size, np.uint8), LPS, ())
    with pytest.raises(DataError, match="Case c1.*1 more cases cannot be used: c3"):
        fingerprint(a_cohort(*cases))
    assert fingerprint(a_cohort(cases[0], replace(cases[1], role="excluded"))).cases[0].id == "c0"


def test_what_stands_out_is_said(tmp_path):
    cases = [a_case(tmp_path, i) for i in range(8)]
    cases[6] = a_case(tmp_path, 6, grid=PSL)
    cases[7] = a_case(tmp_path, 7, kind="CT", label=a_label(2))
    twin = replace(cases[0], id="twin", label=None, role="unlabeled")
    coarse = Case("coarse", (tmp_path / "coarse.nrrd",))
    write_image(coarse.images[0], an_image(20), Grid(LPS.size, (1.0, 1.5, 6.0)))
    notes = " ".join(fingerprint(a_cohort(*cases, twin, coarse)).notes)
    for words in (
        "Case c6 has its axes stored as PSL",
        "Case c7 has grey values like CT",
        "Case coarse has a spacing of 1 x 1.5 x 6 mm",
        "'segment_2' occurs in case c7 only",
        "'segment_1' is drawn in 7 of 8 labelled cases, and the training takes it for absent from the others (c7)",
        "Cases c0 and twin seem to be the same scan",
    ):
        assert words in notes
    assert fingerprint(a_cohort(*cases[:6])).notes == ()


def test_a_class_that_held_out_labels_lack_is_said(tmp_path):
    """They were accepted before it was added: what a model finds of it there would count as wrong."""
    both = a_label()
    both[8:10] *= 2
    named = (Segment("LA", 1), Segment("LV", 2))
    labeled = [a_case(tmp_path, i, label=both, segments=named) for i in range(3)]
    old = [replace(a_case(tmp_path, i, segments=named[:1]), role="validation") for i in (3, 4)]
    new = replace(a_case(tmp_path, 5, label=both, segments=named), role="validation")
    (note,) = fingerprint(a_cohort(*labeled, *old, new)).notes
    assert note.startswith("The class 'LV' is not drawn in 2 of 3 held-out cases (c3, c4), and") and "wrong" in note
    assert fingerprint(a_cohort(labeled[0], old[0])).notes != ()
    assert fingerprint(a_cohort(*labeled, new)).notes == ()


@pytest.mark.parametrize("values, said", [((0, 255), True), (range(12), True), (range(13), False), ((0, 0.5), False)])
def test_a_label_map_among_the_scans_stands_out(tmp_path, values, said):
    mask = Case("mask", (tmp_path / "mask.nrrd",))
    write_image(mask.images[0], np.resize(np.array(values, np.float32), LPS.size), LPS)
    notes = fingerprint(a_cohort(*[a_case(tmp_path, i) for i in range(2)], mask)).notes
    assert any("Case mask has" in note and "label map" in note for note in notes) == said


def test_label_maps_without_names_count_as_drawn_beside_segmentations_with_names(tmp_path):
    named = [a_case(tmp_path, i, segments=(Segment("LA", 1),)) for i in range(2)]
    unnamed = [a_case(tmp_path, i) for i in (2, 3)]
    found = fingerprint(a_cohort(*named, *unnamed))
    assert [s.name for s in found.segments] == ["LA"] and found.notes == ()
    other = a_case(tmp_path, 3, label=a_label(2))
    assert "drawn in 3 of 4 labelled cases" in " ".join(
        fingerprint(a_cohort(*named, unnamed[0], other, segments=(Segment("LA", 1), Segment("LV", 2)))).notes
    )


@pytest.mark.parametrize(("usual", "odd", "said"), [(2, 1, True), (1, 1, False), (3, 2, False), (6, 2, True)])
def test_another_modality_stands_out_where_most_have_one(tmp_path, usual, odd, said):
    cases = [a_case(tmp_path, i, kind="CT" if i >= usual else "MR") for i in range(usual + odd)]
    assert ("has grey values like CT" in " ".join(fingerprint(a_cohort(*cases)).notes)) == said
