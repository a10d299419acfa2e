"""The order in which unlabelled cases are offered: by disagreement, or at random among those with a finding."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest

from caml_core.inference.uncertainty import case_score
from caml_core.project.suggestion import Ranked, disagreement, rank_at_random, rank_by_disagreement

ROOT = Path(__file__).resolve().parents[2]


def names(ranked):
    return [one.case for one in ranked]


def one_segment(**agreement):
    return {case: {"atrium": value} for case, value in agreement.items()}


def test_most_disagreement_comes_first_and_the_score_is_one_minus_the_mean():
    agreement = {"a": {"x": 0.9, "y": 0.5}, "b": {"x": 0.8, "y": 0.8}, "c": {"x": 0.2, "y": 0.3}}
    ranked = rank_by_disagreement(agreement)
    assert names(ranked) == ["c", "a", "b"]
    assert [one.score for one in ranked] == pytest.approx([0.75, 0.3, 0.2])


def test_any_order_of_the_mapping_gives_the_same_ranking_and_ties_go_by_name():
    agreement = one_segment(d=0.4, b=0.7, a=0.7, c=0.7, e=1.0, f=1.0)
    expected = names(rank_by_disagreement(agreement))
    assert expected == ["e", "f", "d", "a", "b", "c"]
    for order in itertools.islice(itertools.permutations(agreement), 0, 720, 37):
        assert names(rank_by_disagreement({case: agreement[case] for case in order})) == expected


def test_a_case_in_which_neither_found_anything_comes_first_and_says_so():
    ranked = rank_by_disagreement(one_segment(unsure=0.1, empty=1.0, sure=0.95))
    assert names(ranked) == ["empty", "unsure", "sure"]
    assert ranked[0].score is None and "found nothing" in ranked[0].reason
    assert all("found nothing" not in one.reason for one in ranked[1:])


def test_volumes_tell_perfect_agreement_from_nothing_found():
    agreement = one_segment(small=1.0, empty=1.0, unsure=0.6)
    ranked = rank_by_disagreement(agreement, {"small": {"atrium": 0.2}, "empty": {"atrium": 0.0}})
    assert names(ranked) == ["empty", "unsure", "small"]
    assert ranked[2].score == 0.0


def test_what_one_sub_model_found_and_the_mean_left_out_is_disagreement_and_not_nothing():
    (only,) = rank_by_disagreement(one_segment(case=0.0), {"case": {"atrium": 0.0}})
    assert only.score == 1.0 and "found nothing" not in only.reason


def test_a_segment_that_neither_found_does_not_make_a_case_look_surer():
    agreement, volumes = {"left": 0.6, "right": 1.0}, {"left": 5.0, "right": 0.0}
    assert disagreement(agreement, volumes) == pytest.approx(0.4)
    (ranked,) = rank_by_disagreement({"case": agreement}, {"case": volumes})
    assert ranked.score == pytest.approx(0.4) and "Not found: right." in ranked.reason
    assert disagreement(agreement, {**volumes, "right": 3.0}) == pytest.approx(0.2)


def test_a_case_without_a_prediction_of_two_sub_models_is_last():
    ranked = rank_by_disagreement({"unknown": {}, "sure": {"atrium": 0.99}, "empty": {"atrium": 1.0}})
    assert names(ranked) == ["empty", "sure", "unknown"]
    assert ranked[-1].score is None and ranked[-1].reason != ranked[0].reason
    assert disagreement({}) is None


def test_the_reason_names_the_segment_with_the_least_agreement():
    (ranked,) = rank_by_disagreement({"case": {"left": 0.91, "right": 0.42}})
    assert "42 %" in ranked.reason and "right" in ranked.reason and "left" not in ranked.reason


def test_nothing_ranked_of_nothing():
    assert rank_by_disagreement({}) == () and rank_at_random({}, 0) == ()


def test_random_keeps_every_case_once_and_those_with_a_finding_before_the_others():
    found = {f"case {i}": i % 3 > 0 for i in range(30)}
    for seed in range(5):
        ranked = rank_at_random(found, seed)
        assert sorted(names(ranked)) == sorted(found)
        assert [found[one.case] for one in ranked] == [True] * 20 + [False] * 10
        assert all(one.score is None for one in ranked)
        assert ["found nothing" in one.reason for one in ranked] == [False] * 20 + [True] * 10


def test_random_depends_on_seed_and_names_alone():
    cases = [f"case {i}" for i in range(20)]
    expected = names(rank_at_random(dict.fromkeys(cases, True), 7))
    shuffled = random.Random(1).sample(cases, len(cases))
    assert names(rank_at_random(dict.fromkeys(shuffled, True), 7)) == expected
    assert names(rank_at_random(dict.fromkeys(cases, True), 8)) != expected
    fewer = names(rank_at_random(dict.fromkeys(cases[:-1], True), 7))
    assert fewer == [case for case in expected if case != cases[-1]]


def test_random_is_the_same_in_another_process():
    cases = [f"case {i}" for i in range(20)]
    code = (
        "from caml_core.project.suggestion import rank_at_random\n"
        "print([one.case for one in rank_at_random(dict.fromkeys([f'case {i}' for i in range(20)], True), 3)])"
    )
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "CAMLSegmentation")}
        command = [sys.executable, "-c", code]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == str(names(rank_at_random(dict.fromkeys(cases, True), 3)))


def test_random_gives_every_case_a_chance_to_be_first():
    found = dict.fromkeys("abcdef", True)
    firsts = [rank_at_random(found, seed)[0].case for seed in range(600)]
    assert all(60 < firsts.count(case) < 140 for case in found)


def test_a_ranked_case_can_be_compared_and_kept_in_sets():
    assert len({Ranked("a", 0.5, "why"), Ranked("a", 0.5, "why"), Ranked("b", 0.5, "why")}) == 2


@pytest.mark.parametrize(
    ("agreement", "volumes"),
    [
        ({"a": 0.8, "b": 1.0}, {"a": 2.0, "b": 0.0}),
        ({"a": 0.8, "b": 1.0}, {"a": 2.0, "b": 3.0}),
        ({"a": 1.0}, {"a": 0.0}),
    ],
)
def test_the_table_of_a_batch_sorts_by_the_same_rule(agreement, volumes):
    score, rank = case_score(agreement, volumes), disagreement(agreement, volumes)
    assert (score is None) == (rank is None) and (score is None or score == pytest.approx(1.0 - rank))
