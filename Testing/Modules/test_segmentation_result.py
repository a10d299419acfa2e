"""Results in the scene: on the volume's grid, with the model's names, and never over a hand's work."""

from __future__ import annotations

import numpy as np
import pytest
from stand_ins import OBLIQUE, SEGMENTS, ijk_to_ras, noise
from vtk.util.numpy_support import vtk_to_numpy

from caml_core.config import Segment


@pytest.fixture
def results(a_scene):
    from CAMLSegmentationLib import SegmentationResult

    return SegmentationResult


@pytest.fixture
def a_scan(a_volume):
    return a_volume("LA 01", noise(), ijk_to_ras(axes=OBLIQUE))


def labels(seed=0):
    values = np.zeros(noise().shape, np.uint8)
    box = np.random.default_rng(seed).integers(0, 3, (8, 9, 10)).astype(np.uint8)
    values[4:12, 5:14, 6:16] = box
    return values


def oriented(volume_node, values):
    """``values`` [k, j, i] as the label map that the exchange reads."""
    import slicer
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*values.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel(), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR))
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    return image


def a_result(results, scan, seed=0, name="model"):
    node = results.createResult(scan, results.resultName(scan.GetName(), name))
    results.fillResult(node, oriented(scan, labels(seed)), SEGMENTS, name, "hash")
    return node


def voxels(node, segment, scan):
    import slicer

    return slicer.util.arrayFromSegmentBinaryLabelmap(node, f"Segment_{segment}", scan)


def edit(node, scan):
    import slicer

    changed = voxels(node, 1, scan).copy()
    changed[10, 10, 10] ^= 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(changed, node, "Segment_1", scan)


def test_a_result_has_the_models_segments_on_the_volumes_grid(results, a_scan):
    import slicer

    node = a_result(results, a_scan)
    for segment in SEGMENTS:
        assert np.array_equal(voxels(node, segment.label, a_scan), labels() == segment.label)
        found = node.GetSegmentation().GetSegment(results.segmentId(segment))
        assert found.GetName() == segment.name and found.GetColor() == pytest.approx(segment.color)
        import vtk

        terminology = vtk.mutable("")
        assert found.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
        assert str(terminology) == segment.terminology
    assert results.sourceOf(node) is a_scan
    assert node.GetName() == "LA 01 - model"


def test_a_result_lies_in_the_study_of_its_volume_and_moves_with_it(results, a_scan):
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(a_scan), study)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    a_scan.SetAndObserveTransformNodeID(transform.GetID())
    node = a_result(results, a_scan)
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    assert node.GetParentTransformNode() is transform


def test_segments_share_one_label_map(results, a_scan):
    node = a_result(results, a_scan)
    assert node.GetSegmentation().GetNumberOfLayers() == 1


def test_an_untouched_result_is_not_called_edited(results, a_scan):
    assert not results.isEdited(a_result(results, a_scan))


def test_one_voxel_changed_by_hand_is_noticed(results, a_scan):
    node = a_result(results, a_scan)
    edit(node, a_scan)
    assert results.isEdited(node)


def test_a_segment_added_or_removed_by_hand_is_noticed(results, a_scan):
    node = a_result(results, a_scan)
    node.GetSegmentation().AddEmptySegment("mine")
    assert results.isEdited(node)
    node = a_result(results, a_scan)
    node.GetSegmentation().RemoveSegment("Segment_2")
    assert results.isEdited(node)


def test_names_and_colours_are_no_edits(results, a_scan):
    node = a_result(results, a_scan)
    node.GetSegmentation().GetSegment("Segment_1").SetName("Linker Vorhof")
    node.GetSegmentation().GetSegment("Segment_1").SetColor(0, 0, 1)
    node.SetName("renamed")
    assert not results.isEdited(node)


def test_surfaces_are_no_edits(results, a_scan):
    node = a_result(results, a_scan)
    results.setShown3D(node, True)
    assert node.GetSegmentation().ContainsRepresentation("Closed surface")
    assert not results.isEdited(node)


def test_a_result_saved_and_loaded_is_not_called_edited(results, a_scan, tmp_path):
    import slicer

    node = a_result(results, a_scan)
    assert slicer.util.saveNode(node, str(tmp_path / "result.seg.nrrd"))
    loaded = slicer.util.loadSegmentation(str(tmp_path / "result.seg.nrrd"))
    assert results.fingerprint(loaded) == results.fingerprint(node)


