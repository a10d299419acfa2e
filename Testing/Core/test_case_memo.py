"""A second survey reads what has changed and nothing else, and finds exactly what a first one would."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_fingerprint import LPS, a_case, a_cohort, a_label, an_image

from caml_core.config import Segment
from caml_core.data import case_fingerprint, case_memo
from caml_core.data.case import Case, Cohort
from caml_core.data.case_memo import scan_digest
from caml_core.data.fingerprint import Fingerprint, fingerprint
from caml_core.data.io import read_volume, write_image
from caml_core.data.labels import write_labels
from caml_core.data.memos import Memos, memos_of
from caml_core.errors import DataError
from caml_core.events import silent
from caml_core.serialization import to_json
from caml_core.training.request import Request
from caml_core.training.run import survey

NAMED = (Segment("liver", 1, (0.1, 0.2, 1 / 3)), Segment("spleen", 2))


@pytest.fixture
def cases_read(monkeypatch) -> list[str]:
    """The ids of the cases whose voxels were read."""
    read, known = [], case_fingerprint.read_case

    def read_case(case: Case, channels: int):
        read.append(case.id)
        return known(case, channels)

    monkeypatch.setattr(case_fingerprint, "read_case", read_case)
    return read


@pytest.fixture
def memos(tmp_path) -> Memos:
    return Memos(tmp_path / "memos")


def a_mixed_cohort(folder: Path) -> Cohort:
    """CT, named segments that overlap the image's border, scans that are alike, roles of all kinds."""
    label = a_label()
    label[0:4, 0:4, 0:4] = 2
    cases = [a_case(folder, i, kind="CT", label=label, segments=NAMED) for i in range(4)]
    cases += [a_case(folder, 4, "validation", "CT", label, segments=NAMED)]
    cases += [a_case(folder, i, "unlabeled", "CT") for i in (5, 6)]
    cases += [replace(cases[-1], id="twin"), replace(cases[0], id="out", role="excluded")]
    return a_cohort(*cases)


def exactly(found: Fingerprint) -> str:
    return json.dumps(to_json(replace(found, seconds=0.0)))


def test_what_has_not_changed_is_not_read_and_the_result_is_the_same_to_the_last_bit(tmp_path, memos, cases_read):
    cohort = a_mixed_cohort(tmp_path)
    alone = fingerprint(cohort)
    count = len(cases_read)
    assert count == 8
    first, events = fingerprint(cohort, memos=memos), []
    assert len(cases_read) == 2 * count
    second = fingerprint(cohort, lambda *event: events.append(event), Memos(memos.folder))
    assert len(cases_read) == 2 * count, "nothing is read a second time"
    assert alone == first == second
    assert exactly(alone) == exactly(first) == exactly(second)
    assert second.seconds == first.seconds > 0, "what a training has to read is still known"
    assert type(second.cases[0].size) is tuple and type(second.segments[0].color) is tuple
    assert [fields["done"] for _, fields in events] == list(range(1, count + 1))


def test_one_new_label_reads_one_case(tmp_path, memos, cases_read):
    cohort = a_mixed_cohort(tmp_path)
    fingerprint(cohort, memos=memos)
    labelled = a_case(tmp_path, 5, "labeled", "CT", a_label(), segments=NAMED)
    after = replace(cohort, cases=tuple(labelled if c.id == labelled.id else c for c in cohort.cases))
    del cases_read[:]
    found = fingerprint(after, memos=memos)
    assert cases_read == [labelled.id]
    assert exactly(found) == exactly(fingerprint(after))


def a_scan(case: Case) -> None:
    write_image(case.images[0], an_image(99, "CT"), LPS)


def a_scan_as_old(case: Case) -> None:
    """Whatever was written, it is as large as before, and says to be as old: this is doubtful."""
    state = case.images[0].stat()
    case.images[0].write_bytes(case.images[0].read_bytes())
    os.utime(case.images[0], ns=(state.st_atime_ns, state.st_mtime_ns))


def a_drawing(case: Case) -> None:
    write_labels(case.label, a_label(2), LPS, NAMED)


@pytest.mark.parametrize("change", [a_scan, a_scan_as_old, a_drawing])
def test_every_change_of_a_file_is_noticed(tmp_path, memos, cases_read, change):
    cohort = a_mixed_cohort(tmp_path)
    fingerprint(cohort, memos=memos)
    del cases_read[:]
    change(cohort.cases[1])
    found = fingerprint(cohort, memos=memos)
    assert cases_read == [cohort.cases[1].id]
    assert exactly(found) == exactly(fingerprint(cohort))


def test_what_is_asked_of_a_case_counts_beside_its_files(tmp_path, memos, cases_read):
    case = a_case(tmp_path, 0)
    others = [
        a_cohort(replace(case, id="renamed")),
        a_cohort(case, segments=(Segment("liver", 1),)),
        a_cohort(case, segments=(Segment("liver", 1, (1.0, 0.0, 0.0)),)),
        a_cohort(replace(case, images=case.images * 2)),
        a_cohort(case, a_case(tmp_path, 1, "validation"), replace(case, id="held out", role="validation")),
    ]
    for cohort in (a_cohort(case), *others):
        del cases_read[:]
        found = fingerprint(cohort, memos=memos)
        assert cases_read
        assert exactly(found) == exactly(fingerprint(cohort))


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: bytes(len(b)), lambda _: b""])
def test_a_damaged_memo_is_not_believed(tmp_path, memos, cases_read, damage):
    cohort = a_cohort(a_case(tmp_path, 0), a_case(tmp_path, 1, "unlabeled"))
    first = fingerprint(cohort, memos=memos)
    for memo in memos.folder.iterdir():
        memo.write_bytes(damage(memo.read_bytes()))
    assert exactly(fingerprint(cohort, memos=memos)) == exactly(first)
    assert len(cases_read) == 4


