"""The memory bank keeps the last visit of each case, draws without repetition, and stays within its bound."""

from __future__ import annotations

import pytest
import torch

from caml_core.errors import TrainingError
from caml_core.memory_bank import BYTES_LIMIT, MemoryBank


def _entries(value: float, n: int = 8, features: int = 4) -> torch.Tensor:
    """n rows that all say ``value``."""
    return torch.full((n, features), value)


@pytest.fixture
def a_bank() -> MemoryBank:
    """Three cases, two classes, eight entries of four features."""
    return MemoryBank(3, 2, 4, 8)


def _drawn(bank: MemoryBank, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    memory = bank.draw(count, torch.Generator().manual_seed(seed))
    return memory.v, memory.valid


def test_an_empty_bank_gives_only_invalid_columns(a_bank: MemoryBank) -> None:
    values, valid = _drawn(a_bank, 5)
    assert values.shape == (10, 4) and not valid.any()


def test_columns_are_fixed_and_a_class_with_few_entries_is_masked(a_bank: MemoryBank) -> None:
    a_bank.store(0, 1, _entries(1.0, 3), _entries(2.0, 3))
    memory = a_bank.draw(5, torch.Generator().manual_seed(0))
    assert memory.valid.tolist() == [False] * 5 + [True] * 3 + [False] * 2
    assert torch.equal(memory.v[memory.valid], _entries(1.0, 3)) and torch.equal(
        memory.a[memory.valid], _entries(2.0, 3)
    )


def test_a_class_with_fewer_entries_may_be_left_out_whole(a_bank: MemoryBank) -> None:
    a_bank.store(0, 0, _entries(1.0), _entries(1.0))
    a_bank.store(0, 1, _entries(1.0, 4), _entries(2.0, 4))
    generator = torch.Generator().manual_seed(0)
    assert a_bank.draw(5, generator, whole_classes=True).valid.tolist() == [True] * 5 + [False] * 5
    assert a_bank.draw(4, generator, whole_classes=True).valid.all()


def test_a_later_visit_replaces_the_earlier_one(a_bank: MemoryBank) -> None:
    a_bank.store(0, 0, _entries(1.0), _entries(1.0))
    a_bank.store(0, 0, _entries(2.0, 4), _entries(2.0, 4))
    values, valid = _drawn(a_bank, 8)
    assert int(valid.sum()) == 4 and values[valid].unique().tolist() == [2.0]


def test_a_visit_that_found_nothing_keeps_the_earlier_one(a_bank: MemoryBank) -> None:
    a_bank.store(0, 0, _entries(1.0), _entries(1.0))
    a_bank.store(0, 0, _entries(0.0, 0), _entries(0.0, 0))
    assert int(_drawn(a_bank, 8)[1].sum()) == 8


def test_entries_are_drawn_once_each_and_from_all_cases(a_bank: MemoryBank) -> None:
    for case in range(3):
        rows = torch.arange(8.0)[:, None].expand(8, 4) + 100 * case
        a_bank.store(case, 1, rows, rows)
    values, valid = _drawn(a_bank, 24)
    assert sorted(values[valid][:, 0].tolist()) == [100 * c + i for c in range(3) for i in range(8)]


def test_both_sub_models_are_drawn_at_the_same_voxels(a_bank: MemoryBank) -> None:
    rows = torch.arange(8.0)[:, None].expand(8, 4)
    a_bank.store(2, 0, rows, rows + 50)
    memory = a_bank.draw(6, torch.Generator().manual_seed(1))
    assert torch.equal(memory.a[memory.valid], memory.v[memory.valid] + 50)


@pytest.mark.parametrize(("cases", "classes"), [(4, 2), (400, 2), (400, 30), (100_000, 2), (5, 256)])
def test_memory_is_bounded_whatever_the_cohort(cases: int, classes: int) -> None:
    bank = MemoryBank(cases, classes, 32, 256)
    assert 0 < bank.nbytes <= BYTES_LIMIT


def test_beyond_its_slots_the_case_seen_longest_ago_makes_room() -> None:
    bank = MemoryBank(3, 1, 4, 1, bytes_limit=2 * 2 * 4 * 4)  # room for two cases
    for case in range(3):
        bank.store(case, 0, _entries(float(case), 1), _entries(float(case), 1))
    values, valid = _drawn(bank, 2)
    assert sorted(values[valid][:, 0].tolist()) == [1.0, 2.0]


def test_a_restored_bank_draws_the_same(a_bank: MemoryBank) -> None:
    for case in range(3):
        rows = torch.randn(8, 4, generator=torch.Generator().manual_seed(case))
        a_bank.store(case, case % 2, rows, rows)
    other = MemoryBank(3, 2, 4, 8)
    other.load_state_dict(a_bank.state_dict())
    first, second = (bank.draw(6, torch.Generator().manual_seed(9)) for bank in (a_bank, other))
    assert all(torch.equal(x, y) for x, y in zip(first, second))


def test_a_bank_of_another_number_of_cases_is_refused_in_a_sentence(a_bank: MemoryBank) -> None:
    a_bank.store(0, 1, _entries(1.0), _entries(1.0))
    other = MemoryBank(2, 2, 4, 8)
    with pytest.raises(TrainingError, match="3, and 2 are listed"):
        other.load_state_dict(a_bank.state_dict())
    assert not _drawn(other, 4)[1].any(), "nothing of it was taken over"


def _of(bank: MemoryBank) -> dict[str, object]:
    return {name: v.tolist() if isinstance(v, torch.Tensor) else v for name, v in bank.state_dict().items()}


def test_what_a_failed_step_stored_is_taken_back() -> None:
    """Entries replaced twice, a case that made room for another one, the order of visits."""
    bank = MemoryBank(3, 2, 4, 8, bytes_limit=2 * 8 * 2 * 2 * 4 * 4)  # room for two cases
    for case in (0, 1):
        bank.store(case, 0, _entries(float(case), 5), _entries(float(case), 5))
    before = _of(bank)
    bank.undo()
    assert _of(bank) == before, "nothing was begun"
    for end in (bank.undo, bank.keep):
        bank.mark()
        for case, value, n in ((1, 7.0, 3), (1, 8.0, 6), (2, 9.0, 8)):
            bank.store(case, 0, _entries(value, n), _entries(value, n))
        changed = _of(bank)
        assert changed != before
        end()
        assert _of(bank) == (before if end == bank.undo else changed)
    bank.undo()
    assert _of(bank) == changed, "what was kept stays"