def test_updating_replaces_voxels_and_keeps_what_the_user_named_and_added(results, a_scan):
    node = a_result(results, a_scan)
    node.GetSegmentation().GetSegment("Segment_1").SetName("Linker Vorhof")
    node.GetSegmentation().AddEmptySegment("mine", "Mine")
    results.fillResult(node, oriented(a_scan, labels(1)), SEGMENTS, "model", "hash")
    for segment in SEGMENTS:
        assert np.array_equal(voxels(node, segment.label, a_scan), labels(1) == segment.label)
    assert node.GetSegmentation().GetSegment("Segment_1").GetName() == "Linker Vorhof"
    assert node.GetSegmentation().GetSegment("mine") is not None
    assert not results.isEdited(node)


def test_segments_that_the_user_keeps_as_surfaces_survive_an_update(results, a_scan):
    node = a_result(results, a_scan)
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    own = node.GetSegmentation().AddEmptySegment("mine", "Mine")
    surface = node.GetClosedSurfaceInternalRepresentation("Segment_1")
    node.GetSegmentation().GetSegment(own).AddRepresentation("Closed surface", surface)
    results.fillResult(node, oriented(a_scan, labels(1)), SEGMENTS, "model", "hash")
    kept = node.GetSegmentation().GetSegment(own)
    assert kept.GetRepresentation("Binary labelmap") is not None
    assert np.array_equal(voxels(node, 1, a_scan), labels(1) == 1)


def test_updating_makes_a_shown_surface_anew(results, a_scan):
    node = a_result(results, a_scan)
    results.setShown3D(node, True)
    before = node.GetClosedSurfaceInternalRepresentation("Segment_1").GetNumberOfPoints()
    grown = labels()
    grown[2:18, 2:20, 2:22] = 1
    results.fillResult(node, oriented(a_scan, grown), SEGMENTS, "model", "hash")
    assert node.GetClosedSurfaceInternalRepresentation("Segment_1").GetNumberOfPoints() != before


def test_the_result_of_a_model_is_found_by_volume_and_model(results, a_scan, a_volume):
    other = a_volume("LA 02", noise(seed=1), ijk_to_ras())
    node = a_result(results, a_scan)
    assert results.findResult(a_scan, "model") is node
    assert results.findResult(a_scan, "another model") is None
    assert results.findResult(other, "model") is None


def test_a_result_is_found_by_what_its_values_mean(results, a_scan):
    node = a_result(results, a_scan)
    node.GetSegmentation().GetSegment("Segment_1").SetName("Linker Vorhof")
    node.GetSegmentation().AddEmptySegment("", "Mine")
    others = (Segment("Aorta", 1, (1.0, 0.0, 0.0)), Segment("Left atrium", 2, (0.0, 1.0, 0.0)))
    assert results.findResult(a_scan, "model", SEGMENTS, "a later training") is node
    for segments in (others, SEGMENTS[:1], (*SEGMENTS, Segment("Vein", 3, (0.0, 0.0, 1.0)))):
        assert results.findResult(a_scan, "model", segments, "another hash") is None


def test_a_result_of_an_earlier_version_is_found_by_its_names_or_by_the_very_model(results, a_scan):
    node = a_result(results, a_scan)
    node.RemoveAttribute(results.SEGMENTS)
    node.GetSegmentation().AddEmptySegment("mine", "Mine")
    assert results.findResult(a_scan, "model", SEGMENTS, "another hash") is node
    node.GetSegmentation().GetSegment("Segment_1").SetName("Linker Vorhof")
    assert results.findResult(a_scan, "model", SEGMENTS, "another hash") is None, "a new one is the safe side"
    assert results.findResult(a_scan, "model", SEGMENTS, "hash") is node


def test_a_second_result_gets_a_name_of_its_own(results, a_scan):
    first, second = a_result(results, a_scan), a_result(results, a_scan)
    assert first.GetName() != second.GetName()


def test_an_empty_result_is_a_result(results, a_scan):
    node = results.createResult(a_scan, "empty")
    results.fillResult(node, oriented(a_scan, np.zeros(noise().shape, np.uint8)), SEGMENTS, "model", "hash")
    assert node.GetSegmentation().GetNumberOfSegments() == 2 and not results.isEdited(node)


# The figures


