"""The models that are made here: from which cases each is trained, what its card says, and where it is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cohorts import LA_CASES, LA_TRAINING, left_atria, write_list
from common import REPOSITORY
from wide_fields import wide_copy

from caml_core.data.case import Case
from caml_core.data.cohort import load_cohort

BUNDLED = REPOSITORY / "CAMLSegmentation" / "Resources" / "Models"
FOR_MEASURING = REPOSITORY / "Testing" / "models"

CAML = (
    "Gao S, Zhang Z, Ma J, Li Z, Zhang S. Correlation-Aware Mutual Learning for Semi-supervised Medical Image "
    "Segmentation. MICCAI 2023."
)
CHALLENGE = (
    "Xiong Z, Xia Q, Hu Z, et al. A global benchmark of algorithms for segmenting the left atrium from late "
    "gadolinium-enhanced cardiac magnetic resonance imaging. Medical Image Analysis 67:101832, 2021."
)
CHALLENGE_LICENSE = (
    "Apache-2.0 for the weights. The scans are research data of the 2018 Atrial Segmentation Challenge: they are not "
    "part of this file, and the challenge's terms apply to them. For research; not a medical device."
)
CHALLENGE_LIMITS = (
    "Trained on late-enhancement MRI of one challenge alone (0.625 mm, cropped around the heart with the reference's "
    "help): other sequences, contrasts and sites, and fields of view that are much wider, were not seen. The data does "
    "not record directions; the files' own axes were taken for left, posterior and superior. For research: look at "
    "every result."
)
WIDE_LIMITS = (
    "Trained on late-enhancement MRI of one challenge alone (0.625 mm, cropped around the heart with the reference's "
    "help): other sequences, contrasts and sites were not seen, nor real scans wider than such crops, only crops in "
    "surroundings made of other cases. The data does not record directions; the files' own axes were taken for left, "
    "posterior and superior. For research: look at every result."
)
#: Every second labelled case has a copy in a wider field of view.
WIDE_EVERY = 2


@dataclass(frozen=True)
class Cohorts:
    """Lists of cases: ``final`` of the model itself, ``twin`` of the one that its figures come from, where it has one.

    ``held_out``: which cases the figures are of, as the end of a sentence.
    """

    final: Path
    twin: Path | None
    held_out: str


@dataclass(frozen=True)
class Recipe:
    """A model: ``name`` of its file, ``make`` target, folder it is installed in, words of its card.

    ``cohorts``: writes the lists into a folder; takes the folder of real scans, or None, and whether it is a trial.
    ``options``: of both trainings, where the planner would be led astray by what the cases are made of. ``start``: the
    recipe whose model the training starts from, and the twin from that model's own twin; it has the grid, too.
    """

    name: str
    make: str
    home: Path
    title: str
    anatomy: str
    modality: str
    about: str
    data: str
    limits: str
    license: str
    citation: str
    cohorts: Callable[[Path, Path | None, bool], Cohorts]
    budget: str = "100m"
    options: tuple[str, ...] = ()
    start: str | None = None

    @property
    def file(self) -> Path:
        """Where the finished model ships from."""
        return self.home / f"{self.name}.caml"

    def command(self, iterations: int) -> str:
        """What makes the model anew, as long as it was trained: a budget depends on the computer."""
        alone = sum(recipe.make == self.make for recipe in RECIPES.values()) == 1
        if alone:
            return f'make {self.make} ARGS="--iterations {iterations}"'
        return f"python Testing/models/train_models.py {self.name} --iterations {iterations}"


class MissingScansError(Exception):
    """The real scans that a model is trained on are not there."""


def _left_atria(labeled: int) -> Callable[[Path, Path | None, bool], Cohorts]:
    """Lists with the first ``labeled`` cases labelled; the twin has as many of its sixty, or all of them."""

    def write(folder: Path, shared: Path | None, trial: bool) -> Cohorts:
        source = None if shared is None else shared / "la2018"
        if source is None or not (source / "cases.csv").is_file():
            raise MissingScansError("No la2018 folder: set CAML_SHARED, or put `shared` beside the repository.")
        if trial:
            final = left_atria(folder / "final.json", source, 3, training=5, held_out=0)
            return Cohorts(final, left_atria(folder / "twin.json", source, 2, training=3, held_out=2), "two cases")
        twin = min(labeled, LA_TRAINING)
        return Cohorts(
            left_atria(folder / "final.json", source, labeled, training=LA_CASES),
            left_atria(folder / "twin.json", source, twin),
            f"cases 61-80, by a twin: trained alike on cases 1-60 alone, {_labels(twin, LA_TRAINING)}; the model of "
            "this file has seen them",
        )

    return write


def _left_atria_and_wide_copies(folder: Path, shared: Path | None, trial: bool) -> Cohorts:
    """All cases labelled, and copies of some in wider fields, whose surroundings come from the twin's own cases."""
    lists = _left_atria(LA_CASES)(folder, shared, trial)
    assert lists.twin is not None
    wide: dict[str, Case] = {}
    for path in (lists.twin, lists.final):
        cohort = load_cohort(path)
        labeled = [case for case in cohort.cases if case.role == "labeled"]
        for case in labeled[::WIDE_EVERY]:
            wide.setdefault(case.id, wide_copy(case, labeled, folder / "wide"))
        copies = [wide[case.id] for case in labeled[::WIDE_EVERY]]
        write_list(path, [*labeled, *copies, *(c for c in cohort.cases if c.role != "labeled")], cohort.segments)
    return lists


