"""A round puts its model where panels look for models, once for each computer, whoever is there when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from round_tools import events_of
from synthetic import write_cohort
from test_model_library import write_model

from caml_core.model_library import ModelLibrary
from caml_core.rounds.listing import note_listed, put_into_models
from caml_core.rounds.request import RoundRequest
from caml_core.rounds.round import start_round
from caml_core.rounds.round_folder import RoundFolder, save_json
from caml_core.training.request import Request

TITLE = "heart round 1"
RESULT = {"ended": "finished", "report": "report/index.html", "model": "model.caml", "rows": [], "segments": []}


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """The user's folder of models."""
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def done(tmp_path, models) -> RoundFolder:
    """A round of which nothing is left to do."""
    folder = RoundFolder(tmp_path / "heart" / "rounds" / "001")
    cohort = write_cohort(tmp_path / "cohort", labeled=1, unlabeled=1)
    start_round(folder, cohort, RoundRequest(Request(), cache="cache"))
    write_model(folder.model, "Mine")
    save_json(folder.result, RESULT)
    return folder


@pytest.fixture
def go_on(caml, done):
    """``go_on(*options)``: resume the round; returns the exit code."""
    return lambda *options: caml("round", "--resume", done.path, "--progress", "none", *options)[0]


def listed(models: Path) -> list[str]:
    return sorted(path.name for path in models.glob("*.caml"))


def test_the_model_of_a_round_that_has_ended_is_among_the_users_models(done, go_on, models):
    assert go_on() == 0 and listed(models) == [], "only where that was asked for"
    assert go_on("--to-models", TITLE) == 0
    assert listed(models) == [f"{TITLE}.caml"]
    assert (models / f"{TITLE}.caml").read_bytes() == done.model.read_bytes()
    kinds = [kind for kind, _ in events_of(done)]
    assert kinds[-1] == "finished" and "warning" not in kinds


@pytest.mark.parametrize("by", ["the round itself", "a panel"])
def test_a_model_that_was_removed_does_not_come_back(done, go_on, models, tmp_path, monkeypatch, by):
    if by == "a panel":
        ModelLibrary().add(done.model, TITLE)
        note_listed(done.path, ModelLibrary())
    else:
        go_on("--to-models", TITLE)
    (models / f"{TITLE}.caml").unlink()
    assert go_on("--to-models", TITLE) == 0 and listed(models) == []
    monkeypatch.setenv("CAML_MODELS_DIR", str(tmp_path / "of another computer"))
    assert go_on("--to-models", TITLE) == 0 and listed(tmp_path / "of another computer") == [f"{TITLE}.caml"]


def test_a_model_that_is_there_under_another_name_is_not_put_there_twice(done, go_on, models):
    ModelLibrary().add(done.model, "by hand")
    assert go_on("--to-models", TITLE) == 0 and listed(models) == ["by hand.caml"]


def test_what_is_no_result_is_not_listed(done, models):
    done.result.unlink()
    put_into_models(done.path, TITLE, ModelLibrary())
    assert listed(models) == []


def test_a_round_that_ends_with_an_error_after_its_result_has_a_model_all_the_same(done, go_on, models):
    save_json(done.result, {**RESULT, "ended": "failed"})
    done.part("caml").path.mkdir()
    save_json(done.part("caml").outcome, {"ended": "failed", "message": "The losses were no numbers."})
    assert go_on("--to-models", TITLE) == 6
    assert listed(models) == [f"{TITLE}.caml"]


def test_where_models_cannot_be_written_the_round_ends_well_and_says_so(done, go_on, models):
    models.write_text("no folder")
    assert go_on("--to-models", TITLE) == 0
    (warning,) = [fields["message"] for kind, fields in events_of(done) if kind == "warning"]
    assert "open it in CAML Segmentation" in warning
    assert events_of(done)[-1][0] == "finished"


@pytest.mark.parametrize("title", ["", "../elsewhere", "a/b"])
def test_a_title_is_a_files_name(caml, done, models, title):
    code, _, err = caml("round", "--resume", done.path, "--to-models", title)
    assert code == 2 and "a file's name" in err and listed(models) == []