def test_what_is_no_sighting_is_not_believed(tmp_path, memos, monkeypatch):
    cohort = a_cohort(a_case(tmp_path, 0))
    first = fingerprint(cohort, memos=memos)
    for content in (b"", b"{}\n", b'{"case": 1}\nxx', b"[]\n\n"):
        monkeypatch.setattr(Memos, "read", lambda _self, _key, content=content: content)
        assert exactly(fingerprint(cohort, memos=memos)) == exactly(first)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, memos, monkeypatch):
    case, known = a_case(tmp_path, 0), case_fingerprint.read_case

    def read_case(case: Case, channels: int):
        volumes = known(case, channels)
        a_scan(case)
        return volumes

    monkeypatch.setattr(case_fingerprint, "read_case", read_case)
    fingerprint(a_cohort(case), memos=memos)
    assert memos.size_bytes() == 0


def test_a_scan_is_known_by_its_voxels_alone(tmp_path, memos):
    case = a_case(tmp_path, 0, kind="CT")
    known = scan_digest(case, memos)
    assert len(known) == 32 and known == scan_digest(replace(case, id="renamed", label=None, role="unlabeled"), memos)
    voxels, moved = read_volume(case.images[0]).array, replace(LPS, origin=(5.0, 6.0, 7.0))
    write_image(tmp_path / "elsewhere.nii.gz", voxels.astype(np.float32), moved)
    assert scan_digest(replace(case, images=(tmp_path / "elsewhere.nii.gz",)), memos) == known
    write_image(tmp_path / "as Slicer has it.nrrd", voxels[:, :, ::-1], LPS.reversed())
    assert scan_digest(replace(case, images=(tmp_path / "as Slicer has it.nrrd",)), memos) == known
    voxels[0, 0, 0] += 1
    write_image(tmp_path / "another.nrrd", voxels, LPS)
    others = [replace(case, images=(tmp_path / "another.nrrd",)), replace(case, images=case.images * 2)]
    assert known not in [scan_digest(other, memos) for other in others]
    assert scan_digest(replace(case, images=(tmp_path / "gone.nrrd",)), memos) == ""


def test_what_a_survey_has_seen_is_known_without_reading_it_again(tmp_path, memos, monkeypatch):
    cohort = a_cohort(a_case(tmp_path, 0), a_case(tmp_path, 1, "validation"))
    alone = [scan_digest(case, Memos(tmp_path / "other")) for case in cohort.cases]
    fingerprint(cohort, memos=memos)
    monkeypatch.setattr(case_memo, "read_case", lambda case: pytest.fail(f"{case.id} was read"))
    assert [scan_digest(case, memos) for case in cohort.cases] == alone


def test_a_scan_that_was_written_anew_is_read_anew(tmp_path, memos):
    case = a_case(tmp_path, 0)
    before = scan_digest(case, memos)
    a_scan(case)
    assert scan_digest(case, memos) not in (before, "")
    for memo in memos.folder.iterdir():
        memo.write_bytes(b"damaged")
    assert scan_digest(case, memos) not in (before, "")


def test_where_nothing_can_be_kept_nothing_is_lost(tmp_path):
    (tmp_path / "file").write_text("")
    cohort = a_cohort(a_case(tmp_path, 0))
    assert exactly(fingerprint(cohort, memos=Memos(tmp_path / "file" / "memos"))) == exactly(fingerprint(cohort))


def test_a_case_that_cannot_be_used_is_refused_every_time(tmp_path, memos):
    cohort = a_cohort(a_case(tmp_path, 0), a_case(tmp_path, 1, label=np.zeros(LPS.size, np.uint8)))
    for _again in range(2):
        with pytest.raises(DataError, match="empty"):
            fingerprint(cohort, memos=memos)
    (cohort.cases[0].images[0]).unlink()
    with pytest.raises(DataError, match="does not exist"):
        fingerprint(a_cohort(cohort.cases[0]), memos=memos)


def test_a_round_finds_what_its_check_has_seen(tmp_path, cases_read):
    cohort = a_mixed_cohort(tmp_path)
    rows = [f"{c.id},{c.images[0].name},{c.label.name if c.label else ''},{c.role}" for c in cohort.cases]
    (tmp_path / "cohort.csv").write_text("\n".join(["id,image,label,role", *rows]))
    cache = tmp_path / "cache"
    first = survey(tmp_path / "cohort.csv", Request(), silent, cache)
    count = len(cases_read)
    assert survey(tmp_path / "cohort.csv", Request(), silent, cache) == first
    assert len(cases_read) == count > 0
    assert memos_of(cache).size_bytes() > 0
