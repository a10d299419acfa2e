"""Label maps and Slicer's segmentations: read, put on the image's grid, matched by name, written."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from caml_core.config import Segment
from caml_core.data.case import Case
from caml_core.data.geometry import Grid
from caml_core.data.io import write_image
from caml_core.data.labels import (
    conform,
    labels_on_grid,
    match_segments,
    read_case_labels,
    read_labels,
    read_scalar,
    write_labels,
    write_scalar,
)
from caml_core.data.placement import place
from caml_core.errors import DataError, ResourceError

COS, SIN = np.cos(0.3), np.sin(0.3)
A_GRID = Grid((9, 8, 7), (0.5, 0.75, 2.5), (-12.0, 30.5, 7.25), (COS, -SIN, 0, SIN, COS, 0, 0, 0, 1))
ATRIUM = Segment("left atrium", 1, (0.1, 0.2, 0.9), "Category~SCT^1^Tissue~SCT^2^Atrium~^^~list~^^~^^")
VEIN = Segment('Vene "s\u00fcd"', 2, (1.0, 0.0, 0.25))


def a_label() -> np.ndarray:
    array = np.zeros(A_GRID.size, np.uint8)
    array[2:5, 3:6, 1:4] = 1
    array[6, 6, 5] = 2
    return array


def crop(array: np.ndarray, grid: Grid, low, high) -> tuple[np.ndarray, Grid]:
    steps = np.reshape(grid.direction, (3, 3)) * np.asarray(grid.spacing)
    part = array[tuple(slice(a, b) for a, b in zip(low, high))]
    origin = tuple(np.asarray(grid.origin) + steps @ np.asarray(low))
    return part, Grid(part.shape, grid.spacing, origin, grid.direction)


# Writing and reading back


def test_a_segmentation_keeps_grid_names_colours_and_terminology(tmp_path):
    path = tmp_path / "case.seg.nrrd"
    write_labels(path, a_label(), A_GRID, (ATRIUM, VEIN))
    label_map = read_labels(path)
    np.testing.assert_array_equal(label_map.array, a_label())
    assert label_map.segments == (ATRIUM, VEIN)
    assert label_map.named
    np.testing.assert_allclose(label_map.grid.origin, A_GRID.origin)
    np.testing.assert_allclose(label_map.grid.direction, A_GRID.direction, atol=1e-7)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_segmentation_says_what_slicer_looks_for(tmp_path):
    write_labels(tmp_path / "case.seg.nrrd", a_label(), A_GRID, (ATRIUM, VEIN))
    image = sitk.ReadImage(str(tmp_path / "case.seg.nrrd"))
    for key, value in {
        "Segment0_ID": "Segment_1",
        "Segment0_Extent": "0 8 0 7 0 6",
        "Segment0_Layer": "0",
        "Segment1_LabelValue": "2",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }.items():
        assert image.GetMetaData(key) == value
    assert f"TerminologyEntry:{ATRIUM.terminology}|" in image.GetMetaData("Segment0_Tags")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_plain_label_map_keeps_its_values(tmp_path, suffix):
    path = tmp_path / f"case{suffix}"
    write_labels(path, a_label(), A_GRID, (ATRIUM, VEIN))
    label_map = read_labels(path)
    np.testing.assert_array_equal(label_map.array, a_label())
    assert [(s.name, s.label) for s in label_map.segments] == [("segment_1", 1), ("segment_2", 2)]
    assert not label_map.named
    assert labels_on_grid(label_map, A_GRID, path).shape == A_GRID.size


def test_scalar_maps_are_written_in_half_precision_too(tmp_path):
    values = np.linspace(0, 1, 9 * 8 * 7).reshape(A_GRID.size).astype(np.float16)
    write_scalar(tmp_path / "p.nii.gz", values, A_GRID)
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.nii.gz"))).T
    np.testing.assert_array_equal(read, values.astype(np.float32))


def test_a_full_disk_leaves_no_half_segmentation(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (120, 120, 120)).astype(np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(ResourceError, match="full"):
            write_labels(tmp_path / "a.seg.nrrd", noise, Grid(noise.shape, (1.0, 1.0, 1.0)), (ATRIUM,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


# Slicer's own files


def test_overlapping_layers_that_slicer_wrote_are_read_and_padded(fixtures_folder):
    """Written by Slicer 5.13: three segments in two layers, values 1, 1 and 2, cropped to 11 x 11 x 7 voxels."""
    path = fixtures_folder / "slicer_layers.seg.nrrd"
    grid = Grid(
        (20, 25, 12),
        (0.8, 0.9, 2.5),
        (10.0, -20.0, 30.0),
        (-np.cos(0.2), np.sin(0.2), 0, -np.sin(0.2), -np.cos(0.2), 0, 0, 0, 1),
    )
    label_map = read_labels(path)
    assert [s.name for s in label_map.segments] == ["left atrium", "appendage", 'Vein "x"']
    assert label_map.array.shape == (11, 11, 7)
    expected = np.zeros(grid.size, np.uint8)
    expected[5:13, 6:15, 3:8] = 1
    expected[10:16, 10:17, 5:10] = 2
    expected[7:10, 7:10, 4:5] = 3
    np.testing.assert_array_equal(labels_on_grid(label_map, grid, path), expected)
    assert "54 voxels" in label_map.notes[0]


def an_old_segmentation(path: Path, masks: np.ndarray, names: list[str]) -> Path:
    """Write ``masks`` [segment, X, Y, Z] as Slicer 4.10 did: a component a segment, no layers and no values named."""
    header = [
        "NRRD0004",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, masks.shape))}",
        "space directions: none (1,0,0) (0,1,0) (0,0,1)",
        "kinds: list domain domain domain",
        "encoding: raw",
        "space origin: (0,0,0)",
        *(f"Segment{i}_{key}:={value}" for i, n in enumerate(names) for key, value in (("ID", f"S{i}"), ("Name", n))),
    ]
    path.write_bytes("\n".join(header).encode() + b"\n\n" + masks.tobytes(order="F"))
    return path


def test_a_segmentation_that_names_no_layers_has_one_for_each_segment(tmp_path):
    masks = np.zeros((3, 8, 7, 6), np.uint8)
    masks[0, 1:3, 1:3, 1:3], masks[1, 3:5, 3:5, 3:5], masks[2, 5:7, 4:6, 2:4] = 1, 1, 1
    label_map = read_labels(an_old_segmentation(tmp_path / "old.seg.nrrd", masks, ["LA", "LV", "RV"]))
    assert [(s.name, s.label) for s in label_map.segments] == [("LA", 1), ("LV", 2), ("RV", 3)]
    np.testing.assert_array_equal(label_map.array, masks[0] + 2 * masks[1] + 3 * masks[2])
    assert label_map.notes == ()


def test_without_values_the_segments_of_a_single_layer_are_numbered_in_their_order(tmp_path):
    masks = a_label()[None]
    label_map = read_labels(an_old_segmentation(tmp_path / "one.seg.nrrd", masks, ["LA", "LV"]))
    assert [(s.name, s.label) for s in label_map.segments] == [("LA", 1), ("LV", 2)]
    np.testing.assert_array_equal(label_map.array, a_label())


def test_a_cropped_segmentation_is_padded_voxel_for_voxel(tmp_path):
    part, grid = crop(a_label(), A_GRID, (1, 2, 0), (8, 8, 6))
    write_labels(tmp_path / "case.seg.nrrd", part, grid, (ATRIUM, VEIN))
    label_map = read_labels(tmp_path / "case.seg.nrrd")
    np.testing.assert_array_equal(labels_on_grid(label_map, A_GRID, tmp_path / "case.seg.nrrd"), a_label())


def test_a_segmentation_larger_than_the_image_is_cut(tmp_path):
    part, grid = crop(a_label(), A_GRID, (1, 2, 0), (8, 8, 6))
    write_labels(tmp_path / "case.seg.nrrd", a_label(), A_GRID, (ATRIUM, VEIN))
    label_map = read_labels(tmp_path / "case.seg.nrrd")
    np.testing.assert_array_equal(labels_on_grid(label_map, grid, tmp_path / "case.seg.nrrd"), part)


@pytest.mark.parametrize("axes", [(2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("name", ["case.seg.nrrd", "case.nii.gz"])
def test_axes_stored_in_another_order_are_put_right(tmp_path, axes, name):
    """The same voxels in patient space, permuted and with one axis reversed."""
    direction = np.reshape(A_GRID.direction, (3, 3))
    array = a_label().transpose(axes)[:, ::-1]
    columns = direction[:, axes] * (1, -1, 1)
    spacing = tuple(A_GRID.spacing[a] for a in axes)
    last = (array.shape[1] - 1) * spacing[1] * direction[:, axes[1]]
    grid = Grid(array.shape, spacing, tuple(np.asarray(A_GRID.origin) + last), tuple(columns.ravel()))
    write_labels(tmp_path / name, array, grid, (ATRIUM, VEIN))
    np.testing.assert_array_equal(labels_on_grid(read_labels(tmp_path / name), A_GRID, tmp_path / name), a_label())


@pytest.mark.parametrize("name", ["case.seg.nrrd", "case.nii.gz"])
@pytest.mark.parametrize("low", [(0, 0, 0), (1, 2, 1)], ids=["whole", "cropped"])
def test_a_segmentation_of_a_left_handed_scan_is_stored_right_handed_and_comes_back_as_it_was(tmp_path, name, low):
    path, scan = tmp_path / name, A_GRID.reversed()
    array = a_label()[:, :, ::-1]
    part, grid = crop(array, scan, low, scan.size)
    write_labels(path, part, grid, (ATRIUM, VEIN))
    stored = sitk.ReadImage(str(path))
    determinant = np.linalg.det(np.reshape(stored.GetDirection(), (3, 3)))
    assert determinant == pytest.approx(1 if name.endswith(".seg.nrrd") else -1)
    for label, (x, y, z) in ((1, (2, 3, 5)), (2, (6, 6, 1))):  # the very voxel, wherever the file has it
        place = np.asarray(scan.origin) + np.reshape(scan.direction, (3, 3)) @ (np.array([x, y, z]) * scan.spacing)
        assert array[x, y, z] == stored[stored.TransformPhysicalPointToIndex(place)] == label
    whole = grid if name.endswith(".nii.gz") else scan  # a plain label map must be all of its image
    np.testing.assert_array_equal(labels_on_grid(read_labels(path), whole, path), part if whole is grid else array)


def test_a_left_handed_segmentation_of_before_is_read_where_it_lies(tmp_path):
    path, scan = tmp_path / "case.seg.nrrd", A_GRID.reversed()
    write_labels(path, a_label(), A_GRID, (ATRIUM, VEIN))
    image = sitk.ReadImage(str(path))
    old = sitk.GetImageFromArray(sitk.GetArrayFromImage(image)[::-1])
    for key in image.GetMetaDataKeys():
        old.SetMetaData(key, image.GetMetaData(key))
    old.SetSpacing(scan.spacing)
    old.SetOrigin(scan.origin)
    old.SetDirection(scan.direction)
    sitk.WriteImage(old, str(path))
    for grid, array in ((scan, a_label()[:, :, ::-1]), (A_GRID, a_label())):
        np.testing.assert_array_equal(labels_on_grid(read_labels(path), grid, path), array)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_a_map_is_read_with_its_own_numbers_and_put_in_its_place(tmp_path, kind):
    values = (np.arange(a_label().size).reshape(A_GRID.size) / 8).astype(kind)
    for array in (values, np.zeros_like(values)):  # one that is the same everywhere is no fault
        write_scalar(tmp_path / "map.nrrd", array[:, :, ::-1], A_GRID.reversed())
        found, grid = read_scalar(tmp_path / "map.nrrd")
        assert found.dtype == kind and grid.is_left_handed
        placed, whole = place(found, grid, A_GRID)
        assert whole and placed.dtype == kind
        np.testing.assert_array_equal(placed, array)


# Bad input


def a_file(tmp_path, array, name="case3_label.nii.gz", grid=A_GRID):
    write_image(tmp_path / name, array, grid)
    return tmp_path / name


def test_integral_floats_are_labels(tmp_path):
    path = a_file(tmp_path, a_label().astype(np.float32))
    assert read_labels(path).array.dtype == np.uint8
    np.testing.assert_array_equal(read_labels(path).array, a_label())


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (0.5, np.float32, "label value 0.5"),
        (-1, np.int16, "label value -1"),
        (1002, np.int16, "label value 1002"),
        (np.nan, np.float32, "NaN"),
    ],
)
def test_values_that_are_no_labels_are_refused(tmp_path, value, dtype, words):
    array = a_label().astype(dtype)
    array[0, 0, 0] = value
    with pytest.raises(DataError, match=words) as caught:
        sitk.WriteImage(sitk.GetImageFromArray(array.T.copy()), str(tmp_path / "label.nii.gz"))
        read_labels(tmp_path / "label.nii.gz", "case3")
    assert caught.value.case_id == "case3"
    assert "case3" in str(caught.value)


def test_an_image_in_the_place_of_a_label_is_refused(tmp_path):
    image = np.arange(9 * 8 * 7).reshape(A_GRID.size) % 200
    with pytest.raises(DataError, match="case3.*image"):
        read_labels(a_file(tmp_path, image.astype(np.uint8)), "case3")


def test_values_that_are_no_declared_class_are_refused(tmp_path):
    path = a_file(tmp_path, a_label())
    with pytest.raises(DataError, match="case3.*label value 2, which is no class.*1 left atrium"):
        read_labels(path, "case3", (ATRIUM,))
    assert read_labels(path, "case3", (ATRIUM, VEIN)).segments == (ATRIUM, VEIN)


def test_an_empty_label_is_read_but_is_no_label_of_a_case(tmp_path):
    path = a_file(tmp_path, np.zeros(A_GRID.size, np.uint8))
    assert read_labels(path).segments == ()
    with pytest.raises(DataError, match="case3.*empty"):
        read_case_labels(Case("case3", (path,), path, "labeled"), A_GRID)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(A_GRID.size, A_GRID.spacing, (-12.0, 31.0, 7.25), A_GRID.direction), "shifted by 0.50 mm"),
        (Grid(A_GRID.size, (0.5, 0.75, 3.0), A_GRID.origin, A_GRID.direction), "spacing"),
        (Grid(A_GRID.size, A_GRID.spacing, A_GRID.origin), "directions"),
    ],
)
@pytest.mark.parametrize("name", ["case3.nii.gz", "case3.seg.nrrd"])
def test_a_label_of_other_geometry_is_refused(tmp_path, grid, words, name):
    write_labels(tmp_path / name, a_label(), grid, (ATRIUM, VEIN))
    with pytest.raises(DataError, match=f"case3.*different grids.*{words}") as caught:
        read_case_labels(Case("case3", (), tmp_path / name, "labeled"), A_GRID)
    assert caught.value.case_id == "case3"


def test_a_plain_label_map_that_covers_part_of_the_image_is_refused(tmp_path):
    part, grid = crop(a_label(), A_GRID, (1, 2, 0), (8, 8, 6))
    path = a_file(tmp_path, part, grid=grid)
    with pytest.raises(DataError, match="case3.*7 x 6 x 6 against 9 x 8 x 7"):
        read_case_labels(Case("case3", (), path, "labeled"), A_GRID)


def test_a_plain_label_map_as_large_as_the_image_but_beside_it_is_refused(tmp_path):
    """By whole voxels, so that they coincide: what lies outside the image would be cut off without a word."""
    step = np.reshape(A_GRID.direction, (3, 3)) @ (np.array([2, 0, 1]) * A_GRID.spacing)
    beside = Grid(A_GRID.size, A_GRID.spacing, tuple(np.asarray(A_GRID.origin) + step), A_GRID.direction)
    path = a_file(tmp_path, a_label(), grid=beside)
    with pytest.raises(DataError, match="case3.*different grids.*shifted by"):
        read_case_labels(Case("case3", (), path, "labeled"), A_GRID)


def test_labelled_voxels_outside_the_image_are_told(tmp_path):
    _, grid = crop(a_label(), A_GRID, (0, 0, 0), (9, 8, 5))
    path = tmp_path / "case.seg.nrrd"
    write_labels(path, a_label(), A_GRID, (ATRIUM, VEIN))
    (note,) = read_case_labels(Case("case", (), path, "labeled"), grid).notes
    assert note.endswith("1 labelled voxels lie outside the image and are left out.")
    assert not read_case_labels(Case("case", (), path, "labeled"), A_GRID).notes


def test_rounding_in_a_header_is_no_difference(tmp_path):
    near = Grid(A_GRID.size, A_GRID.spacing, (-12.01, 30.51, 7.26), A_GRID.direction)
    path = a_file(tmp_path, a_label(), grid=near)
    np.testing.assert_array_equal(labels_on_grid(read_labels(path), A_GRID, path), a_label())


def test_two_segments_of_one_name_are_refused(tmp_path):
    write_labels(tmp_path / "a.seg.nrrd", a_label(), A_GRID, (ATRIUM, Segment("Left Atrium ", 2)))
    with pytest.raises(DataError, match="two segments called"):
        read_labels(tmp_path / "a.seg.nrrd", "case3")


def test_a_damaged_list_of_segments_is_refused(tmp_path):
    write_labels(tmp_path / "a.seg.nrrd", a_label(), A_GRID, (ATRIUM, VEIN))
    content = (tmp_path / "a.seg.nrrd").read_bytes()
    for old, new in [
        (b"Segment0_LabelValue:=1", b"Segment0_LabelValue:=x"),
        (b"Segment1_Layer:=0", b"Segment1_Layer:=3"),
    ]:
        assert content.count(old) == 1
        (tmp_path / "b.seg.nrrd").write_bytes(content.replace(old, new))
        with pytest.raises(DataError, match="case3.*save the segmentation again"):
            read_labels(tmp_path / "b.seg.nrrd", "case3")


# Classes across cases


def named(*names: str, start: int = 1) -> tuple[Segment, ...]:
    return tuple(Segment(name, i) for i, name in enumerate(names, start))


def plain(*values: int) -> tuple[Segment, ...]:
    return tuple(Segment(f"segment_{v}", v) for v in values)


def numbered(segments) -> list[tuple[str, int]]:
    return [(s.name, s.label) for s in segments]


def test_names_count_and_values_do_not():
    found = {"a": named("LA", "LV"), "b": named("LV", "LA"), "c": named("la ", start=7)}
    assert numbered(match_segments(found)) == [("LA", 1), ("LV", 2)]


def test_a_case_may_lack_classes():
    assert numbered(match_segments({"a": named("LA"), "b": named("LA", "LV")})) == [("LA", 1), ("LV", 2)]
    assert numbered(match_segments({"a": plain(2), "b": plain(1, 3)})) == [
        ("segment_1", 1),
        ("segment_2", 2),
        ("segment_3", 3),
    ]


def test_values_are_numbered_anew_without_gaps():
    assert numbered(match_segments({"a": plain(255)})) == [("segment_255", 1)]


def test_disagreement_lists_the_cases():
    with pytest.raises(DataError) as caught:
        match_segments({"a": named("LA"), "b": named("LA"), "c": named("Left atrium")})
    for word in ("'LA' in a, b", "'Left atrium' in c"):
        assert word in str(caught.value)
    assert caught.value.case_id == "c"


def test_declared_classes_settle_names_and_order():
    declared = (Segment("LV", 3), Segment("LA", 5))
    assert numbered(match_segments({"a": named("LA"), "b": named("LV")}, declared)) == [("LV", 1), ("LA", 2)]
    with pytest.raises(DataError, match="Case c has the class 'RV'"):
        match_segments({"c": named("RV")}, declared)


def test_plain_maps_among_named_ones_match_by_value():
    assert numbered(match_segments({"a": named("LA", "LV"), "b": plain(1, 2)})) == [("LA", 1), ("LV", 2)]
    with pytest.raises(DataError, match="Case b.*without names"):
        match_segments({"a": named("LA"), "b": plain(4)})
    with pytest.raises(DataError, match="Case c.*without names"):
        match_segments({"a": named("LA", "LV"), "b": named("LV", "LA"), "c": plain(1)})


def test_no_class_at_all_is_an_error():
    with pytest.raises(DataError, match="No labelled case"):
        match_segments({"a": ()})


def test_labels_take_the_numbers_of_the_common_classes():
    array = np.array([[[0, 1, 2, 1]]], np.uint8)
    common = named("LA", "LV", "RV")
    np.testing.assert_array_equal(conform(array, named("rv", "LA"), common, "x"), [[[0, 3, 1, 3]]])
    np.testing.assert_array_equal(conform(array, plain(1, 2), common, "x"), array)
    with pytest.raises(DataError, match="Case 9.*'aorta'"):
        conform(array, named("aorta"), common, "Case 9")


def test_a_value_is_not_taken_for_a_class_that_is_called_after_another():
    """A mask of 3 is the first class of its model, and 1 is another mask's value."""
    array = np.array([[[0, 1, 3]]], np.uint8)
    common = match_segments({"a": plain(3)})
    np.testing.assert_array_equal(conform(array, plain(3), common, "x"), [[[0, 0, 1]]])
    with pytest.raises(DataError, match="'segment_1', which is none of 'segment_3'"):
        conform(array, plain(1), common, "x")