def test_the_table_says_what_the_engine_measured(a_scene):
    from CAMLSegmentationLib import ResultTable

    measures = ResultTable.Measures.of(
        {
            "volumes_ml": {"Left atrium": 61.25, "Aorta": 12.0},
            "surface_mm2": {"Left atrium": 9876.4, "Aorta": 10.0},
            "components": {"Left atrium": 1, "Aorta": 3},
            "agreement": {"Left atrium": 0.951, "Aorta": 0.612},
            "removed_ml": {"Left atrium": 0.004, "Aorta": 2.5},
        }
    )
    table = ResultTable.createTable("measures")
    ResultTable.fillTable(table, SEGMENTS, measures)
    first, second = ResultTable.rowsOf(table)
    assert first == ("Left atrium", "61.25", "9876", "1", "0.951", "")
    assert second[:5] == ("Aorta", "12.00", "10", "3", "0.612")
    assert second[5] == "low agreement: check; 2.50 mL in other parts left out"
    nothing = ResultTable.Measures.of({"volumes_ml": {"Aorta": 0.0}, "removed_ml": {"Aorta": 0.034}})
    assert ResultTable.remark(nothing, "Aorta") == "all parts left out (0.03 mL)"


def test_a_segment_that_was_not_found_is_said_and_no_agreement_is_no_figure(a_scene):
    from CAMLSegmentationLib import ResultTable

    table = ResultTable.createTable("measures")
    ResultTable.fillTable(table, SEGMENTS, ResultTable.Measures({"Left atrium": 3.0, "Aorta": 0.0}))
    first, second = ResultTable.rowsOf(table)
    assert first[4] == "" and first[5] == "" and second[5] == "not found"


# Review


@pytest.fixture
def a_map(a_volume):
    values = np.zeros((20, 24, 26), np.uint8)
    values[3, 4:6, 5:7] = 90
    values[12, 10:16, 8:14] = 80
    values[13, 10:16, 8:13] = 80
    values[18, 2, 2] = 10  # too little to count
    return a_volume("map", values, ijk_to_ras(spacing=(1.0, 1.0, 3.0)))


def test_stops_are_the_worst_slices_first_and_never_neighbours(a_map):
    from CAMLSegmentationLib import Review

    stops = Review.findStops(a_map)
    # Slices of 3 mm: slice 13 is nearer than 4 mm to slice 12, and one step of 3 mm is what that rounds to.
    assert [stop.slice for stop in stops] == [12, 13, 3]
    assert stops[0].score == pytest.approx(36 * 0.8) and stops[-1].score == pytest.approx(4 * 0.9)


def test_stops_in_a_region_are_counted_from_the_scans_first_slice(a_map, a_volume):
    import slicer
    from CAMLSegmentationLib import Review

    to_ras = ijk_to_ras(spacing=(1.0, 1.0, 3.0))
    to_ras[:3, 3] = (to_ras @ [2, 3, 2, 1])[:3]
    part = a_volume("part", slicer.util.arrayFromVolume(a_map)[2:, 3:, 2:].copy(), to_ras)
    assert Review.findStops(part, a_map) == Review.findStops(a_map)


def test_a_stop_lies_in_the_disagreement(a_map):
    import slicer
    import vtk
    from CAMLSegmentationLib import Review

    matrix = vtk.vtkMatrix4x4()
    a_map.GetRASToIJKMatrix(matrix)
    voxels_of_map = slicer.util.arrayFromVolume(a_map)
    for stop in Review.findStops(a_map):
        i, j, k = (round(c) for c in matrix.MultiplyPoint((*stop.position, 1.0))[:3])
        assert k == stop.slice and voxels_of_map[k, j, i] >= Review.LEAST


def test_jumping_moves_the_slice_views_to_the_stop(a_map):
    import slicer
    from CAMLSegmentationLib import Review

    stop = Review.findStops(a_map)[0]
    Review.jumpTo(stop)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        position = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
        assert position == pytest.approx(stop.position, abs=1e-6)


@pytest.mark.parametrize("kind", ["moved", "sheared", "warped"])
def test_stops_are_where_the_scene_shows_them(a_map, kind):
    """Series of a tilted gantry are loaded with a transform that is not linear."""
    import slicer
    import vtk
    from CAMLSegmentationLib import Review

    before = Review.findStops(a_map)
    if kind == "warped":
        transform, warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "T"), vtk.vtkGridTransform()
        field = vtk.vtkImageData()
        field.SetDimensions(2, 2, 2)
        field.SetOrigin(-100.0, -100.0, -100.0)
        field.SetSpacing(200.0, 200.0, 200.0)
        field.AllocateScalars(vtk.VTK_DOUBLE, 3)
        vtk_to_numpy(field.GetPointData().GetScalars())[4:] = (0.0, 60.0, 0.0)  # the more, the higher up
        warp.SetDisplacementGridData(field)
        transform.SetAndObserveTransformToParent(warp)
    else:
        transform, matrix = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T"), np.eye(4)
        matrix[1, 2 if kind == "sheared" else 3] = 0.3
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    a_map.SetAndObserveTransformNodeID(transform.GetID())
    after = Review.findStops(a_map)
    assert [stop.slice for stop in after] == [stop.slice for stop in before]
    for own, shown in zip(before, after):
        expected = [0.0, 0.0, 0.0]
        a_map.TransformPointToWorld(own.position, expected)
        assert shown.position == pytest.approx(expected, abs=1e-6) and shown.position != pytest.approx(own.position)


