"""Prepared cases: right, complete or absent, bounded, and safe beside other processes."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from caml_core.config import ChannelIntensity, Geometry, Segment
from caml_core.data.cache import CaseCache
from caml_core.data.case import Case
from caml_core.data.geometry import Grid, NetworkGrid
from caml_core.data.intensity import normalize
from caml_core.data.io import read_volume, write_image
from caml_core.data.labels import write_labels
from caml_core.errors import DataError, ResourceError

GRID = Grid((30, 28, 12), (1.0, 1.0, 3.0), (5.0, 6.0, 7.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
GEOMETRY = Geometry((1.5, 1.5, 3.0), (16, 16, 16))
CHANNELS = (ChannelIntensity(),)
SEGMENTS = (Segment("segment_1", 1), Segment("segment_2", 2))


def a_case(folder: Path, number: int = 0, role="labeled", size=GRID.size) -> Case:
    grid = replace(GRID, size=size)
    image = np.abs(np.random.default_rng(number).normal(100, 40, size)).astype(np.float32)
    label = np.zeros(size, np.uint8)
    label[4:24, 6:24, 2:8] = 1
    label[20:24, 6:12, 2:8] = 2
    image_path, label_path = folder / f"c{number}.nrrd", folder / f"c{number}_label.nrrd"
    write_image(image_path, image, grid)
    write_labels(label_path, label, grid, ())
    return Case(f"c{number}", (image_path,), label_path, role)


def prepare(cache: CaseCache, case: Case, **changes):
    settings = {"geometry": GEOMETRY, "channels": CHANNELS, "segments": SEGMENTS, **changes}
    return cache.prepare(case, **settings)


def entries(cache: CaseCache) -> list[str]:
    return sorted(p.name for p in cache.folder.iterdir() if len(p.name) == 32)


def leftovers(cache: CaseCache) -> list[str]:
    return [p.name for p in cache.folder.iterdir() if p.name.startswith(".")]


def test_it_holds_what_the_network_sees(tmp_path):
    case = a_case(tmp_path)
    prepared = prepare(CaseCache(tmp_path / "cache"), case)
    volume = read_volume(case.images[0])
    way = NetworkGrid.of(volume.grid, GEOMETRY)
    expected = normalize(way.image_to_network(volume.array), CHANNELS[0])
    assert isinstance(prepared.image, np.memmap)
    assert isinstance(prepared.label, np.memmap)
    assert prepared.image.dtype == np.float16
    np.testing.assert_allclose(prepared.image[0], expected, atol=2e-3)
    np.testing.assert_array_equal(
        prepared.label, way.labels_to_network(read_volume(case.label).array.astype(np.uint8), 3)
    )
    assert (prepared.id, prepared.role) == ("c0", "labeled")
    assert len(prepared.digest) == 64


def test_locations_point_at_their_class_and_cover_all_classes(tmp_path):
    prepared = prepare(CaseCache(tmp_path / "cache"), a_case(tmp_path))
    rows = prepared.locations
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(prepared.label[tuple(rows[:, 1:].T)], rows[:, 0])
    for value in (1, 2):
        assert np.count_nonzero(rows[:, 0] == value) == np.count_nonzero(prepared.label == value)


def test_locations_are_bounded_distinct_and_repeatable(tmp_path):
    case = a_case(tmp_path, size=(60, 60, 60))
    label = np.ones((60, 60, 60), np.uint8)
    label[:5] = 2
    write_labels(case.label, label, replace(GRID, size=(60, 60, 60)), ())
    geometry = Geometry((1.0, 1.0, 3.0), (16, 16, 16))
    a, b = (prepare(CaseCache(tmp_path / name), case, geometry=geometry) for name in "ab")
    for value in (1, 2):
        assert np.count_nonzero(a.locations[:, 0] == value) == 10_000
    assert len(np.unique(a.locations, axis=0)) == 20_000
    np.testing.assert_array_equal(a.locations, b.locations)


def test_the_label_of_an_unlabelled_case_is_not_stored_nor_read(tmp_path):
    case = a_case(tmp_path)
    case.label.write_bytes(b"damaged")
    prepared = prepare(CaseCache(tmp_path / "cache"), replace(case, role="unlabeled"))
    assert prepared.label is None
    assert prepared.locations.shape == (0, 4)
    assert not list(prepared.folder.glob("label*"))


def test_several_channels_are_stacked(tmp_path):
    one, other = a_case(tmp_path, 0), a_case(tmp_path, 1)
    case = replace(one, images=one.images + other.images)
    window = ChannelIntensity("window", 0.0, 200.0, 100.0, 50.0)
    both = prepare(CaseCache(tmp_path / "cache"), case, channels=(*CHANNELS, window))
    alone = prepare(CaseCache(tmp_path / "cache"), other, channels=(window,))
    assert both.image.shape[0] == 2
    np.testing.assert_array_equal(both.image[1], alone.image[0])


def test_declared_values_become_the_classes_numbers(tmp_path):
    case = a_case(tmp_path)
    declared = (Segment("wall", 1), Segment("lumen", 2))
    prepared = prepare(
        CaseCache(tmp_path / "cache"), case, segments=(Segment("lumen", 1), Segment("wall", 2)), declared=declared
    )
    usual = prepare(CaseCache(tmp_path / "cache"), case)
    np.testing.assert_array_equal(prepared.label, np.array([0, 2, 1], np.uint8)[usual.label])


def test_a_second_time_nothing_is_computed(tmp_path):
    case = a_case(tmp_path)
    cache = CaseCache(tmp_path / "cache")
    first = prepare(cache, case)
    stamp = (first.folder / "image.npy").stat().st_mtime_ns
    again = prepare(CaseCache(tmp_path / "cache"), replace(case, id="other name"))
    assert again.folder == first.folder
    assert again.id == "other name"
    assert (again.folder / "image.npy").stat().st_mtime_ns == stamp


def test_settings_and_contents_make_different_entries_and_moving_a_file_does_not(tmp_path):
    case = a_case(tmp_path)
    cache = CaseCache(tmp_path / "cache")
    base = prepare(cache, case).folder
    assert prepare(cache, case, geometry=Geometry((2.0, 2.0, 3.0), (16, 16, 16))).folder != base
    assert prepare(cache, case, geometry=Geometry(GEOMETRY.spacing, (16, 16, 16), "RAS")).folder != base
    assert prepare(cache, case, channels=(ChannelIntensity(lower=1.0),)).folder != base
    assert prepare(cache, replace(case, role="unlabeled")).folder != base
    assert prepare(cache, replace(case, role="validation")).folder == base
    assert prepare(cache, case, geometry=Geometry(GEOMETRY.spacing, (32, 32, 32))).folder == base
    moved = case.images[0].rename(tmp_path / "moved.nrrd")
    assert prepare(cache, replace(case, images=(moved,))).folder == base
    write_image(moved, np.random.default_rng(9).random(GRID.size).astype(np.float32), GRID)
    assert prepare(cache, replace(case, images=(moved,))).folder != base


@pytest.mark.parametrize(
    ("name", "compressed"), [("a.nhdr", True), ("a.nhdr", False), ("a.mhd", False), ("a.hdr", False)]
)
def test_a_change_of_the_voxels_beside_a_header_is_noticed(tmp_path, name, compressed):
    header, cache = tmp_path / name, CaseCache(tmp_path / "cache")
    headers, folders = set(), set()
    for seed in (1, 2):
        image = sitk.GetImageFromArray(np.random.default_rng(seed).random(GRID.size[::-1], np.float32))
        sitk.WriteImage(image, str(header), compressed)
        headers.add(header.read_bytes())
        folders.add(prepare(cache, Case("a", (header,))).folder)
    assert (len(headers), len(folders)) == (1, 2)


HEADERS = {
    "nrrd.nhdr": ("NRRD0004\nData File: other.bin\n", "other.bin"),
    "old.nhdr": ("NRRD0001\ndatafile: other.bin\n", "other.bin"),
    "name.nrrd": ("NRRD0004\ndata file: other.bin\n", "other.bin"),
    "list.nhdr": ("NRRD0004\ndata file: LIST\nfirst.bin\nother.bin\n", "other.bin"),
    "many.nhdr": ("NRRD0004\ndata file: other%02d.bin 1 3 1 2\n", "other02.bin"),
    "name.mhd": ("NDims = 3\nElementDataFile = other.bin\n", "other.bin"),
    "name.mha": ("NDims = 3\nElementDataFile = other.bin\n", "other.bin"),
    "list.mhd": ("NDims = 3\nElementDataFile = LIST\nfirst.bin\nother.bin\n", "other.bin"),
    "many.mhd": ("NDims = 3\nElementDataFile = other%02d.bin 1 3 1\n", "other03.bin"),
    "sub.mhd": ("NDims = 3\nElementDataFile = data/other 1.bin\n", "data/other 1.bin"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_every_file_that_a_header_names_counts(tmp_path, name):
    header, voxels = HEADERS[name]
    (tmp_path / name).write_text(header)
    (tmp_path / "data").mkdir()
    cache, digests = CaseCache(tmp_path / "cache"), []
    for content in (b"one", b"two", b"two"):
        (tmp_path / voxels).write_bytes(content)
        digests.append(cache._digest(Case("a", (tmp_path / name,))))
    assert digests[0] != digests[1] == digests[2]


def test_it_opens_again_in_another_process_instead_of_travelling(tmp_path):
    prepared = prepare(CaseCache(tmp_path / "cache"), a_case(tmp_path))
    sent = pickle.dumps(prepared)
    assert len(sent) < 2000
    there = pickle.loads(sent)
    assert isinstance(there.image, np.memmap)
    np.testing.assert_array_equal(there.image, prepared.image)


# Bounded


def test_the_least_recently_used_goes_first(tmp_path):
    cases = [a_case(tmp_path, i) for i in range(4)]
    size = prepare(CaseCache(tmp_path / "probe"), cases[0]).folder
    one = sum(p.stat().st_size for p in size.iterdir())
    cache = CaseCache(tmp_path / "cache", limit_bytes=int(one * 3.5))
    folders = [prepare(cache, case).folder.name for case in cases[:3]]
    prepare(cache, cases[0])  # used again: the second is now the oldest
    folders.append(prepare(cache, cases[3]).folder.name)
    assert folders[1] not in entries(cache)
    assert folders[3] in entries(cache)
    assert cache.size_bytes() <= cache.limit_bytes
    assert not leftovers(cache)


def _a_disk(monkeypatch, free: int) -> None:
    """So many bytes are free on the disk: an input of the machine."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(free, 0, free))


