"""A folder of phantoms as a cohort: images, some labels, the list of roles, and held-back cases with their labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.case import Case, Cohort, Role
from ..data.cohort import save_cohort
from ..data.io import write_image
from ..data.labels import write_labels
from ..errors import Cancelled, UsageError
from ..events import Listener, silent
from .atrium import make_atrium
from .coronary import make_coronary
from .phantom import Phantom, Size

Kind = Literal["atrium", "coronary"]
KINDS: dict[str, Callable[[int, int, Size], Phantom]] = {"atrium": make_atrium, "coronary": make_coronary}


@dataclass(frozen=True)
class CohortShape:
    """How many cases there are: ``cases`` in the cohort, of which some are labelled or for validation, and ``test``
    more that the cohort does not list.
    """

    cases: int
    labeled: int
    validation: int
    test: int = 0

    def __post_init__(self) -> None:
        if min(self.labeled, self.validation, self.test) < 0 or self.cases < 1:
            raise UsageError("The numbers of cases must not be negative, and there must be at least one case.")
        if self.labeled + self.validation > self.cases:
            raise UsageError(
                f"{self.labeled} labelled and {self.validation} validation cases do not fit into {self.cases} cases; "
                "ask for more cases."
            )

    def role(self, index: int) -> Role:
        """Return the role of case ``index``, counted from 0: labelled ones first, validation last."""
        if index < self.labeled:
            return "labeled"
        return "validation" if index >= self.cases - self.validation else "unlabeled"


def write_cohort(
    folder: Path,
    kind: Kind,
    shape: CohortShape,
    seed: int = 0,
    size: Size = "small",
    listener: Listener = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Write ``images/``, ``labels/``, ``cohort.csv``, and ``test/`` with ``test.csv`` where there are test cases.

    Images are NIfTI and NRRD in turn; labels are segmentations (.seg.nrrd, named) and plain label maps in turn; an
    unlabelled case has no label anywhere. The lists come last: a folder without them was not finished.
    Returns the path of cohort.csv. Raises UsageError where the folder holds a cohort already, Cancelled on ``stop``.
    """
    lists = folder / "cohort.csv", folder / "test.csv"
    if any(path.exists() for path in lists):
        raise UsageError(f"{folder} holds a cohort already; choose another folder or remove it first.")
    total = shape.cases + shape.test
    cases: list[Case] = []
    for index in range(total):
        if stop():
            raise Cancelled(f"Stopped after {index} of {total} cases; run the command again to make all of them.")
        phantom = KINDS[kind](seed, index, size)
        is_test = index >= shape.cases
        home = folder / "test" if is_test else folder
        role: Role = "validation" if is_test else shape.role(index)
        cases.append(_write_case(home, f"{kind}_{index + 1:03d}", index, phantom, role, named=is_test))
        listener("progress", {"done": index + 1, "total": total, "unit": "case"})
    if shape.test:
        save_cohort(Cohort(tuple(cases[shape.cases :]), folder), lists[1])
    save_cohort(Cohort(tuple(cases[: shape.cases]), folder), lists[0])
    return lists[0]


def _write_case(home: Path, name: str, index: int, phantom: Phantom, role: Role, named: bool) -> Case:
    image = home / "images" / f"{name}{'.nrrd' if index % 3 == 2 else '.nii.gz'}"
    write_image(image, phantom.image, phantom.grid)
    if role == "unlabeled":
        return Case(name, (image,), None, role)
    label = home / "labels" / f"{name}{'.seg.nrrd' if named or index % 2 == 0 else '.nii.gz'}"
    write_labels(label, phantom.label, phantom.grid, phantom.segments)
    return Case(name, (image,), label, role)
