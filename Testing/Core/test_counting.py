"""Values of a volume are counted right, however it is stored, and without a copy of eight bytes a voxel."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caml_core.config import Segment
from caml_core.data.case import Case
from caml_core.data.case_fingerprint import _is_compact
from caml_core.data.counting import count_values
from caml_core.data.geometry import Grid
from caml_core.data.io import write_image
from caml_core.data.labels import LabelMap, read_labels, write_labels
from caml_core.project.labels import check_label_file

SEGMENTS = (Segment("liver", 1), Segment("spleen", 2))
GRID = Grid((160, 150, 140), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_the_layout_does_not_change_the_counts(dtype):
    array = np.random.default_rng(0).integers(0, 9, (7, 6, 5)).astype(dtype)
    expected = [int(np.count_nonzero(array == value)) for value in range(12)]
    for stored in (array, np.asfortranarray(array), array.transpose(1, 0, 2), array[::-1, :, ::-1], array[None]):
        assert count_values(stored, 12).tolist() == expected
    assert count_values(array[::2, 1:5:3], 12).sum() == 4 * 2 * 5
    assert count_values(array[:0], 12).tolist() == [0] * 12


def a_large_label() -> np.ndarray:
    label = np.zeros(GRID.size, np.uint8, order="F")
    label[20:60, 20:60, 20:60], label[70:90, 70:90, 70:90] = 1, 2
    return label


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that numpy and Python hold at once while ``work`` is done, beyond those of before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["label.nii", "label.seg.nrrd"])
def test_reading_and_checking_a_label_takes_less_than_three_bytes_a_voxel(tmp_path: Path, name: str):
    label = a_large_label()
    write_labels(tmp_path / name, label, GRID, SEGMENTS)
    write_image(tmp_path / "scan.nii", label, GRID)
    case = Case("a", (tmp_path / "scan.nii",), tmp_path / name, "labeled")
    assert [s.label for s in check_label_file(case, ()).segments] == [1, 2]
    assert peak_of(lambda: read_labels(tmp_path / name)) < 3 * label.nbytes
    assert peak_of(lambda: check_label_file(case, ())) < 3 * label.nbytes


def test_looking_for_one_compact_piece_takes_less_than_six_bytes_a_voxel():
    label = np.ones(GRID.size, np.uint8)
    label[0] = 0
    assert peak_of(lambda: _is_compact(LabelMap(label, GRID, SEGMENTS[:1]))) < 6 * label.nbytes
