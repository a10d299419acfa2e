"""A model's file is passed on: it names no case, and a later training recognises those that it has learnt from."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

from round_tools import a_plan, a_start, planned_round, work
from synthetic import write_cohort

from caml_core.case_names import as_digest, digest_of
from caml_core.data.cohort import load_cohort, save_cohort
from caml_core.model_file import learned_cases, read_card

NAMES = ("Smith^Anna", "Mueller", "p-03", "Roe^Jane", "Doe^John 1950-01-31", "\u738b", "Garcia")


def test_a_name_and_its_digest_are_known_as_one():
    digests = {name: digest_of(name) for name in (*NAMES, "", "mueller", "\udce4", "\ud800")}
    assert len(set(digests.values())) == len(digests), "names that differ in case alone are two"
    for name, digest in digests.items():
        assert as_digest(name) == as_digest(digest) == digest and (not name or name not in digest)


def a_named_cohort(folder: Path) -> Path:
    """Two labelled, two unlabelled and three held-out cases with names of patients; a label began as prediction."""
    cohort = load_cohort(write_cohort(folder, labeled=2, unlabeled=2, validation=3))
    cases = (
        dataclasses.replace(case, id=name, label_began="prediction" if name == "\u738b" else "")
        for case, name in zip(cohort.cases, NAMES)
    )
    save_cohort(dataclasses.replace(cohort, cases=tuple(cases)), folder / "named.json")
    return folder / "named.json"


def text_of(model: Path) -> str:
    """Everything in the file that is text."""
    with zipfile.ZipFile(model) as archive:
        return json.dumps(json.loads(archive.read("model.json")), ensure_ascii=False)


def test_no_name_of_a_case_is_in_a_model_s_file(tmp_path):
    """Nor where there is much to say: held-out cases that the start has seen, that ended it, that it labelled."""
    cohort = a_named_cohort(tmp_path / "cohort")
    seen = {
        "Smith^Anna": {"role": "labeled"},
        "Roe^Jane": {"role": "labeled"},
        "Doe^John 1950-01-31": {"role": "labeled"},
    }
    origin = {"learned": ["Garcia"], "stopped_by": ["Garcia"]}
    start = a_start(tmp_path / "start.caml", a_plan().segments, seen, **origin)
    notes = ("By the names of their files the images of Mueller are in another order.",)
    plan = a_plan(2, from_model=True, notes=notes)
    folder = planned_round(tmp_path / "round", cohort, plan, start=start)
    words = work(folder)["words"]
    assert "Doe^John 1950-01-31" in words and "\u738b" in words, "whoever trains is told which they are"
    held_out = read_card(folder.model).info.metrics["held_out"]
    assert held_out["count"] == 3 and len(held_out["remarks"]) >= 2
    assert any("labels of 2 held-out cases" in remark for remark in held_out["remarks"])
    text = text_of(folder.model)
    assert not [name for name in NAMES if name in text]
    # What it was trained on is recognised all the same, and what its start was.
    known = ("Smith^Anna", "Mueller", "Roe^Jane", "Doe^John 1950-01-31", "Garcia")
    assert set(learned_cases(read_card(folder.model).info)) == set(map(digest_of, known))
