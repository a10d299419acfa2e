"""Scans that are gone after a training has begun: what was learnt can be had, and it goes on with what is left."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from round_tools import StopAt, a_plan, a_start, planned_round, row_of, work
from synthetic import prepared, tiny_plan, write_cohort

from caml_core.case_names import digest_of
from caml_core.config import Plan
from caml_core.data.case_memo import scan_digest
from caml_core.data.cohort import load_cohort
from caml_core.data.memos import Memos
from caml_core.data.sampler import TwoStreamSampler
from caml_core.errors import Cancelled, DataError, TrainingError
from caml_core.events import Listener
from caml_core.model_file import ModelInfo, learned_scans, load_model, read_card
from caml_core.rounds.round_folder import RoundFolder
from caml_core.training import trainer as trainer_module
from caml_core.training.checkpoint import load_checkpoint, save_checkpoint
from caml_core.training.run import Session, run_training
from caml_core.training.run_folder import RunFolder

#: Cases 0 to 2 have labels, 3 and 4 have none, 5 and 6 are held out.
LABELED, UNLABELED, HELD_OUT = ("case0", "case1", "case2"), ("case3", "case4"), ("case5", "case6")
ROLES = {"labeled": LABELED, "unlabeled": UNLABELED, "validation": HELD_OUT}


def mutual(iterations: int, **changes: Any) -> Plan:
    """A plan whose sub-models learn from unlabelled cases, and fill the memory bank, from the first step on."""
    plan = a_plan(iterations, validate_every=4, **changes)
    return dataclasses.replace(plan, losses=dataclasses.replace(plan.losses, solo_share=0.0))


@pytest.fixture(scope="module")
def a_pause(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose round of eight iterations was stopped after the fourth, together with its scans."""
    home = tmp_path_factory.mktemp("paused")
    pause(planned_round(home / "round", write_cohort(home / "scans", 3, 2, 2), mutual(8)))
    return home