def test_what_is_in_use_stays_and_may_exceed_the_limit(tmp_path):
    cases = [a_case(tmp_path, i) for i in range(4)]
    cache = CaseCache(tmp_path / "cache", limit_bytes=1000)
    held = [prepare(cache, case) for case in cases[:3]]
    before = [np.array(one.image) for one in held]
    assert entries(cache) == sorted(one.folder.name for one in held)
    assert cache.size_bytes() > cache.limit_bytes
    for one, image in zip(held, before):
        np.testing.assert_array_equal(np.load(one.folder / "image.npy"), image)
    names = {one.folder.name for one in held}
    held.clear()
    del one
    prepare(cache, cases[3])  # now the others may go
    assert not names.intersection(entries(cache))


def test_beyond_the_limit_the_disk_keeps_some_room(tmp_path, monkeypatch):
    cases = [a_case(tmp_path, i) for i in range(3)]
    cache = CaseCache(tmp_path / "cache", limit_bytes=1000)
    held = prepare(cache, cases[0])
    _a_disk(monkeypatch, 10**9)
    with pytest.raises(ResourceError, match="c1.*disk has 1 GB free.*exclude some cases"):
        prepare(cache, cases[1])
    assert entries(cache) == [held.folder.name] and not leftovers(cache)
    _a_disk(monkeypatch, 10**9 + 10**6)
    prepare(cache, cases[1])
    cache.limit_bytes = 10**9
    _a_disk(monkeypatch, 10**9)
    assert prepare(cache, cases[2]).label is not None  # within the limit no room is kept


