"""Volume sequences: whatever frame is on view, a segmentation stays with the frame that it was made of."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from stand_ins import ijk_to_ras, noise, save_stand_in


@pytest.fixture
def a_sequence(a_volume):
    """A sequence of four scans with its browser, which fills the volume node that is on view."""
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for n in range(4):
        node = a_volume("frame", noise(seed=n), ijk_to_ras())
        sequence.SetDataNodeAtValue(node, f"{10 * n}")
        slicer.mrmlScene.RemoveNode(node)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.AddSynchronizedSequenceNode(sequence)
    browse(browser, 0)
    return sequence, browser


def browse(browser, index):
    import slicer

    browser.SetSelectedItemNumber(index)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


@pytest.fixture
def card(tmp_path):
    from caml_core.model_file import read_card

    return read_card(save_stand_in(tmp_path / "heart.caml", name="Heart"))


@pytest.fixture
def segment(tmp_path, card):
    """``segment(work, seed, meanwhile)``: write, let the user do something, and take in random labels."""
    from CAMLSegmentationLib.Job import JobFiles, Settings
    from CAMLSegmentationLib.ResultTable import Measures

    files = JobFiles(tmp_path / "run")
    files.outputs.mkdir(parents=True)

    def make(work, seed=0, meanwhile=lambda: None, **settings):
        image = sitk.ReadImage(str(work.export(files)[0]))
        meanwhile()
        labels = sitk.GetImageFromArray(labels_of(seed))
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(files.labels(work.id)))
        return work.deliver(files, card, Settings(**settings), Measures.of({"volumes_ml": {}}))

    return make


def labels_of(seed):
    return np.random.default_rng(seed).integers(0, 3, noise().shape).astype(np.uint8)


def mask_of(node):
    """Where the first segment lies; None where there is none."""
    from CAMLSegmentationLib import VolumeExchange

    found = node.GetSegmentation().GetSegment("Segment_1")
    image = found.GetRepresentation("Binary labelmap") if found is not None else None
    return VolumeExchange.labelsOf(image) == 1 if image is not None else None


def result_of(sequence):
    import slicer

    return next(n for n in slicer.util.getNodesByClass("vtkMRMLSequenceNode") if n is not sequence)


@pytest.mark.parametrize("looked_at", [0, 1, 3])
def test_a_frame_that_was_not_segmented_has_no_segmentation(a_sequence, segment, looked_at):
    """As after Cancel, or where a frame failed."""
    from CAMLSegmentationLib.Logic import sequenceWorks

    sequence, browser = a_sequence
    browse(browser, looked_at)
    works = sequenceWorks(sequence)
    node = segment(works[0]).segmentation
    segment(works[2], seed=2)
    found = result_of(sequence)
    assert [found.GetNthIndexValue(n) for n in range(found.GetNumberOfDataNodes())] == ["0", "20"]
    for index in (3, 2, 1, 0):
        browse(browser, index)
        mask = mask_of(node)
        assert (mask is not None) == (index in (0, 2))
        assert mask is None or np.array_equal(mask, labels_of(index) == 1)
    assert found.GetNumberOfDataNodes() == 2, "looking at a frame makes none"


def test_a_volume_on_view_leaves_the_segmentations_of_its_sequence(a_sequence, segment):
    from CAMLSegmentationLib.Logic import sequenceWorks
    from CAMLSegmentationLib.Work import VolumeWork

    sequence, browser = a_sequence
    for index, work in enumerate(sequenceWorks(sequence)):
        shown = segment(work, seed=index).segmentation
    volume = browser.GetProxyNode(sequence)
    delivery = segment(VolumeWork("cine", [volume]), seed=9, meanwhile=lambda: browse(browser, 1))
    assert delivery.segmentation is not shown
    assert np.array_equal(mask_of(delivery.segmentation), labels_of(9) == 1)
    found = result_of(sequence)
    assert all(np.array_equal(mask_of(found.GetNthDataNode(n)), labels_of(n) == 1) for n in range(4))


def test_a_volume_on_view_has_a_result_a_frame(a_sequence, segment, card):
    from CAMLSegmentationLib.Logic import editedResults
    from CAMLSegmentationLib.Work import VolumeWork

    sequence, browser = a_sequence
    volume = browser.GetProxyNode(sequence)
    first = segment(VolumeWork("cine", [volume]))
    assert not first.note and first.segmentation.GetName() == "cine, frame 1 - Heart"
    second = segment(VolumeWork("cine", [volume]), seed=1, meanwhile=lambda: browse(browser, 2))
    assert second.segmentation is first.segmentation, "the frame is the one that was written, not the one on view"
    assert second.note == "cine, frame 1 - Heart is of frame 1; cine shows another one by now."
    third = segment(VolumeWork("cine", [volume]), seed=2)
    assert third.segmentation.GetName() == "cine, frame 3 - Heart" and not third.note
    third.segmentation.GetSegmentation().RemoveSegment("Segment_2")
    assert editedResults([volume], card) == [third.segmentation]
    browse(browser, 0)
    assert editedResults([volume], card) == [] and np.array_equal(mask_of(first.segmentation), labels_of(1) == 1)


def test_a_volume_that_was_changed_meanwhile_has_its_result_with_a_word_on_it(a_volume, segment):
    import slicer
    from CAMLSegmentationLib.Work import VolumeWork

    volume = a_volume("scan", noise(), ijk_to_ras())
    assert not segment(VolumeWork("scan", [volume]), meanwhile=lambda: volume.SetName("renamed")).note
    changed = segment(
        VolumeWork("scan", [volume]), meanwhile=lambda: slicer.util.updateVolumeFromArray(volume, noise(seed=1))
    )
    assert changed.segmentation is not None
    assert changed.note == "renamed was changed meanwhile; scan - Heart is of what it was before."


def test_what_becomes_of_further_channels_meanwhile_costs_no_result(a_volume, segment):
    import slicer
    from CAMLSegmentationLib.Work import VolumeWork

    from caml_core.errors import DataError

    first, second = (a_volume(name, noise(seed=n), ijk_to_ras()) for n, name in enumerate(("T1", "FLAIR")))
    work = VolumeWork("T1", [first, second])
    assert segment(work, meanwhile=lambda: slicer.mrmlScene.RemoveNode(second)).segmentation is not None
    with pytest.raises(DataError, match="^FLAIR was removed"):
        segment(work)