def pause(folder: RoundFolder) -> None:
    """Stop the round after its fifth iteration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)
        stop = StopAt("step", iteration=5)
        with pytest.raises(Cancelled, match="iteration 5"):
            work(folder, listener=stop.listen, stop=stop)


@pytest.fixture
def paused(a_pause: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], RoundFolder]:
    """A copy of that project, by name; all paths in it are relative."""
    monkeypatch.setattr(trainer_module, "STEP_EVENT_SECONDS", 0.0)

    def copy(name: str = "project") -> RoundFolder:
        shutil.copytree(a_pause, tmp_path / name)
        return RoundFolder(tmp_path / name / "round")

    return copy


def lose(folder: RoundFolder, cases: Iterable[str], what: str = "*") -> None:
    """Delete scans and labels of cases."""
    lost = [path for case in cases for path in (folder.path.parent / "scans").glob(f"{case}_{what}.nrrd")]
    assert lost
    for path in lost:
        path.unlink()


def warnings_to(told: list[str]) -> Listener:
    return lambda kind, fields: told.append(fields["message"]) if kind == "warning" else None


def card_of(folder: RoundFolder) -> ModelInfo:
    return read_card(folder.model).info


def digests(cases: Iterable[str]) -> list[str]:
    """What a card has in place of their names."""
    return sorted(map(digest_of, cases))


# The end with what there is


def test_what_was_learnt_can_be_had_without_the_scans_that_it_was_learnt_from(paused: Any) -> None:
    whole, bare = paused("whole"), paused("bare")
    wanted = work(whole, finish=True)
    lose(bare, (*LABELED, *UNLABELED))
    shutil.rmtree(bare.path.parent / "cache")  # nor are they prepared any more
    known = load_checkpoint(bare.part("caml").checkpoint)["cases"]
    found = work(bare, finish=True)
    assert found == wanted and row_of(found, "caml")["count"] == 2 and row_of(found, "caml")["iterations"] == 5
    assert bare.report.is_file() and not found["notes"]
    first, second = (load_model(folder.model).state for folder in (whole, bare))
    assert all(torch.equal(first[name], second[name]) for name in first)
    card = card_of(bare)
    assert (card.labeled_cases, card.unlabeled_cases) == (3, 2) and card.provenance["learned"] == digests(LABELED)
    assert card.provenance["cases"] == card_of(whole).provenance["cases"]
    scans = learned_scans(card)
    assert scans == learned_scans(card_of(whole)) and all(digest for _, digest in scans), "known by their voxels still"
    listed = {digest_of(case): digest for case, digest in known.items()}
    assert {case: entry["sha256"] for case, entry in card.provenance["cases"].items()} == listed


@pytest.mark.parametrize("lost", [HELD_OUT[:1], HELD_OUT], ids=["one", "all"])
def test_held_out_cases_that_are_gone_are_said_and_cost_no_model(paused: Any, lost: tuple[str, ...]) -> None:
    folder, told = paused(), list[str]()
    lose(folder, lost, "image")
    found = work(folder, listener=warnings_to(told), finish=True)
    left = len(HELD_OUT) - len(lost)
    words = (
        "1 of 2 held-out cases could not be read and are not in the figures (case5)."
        if left
        else "How good the model is was not measured: no held-out case could be read (case5, case6)."
    )
    nameless = words[: words.index(" (")] + "."
    assert row_of(found, "caml")["count"] == left and found["kind"] == ("held-out" if left else "none")
    assert words in found["words"] and found["notes"] == [words]
    assert "No case was held out" not in found["words"], "there were some"
    assert [case for case in HELD_OUT if any(f"Case {case}:" in text for text in told)] == list(lost)
    card = card_of(folder)
    if left:
        assert card.metrics["held_out"]["count"] == 1 and nameless in card.metrics["held_out"]["remarks"]
    else:
        assert not card.metrics and nameless in card.description
    assert words in folder.report.read_text() and work(folder) == found


def test_held_out_cases_that_the_start_model_knows_are_named_as_far_as_they_are_measured(tmp_path: Path) -> None:
    start = a_start(tmp_path / "start.caml", mutual(8).segments, {case: {"role": "labeled"} for case in HELD_OUT})
    cohort = write_cohort(tmp_path / "scans", 3, 2, 2)
    folder = planned_round(tmp_path / "round", cohort, mutual(8, from_model=True), start=start)
    pause(folder)
    lose(folder, HELD_OUT[:1], "image")
    found = work(folder, finish=True)
    assert "trained on the labels of case6, held out here" in found["words"]
    remarks = card_of(folder).metrics["held_out"]["remarks"]
    assert [text.partition(":")[0] for text in remarks] == [
        "1 of 2 held-out cases could not be read and are not in the figures.",
        "The start model was trained on the labels of a held-out case",
    ]


def test_what_was_said_of_held_out_scans_stands_when_they_are_gone(tmp_path: Path) -> None:
    """The start model knows one of them by its voxels, under another name."""
    cohort, memos = write_cohort(tmp_path / "scans", 3, 2, 2), Memos(tmp_path / "memos")
    origin = {"learned": ["once"], "learned_scans": [["once", scan_digest(load_cohort(cohort).cases[6], memos)]]}
    start = a_start(tmp_path / "start.caml", mutual(8).segments, **origin)
    folder = planned_round(tmp_path / "round", cohort, mutual(2, from_model=True), start=start)
    found = work(folder)
    assert "trained on the labels of case6, held out here" in found["words"]
    folder.result.unlink()  # as if it had been killed before it was written
    lose(folder, HELD_OUT)
    shutil.rmtree(tmp_path / "cache")
    assert work(folder)["words"] == found["words"]


def test_a_checkpoint_that_does_not_know_its_cases_gives_a_model(paused: Any) -> None:
    """Those of older versions do not."""
    folder = paused()
    state = load_checkpoint(folder.part("caml").checkpoint)
    save_checkpoint(folder.part("caml").checkpoint, {k: v for k, v in state.items() if k not in ("cases", "scans")})
    lose(folder, UNLABELED)
    assert work(folder, finish=True)["ended"] == "stopped"
    roles = {case: entry["role"] for case, entry in card_of(folder).provenance["cases"].items()}
    assert roles == {digest_of(case): role for role, of in ROLES.items() for case in of}
    assert learned_scans(card_of(folder)) == {(case, "") for case in digests(LABELED)}, "by their names alone"


# Going on


def test_a_training_goes_on_without_an_unlabelled_scan_and_with_it_once_it_is_back(paused: Any) -> None:
    folder, told = paused(), list[str]()
    scan = folder.path.parent / "scans" / "case3_image.nrrd"
    scan.rename(scan.with_suffix(".away"))
    stop = StopAt("step", iteration=6)
    with pytest.raises(Cancelled, match="iteration 6"):
        work(folder, listener=lambda *event: (warnings_to(told)(*event), stop.listen(*event)), stop=stop)
    assert len(told) == 1 and "goes on without 1 unlabelled case(s)" in told[0] and "(case3)" in told[0]
    assert set(load_checkpoint(folder.part("caml").checkpoint)["cases"]) == {*LABELED, *UNLABELED, *HELD_OUT}
    scan.with_suffix(".away").rename(scan)
    told.clear()
    found = work(folder, listener=warnings_to(told))
    assert not told, "it has not changed"
    assert found["ended"] == "finished" and row_of(found, "caml")["iterations"] == 8
    assert found["notes"] == [
        "The files of 1 unlabelled case(s) could not be read any more (case3): the training went on without them."
    ]


def test_a_training_ends_without_an_unlabelled_scan_and_its_card_has_it_still(paused: Any) -> None:
    folder = paused()
    lose(folder, ["case4"])
    found = work(folder)
    assert found["ended"] == "finished" and row_of(found, "caml")["iterations"] == 8
    assert len(found["notes"]) == 1 and "(case4)" in found["notes"][0] and "(case4)" in folder.report.read_text()
    card = card_of(folder)
    assert card.unlabeled_cases == 2
    assert sorted(card.provenance["cases"]) == digests((*LABELED, *UNLABELED, *HELD_OUT))


@pytest.mark.parametrize(("case", "what"), [("case1", "image"), ("case1", "label"), ("case5", "image")])
def test_what_it_cannot_go_on_without_is_named_with_the_ways_out(paused: Any, caml: Any, case: str, what: str) -> None:
    folder = paused()
    lose(folder, [case], what)
    lose(folder, ["case3"])
    cache = folder.path.parent / "cache"
    code, _, err = caml("round", "--resume", folder.path, "--cache", cache, "--progress", "none")
    assert code == DataError.exit_code and err.count("\n") == 1, err
    assert f"Case {case}:" in err and f"{case}_{what}.nrrd" in err
    assert "put the files back" in err and f"caml round --resume {folder.path} --finish" in err
    words = ("round", "--resume", folder.path, "--finish", "--cache", cache, "--progress", "none")
    assert caml(*words)[0] == 0 and card_of(folder).labeled_cases == 3


def test_without_any_unlabelled_scan_it_does_not_become_another_training(paused: Any) -> None:
    folder = paused()
    lose(folder, UNLABELED)
    with pytest.raises(DataError, match=r"None of the 2 unlabelled case\(s\).*case3.*--finish"):
        work(folder)


def test_before_anything_is_learnt_every_file_must_be_there(tmp_path: Path) -> None:
    folder = planned_round(tmp_path / "round", write_cohort(tmp_path / "scans", 3, 2, 2), mutual(8))
    stop = StopAt("checkpoint")
    with pytest.raises(Cancelled, match="iteration 0"):
        work(folder, listener=stop.listen, stop=stop)
    lose(folder, ["case3"])
    with pytest.raises(DataError, match="case3_image.nrrd does not exist; correct the path"):
        work(folder)
    with pytest.raises(TrainingError, match="Nothing has been trained"):
        work(folder, finish=True)


def test_a_part_that_begins_later_does_without_them_too(tmp_path: Path) -> None:
    """As a fold of a cross-validation, whose main training is done."""
    cohort = load_cohort(write_cohort(tmp_path / "scans", 2, 2, 1))
    (tmp_path / "scans" / "case2_image.nrrd").unlink()
    folder, notes = RunFolder(tmp_path / "run"), list[str]()
    session = Session(lambda *_: None, lambda: False, tmp_path / "cache", note=notes.append)
    with folder:
        folder.create(mutual(2), cohort)
        with pytest.raises(DataError, match="correct the path"):
            run_training(mutual(2), cohort, folder, session, None, resumed=False)
        outcome = run_training(mutual(2), cohort, folder, session, None, resumed=False, begun=True)
    assert outcome.reason == "finished" and len(notes) == 1 and "(case2)" in notes[0]
    assert load_model(folder.model).info.unlabeled_cases == 1, "the other one never took part"


def test_fewer_unlabelled_cases_leave_the_labelled_patches_as_they_are() -> None:
    plan = dataclasses.replace(tiny_plan(), losses=mutual(8).losses)
    labeled, unlabeled = [prepared(0), prepared(1)], [prepared(2, "unlabeled"), prepared(3, "unlabeled")]
    whole, fewer, again = (TwoStreamSampler(plan, labeled, left) for left in (unlabeled, unlabeled[:1], unlabeled[:1]))
    for iteration in range(5, 8):
        a, b, c = (sampler.batch(iteration) for sampler in (whole, fewer, again))
        assert torch.equal(a.labeled, b.labeled) and a.cases == b.cases
        assert a.unlabeled is not None and b.unlabeled is not None and c.unlabeled is not None
        assert a.unlabeled.shape == b.unlabeled.shape and torch.equal(b.unlabeled, c.unlabeled)


def test_a_labelled_scan_that_was_replaced_on_the_way_was_learnt_from_as_well(paused: Any, tmp_path: Path) -> None:
    folder, memos = paused(), Memos(tmp_path / "memos")
    scans = folder.path.parent / "scans"
    cases = {case.id: case for case in folder.read_cohort().cases}
    before = {(digest_of(case), scan_digest(cases[case], memos)) for case in LABELED}
    shutil.copyfile(scans / "case3_image.nrrd", scans / "case1_image.nrrd")
    stop = StopAt("step", iteration=6)
    with pytest.raises(Cancelled, match="iteration 6"):
        work(folder, listener=stop.listen, stop=stop)
    lose(folder, LABELED)
    work(folder, finish=True)
    assert learned_scans(card_of(folder)) == {
        *before,
        (digest_of("case1"), scan_digest(cases["case3"], memos)),
    }


# Cases that were taken off the lists by hand


def test_another_number_of_labelled_cases_is_one_sentence_and_costs_no_model(paused: Any) -> None:
    folder = paused()
    for path in (folder.cohort, folder.part("caml").cohort):
        listed = json.loads(path.read_text())
        path.write_text(json.dumps({**listed, "cases": [c for c in listed["cases"] if c["id"] != "case1"]}))
    with pytest.raises(TrainingError, match=r"another number of labelled cases \(3, and 2 are listed now\).*--finish"):
        work(folder)
    assert work(folder, finish=True)["ended"] == "stopped" and card_of(folder).labeled_cases == 2
