"""Copies of the real left atria in wider, synthesised fields of view, as files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import REPOSITORY  # noqa: F401  finds the engine
from surroundings import Scan, embedded

from caml_core.anatomy import LEFT_ATRIUM
from caml_core.data.case import Case
from caml_core.data.grid import Grid
from caml_core.data.io import read_volume, write_image
from caml_core.data.labels import read_case_labels, write_labels

#: How much larger a field is than its crop, within the slices and across them.
WITHIN, ACROSS = (1.3, 2.4), (1.0, 1.5)
#: About as large as whole slices of the challenge's scanners (576 or 640 voxels): wider than any copy to learn from.
WHOLE_WITHIN, WHOLE_ACROSS = (3.0, 4.0), (1.0, 1.0)
_SEED = 909
#: How the name of a copy begins.
COPY = "wide_"


def wide_copy(case: Case, donors: Sequence[Case], folder: Path) -> Case:
    """Return a labelled copy of ``case`` in a field filled with one of ``donors``; its files are written once.

    Each case has the same field and donor every time, given the same donors.
    """
    name = f"{COPY}{case.id}"
    image, label = folder / f"{name}_image.nii.gz", folder / f"{name}_label.nii.gz"
    if not (image.is_file() and label.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        scan, grid = widened(case, donors)
        write_labels(label, scan.mask, grid, (LEFT_ATRIUM,))
        write_image(image, scan.image, grid)
    return dataclasses.replace(case, id=name, images=(image,), label=label)


def widened(case: Case, donors: Sequence[Case], *, whole: bool = False) -> tuple[Scan, Grid]:
    """Make what ``wide_copy`` writes, or a field of ``whole`` slices. ``case`` itself is never its own donor."""
    rng = np.random.default_rng([_SEED, *case.id.encode()])
    others = [donor for donor in donors if donor.id != case.id]
    donor = others[int(rng.integers(len(others)))]
    within, across = (WHOLE_WITHIN, WHOLE_ACROSS) if whole else (WITHIN, ACROSS)
    x, y, z = (float(rng.uniform(*limits)) for limits in (within, within, across))
    scan, grid = read_scan(case)
    wide = embedded(scan, read_scan(donor)[0], (x, y, z), rng)
    return wide, dataclasses.replace(grid, size=wide.image.shape)


def read_scan(case: Case) -> tuple[Scan, Grid]:
    """The volume and the atrium of a labelled case."""
    volume = read_volume(case.images[0], case.id)
    mask = read_case_labels(case, volume.grid, (LEFT_ATRIUM,)).array > 0
    return Scan(volume.array, mask), volume.grid