# Trouble


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "entry.json"])
def test_a_damaged_entry_is_made_anew(tmp_path, name):
    case, cache = a_case(tmp_path), CaseCache(tmp_path / "cache")
    prepared = prepare(cache, case)
    good, path = np.array(prepared.image), prepared.folder / name
    del prepared
    path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(prepare(cache, case).image, good)
    assert not leftovers(cache)


def test_bad_input_leaves_nothing_behind(tmp_path):
    case, cache = a_case(tmp_path), CaseCache(tmp_path / "cache")
    write_labels(case.label, np.zeros(GRID.size, np.uint8), GRID, ())
    with pytest.raises(DataError, match="c0.*empty"):
        prepare(cache, case)
    with pytest.raises(DataError, match="c0.*segment_2"):
        prepare(cache, a_case(tmp_path), segments=SEGMENTS[:1])
    with pytest.raises(DataError, match="c0"):
        prepare(cache, replace(case, images=(tmp_path / "gone.nrrd",)))
    assert entries(cache) == []
    assert leftovers(cache) == []


def test_a_full_disk_is_one_plain_error_and_leaves_nothing(tmp_path):
    case, cache = a_case(tmp_path, size=(64, 64, 32)), CaseCache(tmp_path / "cache")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        with pytest.raises(ResourceError, match="disk is full.*CAML_CACHE_DIR"):
            prepare(cache, case)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert entries(cache) == []
    assert leftovers(cache) == []
    assert prepare(cache, case).label is not None


