"""The memory bank: a bounded reservoir of projections of rightly classified labelled voxels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import TrainingError

#: Upper bound of the bank's tensors, whatever the number of cases and classes.
BYTES_LIMIT = 64 * 2**20


class Memory(NamedTuple):
    """Entries drawn for one step, class by class. v, a: [classes * count, D]; valid: [classes * count]."""

    v: Tensor
    a: Tensor
    valid: Tensor


class _Before(NamedTuple):
    """What ``undo`` needs: the small tables, and the entries that were replaced since, (slot, label, v, a) each."""

    counts: Tensor
    case_of_slot: list[int]
    visits: list[int]
    clock: int
    replaced: list[tuple[int, int, Tensor, Tensor]]


class MemoryBank:
    """Per labelled case and class, the projections of its last visit, of both sub-models at the same voxels.

    A step costs the same with 4 and with 400 labelled cases: drawing looks at counters first and gathers
    ``count`` entries a class. Where cases and classes are many, fewer entries are kept of each, and beyond that
    the case visited longest ago makes room.
    """

    def __init__(
        self,
        cases: int,
        classes: int,
        features: int,
        per_case: int,
        *,
        device: torch.device | str = "cpu",
        bytes_limit: int = BYTES_LIMIT,
    ) -> None:
        entry = 2 * features * 4
        affordable = max(bytes_limit // (entry * classes), 1)  # entries of every class, all cases together
        self.slots = max(min(cases, affordable), 1)
        self.capacity = max(min(per_case, affordable // self.slots), 1)
        self.classes = classes
        shape = (self.slots, classes, self.capacity, features)
        self._v = torch.zeros(shape, device=device)
        self._a = torch.zeros(shape, device=device)
        self._counts = torch.zeros((self.slots, classes), dtype=torch.int64)
        self._case_of_slot = [-1] * self.slots
        self._visits = [0] * self.slots
        self._clock = 0
        self._before: _Before | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the stored projections."""
        return 2 * self._v.numel() * self._v.element_size()

    def store(self, case: int, label: int, v: Tensor, a: Tensor) -> None:
        """Replace what is kept of ``label`` of ``case`` by projections ``v``, ``a`` [n, D]; n = 0 keeps the old."""
        if len(v) == 0:
            return
        slot = self._slot(case)
        kept = min(len(v), self.capacity)
        if self._before is not None:  # as much as is written: never the whole bank
            replaced = self._v[slot, label, :kept].clone(), self._a[slot, label, :kept].clone()
            self._before.replaced.append((slot, label, *replaced))
        self._v[slot, label, :kept] = v[:kept].detach().to(self._v)
        self._a[slot, label, :kept] = a[:kept].detach().to(self._a)
        self._counts[slot, label] = kept

    def mark(self) -> None:
        """Begin what ``undo`` takes back, until ``keep``: the stores of a step that may fail."""
        tables = self._counts.clone(), list(self._case_of_slot), list(self._visits), self._clock
        self._before = _Before(*tables, [])

    def keep(self) -> None:
        """End it: what was stored stays."""
        self._before = None

    def undo(self) -> None:
        """Restore the bank of the last ``mark``, and end it; without one nothing is to be taken back."""
        if self._before is None:
            return
        counts, self._case_of_slot, self._visits, self._clock, replaced = self._before
        self._counts.copy_(counts)
        for slot, label, v, a in reversed(replaced):
            self._v[slot, label, : len(v)] = v
            self._a[slot, label, : len(a)] = a
        self._before = None

    def draw(self, count: int, generator: torch.Generator, *, whole_classes: bool = False) -> Memory:
        """Draw ``count`` entries of each class, without replacement as far as there are so many.

        The columns are fixed: a class with fewer entries leaves invalid columns, which the correlation masks; with
        ``whole_classes`` all of its columns are invalid, as the published code leaves such a class out.
        """
        v, a, valid = [], [], []
        for label in range(self.classes):
            total = int(self._counts[:, label].sum())
            picked = torch.zeros(count, dtype=torch.int64)
            filled = 0 if whole_classes and total < count else min(count, total)
            picked[:filled] = torch.randperm(total, generator=generator)[:filled]
            slot, entry = self._locate(label, picked)
            v.append(self._v[slot, label, entry])
            a.append(self._a[slot, label, entry])
            valid.append(torch.arange(count) < filled)
        return Memory(torch.cat(v), torch.cat(a), torch.cat(valid).to(self._v.device))

    def state_dict(self) -> dict[str, object]:
        """Everything a resumed run needs."""
        return {
            "v": self._v,
            "a": self._a,
            "counts": self._counts,
            "case_of_slot": list(self._case_of_slot),
            "visits": list(self._visits),
            "clock": self._clock,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what ``state_dict`` gave; raise TrainingError where that was of another number of cases."""
        now, then = self._v.shape, torch.as_tensor(state["v"]).shape
        if then != now:
            raise TrainingError(
                f"The training was begun with another number of labelled cases ({then[0]}, and {now[0]} are listed "
                "now), of each of which it keeps a memory; list those of then again and resume it, or begin a new one."
            )
        self._before = None
        self._v.copy_(state["v"])  # type: ignore[arg-type]
        self._a.copy_(state["a"])  # type: ignore[arg-type]
        self._counts.copy_(state["counts"])  # type: ignore[arg-type]
        self._case_of_slot = list(state["case_of_slot"])  # type: ignore[call-overload]
        self._visits = list(state["visits"])  # type: ignore[call-overload]
        self._clock = int(state["clock"])  # type: ignore[call-overload]

    def _slot(self, case: int) -> int:
        self._clock += 1
        if case in self._case_of_slot:
            slot = self._case_of_slot.index(case)
        else:
            slot = min(range(self.slots), key=self._visits.__getitem__)
            self._case_of_slot[slot] = case
            self._counts[slot] = 0
        self._visits[slot] = self._clock
        return slot

    def _locate(self, label: int, picked: Tensor) -> tuple[Tensor, Tensor]:
        ends = torch.cumsum(self._counts[:, label], 0)
        slot = torch.searchsorted(ends, picked, right=True).clamp_max(self.slots - 1)
        return slot, (picked - (ends - self._counts[:, label])[slot]).clamp(0, self.capacity - 1)
