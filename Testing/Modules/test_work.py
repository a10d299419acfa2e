"""The pieces of a run: results are updated where that is safe, and never over another model's or a hand's work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import stand_ins
from stand_ins import ijk_to_ras, noise, save_stand_in

from caml_core.config import Segment

MYOCARDIUM, LEFT, RIGHT = (
    Segment("Myocardium", 1, (0.8, 0.4, 0.3)),
    Segment("Left ventricle", 2, (0.9, 0.1, 0.2)),
    Segment("Right ventricle", 2, (0.1, 0.2, 0.9)),
)
FIRST, SECOND = (MYOCARDIUM, LEFT), (Segment("Left ventricle", 1, LEFT.color), RIGHT)


@pytest.fixture
def a_scan(a_volume):
    return a_volume("scan", noise(), ijk_to_ras())


@pytest.fixture
def deliver(a_scan, tmp_path, monkeypatch):
    """``deliver(segments, seed)``: take in random labels of a model "Heart" that has these segments."""
    from CAMLSegmentationLib.Job import JobFiles, Settings
    from CAMLSegmentationLib.ResultTable import Measures
    from CAMLSegmentationLib.Work import VolumeWork

    from caml_core.model_file import read_card

    files = JobFiles(tmp_path / "run")
    files.outputs.mkdir(parents=True)

    def make(segments, seed=0, overwriteEdits=False):  # noqa: N803
        monkeypatch.setattr(stand_ins, "SEGMENTS", segments)
        card = read_card(save_stand_in(tmp_path / "heart.caml", name="Heart"))
        work = VolumeWork("scan", [a_scan], overwriteEdits=overwriteEdits)
        image = sitk.ReadImage(str(work.export(files)[0]))
        labels = sitk.GetImageFromArray(voxels(seed))
        labels.CopyInformation(image)
        sitk.WriteImage(labels, str(files.labels("scan")))
        return work.deliver(files, card, Settings(), Measures.of({"volumes_ml": {}}))

    return make


def voxels(seed):
    return np.random.default_rng(seed).integers(0, 3, noise().shape).astype(np.uint8)


def names_of(node):
    """Which name stands over which voxels: name -> mask."""
    import slicer

    segmentation, scan = node.GetSegmentation(), slicer.util.getNode("scan")
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    return {
        segmentation.GetSegment(i).GetName(): slicer.util.arrayFromSegmentBinaryLabelmap(node, i, scan) > 0 for i in ids
    }


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_model_of_the_same_name_gets_a_result_of_its_own(deliver, overwrite):
    first = deliver(FIRST).segmentation
    second = deliver(SECOND, seed=1, overwriteEdits=overwrite)
    assert second.segmentation is not first and first.GetName() in second.note
    for node, segments, seed in ((first, FIRST, 0), (second.segmentation, SECOND, 1)):
        found = names_of(node)
        assert list(found) == [segment.name for segment in segments]
        assert all(np.array_equal(found[s.name], voxels(seed) == s.label) for s in segments)
        for segment in segments:
            shown = node.GetSegmentation().GetSegment(f"Segment_{segment.label}")
            assert shown.GetColor() == pytest.approx(segment.color)
    third = deliver(SECOND, seed=2)
    assert third.segmentation is second.segmentation and not third.note


def test_names_that_the_user_gave_live_on_when_the_same_segments_come_again(deliver):
    node = deliver(FIRST).segmentation
    node.GetSegmentation().GetSegment("Segment_1").SetName("Herzmuskel")
    assert deliver(FIRST, seed=1).segmentation is node
    found = names_of(node)
    assert list(found) == ["Herzmuskel", "Left ventricle"]
    assert np.array_equal(found["Herzmuskel"], voxels(1) == 1)


def test_the_meaning_of_the_values_lives_on_in_a_saved_scene(deliver, tmp_path):
    import slicer

    odd = (Segment('Unl\u00fccke; "a": <b>', 1, (0.1, 0.2, 0.3)), LEFT)
    deliver(odd)
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    from CAMLSegmentationLib import SegmentationResult

    scan, node = slicer.util.getNode("scan"), slicer.util.getNode("scan - Heart")
    node.GetSegmentation().GetSegment("Segment_1").SetName("renamed")
    assert SegmentationResult.findResult(scan, "Heart", odd) is node
    assert SegmentationResult.findResult(scan, "Heart", FIRST) is None


# Files of a folder


@pytest.fixture
def a_folder(tmp_path, slicer_host):
    """``a_folder()``: the results of a folder as a run finds them; there is "p0", as a run wrote it."""
    from CAMLSegmentationLib.Job import FolderResults

    written(tmp_path / "p0.seg.nrrd")
    FolderResults(tmp_path).note(tmp_path / "p0.seg.nrrd")
    return lambda: FolderResults(tmp_path)


def written(path, content=b"labels"):
    path.write_bytes(content)
    return path


def test_a_result_is_updated_as_long_as_nobody_touched_it(a_folder):
    assert a_folder().place("p0", {"p0"}, "update", overwrite=False) == ("p0", None)
    assert a_folder().place("p1", {"p1"}, "update", overwrite=False) == ("p1", None)
    assert a_folder().place("p0", {"p0"}, "add", overwrite=False) == ("p0-2", None)


def test_a_result_of_the_same_size_with_another_voxel_is_known_as_changed(a_folder, tmp_path):
    path = written(tmp_path / "p0.seg.nrrd", b"Labels")
    assert a_folder().place("p0", {"p0"}, "update", overwrite=False) == ("p0-2", path)
    assert a_folder().place("p0", {"p0"}, "update", overwrite=True) == ("p0", None)


def test_a_file_that_no_run_wrote_is_known_as_changed(a_folder, tmp_path):
    path = written(tmp_path / "p1.seg.nrrd")
    assert a_folder().place("p1", {"p1"}, "update", overwrite=False) == ("p1-2", path)


def test_a_copied_folder_with_other_times_is_unchanged(a_folder, tmp_path):
    import os
    import shutil

    copy = Path(shutil.copytree(tmp_path, tmp_path / "copy"))
    os.utime(copy / "p0.seg.nrrd", (0, 0))
    from CAMLSegmentationLib.Job import FolderResults

    assert FolderResults(copy).place("p0", {"p0"}, "update", overwrite=False) == ("p0", None)


def test_the_newest_result_counts_and_the_name_of_another_case_is_never_taken(a_folder, tmp_path):
    path = written(tmp_path / "p0.seg.nrrd", b"corrected")
    assert a_folder().place("p0", {"p0", "p0-2"}, "update", overwrite=False) == ("p0-3", path)
    a_folder().note(written(tmp_path / "p0-2.seg.nrrd"))
    assert a_folder().place("p0", {"p0"}, "update", overwrite=False) == ("p0-2", None)
    assert a_folder().place("p0", {"p0"}, "add", overwrite=False) == ("p0-3", None)


@pytest.mark.parametrize("content", ["", "[1]", '{"p0.seg.nrrd": 1}', '{"p0.seg.nrrd": [1'])
def test_a_damaged_note_means_that_everything_is_asked_about(a_folder, tmp_path, content):
    (tmp_path / ".caml-written.json").write_text(content)
    assert a_folder().isChanged(tmp_path / "p0.seg.nrrd")
    a_folder().note(tmp_path / "p0.seg.nrrd")
    assert not a_folder().isChanged(tmp_path / "p0.seg.nrrd")
    assert list(json.loads((tmp_path / ".caml-written.json").read_text())) == ["p0.seg.nrrd"]


def place(folder, model):
    from CAMLSegmentationLib.Job import FolderResults

    return FolderResults(folder, model).place("p0", {"p0"}, "update", overwrite=False)


def test_a_result_of_another_model_is_kept(a_folder, tmp_path):
    from CAMLSegmentationLib.Job import FolderResults

    FolderResults(tmp_path).note(tmp_path / "p0.seg.nrrd", "model a")
    assert place(tmp_path, "model a") == ("p0", None)
    assert place(tmp_path, "model b") == ("p0-2", None)
    FolderResults(tmp_path).note(written(tmp_path / "p0-2.seg.nrrd"), "model b")
    assert place(tmp_path, "model b") == ("p0-2", None)
    assert place(tmp_path, "model a") == ("p0", None), "its own newest is updated"
    assert place(tmp_path, "model c") == ("p0-3", None)
    path = written(tmp_path / "p0.seg.nrrd", b"corrected")
    assert place(tmp_path, "model a") == ("p0-3", path)
    assert place(tmp_path, "model b") == ("p0-2", None)


def test_a_note_of_an_earlier_version_names_no_model_and_its_result_is_updated(a_folder, tmp_path):
    record = tmp_path / ".caml-written.json"
    entry = json.loads(record.read_text())["p0.seg.nrrd"]
    record.write_text(json.dumps({"p0.seg.nrrd": entry[:3]}))
    assert place(tmp_path, "model a") == ("p0", None)
    path = written(tmp_path / "p0.seg.nrrd", b"corrected")
    assert place(tmp_path, "model a") == ("p0-2", path)


def test_a_run_notes_its_model(a_folder, tmp_path):
    from CAMLSegmentationLib.Job import JobFiles, Settings
    from CAMLSegmentationLib.Logic import folderWorks
    from CAMLSegmentationLib.ResultTable import Measures

    from caml_core.model_file import read_card

    card = read_card(save_stand_in(tmp_path / "heart.caml"))
    (tmp_path / "scans").mkdir()
    written(tmp_path / "scans" / "p0.nrrd")

    def work(card):
        return folderWorks(tmp_path / "scans", tmp_path, card=card)[0]

    work(card).deliver(JobFiles(tmp_path), card, Settings(), Measures())
    assert (work(card).id, work(dataclasses.replace(card, sha256="another")).id) == ("p0", "p0-2")


def test_results_that_cannot_be_read_are_one_sentence(an_open_folder, a_plain_user, slicer_host):
    from CAMLSegmentationLib.Logic import folderWorks

    from caml_core.errors import DataError, ResourceError

    for name in ("scans", "results"):
        (an_open_folder / name).mkdir()
    written(an_open_folder / "scans" / "p0.nrrd")
    (an_open_folder / "results").chmod(0o000)
    with a_plain_user(), pytest.raises(ResourceError, match="results, .* cannot be read"):
        folderWorks(an_open_folder / "scans", an_open_folder / "results")
    with a_plain_user(), pytest.raises(DataError, match="does not exist"):
        folderWorks(an_open_folder / "results" / "scans", an_open_folder)


@pytest.mark.parametrize("where", ["", "results", "p1/results"])
def test_results_do_not_go_among_the_scans(tmp_path, slicer_host, where):
    from CAMLSegmentationLib.Logic import folderWorks

    from caml_core.errors import UsageError

    scans = tmp_path / "scans"
    scans.mkdir()
    written(scans / "p0.nrrd")
    with pytest.raises(UsageError, match=r"or below it.*choose another folder"):
        folderWorks(scans, scans / where)
    assert len(folderWorks(scans, tmp_path / "scans-segmentations")) == 1


def test_a_list_that_calls_its_channels_otherwise_is_a_note(a_scene, tmp_path):
    from CAMLSegmentationLib.Logic import folderWorks

    from caml_core.model_file import read_card

    card = read_card(save_stand_in(tmp_path / "two.caml", channels=2, titles=("T1", "FLAIR")))
    (tmp_path / "scans").mkdir()
    for name in "ab":
        written(tmp_path / "scans" / f"{name}.nrrd")
    for header, words in (("image (FLAIR),image2 (T1)", "which is which"), ("image (T1),image2 (FLAIR)", "")):
        (tmp_path / "scans" / "cases.csv").write_text(f"id,{header}\np,a.nrrd,b.nrrd\n")
        notes: list[str] = []
        (work,) = folderWorks(tmp_path / "scans", tmp_path / "out", notes=notes, card=card)
        assert work.id == "p" and len(notes) == bool(words) and all(words in note for note in notes)