def test_a_folder_that_cannot_be_made_is_one_plain_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="Cannot write|No permission"):
        CaseCache(tmp_path / "file" / "cache")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_can_hold_a_cache(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl", reason="POSIX locks")

    def none(*_arguments):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", none)
    cases, cache = [a_case(tmp_path, i) for i in range(3)], CaseCache(tmp_path / "cache")
    held = prepare(cache, cases[0])
    cache.limit_bytes = int(cache.size_bytes() * 1.5)
    also = prepare(cache, cases[1])
    assert entries(cache) == sorted((held.folder.name, also.folder.name))
    del held, also
    assert prepare(cache, cases[2]).folder.name in entries(cache)
    assert len(entries(cache)) == 1 and not leftovers(cache)


WORKER = """
import sys
from pathlib import Path
from caml_core.config import ChannelIntensity, Geometry, Segment
from caml_core.data.cache import CaseCache
from caml_core.data.case import Case
folder = Path(sys.argv[1])
case = Case("c0", (folder / "c0.nrrd",), folder / "c0_label.nrrd", "labeled")
print("ready", flush=True)
sys.stdin.readline()
cache = CaseCache(folder / "cache", int(sys.argv[2]))
prepared = cache.prepare(case, Geometry((1.5, 1.5, 3.0), (16, 16, 16)), (ChannelIntensity(),),
                         (Segment("segment_1", 1), Segment("segment_2", 2)))
print(prepared.folder.name, float(prepared.image.astype("f4").sum()), flush=True)
sys.stdin.readline()
print(float(prepared.image.astype("f4").sum()), flush=True)
"""


def a_worker(tmp_path, environment, limit=10**9):
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(limit)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert worker.stdout.readline() == "ready\n"
    return worker


def tell(worker) -> None:
    worker.stdin.write("\n")
    worker.stdin.flush()


def test_two_processes_may_prepare_one_case_and_hold_it_against_a_third(tmp_path, caml_environment):
    a_case(tmp_path)
    workers = [a_worker(tmp_path, caml_environment) for _ in range(2)]
    for worker in workers:
        tell(worker)
    answers = [worker.stdout.readline().split() for worker in workers]
    assert answers[0] == answers[1]
    cache = CaseCache(tmp_path / "cache", limit_bytes=500_000)
    assert entries(cache) == [answers[0][0]]
    assert not leftovers(cache)
    cache.limit_bytes = int(cache.size_bytes() * 1.5)
    prepare(cache, a_case(tmp_path, 1))
    assert answers[0][0] in entries(cache)
    for worker in workers:
        tell(worker)
        assert worker.stdout.readline().split() == answers[0][1:]
        assert worker.wait() == 0
    prepare(cache, a_case(tmp_path, 2))
    assert answers[0][0] not in entries(cache)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
def test_memory_does_not_grow_with_the_number_of_cases(tmp_path, caml_environment):
    """The cases together take 90 MB; held open but not read, they cost next to nothing."""
    script = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_cache import *
folder = Path(sys.argv[1])
cache, held, peak = CaseCache(folder / "cache"), [], []
for i in range(16):
    case = a_case(folder, i, size=(64, 64, 64))
    held.append(prepare(cache, case, geometry=Geometry((0.5, 0.5, 1.5), (16, 16, 16))))
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(peak[-1] - peak[3], cache.size_bytes() >> 20)
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env=caml_environment, check=True)
    grown, total = map(int, done.stdout.split())
    assert total > 80
    assert grown < 15


MANY_CASES = """
import os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_cache import *
folder, soft, hard = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
cases = [a_case(folder, i) for i in range(40)]
for case in cases:
    prepare(CaseCache(folder / "cache"), case)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
cache, held, stamps = CaseCache(folder / "cache"), [], {}
for name in entries(cache):
    stamps[name] = (cache.folder / name / "image.npy").stat().st_ino
try:
    for case in cases:
        held.append(prepare(cache, case))
except ResourceError as error:
    print(error)
assert len(stamps) == 40
assert stamps == {name: (cache.folder / name / "image.npy").stat().st_ino for name in entries(cache)}
print(len(held))
"""


def _many_cases(tmp_path, environment, soft: int, hard: int) -> list[str]:
    command = [sys.executable, "-c", MANY_CASES, str(tmp_path), str(Path(__file__).parent), str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()


def test_more_cases_can_be_held_than_files_may_be_open_at_first(tmp_path, caml_environment):
    assert _many_cases(tmp_path, caml_environment, 64, 1024) == ["40"]


def test_where_no_more_files_may_be_open_the_entries_stay(tmp_path, caml_environment):
    sentence, held = _many_cases(tmp_path, caml_environment, 64, 64)
    assert "Case c" in sentence and "ulimit -n" in sentence
    assert 5 < int(held) < 40


def test_an_entry_of_another_user_is_as_good_as_ones_own(tmp_path, monkeypatch):
    """Its time cannot be set, which is no damage: the cache may be on a drive that several people use."""

    def refused(path, *_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    cache, case = CaseCache(tmp_path / "cache"), a_case(tmp_path)
    theirs = prepare(cache, case)
    made = theirs.folder.stat().st_ino
    monkeypatch.setattr(os, "utime", refused)
    assert prepare(CaseCache(cache.folder), case).folder.stat().st_ino == made, "while it is in use"
    del theirs
    assert prepare(CaseCache(cache.folder), case).folder.stat().st_ino == made