def test_an_even_map_has_no_stops(a_volume):
    from CAMLSegmentationLib import Review

    assert Review.findStops(a_volume("map", np.zeros((5, 6, 7), np.uint8), ijk_to_ras())) == []


def test_the_map_is_coloured_from_the_least_that_counts_and_has_a_legend(a_map):
    import slicer
    from CAMLSegmentationLib import Review

    Review.prepareMap(a_map)
    display = a_map.GetDisplayNode()
    assert display.GetApplyThreshold() and display.GetLowerThreshold() == Review.LEAST
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, 100)
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(a_map)
    assert not legend.GetVisibility()
    overlay = Review.Overlay()
    overlay.show(a_map)
    assert legend.GetVisibility() and "%" in legend.GetTitleText()
    overlay.hide()
    assert not legend.GetVisibility()


def composites():
    import slicer

    return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")


def test_hiding_the_map_gives_back_the_foreground_that_was_there(a_map, a_volume):
    from CAMLSegmentationLib import Review

    pet = a_volume("PET", noise(), ijk_to_ras())
    Review.prepareMap(a_map)
    for composite in composites():
        composite.SetForegroundVolumeID(pet.GetID())
        composite.SetForegroundOpacity(0.3)
    overlay = Review.Overlay()
    overlay.show(a_map)
    assert {c.GetForegroundVolumeID() for c in composites()} == {a_map.GetID()}
    overlay.hide()
    assert {c.GetForegroundVolumeID() for c in composites()} == {pet.GetID()}
    assert all(c.GetForegroundOpacity() == pytest.approx(0.3) for c in composites())
    overlay.show(a_map)
    composites()[0].SetForegroundVolumeID(None)
    composites()[1].SetForegroundVolumeID(pet.GetID())
    composites()[1].SetForegroundOpacity(0.9)
    overlay.hide()
    assert composites()[1].GetForegroundOpacity() == pytest.approx(0.9), "what the user changed is left alone"


def test_a_map_of_ours_is_not_given_back_as_what_was_there_before(a_map):
    from CAMLSegmentationLib import Review, SegmentationResult

    a_map.SetAttribute(SegmentationResult.MAP, "disagreement")
    for composite in composites():
        composite.SetForegroundVolumeID(a_map.GetID())
    overlay = Review.Overlay()
    overlay.show(a_map)
    overlay.hide()
    assert {c.GetForegroundVolumeID() for c in composites()} == {None}


def test_showing_another_map_takes_the_first_one_and_its_legend_away(a_map, a_volume):
    import slicer
    from CAMLSegmentationLib import Review

    second = a_volume("second", np.full((5, 6, 7), 30, np.uint8), ijk_to_ras())
    overlay = Review.Overlay()
    for node in (a_map, second):
        Review.prepareMap(node)
        overlay.show(node)
    legends = [slicer.modules.colors.logic().GetColorLegendDisplayNode(node) for node in (a_map, second)]
    assert [bool(legend.GetVisibility()) for legend in legends] == [False, True]


def test_a_removed_map_leaves_no_display_node_behind(a_map):
    import slicer
    from CAMLSegmentationLib import Review

    classes = ("vtkMRMLScalarVolumeDisplayNode", "vtkMRMLColorLegendDisplayNode")
    before = [len(slicer.util.getNodesByClass(name)) for name in classes]
    a_map.RemoveAllDisplayNodeIDs()
    before = [len(slicer.util.getNodesByClass(name)) for name in classes]
    Review.prepareMap(a_map)
    assert [len(slicer.util.getNodesByClass(name)) for name in classes] == [n + 1 for n in before]
    Review.removeMap(a_map)
    assert [len(slicer.util.getNodesByClass(name)) for name in classes] == before


def test_all_maps_share_one_colour_table(a_map, a_volume):
    from CAMLSegmentationLib import Review

    Review.prepareMap(a_map)
    second = a_volume("second", np.full((5, 6, 7), 30, np.uint8), ijk_to_ras())
    Review.prepareMap(second)
    assert a_map.GetDisplayNode().GetColorNodeID() == second.GetDisplayNode().GetColorNodeID()
