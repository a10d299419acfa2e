"""One patient's label never comes to another patient's scan, whatever both scans are called."""

from __future__ import annotations

import numpy as np
import pytest
from training_tools import accept, add_scan, add_segmentation, ball, case_of, draw, message, roles, scan

from caml_core.data.io import read_volume
from caml_core.data.labels import read_case_labels


def leave(panel, kept=True) -> None:
    """Close the scene and open the project's folder in the next one; ``kept``: it was saved before."""
    import slicer

    folder = panel.logic.project.folder
    if kept:
        panel.logic.save()
    slicer.mrmlScene.Clear()
    panel.logic.openProject(folder)
    panel.update()


def marks(node) -> dict[str, str]:
    """What a saved scene would bring back of a node."""
    return {name: node.GetAttribute(name) for name in node.GetAttributeNames()}


def come_again(seed: int, saved: dict[str, str], name: str = "CT"):
    """A scan of a scene that was saved with these marks."""
    volume = add_scan(seed, name)
    for attribute, value in saved.items():
        volume.SetAttribute(attribute, value)
    return volume


def pair(panel, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Scan and label of a case as the engine reads them, [k, j, i]."""
    known = case_of(panel, case)
    image = read_volume(known.images[0])
    label = read_case_labels(known.as_case, image.grid, panel.logic.project.segments)
    return image.array.transpose(2, 1, 0), label.array.transpose(2, 1, 0) > 0


def is_of(panel, case: str, seed: int) -> bool:
    """Whether scan and label of a case are both those of one patient."""
    image, label = pair(panel, case)
    return np.array_equal(image, scan(seed)) and np.array_equal(label, ball(seed))


def forget_scans(panel, *nodes) -> None:
    """Project and scene as they were before it was noted which scan a case is."""
    for case in panel.logic.project.cases:
        panel.logic.project.update(case, scan="")
    for node in nodes:
        for name in list(node.GetAttributeNames()):
            if name.startswith("CAMLTraining.Scan."):
                node.RemoveAttribute(name)


def is_empty(node) -> bool:
    """Whether nothing is drawn in a segmentation."""
    from CAMLSegmentationLib import SegmentationResult

    return SegmentationResult.isEmpty(node)


def test_two_patients_whose_volumes_have_one_name_are_two_cases(training):
    first = add_scan(0, "CT")
    training.update()
    saved = marks(first)
    leave(training)
    add_segmentation(add_scan(5, "CT"), ball(5))
    training.update()
    assert list(roles(training)) == ["CT", "CT-2"] and "CT-2" in message(training)
    accept(training, "CT-2")
    leave(training)
    come_again(0, saved)
    training.update()
    assert roles(training) == {"CT": "unlabeled", "CT-2": "labeled"}
    training.openCase("CT")
    node = training.logic.cohort.segmentationNode("CT")
    draw(
        node, training.logic.cohort.volumeNode("CT"), ball(0)
    ) if node.GetSegmentation().GetNumberOfSegments() else None
    training.edit.leave()
    accept(training, "CT")
    assert is_of(training, "CT", 0) and is_of(training, "CT-2", 5)


def test_a_scan_that_is_loaded_anew_is_its_case_again(training):
    for seed in (0, 5):
        add_scan(seed, "CT")
        training.update()
        leave(training)
    for seed, case in ((5, "CT-2"), (0, "CT")):
        volume = add_scan(seed, "CT")
        training.update()
        assert list(roles(training)) == ["CT", "CT-2"] and training.logic.cohort.volumeNode(case) is volume


def labelled_by_another(panel, before=False) -> dict[str, str]:
    """A scene of patient 0 whose list of cases was never kept; the project has patient 5 under the same name.

    Returns the marks of patient 0's volume. ``before``: nothing has noted which scans these are.
    """
    panel.logic.save()
    first = add_scan(0, "CT")
    panel.update()
    if before:
        forget_scans(panel, first)
    saved = marks(first)
    leave(panel, kept=False)
    assert not roles(panel)
    add_segmentation(add_scan(5, "CT"), ball(5))
    panel.update()
    accept(panel, "CT")
    assert is_of(panel, "CT", 5)
    if before:
        forget_scans(panel)
    leave(panel)
    return saved


def test_a_mark_that_is_older_than_the_list_does_not_decide(training):
    saved = labelled_by_another(training)
    volume = come_again(0, saved)
    node = add_segmentation(volume, ball(0))
    node.SetAttribute(training.logic.cohort.attribute, "CT")
    training.update()
    assert roles(training) == {"CT": "labeled", "CT-2": "unlabeled"}
    assert training.logic.cohort.volumeNode("CT") is None
    assert training.logic.cohort.segmentationNode("CT-2") is node, "what was drawn stays with its scan"
    accept(training, "CT-2")
    assert is_of(training, "CT", 5) and is_of(training, "CT-2", 0)
    leave(training)
    come_again(0, saved)
    training.update()
    assert list(roles(training)) == ["CT", "CT-2"] and training.logic.cohort.volumeNode("CT-2") is not None


@pytest.mark.parametrize("done", ["accepted", "opened"])
def test_of_earlier_scenes_voxels_decide(training, done):
    volume = come_again(0, labelled_by_another(training, before=True))
    node = add_segmentation(volume, ball(0))
    node.SetAttribute(training.logic.cohort.attribute, "CT")
    training.update()
    assert training.logic.cohort.volumeNode("CT") is volume, "the mark counts until it matters"
    if done == "accepted":
        accept(training, "CT")
    else:
        training.openCase("CT")
        training.update()
    assert "another scan" in message(training) and "CT-2" in message(training)
    assert roles(training) == {"CT": "labeled", "CT-2": "unlabeled"} and is_of(training, "CT", 5)
    assert training.logic.cohort.segmentationNode("CT-2") is node
    accept(training, "CT-2")
    assert is_of(training, "CT", 5) and is_of(training, "CT-2", 0)


def test_an_earlier_scans_name_alone_gives_it_no_case_of_another_size(training):
    import slicer

    add_scan(0, "CT")
    training.update()
    forget_scans(training)
    leave(training)
    slicer.util.addVolumeFromArray(scan(0)[1:], name="CT")
    training.update()
    assert list(roles(training)) == ["CT", "CT-2"]


def test_an_earlier_scan_that_was_moved_is_the_same(training):
    volume = add_scan(0, "CT")
    training.update()
    training.logic.cohort.ensureFile("CT")
    forget_scans(training, volume)
    volume.SetOrigin(1.0, 2.0, 33.0)
    training.logic.cohort.ensureFile("CT")
    assert list(roles(training)) == ["CT"]
    assert read_volume(case_of(training, "CT").images[0]).grid.origin[2] == pytest.approx(33.0)


def test_a_scan_that_was_filtered_since_it_was_written_goes_with_what_is_drawn_on_it_then(training):
    import slicer

    volume = add_scan(0, "CT")
    node = add_segmentation(volume, ball(0))
    training.update()
    accept(training, "CT")
    slicer.util.updateVolumeFromArray(volume, scan(0) + 7)
    draw(node, volume, ball(5))
    accept(training, "CT")
    image, label = pair(training, "CT")
    assert np.array_equal(image, scan(0) + 7) and np.array_equal(label, ball(5))
    first = case_of(training, "CT").images
    draw(node, volume, ball(0))
    accept(training, "CT")
    assert list(roles(training)) == ["CT"] and case_of(training, "CT").images == first


def test_volumes_without_content_are_never_taken_for_each_other(training):
    import slicer

    for _ in range(2):
        slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="CT")
        training.update()
        leave(training)
    assert list(roles(training)) == ["CT", "CT-2"]


# Names of large scans


@pytest.fixture
def hashed(training, monkeypatch):
    """Scans of the tests count as large ones; returns how many bytes of voxels each name was made of."""
    from CAMLTrainingLib import Scans

    counts, blake2b = [], Scans.hashlib.blake2b

    class Counted:
        def __init__(self, *arguments, **options):
            self._digest = blake2b(*arguments, **options)

        def update(self, data):
            counts.append(memoryview(data).nbytes)
            self._digest.update(data)

        def hexdigest(self):
            return self._digest.hexdigest()

    monkeypatch.setattr(Scans, "MOST_VOXELS", 1000)
    monkeypatch.setattr(Scans.hashlib, "blake2b", Counted)
    return counts


def test_large_scans_that_come_at_once_are_listed_without_reading_them_whole(training, hashed):
    for seed in range(20):
        add_scan(seed, "CT")
    training.update()
    assert len(roles(training)) == 20 and len({case_of(training, case).scan for case in roles(training)}) == 20
    assert len(hashed) == 20 and max(hashed) <= 2 * 1000


@pytest.mark.parametrize("named", ["by a sample", "by all voxels"])
def test_a_large_scan_that_is_loaded_anew_is_its_case_again(training, hashed, named):
    from CAMLTrainingLib import Scans

    before = {}
    for seed in (0, 5):
        volume = add_scan(seed, "CT")
        training.update()
        case = "CT" if seed == 0 else "CT-2"
        if named == "by all voxels":  # as projects of before have it
            training.logic.project.update(case, scan=Scans._nameOfAll(volume))
        before[case] = case_of(training, case).scan
        leave(training)
    for seed, case in ((7, "CT-3"), (5, "CT-2"), (0, "CT")):
        volume = add_scan(seed, "CT")
        training.update()
        assert training.logic.cohort.volumeNode(case) is volume
    assert list(roles(training)) == ["CT", "CT-2", "CT-3"]
    assert {case: case_of(training, case).scan for case in before} == before


@pytest.mark.parametrize("same", [True, False])
def test_a_mark_of_before_is_believed_on_its_own_scan_alone_whatever_its_name_was_made_of(training, hashed, same):
    from CAMLTrainingLib import Scans

    volume = add_scan(0, "CT")
    training.update()
    training.logic.project.update("CT", scan=Scans._nameOfAll(volume))
    leave(training)
    come_again(0 if same else 5, {training.logic.cohort.attribute: "CT"})
    training.update()
    training.openCase("CT")
    training.update()
    assert list(roles(training)) == (["CT"] if same else ["CT-2"])
    assert same or "another scan" in message(training)


def test_names_of_large_scans_tell_small_differences(training, hashed):
    """A part that was cut out, and masks, of which a sample says little."""
    import slicer
    from CAMLTrainingLib import Scans

    cut = scan(0)
    cut[8:12, 8:12, 8:20] = 0
    mask, other = np.zeros_like(cut), np.zeros_like(cut)
    mask[3, 3, 3] = other[3, 3, 4] = 1
    names = [Scans.nameOf(slicer.util.addVolumeFromArray(voxels)) for voxels in (scan(0), cut, mask, other)]
    assert len(set(names)) == 4 and names[0] == Scans.nameOf(slicer.util.addVolumeFromArray(scan(0)))