def _labels(labeled: int, cases: int) -> str:
    others = cases - labeled
    return f"the first {labeled} labelled and {others} without labels" if others else "all of them labelled"


def _left_atrium_recipe(labeled: int) -> Recipe:
    """A model for measuring, with few labels."""
    return Recipe(
        name=f"la-{labeled:02d}-labels",
        make="models-accuracy",
        home=FOR_MEASURING,
        title=f"Left atrium, LGE-MRI, {labeled} labels",
        anatomy="Left atrium",
        modality="MR",
        about=f"For measuring what {labeled} labels give, not for use: the left atrium in late-enhancement MRI.",
        data=f"Training cases 1-80 of the 2018 Atrial Segmentation Challenge in their official order, "
        f"{_labels(labeled, LA_CASES)}; none held out. The challenge's test cases were not used.",
        limits=CHALLENGE_LIMITS,
        license=CHALLENGE_LICENSE,
        citation=f"{CAML} Data: {CHALLENGE}",
        cohorts=_left_atria(labeled),
    )


#: Cohorts of phantoms: the seeds of the training and of the held-out cases.
PHANTOM_SEED, HELD_OUT_SEED = 101, 202
#: Phantoms to learn from, all with their labels, and held-out ones; those of a trial.
PHANTOMS, FEW_PHANTOMS = (48, 8), (4, 2)


def _phantoms(folder: Path, shared: Path | None, trial: bool) -> Cohorts:
    """Make the phantoms that are not there yet, and the list of both cohorts."""
    from caml_core.phantom.cohort import CohortShape, write_cohort
    from caml_core.phantom.coronary import SEGMENTS

    labeled, held_out = FEW_PHANTOMS if trial else PHANTOMS
    size: Literal["small", "full"] = "small" if trial else "full"
    cases = []
    for seed, shape in (
        (PHANTOM_SEED, CohortShape(labeled, labeled, 0)),
        (HELD_OUT_SEED, CohortShape(held_out, 0, held_out)),
    ):
        home = folder / f"phantoms-{seed}"
        if not (home / "cohort.csv").is_file():
            write_cohort(home, "coronary", shape, seed, size)
        cases += [dataclasses.replace(c, id=f"seed{seed}_{c.id}") for c in load_cohort(home / "cohort.csv").cases]
    path = write_list(folder / "final.json", cases, SEGMENTS)
    return Cohorts(path, None, f"phantoms of another seed ({HELD_OUT_SEED}), which are alike and no patients")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="left-atrium",
            make="model-la",
            home=BUNDLED,
            title="Left atrium, LGE-MRI",
            anatomy="Left atrium",
            modality="MR",
            about="The cavity of the left atrium in late-enhancement MRI, from 80 labelled scans.",
            data="All 80 training cases of the 2018 Atrial Segmentation Challenge that are at hand, with all their "
            "labels; none held out. 40 of them count twice: as they are, and in a wider field of view, whose "
            "surroundings were made of other cases' tissue. The training started from the model that had the labels of "
            "the first 8 alone and learnt from the others without labels. The challenge's test cases were not used.",
            limits=WIDE_LIMITS,
            license=CHALLENGE_LICENSE,
            citation=f"{CAML} Data: {CHALLENGE}",
            cohorts=_left_atria_and_wide_copies,
            start="la-08-labels",
        ),
        Recipe(
            name="contrast-vessels",
            make="model-vessels",
            home=BUNDLED,
            title="Coronary arteries, CTA (phantoms)",
            anatomy="Coronary artery",
            modality="CT",
            about="A start, not a finished tool: trained on computed phantoms of coronary CTA, never on a patient.",
            data=f"Procedural CT angiographies of `caml phantom coronary`, seed {PHANTOM_SEED}: {PHANTOMS[0]}, "
            f"all with their labels; held out: {PHANTOMS[1]} of seed {HELD_OUT_SEED}. No patient data.",
            limits="How well it does on real scans is not known: its figures are those on other phantoms, and real "
            "vessels, plaques, motion and scanners differ. It marks contrast-filled coronary lumen alone, not aorta, "
            "chambers and veins, and expects Hounsfield units. Meant as a model to start a training from, and to try "
            "the module with. For research: look at every result.",
            license="Apache-2.0, data included: the phantoms are made by this project's own code.",
            citation=CAML,
            cohorts=_phantoms,
        ),
        *(_left_atrium_recipe(labeled) for labeled in (4, 8, 16)),
    )
}
