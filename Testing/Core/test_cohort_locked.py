"""Folders that may not be read: they hide no other one, and are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cohort import touch

from caml_core.data.cohort import load_cohort
from caml_core.errors import DataError, ResourceError
from caml_core.inference.table import Table, table_for


@pytest.fixture
def locked(an_open_folder):
    """``locked(name)``: a folder in an open one that its owner alone may look into."""
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(touch(an_open_folder, f"{name}/scan.nrrd") / name)
        made[-1].chmod(0o000)
        return made[-1]

    yield make
    for folder in made:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["x", "x/study", "images/x"])
def test_a_sub_folder_that_cannot_be_read_is_left_out_and_named(an_open_folder, a_plain_user, locked, name):
    touch(an_open_folder, "images/good.nrrd" if name.startswith("images") else "good.nrrd")
    locked(name)
    notes: list[str] = []
    with a_plain_user():
        assert [c.id for c in load_cohort(an_open_folder, notes).cases] == ["good"]
        assert [c.id for c in load_cohort(an_open_folder).cases] == ["good"]
    assert notes == ["Sub-folders that cannot be read were left out (1): x."]


def test_a_volume_counts_though_the_sub_folder_of_its_name_cannot_be_read(an_open_folder, a_plain_user, locked):
    touch(an_open_folder, "x.nrrd")
    locked("x")
    notes: list[str] = []
    with a_plain_user():
        (case,) = load_cohort(an_open_folder, notes).cases
    assert case.images == (an_open_folder / "x.nrrd",) and len(notes) == 1


@pytest.mark.parametrize("inside", ["", "scan.nrrd", "study"])
def test_a_folder_that_cannot_be_read_is_one_sentence(a_plain_user, locked, inside):
    folder = locked("x")
    with a_plain_user(), pytest.raises(DataError, match="cannot be read") as caught:
        load_cohort(folder / inside)
    assert str(folder) in str(caught.value) and str(caught.value).endswith(".")


def test_a_folder_of_results_that_may_not_be_entered_is_one_sentence(an_open_folder, a_plain_user, locked):
    """Whether there is a table already must not be asked in a way that ends in a traceback."""
    folder = locked("results")
    with a_plain_user():
        assert table_for(folder / "predictions.csv", ["aorta"]) == folder / "predictions.csv"
        with pytest.raises(ResourceError, match="No permission to write"):
            Table(folder / "predictions.csv", ["aorta"]).write([])
